"""What the nodes write: never in the place of what is not complete, of an input, or at the cost of the migration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.disks import small_disk
from tests.real.processes import NodeProcess, destination, migemu, source
from tests.real.test_interruption import Run

#: A second or two, with events all the time.
BUSY = ("--set", "memory.size=2M", "--set", "guest.rate=2000", "--set", "push.rate=16Mbit", "--set", "push.run=4K")


def result_of(directory: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return result


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def ends(dest: NodeProcess, sender: NodeProcess) -> tuple[int, int]:
    codes = sender.wait(), dest.wait()
    assert "Traceback" not in sender.stderr + dest.stderr
    return codes


# --- nothing is destroyed ---


def test_a_dump_of_a_migration_that_never_came_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "dump").write_text("precious")
    with destination("--dump", str(tmp_path / "dump"), "--set", "net.listen_timeout=200ms") as dest:
        assert dest.wait() == 3
    assert (tmp_path / "dump").read_text() == "precious"
    assert names(tmp_path) == ["dump"]


@pytest.mark.parametrize("link", ["same", "hard", "symbolic"])
def test_a_dump_that_is_the_image_of_its_source_is_refused_before_the_guest_leaves(link: str, tmp_path: Path) -> None:
    image, dump = tmp_path / "image", tmp_path / ("image" if link == "same" else "dump")
    image.write_bytes(before := Random(1).randbytes(1 << 20))
    if link == "hard":
        dump.hardlink_to(image)
    elif link == "symbolic":
        dump.symlink_to(image)
    waits = ("--set", "net.listen_timeout=3s")  # for a source whose image is another file
    with destination("--dump", str(dump), *waits) as dest, source(dest.port, "--image", str(image)) as sender:
        assert sender.wait() == 3
        assert "The guest runs on at the source" in sender.error
        assert f"{dump}: " in sender.error
        assert "is being read or written at this moment, by a source perhaps" in sender.error
        assert "is being read or written at this moment, by a source perhaps" in dest.wait_for_notice()
        assert ends(dest, sender) == (3, 3)
        assert "source came within 3s (net.listen_timeout)" in dest.error
    assert image.read_bytes() == before
    assert names(tmp_path) == sorted({"image", dump.name})


@pytest.mark.parametrize(
    ("dump", "said"),
    [("scenario.toml", "is what is read"), ("out/result.json", "is being written by another run"),
     ("kept/memory", "lies in --checkpoint"), ("fifo", "cannot be written: it is a pipe")],
)  # fmt: skip
def test_a_dump_that_would_replace_something_else_is_refused_at_once(dump: str, said: str, tmp_path: Path) -> None:
    text = "[memory]\ngeometry = 'tiny'\nsize = '1M'\n"
    (tmp_path / "scenario.toml").write_text(text)
    os.mkfifo(tmp_path / "fifo")
    paths = ("--out", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "kept"))
    with destination(str(tmp_path / "scenario.toml"), *paths, "--dump", str(tmp_path / dump)) as dest:
        assert dest.wait() == 2
    assert said in dest.error
    assert "\n" not in dest.error
    assert (tmp_path / "scenario.toml").read_text() == text


def test_what_holds_the_memory_of_a_guest_is_its_users_alone(tmp_path: Path) -> None:
    image, dump = tmp_path / "image", tmp_path / "dump"
    image.write_bytes(Random(1).randbytes((1 << 20) - 5))
    image.chmod(0o600)
    dump.touch(0o644)
    before = os.umask(0o022)
    try:
        paths = ("--dump", str(dump), "--out", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "kept"))
        slow = ("--set", "push.rate=16Mbit", "--set", "push.run=4K")
        with destination(*paths) as dest, source(dest.port, *slow, "--image", str(image)) as sender:
            dest.wait_for_stage("run")
            assert {mode(path) for path in (tmp_path / "kept").iterdir()} == {0o600}
            assert mode(tmp_path / "dump.partial") == 0o600
            assert ends(dest, sender) == (0, 0)
    finally:
        os.umask(before)
    assert dump.read_bytes() == image.read_bytes()
    assert mode(dump) == 0o600
    assert mode(tmp_path / "kept") == 0o700


@pytest.mark.parametrize("others", [0o777, 0o1777])
def test_a_checkpoint_in_a_directory_that_others_can_write_is_refused(others: int, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(others)
    with destination("--checkpoint", str(tmp_path / "kept")) as dest:
        assert dest.wait() == 2
    assert "can be written by others" in dest.error
    assert f"chmod go-w {tmp_path / 'kept'}" in dest.error


# --- nothing but the migration ends a migration ---


def test_a_full_disk_under_the_traces_costs_the_traces(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 256 << 10) as out:
        with (
            destination(*BUSY, "--out", str(out / "dest"), "--trace") as dest,
            source(dest.port, *BUSY, "--out", str(out / "source"), "--trace") as sender,
        ):
            codes = ends(dest, sender)
            told = [said["notice"] for said in dest.said if "notice" in said]
        assert codes[1] == 3
        assert [line for line in told if "trace" in line] == [
            f"{out}/dest/trace.dest.jsonl cannot be written: No space left on device; the migration goes on without "
            "the trace"
        ]
        assert dest.error == (
            f"verified, but not every file could be written: {out}/dest/trace.dest.jsonl cannot be written: No space "
            "left on device"
        )
        result = result_of(out / "dest")
        assert (result["verified"], result["status"], result["error"]) == (True, "completed", dest.error)
        assert result["lost"] == [f"{out}/dest/trace.dest.jsonl cannot be written: No space left on device"]
        assert result["certificate"]["countersigned"], "the source has heard it"
        assert names(out / "dest") == ["result.json"]


def test_a_dump_that_does_not_fit_keeps_the_checkpoint_from_which_it_is_written_again(tmp_path: Path) -> None:
    settings = ("--set", "recovery.timeout=1s", "--checkpoint", str(tmp_path / "kept"), "--out", str(tmp_path / "out"))
    with small_disk(tmp_path / "small", 512 << 10) as small:
        with (
            destination(*settings, "--dump", str(small / "dump")) as dest,
            source(dest.port, "--set", "memory.zero_share=0") as sender,
        ):
            assert ends(dest, sender) == (0, 3)
            assert "1M will come, and 512K are free: it fits only if the rest is zeros" in dest.wait_for_notice()
        lost = f"{small}/dump cannot be written: No space left on device"
        assert (
            f"{lost}. The guest stays in --checkpoint {tmp_path / 'kept'}; the same command writes dump and result"
            in dest.error
        )
        result = result_of(tmp_path / "out")
        assert result["verified"]
        assert result["lost"] == [lost]
        assert names(small) == []
    assert (tmp_path / "kept" / "verified").exists()
    with destination(*settings, "--dump", str(tmp_path / "dump")) as dest:
        assert dest.wait() == 0, dest.error
    assert (tmp_path / "dump").stat().st_size == 1 << 20


def test_a_directory_that_goes_away_costs_the_result_and_nothing_else(tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"
    with (
        destination(*BUSY, "--out", str(out), "--checkpoint", str(kept)) as dest,
        source(dest.port, *BUSY, "--out", str(tmp_path / "source")) as sender,
    ):
        dest.wait_for_stage("run")
        shutil.rmtree(out)
        assert ends(dest, sender) == (0, 3)
    assert "result.json cannot be written: No such file or directory" in dest.error
    assert dest.error.startswith("verified, but not every file could be written: ")
    assert (kept / "verified").exists()


def test_results_of_several_that_are_lost_cost_none_of_the_migrations(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with destination("--migrations", "2", "--out", str(tmp_path / "file" / "out")) as dest:
        assert dest.wait() == 3
        assert "file/out/result.json cannot be written: Not a directory" in dest.error
    with destination("--migrations", "2", "--out", str(tmp_path / "out")) as dest:
        assert dest.port
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").touch()
        for _ in range(2):
            with source(dest.port) as sender:
                assert sender.wait() == 0, sender.error
        assert dest.wait() == 3
        told = [said["notice"] for said in dest.said if "result.json cannot be written" in said.get("notice", "")]
    assert dest.error.startswith("verified, but not every file could be written: ")
    assert len(told) == 2, "as it happened"


def test_a_record_that_cannot_be_written_is_told_by_the_source(tmp_path: Path) -> None:
    with destination(*BUSY) as dest, source(dest.port, *BUSY, "--out", str(tmp_path / "out"), "--trace") as sender:
        dest.wait_for_stage("run")
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").touch()
        assert ends(dest, sender) == (3, 0)
    assert sender.error.startswith("verified, but not every file could be written: ")
    assert "trace.source.jsonl cannot be written: No such file or directory" in sender.error
    assert "migration.json cannot be written: " in sender.error


# --- a dump is as large as what is in it ---


def test_a_dump_has_holes_where_the_memory_is_zeros(tmp_path: Path) -> None:
    image, dump = tmp_path / "image", tmp_path / "dump"
    with image.open("wb") as file:
        for at in (0, 5 << 20, 31 << 20):
            file.seek(at)
            file.write(Random(at).randbytes(8192))
        file.truncate(64 << 20)
    with destination("--dump", str(dump)) as dest, source(dest.port, "--image", str(image)) as sender:
        assert ends(dest, sender) == (0, 0)
        told = next(said["notice"] for said in dest.said if "--dump" in said.get("notice", ""))
    assert dump.read_bytes() == image.read_bytes()
    assert dump.stat().st_blocks * 512 <= 64 << 10
    assert told == f"--dump {dump}: 64M, which take {dump.stat().st_blocks // 2}K on the disk"


# --- one directory, one run ---

TINY_RUN = ("--quiet", "--set", "memory.geometry=tiny", "--set", "memory.size=64K", "--set", "guest.vcpus=2")


@pytest.mark.parametrize("command", ["run", "sim"])
def test_a_second_run_leaves_nothing_of_the_first_beside_its_own(command: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = migemu(command, *TINY_RUN, "--report", "--perfetto", "--out", "out", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    files = names(out)
    assert {"result.json", "scenario.toml", "trace.jsonl", "report.html", "perfetto.json"} <= set(files)
    before = (out / "result.json").read_bytes()
    second = migemu(command, *TINY_RUN, "--set", "scenario.seed=7", "--out", "out", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    (aside,) = [name for name in names(out) if name.startswith("previous-")]
    assert f"--out out: the files of an earlier run were moved to out/{aside}" in " ".join(second.stderr.split())
    assert names(out / aside) == files
    assert (out / aside / "result.json").read_bytes() == before
    assert set(names(out)) - {aside, "migration.json"} == {"result.json", "scenario.toml"}
    for directory, code in ((out / aside, 0), (out, 0)):
        assert migemu("report", str(directory), cwd=tmp_path).returncode == code
    shutil.copy(out / aside / "trace.jsonl", out)
    mixed = migemu("report", "out", cwd=tmp_path)
    assert mixed.returncode == 2
    assert "out: result.json and trace.jsonl are of different runs" in " ".join(mixed.stderr.split())
    again = migemu(command, "out/scenario.toml", "--out", "out", cwd=tmp_path)
    assert again.returncode == 2
    assert "scenario.toml there is what is read" in " ".join(again.stderr.split())


def test_a_directory_in_which_a_run_is_under_way_is_refused_to_another(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for command in ("run", "sim"):
        refused = migemu(command, *TINY_RUN, "--out", "out", cwd=tmp_path)
        assert refused.returncode == 2
        assert "another run writes result.json.partial there at this moment" in " ".join(refused.stderr.split())
    run.process.send_signal(signal.SIGINT)
    run.finish()
    assert result_of(tmp_path / "out")["status"] == "interrupted"


# --- a node is killed ---


@pytest.mark.parametrize("who", ["source", "destination"])
def test_the_result_of_a_run_whose_node_was_killed_says_what_the_screen_says(who: str, tmp_path: Path) -> None:
    run = Run(tmp_path, "--trace")
    os.kill(run.nodes()[{"source": "source_node", "destination": "dest_node"}[who]], signal.SIGKILL)
    said = run.finish()
    assert run.process.returncode == 3
    result = result_of(tmp_path / "out")
    assert (result["status"], result["verified"]) == ("failed", False)
    assert result["error"].startswith(f"the {who} process was killed by SIGKILL")
    assert f"migemu: {result['error']}" in said
    assert "migemu-source" not in said, "who runs both has nothing to start again but that"
    assert result["scenario"]["push"]["hold"] == "60s"
    reported = migemu("report", "out", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert result["error"] in (tmp_path / "out" / "report.html").read_text()


def test_a_killed_destination_leaves_a_trace_that_can_be_read(tmp_path: Path) -> None:
    with (
        destination(*BUSY, "--out", str(tmp_path), "--trace") as dest,
        source(dest.port, *BUSY) as sender,
    ):
        dest.wait_for_stage("run")
        dest.signal(signal.SIGKILL)
        dest.wait()
        sender.signal(signal.SIGKILL)
    assert (tmp_path / "trace.dest.jsonl.partial").exists()
    reported = migemu("report", str(tmp_path), cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
