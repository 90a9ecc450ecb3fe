"""The trace of a real run is judged: by the command, as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.real.processes import migemu

TINY = (
    "--set", "memory.geometry=tiny", "--set", "memory.size=1M", "--set", "link.rate=50Mbit", "--set", "link.delay=1ms",
    "--set", "guest.workload=uniform", "--set", "guest.write_share=0.5",
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [(), ("collapse.policy=at_end", "pull.preempt=off"), ("pull.resend=on", "push.piece=2M", "collapse.policy=direct")],
    ids=" ".join,
)
def test_a_real_run_breaks_no_rule(tmp_path: Path, settings: tuple[str, ...]) -> None:
    chosen = [argument for setting in settings for argument in ("--set", setting)]
    run = migemu("run", *TINY, *chosen, "--trace", "--out", "run", "--quiet", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    check = migemu("check", "run/trace.jsonl", "--json", cwd=tmp_path)
    said = json.loads(check.stdout)
    assert (check.returncode, said["violations"]) == (0, [])
    assert (said["kind"], said["geometry"], said["pages"]) == ("measured", "tiny", 256)
    assert set(said["judged"]) >= {
        "received_within_sent", "mapped_within_received", "no_hole_collapsed", "completion_is_told", "huge_at_the_end",
        "sleepers_woken", "faults_resolved",
    }  # fmt: skip
