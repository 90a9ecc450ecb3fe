"""The man pages, made of what `--help` says: `python -m migemu.cli.manual DIR` writes a page for each program.

A page is roff with the macros of man(7). Text of help is filled; what follows `\\b` keeps its lines, as in help.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

import click

import migemu

#: Program -> the module of its command.
_PROGRAMS: Final = {
    "migemu": "migemu.cli.main", "migemu-source": "source_node.__main__", "migemu-dest": "dest_node.__main__",
}  # fmt: skip
_EXIT_CODES: Final = (
    ("0", "all is well; of a migration: verified"), ("1", "a rule is broken, or a gate has failed"),
    ("2", "bad input"), ("3", "something broke: a connection, memory, a disk, the other process"),
    ("4", "the peer broke the protocol"), ("5", "the memory of the two sides differs"), ("130", "interrupted"),
)  # fmt: skip


def page(program: str) -> str:
    """The man page of a program, as roff."""
    command: click.Command = import_module(_PROGRAMS[program]).main
    context = click.Context(command, info_name=program, max_content_width=100)
    lines = [
        f'.TH "{program.upper()}" "1" "" "migemu {migemu.__version__}" "User Commands"', ".SH NAME",
        f"{_roff(program)} \\- {_roff(_summary(command))}", ".SH SYNOPSIS", *_synopsis(context), ".SH DESCRIPTION",
        *_description(command), ".SH OPTIONS", *_options(context),
    ]  # fmt: skip
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *_commands(command, context)]
    lines += [".SH EXIT STATUS", *(text for code, why in _EXIT_CODES for text in (".TP", code, _roff(why)))]
    others = [each for each in _PROGRAMS if each != program]
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{_roff(each)}\\fR(1)" for each in others)]
    return "\n".join(lines) + "\n"


def _summary(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ").rstrip(".:")


def _synopsis(context: click.Context) -> Iterator[str]:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    yield f"\\fB{_roff(context.command_path)}\\fR {_roff(pieces)}"


def _description(command: click.Command) -> Iterator[str]:
    """The paragraphs of help; one that begins with a line of `\\b` keeps its lines."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        as_it_stands = paragraph.startswith("\b")
        lines = [_roff(line) for line in paragraph.removeprefix("\b").strip("\n").split("\n")]
        yield ".PP"
        yield from [".nf", *lines, ".fi"] if as_it_stands else [" ".join(line.strip() for line in lines)]


def _options(context: click.Context) -> Iterator[str]:
    for option in context.command.get_params(context):
        record = option.get_help_record(context)
        if record is not None:
            yield from (".TP", f"\\fB{_roff(record[0])}\\fR", _roff(record[1]))


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context, max_content_width=100)
        yield f".SS {_roff(inner.command_path)}"
        yield from _synopsis(inner)
        yield from _description(command)
        yield from _options(inner)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _roff(text: str) -> str:
    """Text as roff takes it: no backslash, hyphen or leading dot of it is a command."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def write(directory: Path) -> list[Path]:
    """Write a page for each program into `directory`; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{program}.1" for program in _PROGRAMS]
    for path in paths:
        path.write_text(page(path.stem), encoding="utf-8")
    return paths


if __name__ == "__main__":
    for path in write(Path(sys.argv[1] if len(sys.argv) > 1 else "man")):
        click.echo(path)
