"""`migemu pause`, `resume`, `recover`, `cancel`: tell running nodes what to do, over their status sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from migemu.errors import InputError, MigemuError, one_line
from migemu.process.context import CONTEXT
from migemu.process.options import address_from_here
from migemu.process.runner import Voice, exit_with, stderr_console

if TYPE_CHECKING:
    from migemu.process.status_socket import Order

F = TypeVar("F", bound=Callable[..., Any])

#: The socket of either node in its --out DIR (migemu.process.status_socket).
_SOURCE: Final = "source.sock"
_DESTINATION: Final = "destination.sock"

places_argument = click.argument(
    "places", metavar="DIR|SOCKET...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
place_argument = click.argument("place", metavar="DIR|SOCKET", type=click.Path(path_type=Path))
migration_option = click.option(
    "--migration", metavar="PREFIX", default="",
    help="How the migration's name begins (migemu status tells it); needed where a destination serves several.",
)  # fmt: skip


@click.command(context_settings=CONTEXT)
@places_argument
@migration_option
def pause(places: tuple[Path, ...], migration: str) -> None:
    """Break the connections of a migration on purpose, and make no others until `migemu resume`.

    DIR is what a node was given as --out; all nodes there are paused, and those of several places in turn. It is
    possible only once the guest is at the destination: vCPUs run on there where their pages have come, the others wait.
    A node that is paused waits without a limit; the other one for its own recovery.timeout, so pause both:

        migemu pause runs/source runs/dest

    Exit codes: 0 paused, 2 it cannot be, and why, 3 a node is gone or does not answer; of several the highest.
    """

    from migemu.process.status_socket import Order

    _give(Order("pause", migration), _found(places))


@click.command(context_settings=CONTEXT)
@places_argument
@migration_option
def resume(places: tuple[Path, ...], migration: str) -> None:
    """End what `migemu pause` has begun: the source connects again, and what has not arrived is sent.

    Both nodes wait for each other for their recovery.timeout, counted from now. Exit codes as those of `migemu pause`.
    """

    from migemu.process.status_socket import Order

    _give(Order("resume", migration), _found(places))


@click.command(context_settings=CONTEXT)
@place_argument
@click.option("--connect", metavar="ADDRESS", help="Of a source: where its destination listens now.")
@click.option("--listen", metavar="ADDRESS", help="Of a destination: where it is to listen too.")
@migration_option
def recover(place: Path, connect: str | None, listen: str | None, migration: str) -> None:
    """Have the two nodes of a paused migration meet at another address.

    The destination opens a door more (the old ones stay), by the rules that --listen is under; then the source, if it
    is paused, by itself or by `migemu pause`, goes there at once, and keeps the address in its DIR/migration.json. As
    QEMU's migrate-recover and `migrate -r`:

        migemu recover runs/dest --listen 192.0.2.7:4444
        migemu recover runs/source --connect 192.0.2.7:4444

    A source that was killed is started again with `migemu-source --recover DIR`. Exit codes: 0 done, 2 it cannot be,
    and why (it is not paused, for one), 3 a node is gone, does not answer, or cannot listen there.
    """

    from migemu.process.status_socket import Order

    voice = Voice(stderr_console())
    try:
        if (connect is None) == (listen is None):
            raise InputError("give --connect to a source, or --listen to a destination")
        address = str(address_from_here(connect or listen or ""))
    except InputError as error:
        exit_with(voice, error)
    if connect is not None:
        _give(Order("connect", migration, address), _found((place,), _SOURCE))
    else:
        _give(Order("listen", migration, address), _found((place,), _DESTINATION))


@click.command(context_settings=CONTEXT)
@place_argument
@migration_option
@click.option("--yes", is_flag=True, help="Even where it costs the guest; without it you are told what it would cost.")
def cancel(place: Path, migration: str, yes: bool) -> None:
    """End a migration. Before the guest has left, that costs nothing: it runs on at the source.

    Afterwards what it costs is told, and only --yes does it. Of a DIR with both nodes the source is asked. The nodes
    end with exit code 130. Exit codes: 0 cancelled, 2 not, and what it would cost, 3 a node is gone or does not answer.
    """

    from migemu.process.status_socket import Order

    found = _found((place,))
    first = [path for path in found if path.name == _SOURCE] or found[:1]
    _give(Order("cancel", migration, sure=yes), first)


def _found(places: Sequence[Path], name: str = "") -> list[Path]:
    """The sockets of all places, each once; of those that have several, those of `name`. Ends the command if there are
    none.
    """

    from migemu.cli.status import sockets

    found: dict[Path, None] = {}
    try:
        for place in places:
            there = sockets(place)
            found |= dict.fromkeys([path for path in there if path.name == name] or there)
    except MigemuError as error:
        exit_with(Voice(stderr_console()), error)
    return list(found)


def _give(order: Order, paths: Sequence[Path]) -> None:
    """To each of them; what they say is shown, and the worst exit code is the command's."""

    from migemu.process.status_socket import give

    voice, worst = Voice(stderr_console()), 0
    for path in paths:
        try:
            answer = give(path, order)
        except MigemuError as error:
            worst = max(worst, error.exit_code)
            voice.notice(one_line(error))
            continue
        worst = max(worst, answer.exit)
        if answer.exit:
            voice.notice(f"{path.stem}: {answer.told}")
        else:
            click.echo(f"{path.stem}: {answer.told}")
    if worst:
        raise SystemExit(worst)
