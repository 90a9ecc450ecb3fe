"""A destination that keeps a checkpoint is killed, and comes back: real processes, real files, every write judged.

The guest of the last life verifies the words of all lives: a write that was acknowledged and is not there is an error.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from resource import RLIMIT_NOFILE, prlimit
from typing import Any

import pytest

from migemu.checkpoint.format import CHECKPOINT, decode
from migemu.errors import BrokenError
from migemu.process.status_socket import ask
from tests.disks import small_disk
from tests.real.processes import NodeProcess, asked, destination, free_port, source

PAGES = 1024
#: Seconds of a migration, so that it can be killed in the middle; a guest that writes to what has come.
LIVELY = (
    "--set", "memory.size=4M", "--set", "guest.workload=uniform", "--set", "guest.write_share=0.5",
    "--set", "guest.rate=200", "--set", "push.rate=8Mbit", "--set", "push.run=16K", "--set", "checkpoint.interval=50ms",
    "--set", "recovery.backoff_min=5ms", "--set", "recovery.backoff_max=50ms",
)  # fmt: skip


class Story:
    """One source, and destinations on one port, one after the other, with one checkpoint."""

    def __init__(self, directory: Path, *settings: str) -> None:
        self.kept, self.out = directory / "kept", directory / "out"
        self.socket = self.out / "destination.sock"
        self._directory = directory
        self._port = free_port()
        self._settings = settings
        self._stack = ExitStack()

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def destination(self, *settings: str) -> NodeProcess:
        arguments = ("--checkpoint", str(self.kept), "--out", str(self.out), "--listen", f"127.0.0.1:{self._port}")
        return self._stack.enter_context(destination(*arguments, *LIVELY, *self._settings, *settings))

    def source(self, dest: NodeProcess, *settings: str) -> NodeProcess:
        out = ("--out", str(self._directory / "source"))
        return self._stack.enter_context(source(dest.port, *out, *LIVELY, *self._settings, *settings))

    def kept_pages(self) -> int:
        """How many pages the last whole generation names."""
        return decode((self.kept / CHECKPOINT).read_bytes()).received.count(1)

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.out / "result.json").read_text())
        return result


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with Story(tmp_path) as story:
        yield story


def come(dest: NodeProcess, pages: int) -> None:
    """Until so many base pages have come."""
    dest.wait_until(lambda said: said.get("status", {}).get("received_bytes", 0) >= pages * 4096)


def kill(dest: NodeProcess) -> None:
    dest.signal(signal.SIGKILL)
    assert dest.wait() == -signal.SIGKILL


def ends_verified(story: Story, dest: NodeProcess, sender: NodeProcess) -> dict[str, Any]:
    assert dest.wait() == 0, dest.error
    assert sender.wait() == 0, sender.error
    result = story.result()
    assert result["verified"]
    assert result["certificate"]["countersigned"]
    return result


@pytest.mark.parametrize("settings", [(), ("--set", "pull.preempt=off", "--set", "integrity.digests=on")], ids=str)
def test_a_killed_destination_comes_back_again_and_again_with_every_write(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    with Story(tmp_path, *settings) as story:
        dest = story.destination()
        sender = story.source(dest)
        before = 0
        for pages in (150, 350, 550):
            come(dest, pages)
            kill(dest)
            assert story.kept_pages() > before, "what was kept once stays kept"
            before = story.kept_pages()
            dest = story.destination()
            told = dest.wait_for_notice()
            assert "goes on with migration" in told
            assert int(told.split(" of 1024 base pages")[0].rpartition(" ")[2]) == before, "nothing of it was dropped"
            assert int(told.split(" words that")[0].rpartition(" ")[2]) > 0
        result = ends_verified(story, dest, sender)
        assert result["pieces"]["duplicate"] == 0, "nothing that was kept has come again"
        assert result["recovery"]["count"] == 1
        assert list(story.kept.iterdir()) == [], "there is nothing to come back to"


def test_a_destination_killed_before_it_heard_that_the_guest_runs_has_the_switch_made_again(story: Story) -> None:
    dest = story.destination()
    sender = story.source(dest, "--set", "link.delay=500ms", "--set", "push.rate=0")
    asked(story.out.parent / "source" / "source.sock", lambda status: status.stage == "run")
    kill(dest)
    assert not (story.kept / "running").exists()
    result = ends_verified(story, story.destination(), sender)
    assert result["pieces"]["duplicate"] == 0


def test_a_destination_killed_before_the_switch_leaves_the_guest_at_the_source(story: Story) -> None:
    dest = story.destination()
    sender = story.source(dest, "--set", "device.state=1M", "--set", "link.rate=8Mbit")
    dest.wait_for_stage("listen")
    kill(dest)
    assert sender.wait() == 3
    assert "The guest runs on at the source, whose image is unchanged" in sender.error


def test_what_is_told_in_the_end_is_what_to_type(story: Story, tmp_path: Path) -> None:
    """Each node is killed for longer than the other one waits; what that one says brings everything back."""
    impatient = ("--set", "recovery.timeout=300ms")
    dest = story.destination(*impatient)
    sender = story.source(dest, *impatient)
    come(dest, 250)
    kill(sender)
    assert dest.wait() == 3
    assert "The guest is in its checkpoint, to go on from with the same command: 4 vCPUs wait for" in dest.error
    alone = story.source(dest, "--recover", str(tmp_path / "source"))
    assert alone.wait() == 3
    command = alone.error.rpartition("go on with ")[2]
    assert command == f"migemu-source --recover {tmp_path / 'source'}"
    again = story.destination()
    again.wait_for_stage("paused")
    ends_verified(story, again, story.source(again, *shlex.split(command)[1:]))


def test_an_interrupted_destination_is_waited_for(story: Story) -> None:
    dest = story.destination()
    sender = story.source(dest)
    come(dest, 250)
    dest.signal(signal.SIGTERM)
    assert dest.wait() == 130
    assert "The guest is in its checkpoint, to go on from with the same command" in str(dest.said)
    ends_verified(story, story.destination(), sender)


def test_a_directory_that_cannot_be_gone_on_with_is_refused_in_one_line_and_left_alone(story: Story) -> None:
    dest = story.destination()
    sender = story.source(dest, "--set", "push.rate=3Mbit")  # it has to outlast the start of others
    come(dest, 150)
    second = story.destination("--listen", "127.0.0.1:0", "--out", f"{story.out}.other")
    assert second.wait() == 2
    assert "another destination uses it" in second.error
    kill(dest)
    other = story.destination("--set", "guest.vcpus=3")
    assert other.wait() == 2
    assert "its guest ran with guest.vcpus=4, not 3; start it with the settings that it had" in other.error
    whole = (story.kept / CHECKPOINT).read_bytes()
    (story.kept / CHECKPOINT).write_bytes(b"nonsense")
    third = story.destination()
    assert third.wait() == 2
    assert "is damaged: it is no checkpoint" in third.error
    assert "Traceback" not in third.stderr
    (story.kept / CHECKPOINT).write_bytes(whole)
    ends_verified(story, story.destination(), sender)


SLOW_SWITCH = ("--set", "device.state=1M", "--set", "link.rate=8Mbit")


def test_a_destination_that_has_not_heard_run_is_in_doubt_and_keeps_what_the_switch_is_made_to_again(
    story: Story, tmp_path: Path
) -> None:
    impatient = ("--set", "recovery.timeout=300ms")
    dest = story.destination(*impatient)
    sender = story.source(dest, *impatient, *SLOW_SWITCH)
    dest.wait_for_stage("listen")
    kill(sender)
    assert dest.wait() == 3
    assert "; in doubt: the guest has not run here, and its source may have let it go; what has come is" in dest.error
    assert json.loads((story.out / "result.json").read_text())["whereabouts"] == "in doubt"
    again = story.destination()
    ends_verified(story, again, story.source(again, "--recover", str(tmp_path / "source")))


def test_a_guest_that_never_left_leaves_no_checkpoint(story: Story) -> None:
    dest = story.destination()
    sender = story.source(dest, *SLOW_SWITCH)
    dest.wait_for_stage("listen")
    sender.signal(signal.SIGINT)
    assert sender.wait() == 130
    assert dest.wait() == 3
    assert "The guest has not run here: it is at the source" in dest.error
    assert list(story.kept.iterdir()) == []


def test_a_running_destination_tells_how_old_its_checkpoint_is(story: Story) -> None:
    dest = story.destination()
    sender = story.source(dest)
    status = asked(story.socket, lambda status: status.checkpoint is not None and status.checkpoint.generation > 3)
    assert status.stage == "run"
    assert status.checkpoint is not None
    assert status.checkpoint.age_ns < 2_000_000_000
    assert status.checkpoint.lost == ""
    assert 0 < status.mapped_bytes <= status.received_bytes < status.memory_bytes == PAGES * 4096
    assert ask(story.out.parent / "source" / "source.sock")[0].migration == status.migration
    ends_verified(story, dest, sender)
    with pytest.raises(BrokenError, match="the node cannot be asked"):
        ask(story.socket)


# --- a disk that is full, descriptors that have run out ---


def test_a_disk_that_is_too_small_is_told_before_the_guest_leaves(story: Story, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 2 << 20) as story.kept:
        dest = story.destination()
        sender = story.source(dest)
        assert dest.wait() == 3
        assert "a memory of 4M cannot be kept there: No space left on device" in dest.error
        assert sender.wait() == 3
        assert "The guest runs on at the source" in sender.error
        assert list(story.kept.iterdir()) == []


def test_a_disk_that_fills_up_costs_the_protection_and_not_the_guest(story: Story, tmp_path: Path) -> None:
    """Then it dies, and comes back from the last whole generation; for that there has to be room again."""
    size = (4 << 20) + (24 << 10)
    with small_disk(tmp_path / "small", size) as story.kept:
        dest = story.destination()
        sender = story.source(dest)
        told = dest.wait_for_notice()
        assert "No space left on device; the migration goes on unprotected" in told
        status = asked(story.socket, lambda status: bool(status.checkpoint and status.checkpoint.lost))
        assert status.checkpoint is not None
        assert status.checkpoint.lost == "No space left on device"
        come(dest, 500)
        kill(dest)
        no_room = story.destination()
        assert no_room.wait() == 3
        assert "No space left on device" in no_room.error
        subprocess.run(["mount", "-o", "remount,size=64M", str(story.kept)], check=True)
        ends_verified(story, story.destination(), sender)


@pytest.mark.parametrize("for_good", [False, True], ids=["for a while", "for good"])
def test_without_descriptors_the_guest_runs_on_unprotected(for_good: bool, story: Story) -> None:
    dest = story.destination()
    sender = story.source(dest)
    come(dest, 150)
    soft, hard = prlimit(dest.process.pid, RLIMIT_NOFILE)
    prlimit(dest.process.pid, RLIMIT_NOFILE, (3, hard))
    assert "Too many open files; the migration goes on unprotected" in dest.wait_for_notice()
    if for_good:
        ends_verified(story, dest, sender)  # its result was begun before
        assert "Traceback" not in dest.stderr
    else:
        come(dest, 500)
        prlimit(dest.process.pid, RLIMIT_NOFILE, (soft, hard))
        ends_verified(story, dest, sender)
