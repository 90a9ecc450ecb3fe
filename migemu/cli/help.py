"""`migemu help`: the documentation, offline."""

from __future__ import annotations

import os
import sys

import click

from migemu.docs.topics import Topic, find, topics
from migemu.errors import MigemuError
from migemu.process.runner import Voice, exit_with, stderr_console


@click.command("help")
@click.argument("topic", nargs=-1)
@click.pass_context
def help_(context: click.Context, topic: tuple[str, ...]) -> None:
    """Read the documentation: all topics, or the page of one.

    \b
    Examples:
        migemu help                   every topic
        migemu help settings          the page of that name
        migemu help two hosts         the page, or the pages, with these words in their headings
        migemu help sim               a command: the same as migemu sim --help

    On a terminal a page is laid out, and shown by $PAGER; into a pipe goes its Markdown.
    """
    if not topic:
        _list(topics())
        return
    group = context.find_root().command
    if isinstance(group, click.Group) and len(topic) == 1 and (command := group.get_command(context, topic[0])):
        click.echo(command.get_help(click.Context(command, info_name=topic[0], parent=context.parent)))
        return
    try:
        found = find(topic)
    except MigemuError as error:
        exit_with(Voice(stderr_console()), error)
    if len(found) == 1:
        _show(found[0])
    else:
        _list(found)


def _list(found: list[Topic]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("topic", "page", box=None, pad_edge=False)
    for page in found:
        table.add_row(page.name, page.title)
    console.print(table)
    console.print("\nRead one: migemu help TOPIC", markup=False, highlight=False)


def _show(page: Topic) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    if not sys.stdout.isatty():
        click.echo(page.readable())
        return
    os.environ.setdefault("LESS", "-RFX")  # colours; no pager where the page fits; it stays on the screen
    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(page.readable(), hyperlinks=False))
