"""The pages that are made from the program, so that they cannot say anything else: `python -m migemu.docs.generated`.

Settings and choices come from the scenario and its registries, events from the vocabulary of the trace, exit codes from
the errors, messages and states from the tables of the protocol. A test compares each page with what is made here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from migemu import errors
from migemu.docs.topics import FOLDER
from migemu.guest.workload import workloads
from migemu.link.jitter import jitters
from migemu.named import read_text
from migemu.policy.collapse_policy import collapse_policies
from migemu.policy.push_order import push_orders
from migemu.registry import Registry
from migemu.scenario.presets import PRESETS
from migemu.scenario.scenario import describe
from migemu.scenario.shipped_scenarios import shipped
from migemu.trace import events
from migemu.wire import messages, states

_REGISTRIES: Final[tuple[tuple[str, Registry[Any]], ...]] = (
    ("push.order", push_orders), ("collapse.policy", collapse_policies), ("guest.workload", workloads),
    ("link.distribution", jitters),
)  # fmt: skip
#: (first line of a group in the docstring of `migemu.wire.messages`, heading)
_WAYS: Final = (
    ("Forward, source to destination", "From the source to the destination"),
    ("Return path, destination to source", "From the destination to the source"),
    ("Both ways", "Both ways"),
)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def _settings() -> str:
    text = """# Settings

A scenario is a TOML file with these sections and keys. `--set section.key=value` changes one of them, on `migemu run`,
`sim`, `demo` and on both nodes. `migemu list --settings` prints the same table. [Choices](choices.md) with settings of
their own are written `name:key=value,key=value`.
"""
    sections: dict[str, list[Sequence[str]]] = {}
    for each in describe():
        row = (f"`{each.key}`", f"`{each.default}`" if each.default else "", each.accepted, each.doc)
        sections.setdefault(each.section, []).append(row)
    for section, rows in sections.items():
        text += f"\n## {section}\n\n{table(('key', 'default', 'values', 'meaning'), rows)}"
    return text


def _choices() -> str:
    text = """# Choices

What can be chosen by name. Settings of a choice stand behind a colon: `zipf:exponent=1.1,scatter=off`. A value with a
comma stands in double quotes: `replay:path="one, two"`. A package of your own
[can add more](plugins.md).
"""
    for key, registry in _REGISTRIES:
        rows = []
        for entry in registry:
            accepted = "; ".join(f"`{setting}`: {setting.kind.accepted}" for setting in entry.settings)
            rows.append((f"`{entry.name}`", entry.summary, accepted))
        text += f"\n## {key}\n\n{table(('name', 'what it does', 'settings'), rows)}"
    links = [
        (f"`{name}`", ", ".join(f"{key} {value}" for key, value in preset.settings.items()), preset.source)
        for name, preset in PRESETS.items()
    ]
    return f"{text}\n## link.preset\n\n{table(('name', 'settings', 'source'), links)}"


def _scenarios() -> str:
    text = """# Shipped scenarios

These come with the program. Give the name in the place of a scenario file: `migemu sim recommended`. A file of that
name in your folder comes first. Settings by `--set` change those of the scenario. In a sweep file you write
`scenario = "recommended"`.
"""
    for name, path in shipped().items():
        lines = read_text(path).splitlines()
        said = [line[2:] for line in lines if line.startswith("# ")]
        text += f"\n## {name}\n\n" + "\n".join(said) + "\n"
    return text


def _events() -> str:
    said = dict(re.findall(r'^    [A-Z_]+ = "(\w+)"  # (.+)$', inspect.getsource(events.Happening), re.MULTILINE))
    rows = []
    for happening in events.Happening:
        needed, optional = events.FIELDS[happening]
        fields = ", ".join([*(f"`{name}`" for name in needed), *(f"`{name}`?" for name in optional)])
        rows.append((f"`{happening.value}`", ", ".join(events.emitters_of(happening)), fields, said[happening.value]))
    rules = inspect.cleandoc(events.__doc__ or "").partition("\nRules\n")[2]
    numbered = re.sub(r"\n {4,}(?=\S)(?!\d\.)", " ", rules)
    listed = "\n".join(line.strip() for line in numbered.splitlines() if line.strip())
    return f"""# Trace events

