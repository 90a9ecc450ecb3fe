"""The network goes dark at a message, for longer than both nodes wait; then it is whole, and the documented commands
are typed. Real processes, at every message of the switch and of the end.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migemu.wire.messages import (
    Agreed,
    Complete,
    DeviceState,
    Digests,
    End,
    Listen,
    Message,
    Ready,
    Run,
    Running,
)  # fmt: skip
from tests.real.dark import darkness
from tests.real.processes import destination, source

#: Of a migration, of both nodes' patience with it, and of its guest.
SETTINGS = (
    "--set", "memory.size=1M", "--set", "device.state=64K", "--set", "guest.workload=uniform",
    "--set", "guest.write_share=0.5", "--set", "guest.rate=200", "--set", "net.idle_timeout=2s",
    "--set", "net.answer_timeout=3s", "--set", "recovery.timeout=5s", "--set", "recovery.backoff_max=200ms",
)  # fmt: skip
#: The message that does not come: what the source says of the guest, what the destination says, and their exit codes.
IN_DOUBT, ASK = (
    "; in doubt: the guest has left, and it was not heard",
    "; in doubt: everything was sent, and the verdict",
)
NOT_RUN, KEPT = "; in doubt: the guest has not run here, and its source", "The guest is in its checkpoint"
AT = [
    (Listen, IN_DOUBT, NOT_RUN, 3), (DeviceState, IN_DOUBT, NOT_RUN, 3), (Run, IN_DOUBT, NOT_RUN, 3),
    (Running, IN_DOUBT, KEPT, 3), (End, ASK, "", 3), (Digests, ASK, "", 3), (Complete, ASK, "", 0), (Agreed, "", "", 0),
]  # fmt: skip


@pytest.mark.parametrize(("at", "ours", "theirs", "code"), AT, ids=[at.__name__ for at, *_ in AT])
def test_what_both_have_kept_is_gone_on_with(
    at: type[Message], ours: str, theirs: str, code: int, tmp_path: Path
) -> None:
    kept, out, of_source = tmp_path / "kept", tmp_path / "out", tmp_path / "source"
    receives = ("--checkpoint", str(kept), "--out", str(out), *SETTINGS)
    with destination(*receives) as dest, darkness(dest.port, at) as (dark, loop):
        with source(dark.port, "--out", str(of_source), *SETTINGS) as sender:
            assert sender.wait() == (0 if at is Agreed else 3)
            assert dest.wait() == code, dest.error
            assert dark.fell.is_set()
            assert ours in sender.error
            assert theirs in dest.error
        loop.call_soon_threadsafe(dark.heal)
        if at is Agreed:
            assert "verified; the source may not have heard it" in str(dest.said)
            assert not json.loads((out / "result.json").read_text())["certificate"]["countersigned"]
            return
        assert any(kept.iterdir()), "kept until the source says so"
        with destination(*receives) as again:
            dark.target = again.port
            with source(dark.port, "--recover", str(of_source)) as second:
                assert second.wait() == 0, second.error
                assert again.wait() == 0, again.error
    result = json.loads((out / "result.json").read_text())
    assert (result["verified"], result["whereabouts"]) == (True, "verified")
    assert result["certificate"]["countersigned"]
    assert list(kept.iterdir()) == []


def test_before_run_is_said_nobody_is_in_doubt_but_the_destination(tmp_path: Path) -> None:
    with (
        destination(*SETTINGS) as dest, darkness(dest.port, Ready) as (dark, _),
        source(dark.port, "--out", str(tmp_path), *SETTINGS) as sender,
    ):  # fmt: skip
        assert sender.wait() == 3
        assert "The guest runs on at the source" in sender.error
        assert dest.wait() == 3
        assert "in doubt: the guest has not run here, and cannot any more" in dest.error
        assert "--recover DIR --take-back" in dest.error


def test_a_guest_that_never_ran_there_is_taken_back_once_its_destination_has_said_so(tmp_path: Path) -> None:
    out = str(tmp_path)
    with destination(*SETTINGS) as dest, darkness(dest.port, Run) as (dark, loop):
        with source(dark.port, "--out", out, *SETTINGS) as sender:
            assert sender.wait() == 3
            assert f"take it back with migemu-source --recover {out} --take-back" in sender.error
            assert dest.wait() == 3
            assert "has not run here, and cannot any more" in dest.error
        loop.call_soon_threadsafe(dark.heal)
        with destination(*SETTINGS) as fresh:
            dark.target = fresh.port
            with source(dark.port, "--recover", out) as lost:
                assert lost.wait() == 3
                assert "knows nothing of migration" in lost.error
                assert IN_DOUBT in lost.error, "a destination that was started anew proves nothing"
    with source(1, "--recover", out, "--take-back") as back:
        assert back.wait() == 0
        assert "the guest of migration" in back.stderr
        assert "is the source's again" in back.stderr
    with source(1, "--recover", out) as again:
        assert again.wait() == 2
        assert "the guest was taken back: it runs here" in again.error


def test_a_guest_that_has_run_there_is_not_taken_back(tmp_path: Path) -> None:
    out = str(tmp_path)
    with (
        destination(*SETTINGS) as dest, darkness(dest.port, Complete) as (dark, _),
        source(dark.port, "--out", out, *SETTINGS) as sender,
    ):  # fmt: skip
        assert sender.wait() == 3
    with source(1, "--recover", out, "--take-back") as back:
        assert back.wait() == 2
        assert "it has run at the destination, and what it did there is only there" in back.error
