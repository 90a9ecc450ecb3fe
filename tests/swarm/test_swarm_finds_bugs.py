"""Bugs on purpose, in both nodes: the swarm finds each of them within `SEEDS_MAX` seeds, and shrinks what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from dest_node.incoming import Incoming
from dest_node.integrity import Integrity
from dest_node.lines import Lines
from dest_node.receiver import Receiver
from dest_node.recovery import Recovery
from dest_node.verdict import Verdict
from migemu.mm.pages import PageBitmap
from source_node.sender import Sender
from source_node.service import Source
from tests.swarm.drawing import draw
from tests.swarm.shrinking import shrink
from tests.swarm.trial import try_out

SEEDS_MAX: Final = 150


def _takes_the_end_for_completion(incoming: Any, _role: Any, _error: Any) -> None:
    incoming._done()


def _lands_everything(_receiver: Receiver, _page: int, end: int) -> int:
    return end


def _forgets_to_ask(receiver: Any, now: int) -> list[Any]:
    receiver.now_ns, receiver._paused = now, False
    return []


def _thinks_it_arrived(sender: Any, _received: PageBitmap) -> int:
    sender._urgent.clear()
    return 0


def _loses_preempt_pieces(sender: Any, _received: PageBitmap) -> int:
    sender._since = None
    return 0


def _sends_everything_again(sender: Any, received: PageBitmap) -> int:
    sender._urgent.clear()
    sender.sent = PageBitmap(sender.geometry, received.total)
    return 0


def _resumes_in_silence(recovery: Any, _resume: Any) -> None:
    recovery._patience.resumed(recovery._clock.now_ns())


def _keeps_the_old_connection(lines: Lines, role: Any) -> None:
    lines.forget(role)


def _asks_while_paused(receiver: Any, now: int) -> None:
    receiver.now_ns = now


def _gives_up_after_the_switch(source: Any, _role: Any, error: Any) -> None:
    source._fail(error or RuntimeError("closed"))


def _nothing(*_: Any) -> None: ...


@dataclass(frozen=True)
class Bug:
    """`method` of `owner` does `wrong` instead."""

    owner: type[Any]
    method: str
    wrong: Callable[..., Any]


BUGS: Final = {
    "takes the end of the stream for completion": Bug(Incoming, "_lost", _takes_the_end_for_completion),
    "lands what came again over the guest's writes": Bug(Receiver, "fresh_until", _lands_everything),
    "does not ask again after a recovery": Bug(Receiver, "recovered", _forgets_to_ask),
    "asks while nobody hears": Bug(Receiver, "paused", _asks_while_paused),
    "takes what was sent for what has arrived": Bug(Sender, "recover", _thinks_it_arrived),
    "sends everything again": Bug(Sender, "recover", _sends_everything_again),
    "loses what was on the preempt channel": Bug(Sender, "regained", _loses_preempt_pieces),
    "resumes in silence": Bug(Recovery, "resume", _resumes_in_silence),
    "takes any digest": Bug(Integrity, "_bad", lambda *_: []),
    "does not begin digests anew": Bug(Verdict, "digests_come", _nothing),
    "gives up after the switch": Bug(Source, "lost", _gives_up_after_the_switch),
    "listens to the old connection": Bug(Lines, "cut", _keeps_the_old_connection),
}


@pytest.mark.parametrize("bug", BUGS.values(), ids=list(BUGS))
def test_the_swarm_finds_it(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bug.owner, bug.method, bug.wrong)
    found = next((verdict for verdict in map(try_out, map(draw, range(SEEDS_MAX))) if verdict.complaint), None)
    assert found is not None
    what = found.complaint.partition(":")[0]
    smallest = shrink(found.case, lambda case: try_out(case).complaint.startswith(what))
    print(found.case.seed, len(found.case.hazards), found.complaint[:150], "|", [str(h) for h in smallest.hazards])
    for index in range(len(smallest.hazards)):
        assert not try_out(smallest.without(index)).complaint.startswith(what)