`--trace` writes `trace.jsonl`: a header, then one event a line. `t` is in nanoseconds, on one clock for both nodes.
This is version {events.SCHEMA_VERSION}. `migemu check` [judges the order of the events](checks.md).

<!-- not compared: a line of a file -->
```json
{events.header_line("measured").strip()}
```

{table(("event", "told by", "fields", "meaning"), rows)}
A field with a question mark may be absent.

## Rules

{listed}
"""


def _error_rows(kind: type[errors.MigemuError], of: str = "") -> Iterable[Sequence[str]]:
    first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    yield (f"`{kind.__name__}`", of, str(kind.exit_code), first)
    for inner in kind.__subclasses__():
        if inner.__module__ == errors.__name__:
            yield from _error_rows(inner, f"`{kind.__name__}`")


def _errors() -> str:
    return f"""# Errors and exit codes

An error is one line: what is wrong, and what to do about it. A traceback is a bug of this program.

| exit code | what happened | what to do |
|---|---|---|
| 0 | all is well: the memory is verified, the rules hold, the gate holds | |
| 1 | `check`: a rule is broken; `compare`: a gate fails; else a bug of this program | read the lines above it |
| 2 | bad input: a scenario, an option, a file | change what the line names |
| 3 | something broke: a connection, memory, a port, a disk, a process | mend it, then [go on](../howto/recovery.md) |
| 4 | the peer broke the protocol | use the same version on both sides; if it is, report it |
| 5 | the memory at the destination differs from the source's | do not use it |
| 130 | interrupted: Ctrl-C, SIGTERM, the end of the terminal, or `migemu cancel` | |

## Classes

Who calls the library meets these, all from `migemu.errors`:

{table(("class", "is a", "exit code", "meaning"), _error_rows(errors.MigemuError))}"""


def _protocol() -> str:
    doc = inspect.cleandoc(messages.__doc__ or "")
    text = f"""# Protocol

What the two nodes say to each other, version {messages.PROTOCOL_VERSION}. A peer of another version is refused with
a line that names both. All is judged by tables in `migemu.wire.states`: (role, state, message) gives the next state,
and what is not in the table is illegal and ends the connection. `python -m migemu.wire.states` prints a diagram.
"""
    for first, heading in _WAYS:
        body = doc.partition(f"{first}\n")[2].partition("\n\n")[0]
        rows = [re.split(r"\s{2,}", line.strip(), maxsplit=2) for line in body.splitlines()]
        text += f"\n## {heading}\n\n"
        said = [
            (f"`{name}`", meaning, "".join(rest).strip("()").removeprefix("QEMU: ")) for name, meaning, *rest in rows
        ]
        text += table(("message", "meaning", "in QEMU"), said)
    for role in states.Role:
        moves: dict[tuple[str, str], list[str]] = {}
        for (who, state, message), after in states.TRANSITIONS.items():
            if who is role:
                moves.setdefault((state.value, after.value), []).append(f"`{message.__name__}`")
        for (who, state), paused in states.LOST.items():
            if who is role:
                moves.setdefault((state.value, paused.value), []).append("(the connection is lost)")
        text += f"\n## States of the {role.value}\n\n"
        listed = [(before, ", ".join(says), then) for (before, then), says in moves.items()]
        text += table(("in state", "it says", "next state"), listed)
    return text


PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/settings.md": _settings, "reference/choices.md": _choices, "reference/scenarios.md": _scenarios,
    "reference/events.md": _events, "reference/errors.md": _errors, "reference/protocol.md": _protocol,
}  # fmt: skip

if __name__ == "__main__":
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
