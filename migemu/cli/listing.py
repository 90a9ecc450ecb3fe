"""`migemu list`: what there is to choose from, and every setting of a scenario."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from migemu.errors import InputError
from migemu.process.completing import choice_names, setting_names
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from migemu.registry import Registry, RegistryEntry
    from migemu.scenario.scenario import Described


@click.command("list")
@click.argument("setting", metavar="[SETTING]", required=False, shell_complete=setting_names)
@click.argument("choice", metavar="[CHOICE]", required=False, shell_complete=choice_names)
@click.option("--settings", is_flag=True, help="Every setting of a scenario: its default, meaning, values and unit.")
def list_(setting: str | None, choice: str | None, settings: bool) -> None:
    """List every push order, collapse policy and workload; or every setting; or all that is known of one of them.

    \b
    Examples:
        migemu list                              (what can be chosen by name)
        migemu list --settings
        migemu list costs.mapcount               (its values, and what each means)
        migemu list link                         (the settings of a section)
        migemu list policy budget                (a choice, and its own settings)

    SETTING is SECTION.KEY as in --set, a key alone (`policy`), or a section. Units: times in ns us ms s min, sizes in
    K M G T (binary), rates as tc writes them: 10Gbit is bits per second, 10Gbps is bytes (80Gbit), and so is 1GiB/s.
    Exit codes: 0, or 2 for a name that is not known.
    """

    from rich.console import Console

    from migemu.scenario.scenario import describe, find_settings

    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        if setting is not None:
            _show_found(console, find_settings(setting), choice)
        elif settings:
            _show_settings(console, "settings of a scenario", list(describe()))
        else:
            _show_choices(console)
    except InputError as error:
        exit_with(Voice(stderr_console()), error)


def _show_found(console: Console, found: Sequence[Described], choice: str | None) -> None:
    from migemu.scenario.fields import SpecKind

    if choice is not None:
        for each in found:
            if isinstance(each.kind, SpecKind):
                _show_choice(console, each, each.kind.registry, choice)
                return
        raise InputError(f"{found[0].name} is no choice with settings of its own; give migemu list {found[0].name}")
    if len(found) > 1:
        sections = {each.section for each in found}
        title = f"settings of [{found[0].section}]" if len(sections) == 1 else f"settings named {found[0].key}"
        _show_settings(console, title, found)
        return
    _show_setting(console, found[0])


def _show_settings(console: Console, title: str, settings: Sequence[Described]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("setting", "default", "meaning", "values", title=escape(title), title_justify="left")
    for each in settings:
        table.add_row(each.name, escape(each.default) or '""', escape(each.doc), escape(each.accepted))
    console.print(table)


def _show_setting(console: Console, setting: Described) -> None:
    """All that is known of one setting: what it does, its default, its unit, and its values one by one."""

    from rich.markup import escape
    from rich.table import Table

    from migemu.scenario.fields import SpecKind

    _say(console, f"{setting.name}: {setting.doc}", f"default: {setting.default or 'nothing'}")
    if isinstance(setting.kind, SpecKind):
        console.print(_choices(setting.name, setting.kind.registry))
        _say(console, f"More of one: migemu list {setting.name} NAME")
    elif any(setting.kind.words.values()):
        table = Table("value", "what it means", title=f"values of {setting.name}", title_justify="left")
        for word, meaning in setting.kind.words.items():
            table.add_row(escape(word) or '""', escape(meaning))
        console.print(table)
    else:
        _say(console, f"give {setting.accepted}")


def _show_choices(console: Console) -> None:
    from migemu.scenario.fields import SpecKind
    from migemu.scenario.scenario import describe

    shown: set[int] = set()
    for each in describe():
        if isinstance(each.kind, SpecKind) and id(each.kind.registry) not in shown:
            shown.add(id(each.kind.registry))
            console.print(_choices(each.name, each.kind.registry))
    _say(
        console,
        "Use one as in --set push.order=random or --set guest.workload=zipf:exponent=1.2,scatter=off; a value with a "
        'comma in double quotes, replay:path="a,b"',
    )


def _choices(name: str, registry: Registry[Any]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("name", "what it does", "settings", title=f"{name} - {registry.kind}", title_justify="left")
    for entry in registry:
        table.add_row(entry.name, escape(entry.summary), escape("\n".join(_settings(entry))))
    return table


def _settings(entry: RegistryEntry[Any]) -> list[str]:
    """A line for each setting of a choice: its default, what may be written, its unit."""
    return [f"{each}: {each.kind.accepted}" for each in entry.settings]


def _show_choice(console: Console, setting: Described, registry: Registry[Any], name: str) -> None:
    from migemu.values import unknown

    entries = {entry.name: entry for entry in registry}
    if name not in entries:
        raise InputError(unknown(registry.kind, name, entries))
    entry = entries[name]
    _say(console, f"{setting.name}={name}", "", inspect.getdoc(entry.factory) or "", "")
    if entry.settings:
        _say(console, "settings, as defaults are:", *(f"  {line}" for line in _settings(entry)), "")
    written = ",".join(map(str, entry.settings))
    _say(console, f"as in --set '{setting.name}={name}{':' if written else ''}{written}'")


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False)
