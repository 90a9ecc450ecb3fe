"""`import migemu` as a program: what is called, what comes back, what goes wrong, and in a running loop."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import migemu
from migemu.errors import BrokenError, InputError, ScenarioError
from migemu.result import SCHEMA_VERSION
from migemu.trace.events import Event, Happening
from migemu.trace.wrong import SCENARIOS

ROOT = Path(__file__).parents[3]
SMALL = {"memory.geometry": "tiny", "memory.size": "256K", "guest.vcpus": 2, "link.rate": "1Gbit", "link.delay": "1ms"}


@pytest.fixture(scope="module")
def result() -> migemu.Result:
    return migemu.simulate(SMALL, seed=7)


@pytest.mark.parametrize("module", ["migrations", "judgement", "campaigns"])
def test_what_the_docstrings_show_is_so(module: str) -> None:
    tried = doctest.testmod(importlib.import_module(f"migemu.api.{module}"))
    assert tried.attempted
    assert not tried.failed


def test_importing_it_loads_nothing() -> None:
    asked = "import sys; before = {*sys.modules}; import migemu; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert "migemu" in done.stdout.split()
    ours = {
        name for name in done.stdout.split() if name.startswith("migemu.") or name in ("numpy", "asyncio", "plotly")
    }
    assert ours == set()


def test_the_folder_that_a_checkout_lies_in_does_not_hide_the_package(tmp_path: Path) -> None:
    """There is a folder migemu there, without __init__.py: Python would take it, if nothing else came later."""
    (tmp_path / "migemu" / "migemu").mkdir(parents=True)
    (tmp_path / "migemu" / "pyproject.toml").touch()
    asked = [sys.executable, "-c", "import migemu; print(migemu.__file__)"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == Path(migemu.__file__)


def test_every_name_is_there_and_no_other() -> None:
    for name in migemu.__all__:
        assert getattr(migemu, name).__name__ == name
        assert name in dir(migemu)
    with pytest.raises(AttributeError, match="simulat"):
        _ = migemu.simulat


# --- results


def test_every_key_of_the_result_is_an_attribute(result: migemu.Result) -> None:
    written = json.loads((result.path / "result.json").read_text())
    assert result.to_dict() == written
    for name, value in written.items():
        found = getattr(result, name)
        assert (found.to_dict() if isinstance(value, dict) else found) == value, name
    assert result.schema_version == SCHEMA_VERSION
    assert result.fault.p99_ns == result["fault"]["p99_ns"] == result.figures["fault.p99_ns"]
    assert result.pieces["4K"] == written["pieces"]["4K"]
    assert "fault" in dir(result)
    assert "p99_ns" in dir(result.fault)


def test_a_key_that_is_not_there_names_the_one_it_nearly_is(result: migemu.Result) -> None:
    with pytest.raises(AttributeError, match=r"result\.fault: unknown key 'p99_n'; did you mean 'p99_ns'"):
        _ = result.fault.p99_n


def test_a_result_cannot_be_changed_through_what_it_gives(result: migemu.Result) -> None:
    result.blocktime_ns.per_vcpu.append(1)
    assert len(result.blocktime_ns.per_vcpu) == 2


def test_faults_are_those_of_the_result_and_their_parts_sum_to_them(result: migemu.Result) -> None:
    faults = result.faults
    assert len(faults) == result.fault.count > 0
    assert faults["latency_ns"].max() == result.fault.max_ns
    parts = [name for name in faults.columns if name.endswith("_ns") and name not in ("began_ns", "latency_ns")]
    assert (sum(faults[name] for name in parts) == faults["latency_ns"]).all()
    assert np.asarray(faults).dtype.names == faults.columns
    first = faults[faults["vcpu"] == 0]
    assert 0 < len(first) < len(faults)
    assert set(first["vcpu"]) == {0}


def test_the_trace_is_the_file_event_for_event(result: migemu.Result) -> None:
    lines = [json.loads(line) for line in (result.path / "trace.jsonl").read_text().splitlines()[1:]]
    trace = result.trace
    assert trace["t"].tolist() == [line["t"] for line in lines]
    assert trace["event"].tolist() == [line["event"] for line in lines]
    assert trace["node"].tolist() == [line["node"] for line in lines]
    for name in ("first", "count", "vcpu"):
        assert trace[name].tolist() == [line.get(name, -1) for line in lines]
    for name in ("level", "detail"):
        assert trace[name].tolist() == [line.get(name, "") for line in lines]
    assert trace["write"].tolist() == [int(line.get("write", -1)) for line in lines]
    assert trace["departed"].tolist() == [line.get("wire", {}).get("departed", -1) for line in lines]
    woken = trace[trace["event"] == "woken"]
    assert len(woken) == result.fault.count


def test_a_data_frame_has_the_same_rows_names_as_categories_and_missing_numbers(result: migemu.Result) -> None:
    frame = result.trace.to_pandas()
    assert frame["event"].tolist() == result.trace["event"].tolist()
    assert (frame["event"] == "faulted").sum() == result.fault.count
    assert frame["vcpu"].isna().sum() == (result.trace["vcpu"] == -1).sum()
    by_cause = result.faults.to_pandas().groupby("cause", observed=True)["latency_ns"].count()
    assert by_cause.sum() == result.fault.count


def test_each_figure_is_a_figure_of_plotly(result: migemu.Result) -> None:
    from plotly.graph_objects import Figure

    names = [name for name in dir(result.plot) if not name.startswith("_")]
    assert {"latency", "histogram", "faults", "attribution", "blocktime", "mapping"} <= set(names)
    for name in names:
        figure = getattr(result.plot, name)()
        assert isinstance(figure, Figure), name
        assert figure.data, name


def test_two_results_in_one_figure_are_told_apart(result: migemu.Result) -> None:
    other = migemu.simulate(SMALL, {"push.piece": "2M", "scenario.name": "large"}, seed=7)
    assert [each.name for each in result.plot.latency(other).data] == ["run", "large"]
    assert [each.name for each in result.plot.latency(result).data] == ["run 1", "run 2"]
    assert len({each.line.color for each in result.plot.latency(other).data}) == 2


def test_in_a_notebook_a_result_shows_its_cost_and_the_latency_picture(result: migemu.Result) -> None:
    html = result._repr_html_()
    assert "longest silence" in html
    assert html.count("<rect") >= len(result.fault["log2_us"])
    assert str(result.fault.count) in html
    assert "<script" not in html


def test_without_a_trace_figures_stay_and_the_rest_says_what_it_needs() -> None:
    bare = migemu.simulate(SMALL, seed=7, trace=False)
    assert bare.fault.count > 0
    assert bare.plot.histogram().data
    for ask in (lambda: bare.faults, lambda: bare.trace, bare.plot.mapping, lambda: migemu.check(bare)):
        with pytest.raises(InputError, match="trace=True"):
            ask()


def test_a_directory_is_kept_and_read_again(tmp_path: Path, result: migemu.Result) -> None:
    made = migemu.simulate(SMALL, seed=7, out=tmp_path / "a")
    again = migemu.Result.read(tmp_path / "a")
    assert made.trace_digest == again.trace_digest == result.trace_digest
    assert len(again.faults) == len(result.faults)
    with pytest.raises(InputError, match="does not exist"):
        migemu.Result.read(tmp_path / "b")


def test_a_temporary_directory_goes_with_its_result() -> None:
    made = migemu.simulate(SMALL)
    path = made.path
    assert path.is_dir()
    del made
    assert not path.exists()


# --- settings


def test_settings_stand_above_those_before_them_whatever_their_form(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[memory]\ngeometry = "tiny"\nsize = "64K"\n[guest]\nvcpus = 3\n[scenario]\nseed = 5\n')
    made = migemu.simulate(file, {"guest": {"vcpus": 1}}, {"link.preset": "25G"}, seed=9, trace=False)
    assert (made.scenario.guest.vcpus, made.scenario.scenario.seed) == (1, 9)
    assert made.scenario.link.rate == migemu.simulate(SMALL, {"link": {"rate": "25Gbit"}}).scenario.link.rate
    assert migemu.simulate(str(file), trace=False).scenario.scenario.seed == 5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"guest.vcpu": 8}, r"settings: guest\.vcpu: unknown setting .*did you mean 'vcpus'"),
        ({"guest.vcpus": -1}, r"settings: guest\.vcpus: -1 is not accepted here"),
        ({"guest.vcpus": None}, r"settings: guest\.vcpus: None is not accepted here"),
        ({"vcpus": 8}, r'settings: vcpus: write \{"section\.key": value\}'),
        ({3: 8}, r'settings: 3: write \{"section\.key": value\}'),
        ("no/such/file.toml", r"no/such/file\.toml: .*"),
        (7, "settings: 7 is not accepted here: give a mapping of settings"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_an_error_of_migemu(settings: Any, says: str) -> None:
    for call in (migemu.simulate, migemu.run):
        with pytest.raises(ScenarioError, match=says):
            call(settings)


# --- where an event loop is running, and where it is interrupted


async def test_inside_a_running_loop_the_result_is_the_same(result: migemu.Result) -> None:
    there = migemu.simulate(SMALL, seed=7)
    assert there.trace_digest == result.trace_digest
    await asyncio.sleep(0)  # and the loop runs on


async def test_inside_a_running_loop_two_processes_run_and_errors_come_back() -> None:
    measured = migemu.run({**SMALL, "link.rate": "0", "link.delay": "0"})
    assert (measured.kind, measured.verified) == ("measured", True)
    assert migemu.check(measured).holds
    with pytest.raises(BrokenError):
        migemu.simulate({**SMALL, "link.outages": "1ms-1000s", "recovery.timeout": "1s"})


def test_in_another_thread_two_processes_run() -> None:
    found: list[migemu.Result] = []
    thread = threading.Thread(target=lambda: found.append(migemu.run({**SMALL, "link.rate": "0", "link.delay": "0"})))
    thread.start()
    thread.join(60)
    assert found[0].verified


#: Says that it has begun when the guest runs, and then goes on for longer than anybody waits.
INTERRUPTED = """
import asyncio, os, threading
import migemu
from migemu.sim.world import World

