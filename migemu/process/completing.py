"""What the shell offers at TAB: settings, their values, choices with their settings, sweeps, rules, figures.

Each function has click's form (context, parameter, what is typed so far) and gives what begins like that. What they
look through is imported when they are asked, so that a command that offers something starts no later for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from migemu.registry import RegistryEntry
    from migemu.values import ValueKind

    Items = list[CompletionItem[str]]

#: The unit of a text that is the name of a file.
_PATH_UNIT = "path of a file"


def assignments(_context: click.Context, _option: click.Parameter, typed: str) -> Items:
    """`section.key=value` for `--set`: first the settings, then the values of the one that is typed."""
    from migemu.scenario.scenario import describe

    name, equals, value = typed.partition("=")
    if not equals:
        return [CompletionItem(f"{each.name}=", help=each.doc) for each in describe() if each.name.startswith(typed)]
    kind = next((each.kind for each in describe() if each.name == name), None)
    return [] if kind is None else _prefixed(f"{name}=", _values(kind, value))


def setting_names(_context: click.Context, _argument: click.Parameter, typed: str) -> Items:
    """What `migemu list` takes: `section.key`, a section, a key."""
    from migemu.scenario.scenario import describe

    words = {each.name: each.doc for each in describe()}
    words |= {each.section: f"settings of [{each.section}]" for each in describe()}
    words |= {each.key: each.doc for each in describe() if each.key not in words}
    return _begun(words, typed)


def choice_names(context: click.Context, _argument: click.Parameter, typed: str) -> Items:
    """The choices of the setting that stands in front."""
    from migemu.errors import InputError
    from migemu.scenario.scenario import find_settings

    try:
        found = find_settings(context.params.get("setting") or "")
    except InputError:
        return []
    return _begun(found[0].kind.words, typed)


def sweep_names(_context: click.Context, _argument: click.Parameter, typed: str) -> Items:
    """The shipped sweeps; and files."""
    from migemu.experiment.shipped import shipped

    return [*_begun(dict.fromkeys(shipped(), ""), typed), CompletionItem(typed, type="file")]


def rule_names(_context: click.Context, _option: click.Parameter, typed: str) -> Items:
    """The rules of `migemu check`."""
    from migemu.trace.checkers import checkers

    return _begun({entry.name: entry.summary for entry in checkers}, typed)


def wrong_names(_context: click.Context, _option: click.Parameter, typed: str) -> Items:
    """The scenarios that are wrong on purpose."""
    from migemu.trace.wrong import SCENARIOS

    return _begun({name: each.story for name, each in SCENARIOS.items()}, typed)


def figure_names(_context: click.Context, _option: click.Parameter, typed: str) -> Items:
    """The figures of a result that `--metric` and gates name most."""
    from migemu.experiment.figures import HEADLINES, title

    return _begun({key: title(key) for key in HEADLINES}, typed)


def publication_names(_context: click.Context, _argument: click.Parameter, typed: str) -> Items:
    """The published results of `migemu reproduce`."""
    from migemu.experiment import published_qemu  # noqa: F401 - it registers what this program knows by itself
    from migemu.experiment.publication import publications

    return _begun({entry.name: entry.summary for entry in publications}, typed)


def _values(kind: ValueKind[object], typed: str) -> Items:
    from migemu.scenario.fields import SpecKind

    if kind.unit == _PATH_UNIT:
        return [CompletionItem(typed, type="file")]
    name, colon, rest = typed.partition(":")
    if isinstance(kind, SpecKind) and colon:
        entry = next((entry for entry in kind.registry if entry.name == name), None)
        return [] if entry is None else _prefixed(f"{name}:", _choice_settings(entry, rest))
    return _begun(kind.words, typed)


def _choice_settings(entry: RegistryEntry[object], typed: str) -> Items:
    """`key=value,key=value` of a choice: the keys that are not there yet, or the values of the last one."""
    before, comma, last = typed.rpartition(",")
    given = {each.partition("=")[0] for each in before.split(",")}
    key, equals, value = last.partition("=")
    if not equals:
        items = [
            CompletionItem(f"{each.name}=", help=each.kind.accepted)
            for each in entry.settings
            if each.name.startswith(last) and each.name not in given
        ]
    else:
        kind = next((each.kind for each in entry.settings if each.name == key), None)
        items = [] if kind is None else _prefixed(f"{key}=", _values(kind, value))
    return _prefixed(before + comma, items)


def _prefixed(before: str, items: Iterable[CompletionItem[str]]) -> Items:
    return [CompletionItem(before + item.value, type=item.type, help=item.help) for item in items]


def _begun(words: Mapping[str, str], typed: str) -> Items:
    return [CompletionItem(word, help=doc or None) for word, doc in words.items() if word and word.startswith(typed)]
