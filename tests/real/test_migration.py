"""Whole migrations between two real processes, as a user runs them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.real.processes import TINY, destination, migemu, source

CHOICES = [
    ("push.order=sequential", "collapse.policy=eager"),
    ("push.order=fault_follow", "collapse.policy=direct"),
    ("push.order=bubbling", "collapse.policy=batched:spans=3"),
    ("push.order=random", "collapse.policy=at_end"),
    ("push.order=fill_pmd", "collapse.policy=never"),
    ("push.piece=2M", "collapse.policy=eager"),
    ("push.piece=2M", "pull.piece=2M", "pull.preempt=off"),
    ("pull.preempt=off", "guest.workload=pointer_chase"),
    ("pull.resend=on", "push.run=4K", "guest.workload=uniform"),
    ("memory.hgm=off", "guest.workload=uniform", "pull.piece=2M"),
    ("memory.backing=memfd", "guest.workload=sequential"),
    ("memory.zero_share=1", "guest.vcpus=2"),
    ("memory.zero_share=0", "guest.rate=0", "guest.accesses_max=5000", "guest.write_share=1"),
    ("guest.vcpus=0", "device.state=0"),
    ("guest.vcpus=70", "guest.rate=1000"),
    ("link.rate=1Gbit", "link.delay=2ms", "return_link.delay=2ms", "link.jitter=1ms"),
]


@pytest.mark.parametrize("settings", CHOICES, ids=" ".join)
def test_every_choice_ends_verified(settings: tuple[str, ...], tmp_path: Path) -> None:
    sets = [part for setting in settings for part in ("--set", setting)]
    done = migemu("run", *TINY, "--set", "memory.size=4M", *sets, "--out", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verified"]
    assert result["kind"] == "measured"
    assert result["status"] == "completed"
    pieces = result["pieces"]
    assert pieces["4K"] + 4 * pieces["2M"] + pieces["zero"] == 1024  # TINY: four base pages in a "2M"
    never = "collapse.policy=never" in settings
    assert (result["page_table"]["pud"] == 64) is not never
    assert result["collapse"]["refused"] == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result


def test_an_image_arrives_byte_for_byte_although_the_guest_writes(tmp_path: Path) -> None:
    """`--dump` is the image as it arrived, padding and guest writes left out; both sides name the same digest."""
    image = tmp_path / "image"
    image.write_bytes(random.Random(7).randbytes(300_001) + bytes(200_000) + b"tail")
    dump, out = tmp_path / "dump", tmp_path / "out"
    guest = ("--set", "guest.write_share=1", "--set", "guest.workload=uniform", "--set", "push.hold=50ms")
    with destination("--dump", str(dump), "--out", str(out), *guest) as dest:
        with source(dest.port, "--image", str(image), *guest) as sender:
            assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error
    assert dump.read_bytes() == image.read_bytes()
    result = json.loads((out / "result.json").read_text())
    assert result["guest"]["writes"] > 0
    assert result["scenario"]["memory"]["image"] == str(image)  # told by the source
    assert result["scenario"]["push"]["hold"] == "50ms"


def test_a_replayed_trace_faults_on_its_own_pages(tmp_path: Path) -> None:
    """Lone faults of one vCPU, taken before the background stream begins: one request and one fault each."""
    replay = tmp_path / "accesses"
    replay.write_text("# vcpu page r|w\n" + "".join(f"0 {page} {'rw'[page // 8 % 2]}\n" for page in range(0, 256, 8)))
    done = migemu(
        "run", *TINY, "--set", f"guest.workload=replay:path={replay}", "--set", "guest.vcpus=1", "--set",
        "guest.rate=0",
        "--set", "push.hold=300ms", "--set", "memory.zero_share=0", "--json", "--trace", "--out", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["fault"]["count"] == result["fault"]["requests"] == 32
    assert result["guest"] == result["guest"] | {"accesses": 32, "writes": 16}
    lines = [json.loads(line) for line in (tmp_path / "out" / "trace.jsonl").read_text().splitlines()]
    assert lines[0] == {"schema": "migemu-trace", "version": 2, "kind": "measured"}
    assert [line["t"] for line in lines[1:]] == sorted(line["t"] for line in lines[1:])
    faulted = [line["first"] for line in lines if line.get("event") == "faulted"]
    assert faulted == list(range(0, 256, 8))
    assert {line["node"] for line in lines[1:]} == {"source", "destination"}
    assert sum(line["count"] for line in lines if line.get("event") == "sent") == 256


def test_run_shows_progress_a_table_and_a_histogram_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = migemu("run", *TINY, "--set", "push.hold=100ms", "--set", "guest.workload=uniform", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "received 100 % (1M of 1M)" in done.stderr
    assert "verified" in done.stdout
    assert "@usecs (fault latency):" in done.stdout
    directory = next((tmp_path / "runs").iterdir())
    assert (directory / "result.json").exists()
    assert f"result: runs/{directory.name}/result.json" in done.stdout


def test_the_scenario_that_was_run_can_be_run_again(tmp_path: Path) -> None:
    first = migemu("run", *TINY, "--set", "collapse.policy=direct", "--out", "first", "--quiet", cwd=tmp_path)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    again = migemu("run", "first/scenario.toml", "--out", "again", "--quiet", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("first", "again")]
    assert results[0]["scenario"] == results[1]["scenario"]
    assert results[0]["digest"] == results[1]["digest"]