def began():
    print("began", flush=True)

{spy}

def call():
    migemu.{what}({settings!r})

async def inside():
    call()

try:
    asyncio.run(inside()) if {in_loop} else call()
except KeyboardInterrupt:
    print("interrupted", os.listdir(os.environ["TMPDIR"]), threading.active_count(), flush=True)
"""
SPIES = {
    "simulate": "played = World.run\nWorld.run = lambda self: (began(), played(self))[1]",
    "run": "from migemu.worlds.pair import Pair\nshown = Pair._read\n"
    "def _read(self, node):\n    began()\n    return shown(self, node)\nPair._read = _read",
}


@pytest.mark.parametrize("in_loop", [False, True], ids=["plain", "in a loop"])
@pytest.mark.parametrize("what", ["simulate", "run"])
def test_ctrl_c_ends_it_and_leaves_nothing_behind(what: str, in_loop: bool, tmp_path: Path) -> None:
    settings = {"memory.size": "16G" if what == "simulate" else "1G", "guest.rate": 100_000}
    settings |= {"link.rate": "100Mbit", "link.delay": "1ms"} if what == "run" else {"guest.vcpus": 64}
    text = INTERRUPTED.format(spy=SPIES[what], what=what, settings=settings, in_loop=in_loop)
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "began\n"
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert out.splitlines()[-1] == "interrupted [] 1"
    assert process.returncode == 0


# --- check, explore, sweep


def test_a_trace_is_judged_wherever_it_is(result: migemu.Result, tmp_path: Path) -> None:
    for trace in (result, result.path, result.path / "trace.jsonl", str(result.path)):
        verdict = migemu.check(trace)
        assert verdict
        assert verdict.events == len(result.trace)
    one = migemu.check(result, rules=["mapped_within_received"])
    assert "mapped_within_received" in one.judged
    assert len(one.judged) < len(verdict.judged)
    with pytest.raises(InputError, match="rule"):
        migemu.check(result, rules=["no_such_rule"])
    with pytest.raises(InputError, match="read"):
        migemu.check(tmp_path / "none.jsonl")


def test_events_are_judged_and_a_broken_rule_is_false() -> None:
    wrong = SCENARIOS["wake_before_continue"]
    memory = Event(0, "destination", Happening.MEMORY, count=16, detail="tiny")
    events = wrong.events()
    verdict = migemu.check(events if any(e.event is Happening.MEMORY for e in events) else [memory, *events])
    assert not verdict
    assert wrong.rule in verdict.broken
    with pytest.raises(InputError, match="memory"):
        migemu.check([])


def test_a_policy_is_explored() -> None:
    explored = migemu.explore("eager", touched=(0,), vcpus=1)
    assert explored.states > 10


def test_the_memory_model_is_there() -> None:
    from migemu.mm.pages import X86_64

    assert migemu.AddressSpace(X86_64) is not None


def test_a_sweep_over_axes_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    axes = {"link.preset": ["10G", "25G"], "push.piece": ["4K", "2M"]}
    only = migemu.SweepOptions(only="push.piece=4K")
    some = migemu.sweep(axes, {k: v for k, v in SMALL.items() if "link" not in k}, out=tmp_path, options=only)
    assert len(some) == 2
    assert some.rows[0]["time_ns.total"] > some.rows[1]["time_ns.total"]  # a preset is no more than its settings
    more = migemu.SweepOptions(resume=True)
    every = migemu.sweep(axes, {k: v for k, v in SMALL.items() if "link" not in k}, out=tmp_path, options=more)
    assert len(every) == 4
    assert every.rows[: len(some)][0]["wall_ns"] == some.rows[0]["wall_ns"]
    assert every.path is not None
    assert every.path.exists()
    assert every.to_pandas()["axis.push.piece"].nunique() == 2
    with pytest.raises(InputError, match="results already"):
        migemu.sweep(axes, SMALL, out=tmp_path)


def test_a_sweep_goes_to_processes_and_tells_what_failed(tmp_path: Path) -> None:
    axes = {"link.outages": ["", "1ms-1000s"], "guest.vcpus": [1, 5000]}
    base = {**SMALL, "recovery.timeout": "1s"}
    del base["guest.vcpus"]
    found = migemu.sweep(axes, base, options=migemu.SweepOptions(workers=1))
    assert [status["status"] for status in found.rows] == ["done", "failed"]
    assert [cell for cell, _, _ in found.failed] == ["link.outages=1ms-1000s, guest.vcpus=1"]
    assert {name.split("guest.vcpus=")[1] for name in found.impossible} == {"5000"}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"push.piec": ["4K"]}, "did you mean 'push.piece'"),
        ({"push.piece": "4K"}, r"push\.piece: '4K' is not accepted here: give a list"),
        ({"push.piece": ["9K"]}, "none of its 1 cells is possible"),
        ("no_such_sweep", "no_such_sweep"),
    ],
    ids=str,
)
def test_a_wrong_sweep_is_an_error_of_migemu(plan: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        migemu.sweep(plan)


def test_a_shipped_scenario_is_known_by_its_name_and_may_be_what_a_sweep_has_in_common() -> None:
    guest = {"guest.vcpus": 1, "memory.geometry": "tiny", "memory.size": "64K"}
    assert migemu.simulate("early_collapse", guest).name == "early_collapse"
    found = migemu.sweep({"collapse.policy": ["at_end"]}, "recommended", guest)
    assert [row["cell"] for row in found.rows] == ["collapse.policy=at_end"]
    with pytest.raises(ScenarioError, match="did you mean 'early_collapse'"):
        migemu.simulate("early_colapse")


async def test_a_sweep_runs_inside_a_running_loop() -> None:
    assert len(migemu.sweep({"push.piece": ["4K", "2M"]}, SMALL)) == 2
