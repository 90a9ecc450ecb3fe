"""One run of a world and what becomes of it: interrupted, wrong, failed, without a disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migemu.errors import BrokenError, InputError, MigemuError, VerificationError
from migemu.policy.collapse_policy import collapse_policies
from migemu.sim.waiting import CrashError
from migemu.sim.world import START_NS
from migemu.store.output import Output
from migemu.trace.findings import judge_file
from migemu.units import MS
from migemu.worlds.modelled import Services, Simulation, run_cell
from tests.plugin import wrong
from tests.unit.sim.played import BARE, LIVELY, scenario


def interrupted_at(when_ns: int, directory: Path | None = None, times: int = 1) -> Simulation:
    """A simulation that is interrupted, `times` times, before the clock goes beyond `when_ns`."""

    def pace(_from_ns: int, to_ns: int) -> None:
        if to_ns > START_NS + when_ns:
            for _ in range(times):
                simulation.interrupt()

    simulation = Simulation(scenario(LIVELY), directory, trace=True, pace=pace)
    return simulation


# --- Ctrl-C ---


def test_what_was_measured_before_an_interrupt_is_kept_and_its_trace_can_be_judged(tmp_path: Path) -> None:
    simulation = interrupted_at(10 * MS, tmp_path)
    result = simulation.run()
    assert isinstance(simulation.error, KeyboardInterrupt)
    assert (result["status"], result["error"], result["verified"]) == ("interrupted", "interrupted", False)
    assert 0 < result["pieces"]["4K"] < 100
    assert result["fault"]["count"] > 0
    assert json.loads((tmp_path / "result.json").read_text()) == result
    verdict = judge_file(tmp_path / "trace.jsonl")
    assert verdict.events > 100
    assert not verdict.violations


def test_an_interrupt_between_two_moves_of_the_clock_is_heard_at_the_next_one() -> None:
    """Then nothing is half done."""
    at_ns: list[int] = []

    def pace(_from_ns: int, to_ns: int) -> None:
        at_ns.append(to_ns)

    simulation = Simulation(scenario(LIVELY), pace=pace)
    simulation.interrupt()
    simulation.run()
    assert isinstance(simulation.error, KeyboardInterrupt)
    assert not at_ns, "it did not even begin to move, and what was left to do was not paced"


def test_a_second_interrupt_does_not_wait() -> None:
    simulation = Simulation(scenario(LIVELY))
    simulation.interrupt()
    with pytest.raises(KeyboardInterrupt):
        simulation.interrupt()


def test_an_interrupt_before_anybody_came_leaves_no_result() -> None:
    simulation = Simulation(scenario(LIVELY))
    simulation.interrupt()
    assert simulation.run() == {}


# --- rules ---


@pytest.mark.parametrize(
    ("policy", "rule"), [("leaping", "smaller_before_larger"), ("promising", "huge_at_the_end")], ids=["first", "last"]
)
def test_a_run_that_breaks_a_rule_fails_and_says_which(policy: str, rule: str, tmp_path: Path) -> None:
    kinds = {"leaping": wrong.Leaping, "promising": wrong.Promising}
    with collapse_policies.lent(policy, kinds[policy]):
        simulation = Simulation(scenario(LIVELY, collapse__policy=policy), tmp_path)
        result = simulation.run()
    assert isinstance(simulation.error, MigemuError)
    assert simulation.error.exit_code == 1
    assert f"the rule {rule} of `migemu check` is broken by " in str(simulation.error)
    assert "a policy or workload of yours" in str(simulation.error)
    assert (result["status"], result["error"]) == ("failed", str(simulation.error))
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "failed"


RESENT = LIVELY | {"pull.resend": "on", "guest.write_share": 1, "memory.zero_share": 0, "guest.rate": 1_000_000}


def test_a_guest_write_that_is_lost_is_found_when_the_memory_is_compared() -> None:
    """A late copy lands over it, and the trace does not tell: the receiver takes it for dropped."""
    simulation = Simulation(scenario(RESENT), nodes=Services(wrong.StoresAll))
    result = simulation.run()
    assert isinstance(simulation.error, VerificationError)
    assert "a guest write was lost" in str(simulation.error)
    assert (result["status"], result["verified"]) == ("failed", False)


def test_where_memory_differs_in_the_end_the_rule_that_was_broken_before_is_told() -> None:
    """Holes are collapsed, the guest writes there, the bytes come after it: of the two errors the first says why."""
    with collapse_policies.lent("hasty", wrong.Hasty):
        settings = scenario(
            RESENT, collapse__policy="hasty", push__order="random", guest__rate=100_000, link__rate="20Mbit"
        )
        simulation = Simulation(settings, nodes=Services(wrong.CollapsesUnasked))
        simulation.run()
    assert "the rule no_hole_collapsed of `migemu check` is broken" in str(simulation.error)
    assert simulation.error is not None
    assert isinstance(simulation.error.__cause__, VerificationError)


def test_a_right_receiver_and_a_right_policy_break_none() -> None:
    assert Simulation(scenario(RESENT)).run()["status"] == "completed"


# --- failures ---


def test_a_run_that_fails_half_way_has_a_result() -> None:
    simulation = Simulation(scenario(LIVELY, {"link.outages": "10ms-60s", "recovery.timeout": 0}))
    result = simulation.run()
    assert isinstance(simulation.error, BrokenError)
    assert result["status"] == "failed"
    assert result["error"] == str(simulation.error)
    assert result["pieces"]["4K"] > 0


def test_an_error_of_a_policy_is_kept_with_its_traceback() -> None:
    with collapse_policies.lent("failing", wrong.Failing):
        simulation = Simulation(scenario(LIVELY, collapse__policy="failing"))
        result = simulation.run()
    assert isinstance(simulation.error, CrashError)
    assert isinstance(simulation.error.__cause__, ZeroDivisionError)
    assert result["status"] == "failed"


def test_a_cell_of_a_sweep_raises_what_went_wrong_and_answers_with_the_result() -> None:
    assert run_cell(scenario(BARE), None)["kind"] == "modelled"
    with pytest.raises(InputError, match="guest\\.rate"):
        run_cell(scenario(LIVELY, guest__rate=0), None)


# --- files ---


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    simulation = Simulation(scenario(BARE), tmp_path / "file" / "below")
    assert simulation.run() == {}
    assert "file/below/scenario.toml cannot be written: Not a directory" in str(simulation.error)


def test_a_trace_that_cannot_be_written_is_told_before_anything_is_played(tmp_path: Path) -> None:
    with Output(tmp_path / "trace.jsonl"):
        simulation = Simulation(scenario(BARE), tmp_path, trace=True)
        assert simulation.run() == {}
    assert "another run writes trace.jsonl.partial there at this moment" in str(simulation.error)


# --- alive ---


def test_a_destination_that_collapses_for_longer_than_the_idle_timeout_is_not_taken_for_dead() -> None:
    """512 hugetlb pages at the end take 20 ms of its only thread; it says Alive between two calls."""
    settings = {"collapse.policy": "at_end", "memory.size": "32M", "push.piece": "2M", "net.idle_timeout": "10ms"}
    result = run_cell(scenario(BARE, settings), None)
    assert result["verified"]
    assert result["collapse"]["to_1G"] == 512
    assert 5 < result["collapse"]["calls"] < 50
