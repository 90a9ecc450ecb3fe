"""Bugs on purpose, in both nodes: the swarm finds each of them within `SEEDS_MAX` seeds, and shrinks what it finds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

import dest_node.incoming
import dest_node.recovery
import dest_node.resumption
import migemu.wire.bitmap
import source_node.service
from dest_node.core.receiver import Receiver
from dest_node.incoming import Incoming
from dest_node.recovery import Recovery
from dest_node.verdict import Verdict
from dest_node.verification.integrity import Integrity
from migemu.address import Address
from migemu.mm.pages import PageBitmap
from migemu.node.due import Due
from migemu.node.outcome import Whereabouts
from migemu.node.patience import Patience
from migemu.sim.incarnation import SourceRecord
from migemu.wire.messages import PREEMPT_CHANNEL, ReceivedBitmap
from migemu.wire.states import Stage
from source_node.conversation import Conversation
from source_node.core.sender import Sender
from source_node.service import Source
from source_node.source_outcome import explained
from tests.swarm.__main__ import main, told
from tests.swarm.drawing import draw
from tests.swarm.shrinking import shrink
from tests.swarm.trial import try_out

#: As many as `make test` tries.
SEEDS_MAX: Final = 300
#: Most bugs take one thing that goes wrong; some show only when a second one hides what would mend them.
HAZARDS_MAX: Final = 3


def _takes_the_end_for_completion(incoming: Any, _role: Any, _error: Any) -> None:
    incoming.complete()


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


def _asks_while_paused(receiver: Any, now: int) -> None:
    receiver.now_ns = now


def _gives_up_after_the_switch(source: Any, _role: Any, error: Any) -> None:
    source.fail(error or RuntimeError("closed"))


def _says_that_it_is_at_home(error: Any, _where: Whereabouts, missing: int, pages: int, advice: Any) -> Any:
    return explained(error, Whereabouts.SOURCE, missing, pages, advice)


def _tells_that_all_is_here(received: PageBitmap) -> Iterator[tuple[ReceivedBitmap, bytes]]:
    yield ReceivedBitmap(0, received.total, True), b""


def _writes_bits_the_other_way_round(received: PageBitmap, begin: int, end: int) -> bytes:
    bits = "".join(str(int(page)) for page in received.pages[begin:end])
    return int(bits, 2).to_bytes(-(-(end - begin) // 8), "little")


def _takes_run_for_heard(recovery: Any, _recover: Any) -> None:
    recovery._channels.cut(PREEMPT_CHANNEL)
    recovery._owner.enter(Stage.RECOVER)
    recovery._task = recovery._owner.spawn(recovery._send_bitmap())


def _remembers_what_it_asked_for(receiver: Any, now: int) -> list[Any]:
    receiver.now_ns, receiver._paused = now, False
    return [ask for page in receiver._open if not receiver._is_here(page) for ask in receiver._ask(page)]


async def _begins_anew(source: Any, address: Address, *_learned: Any) -> Any:
    return await source.run(address)


def _nothing(*_: Any) -> None: ...


_of_source, _of_destination = Whereabouts.of_source, Whereabouts.of_destination


def _takes_it_back_by_itself(*, heard: bool, **states: Any) -> Whereabouts:
    return _of_source(heard=heard, **states) if heard else Whereabouts.SOURCE


def _takes_for_heard_what_it_says(*, said: bool, **states: Any) -> Whereabouts:
    return _of_source(**states | {"said": said, "heard": said})


def _sends_it_home(*, told: bool, **states: Any) -> Whereabouts:
    return _of_destination(**states | {"told": True})


@dataclass(frozen=True)
class Bug:
    """`method` of `owner` (a class, or a module) does `wrong` instead."""

    owner: Any
    method: str
    wrong: Callable[..., Any]


BUGS: Final = {
    "takes the end of the stream for completion": Bug(Incoming, "channel_lost", _takes_the_end_for_completion),
    "lands what came again over the guest's writes": Bug(Receiver, "fresh_until", _lands_everything),
    "does not ask again after a recovery": Bug(Receiver, "recovered", _forgets_to_ask),
    "asks while nobody hears": Bug(Receiver, "paused", _asks_while_paused),
    "takes what was sent for what has arrived": Bug(Sender, "recover", _thinks_it_arrived),
    "sends everything again": Bug(Sender, "recover", _sends_everything_again),
    "loses what was on the preempt channel": Bug(Sender, "preempt_recovered", _loses_preempt_pieces),
    "resumes in silence": Bug(Recovery, "resume", _resumes_in_silence),
    "takes any digest": Bug(Integrity, "_bad", lambda *_: []),
    "does not begin digests anew": Bug(Verdict, "digests_begin", _nothing),
    "gives up after the switch": Bug(Source, "lost", _gives_up_after_the_switch),
    "turns away who comes back too soon": Bug(Recovery, "replace", _nothing),
    "says that the guest is at the source": Bug(source_node.service, "explained", _says_that_it_is_at_home),
    "tells that all is here": Bug(dest_node.recovery, "bitmap_parts", _tells_that_all_is_here),
    "writes bits the other way round": Bug(migemu.wire.bitmap, "_bits", _writes_bits_the_other_way_round),
    "takes Run for heard": Bug(Recovery, "asked", _takes_run_for_heard),
    "does not look at seals": Bug(dest_node.incoming, "check_seal", _nothing),
    "remembers what it asked for": Bug(Receiver, "recovered", _remembers_what_it_asked_for),
    "does not hear silence": Bug(Conversation, "silent", _nothing),
    "does not send corrupt pieces again": Bug(Sender, "_send_again", _nothing),
    "does not write down that it switches": Bug(SourceRecord, "switch", _nothing),
    "begins anew after a restart": Bug(Source, "recover", _begins_anew),
    "takes Alive for an answer": Bug(Due, "overdue", lambda *_: None),
    "empties its checkpoint in doubt": Bug(
        dest_node.resumption, "may_go", lambda where, _: where is Whereabouts.IN_DOUBT
    ),
    "empties it with a verdict that was not heard": Bug(
        dest_node.resumption, "may_go", lambda where, _: where in (Whereabouts.SOURCE, Whereabouts.VERIFIED)
    ),
    "takes the guest back by itself": Bug(Whereabouts, "of_source", _takes_it_back_by_itself),
    "takes for heard what it says": Bug(Whereabouts, "of_source", _takes_for_heard_what_it_says),
    "sends home whom it knows nothing of": Bug(Whereabouts, "of_destination", _sends_it_home),
    "never tries again": Bug(Patience, "over", lambda *_: "enough"),
}


@pytest.mark.parametrize("bug", BUGS.values(), ids=list(BUGS))
def test_the_swarm_finds_it(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bug.owner, bug.method, bug.wrong)
    found = next((verdict for verdict in map(try_out, map(draw, range(SEEDS_MAX))) if verdict.complaint), None)
    assert found is not None
    what = found.complaint.partition(":")[0]
    smallest = shrink(found.case, lambda case: try_out(case).complaint.startswith(what))
    assert len(smallest.hazards) <= HAZARDS_MAX
    assert try_out(smallest).complaint.startswith(what)
    for index in range(len(smallest.hazards)):
        assert not try_out(smallest.without(index)).complaint.startswith(what)


def test_the_line_that_is_printed_replays_what_was_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bug = BUGS["loses what was on the preempt channel"]
    monkeypatch.setattr(bug.owner, bug.method, bug.wrong)
    found = next(verdict for verdict in map(try_out, map(draw, range(SEEDS_MAX))) if verdict.complaint)
    complaint, _, line = told(found).partition("\nreplay: ")
    program, *arguments = shlex.split(line.removeprefix("python -m "))
    assert program == "tests.swarm"
    assert main(arguments) == 1
    assert f"{complaint}\n" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("1 worlds held (1 verified), 0 did not")
