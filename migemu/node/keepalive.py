"""Telling a silent peer from a dead one: both nodes say Alive when they have nothing to say, and listen for it.

A peer counts as lost when nothing at all has come from it for `net.idle_timeout`, and, as `migemu.node.due` has it,
when it says Alive and no more. A node that was itself stopped (a debugger, SIGSTOP, a suspended laptop) finds old
timestamps when it wakes; it gives the peer's bytes a turn first.
"""

from __future__ import annotations

from collections.abc import Callable

from migemu.errors import MigemuError
from migemu.ports import Channel, Clock


async def keep_alive(
    clock: Clock, channel: Channel, idle_ns: int, say_alive: Callable[[], None], silent: Callable[[], None],
    late: Callable[[int], bool],
) -> None:  # fmt: skip
    """Say Alive four times per `idle_ns`; call `silent` once and return when the peer has been silent that long.

    Else `late` is told the time: whether something has not come that was due, and that is the end of it.
    """
    while True:
        before = clock.now_ns()
        await clock.sleep_until(before + idle_ns // 4)
        now = clock.now_ns()
        if now - before > idle_ns // 2:
            continue
        if now - channel.statistics().last_received_ns > idle_ns:
            silent()
            return
        if late(now):
            return
        try:
            say_alive()
        except MigemuError:  # the channel is gone, which its handler was told
            return
