"""A name that is nearly right is answered with the right one, whatever kind of name it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.process import start

#: What is typed, and the name that is meant.
NEARLY = {
    "command": ("migemu", ["chekc"], "check"),
    "subcommand": ("migemu", ["sweep", "histroy", "x"], "history"),
    "option": ("migemu", ["sim", "--perfeto"], "--perfetto"),
    "option of a node": ("migemu-dest", ["--lisen", "x"], "--listen"),
    "shell": ("migemu", ["completion", "bsh"], "bash"),
    "section": ("migemu", ["sim", "--set", "gest.vcpus=8"], "guest"),
    "setting": ("migemu", ["sim", "--set", "guest.vpcus=8"], "vcpus"),
    "setting that is listed": ("migemu", ["list", "mapcuont"], "mapcount"),
    "value": ("migemu", ["sim", "--set", "costs.mapcount=head_onyl"], "head_only"),
    "switch": ("migemu", ["sim", "--set", "pull.preempt=offf"], "off"),
    "preset": ("migemu", ["sim", "--set", "link.preset=WANN"], "WAN"),
    "policy": ("migemu", ["sim", "--set", "collapse.policy=budgte"], "budget"),
    "policy that is listed": ("migemu", ["list", "policy", "budgte"], "budget"),
    "push order": ("migemu", ["sim", "--set", "push.order=fil_pmd"], "fill_pmd"),
    "workload": ("migemu", ["sim", "--set", "guest.workload=zipff"], "zipf"),
    "setting of a choice": ("migemu", ["sim", "--set", "guest.workload=zipf:exponnet=1"], "exponent"),
    "sweep": ("migemu", ["sweep", "hgm_qestion"], "hgm_question"),
    "rule": ("migemu", ["check", "--wrong", "collapse_before_received", "--rule", "no_hole_colapsed"],
             "no_hole_collapsed"),
    "wrong on purpose": ("migemu", ["check", "--wrong", "colapse_before_received"], "collapse_before_received"),
    "metric": ("migemu", ["compare", "{run}", "{run}", "--metric", "fault.p99_n"], "fault.p99_ns"),
    "gate": ("migemu", ["compare", "{run}", "{run}", "--fail-if", "fault.p99_n > 1"], "fault.p99_ns"),
    "objective": ("migemu", ["report", "x", "--objective", "latncy"], "latency"),
    "publication": ("migemu", ["reproduce", "qemu-preemt"], "qemu-preempt"),
    "variant": ("migemu", ["reproduce", "qemu-doublemap", "--variant", "with-hgn"], "with-hgm"),
}  # fmt: skip
_PROGRAMS = {"migemu": "migemu", "migemu-source": "source_node", "migemu-dest": "dest_node"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a result."""
    directory = tmp_path_factory.mktemp("run")
    tiny = ["memory.size=64K", "memory.geometry=tiny", "guest.accesses_max=10"]
    settings = [word for each in tiny for word in ("--set", each)]
    assert _said("migemu", ["sim", "--quiet", "--out", str(directory), *settings]) == 0
    return directory


def _said(program: str, words: list[str]) -> int:
    """The exit code of a command that is run in this process."""
    name, module = start._PROGRAMS[_PROGRAMS[program]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [program, *words])
        return start._run(name, module)


@pytest.mark.parametrize("kind", NEARLY)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(
    kind: str, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program, words, meant = NEARLY[kind]
    assert _said(program, [word.replace("{run}", str(run)) for word in words]) == 2
    assert f"did you mean '{meant}'?" in " ".join(capfd.readouterr().err.split())
