"""Nothing is run from the folder where the user stands: no command, no node, no worker.

The folder has files with the names of what migemu and the standard library import; each leaves a mark when it is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.real.processes import TINY

ROOT = Path(__file__).resolve().parents[2]
#: What migemu, its children and theirs import, of all kinds: third parties, the standard library, early and late.
NAMES = (
    "attr", "json", "msgpack", "uvloop", "xxhash", "click", "rich", "numpy", "asyncio", "multiprocessing", "tomllib",
    "resource", "sqlite3", "mmap", "random", "statistics", "plotly", "sitecustomize", "dest_node", "source_node",
)  # fmt: skip
TIMEOUT_S = 60
SWEEP = """
[sweep]
name = "here"
seeds = [1, 2]
[base.memory]
geometry = "tiny"
size = "1M"
[[axis]]
name = "piece"
values = [{name = "4K", set = {"push.piece" = "4K"}}]
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path)!r} + '/MARK', 'a').write('{name}\\\\n')\nraise SystemExit('{name} was run')\n"
        )
    (tmp_path / "sweep.toml").write_text(SWEEP)
    (tmp_path / "bin").mkdir()
    for name, entry in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items():
        module, _, function = entry.partition(":")
        text = f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\n"
        (tmp_path / "bin" / name).write_text(f"{text}if __name__ == '__main__':\n    sys.exit({function}())\n")
    return tmp_path


def script(name: str, here: Path) -> list[str]:
    """A console script as pip writes it."""
    return [sys.executable, str(here / "bin" / name)]


def run(command: list[str], here: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=here, env=clean | environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )  # fmt: skip
    assert not (here / "MARK").exists(), (here / "MARK").read_text()
    return done


COMMANDS = [
    ["list"], ["check", "--wrong", "wake_before_continue"], ["run", *TINY, "--out", "out"],
    ["demo", *TINY, "--set", "link.rate=1Gbit", "--out", "out", "--report"], ["sim", *TINY, "--out", "out", "--report"],
    ["sweep", "sweep.toml", "--out", "out", "--workers", "2"],
    ["sweep", "sweep.toml", "--out", "out", "--measured", "--workers", "1"], ["status", "."], ["--version"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_runs_anything_from_there(arguments: list[str], here: Path) -> None:
    done = run([*script("migemu", here), *arguments], here)
    assert done.returncode == {"check": 1, "status": 2}.get(arguments[0], 0), done.stderr


@pytest.mark.parametrize("name", ["migemu-source", "migemu-dest"])
def test_no_node_runs_anything_from_there(name: str, here: Path) -> None:
    done = run([*script(name, here), "--set", "no.such=thing"], here)
    assert done.returncode == 2, done.stderr


@pytest.mark.parametrize("module", ["migemu", "source_node", "dest_node"])
def test_nor_does_a_module_that_is_run_by_its_name(module: str, here: Path) -> None:
    """What Python itself imports before migemu begins is Python's; `python -P` keeps that out too."""
    for name in ("asyncio", "multiprocessing", "random", "dest_node", "source_node"):
        (here / f"{name}.py").unlink()
    done = run([sys.executable, "-m", module, "--version"], here)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["path", "folder"])
def test_a_checkout_that_is_not_installed_finds_itself(how: str, here: Path) -> None:
    """Where the user stands in it, too; its children and their workers as well."""
    checkout = here / "checkout"
    for package in ("migemu", "source_node", "dest_node"):
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(here / "sweep.toml", checkout)
    (checkout / "attr.py").write_text((here / "attr.py").read_text())
    folder = checkout if how == "folder" else here
    if how == "path":
        (checkout / "attr.py").unlink()
    environment = {"PYTHONPATH": str(checkout)} if how == "path" else {}
    for arguments in (COMMANDS[2], COMMANDS[5]):
        # as if nothing of migemu were installed: not through the finder of an editable install
        code = (
            "import sys; sys.meta_path[:] = [each for each in sys.meta_path if 'editable' not in str(each)]; "
            "from migemu.process.start import migemu; import migemu as it; "
            f"assert it.__file__.startswith({str(checkout)!r}), it.__file__; sys.argv[0] = 'migemu'; migemu()"
        )
        if how == "folder":
            code = f"import sys; sys.path[0] = {str(checkout)!r}; " + code
        done = run([sys.executable, "-c", code, *arguments], folder, **environment)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(folder / "out")
    assert not (here / "MARK").exists()


def test_the_pytest_plugin_runs_nothing_from_there(here: Path) -> None:
    (here / "test_it.py").write_text(
        "from migemu.policy.collapse_policy import Batched\n"
        "def test_it(migemu_scenario):\n    migemu_scenario({}, policy=Batched, seeds=1)\n"
    )
    for name in ("random", "statistics"):  # pytest puts the folder of a test first, while it runs it
        (here / f"{name}.py").unlink()
    pytest_script = Path(sys.executable).parent / "pytest"
    done = run([str(pytest_script), "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "test_it.py"], here)
    assert done.returncode == 0, done.stdout + done.stderr
