"""The example package of a policy: built, installed in a virtual environment of its own, found by name, tested, gated.

On each Python that migemu is for, where this machine has one with what migemu needs and pytest. Nothing is downloaded:
both packages are built here, and the environment looks up what they need where the tests found it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pythons import NEEDED, other_pythons

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "migemu" / "docs" / "examples" / "hot_first"
_MINORS = (11, 12, 13, 14)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of migemu and of the example, from copies: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheels")
    for name, source in (("migemu", ROOT), ("example", EXAMPLE)):
        left_out = shutil.ignore_patterns(".*", "runs", "tests", "build", "*.egg-info", "__pycache__")
        copied = shutil.copytree(source, folder / name, ignore=left_out)
        options = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder)
        subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", *options, copied], check=True)
    return sorted(folder.glob("*.whl"))


def environment(python: str, folder: Path, wheels: list[Path]) -> Path:
    """The programs of a virtual environment of `python` with these wheels; what they need is found where it is."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    asked = "import sys, sysconfig; print(sysconfig.get_path('purelib'))"
    there, here = (
        subprocess.run([each, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
        for each in (python, folder / "bin" / "python")
    )
    (Path(here) / "of_the_tests.pth").write_text(f"{there}\n")
    install = ("--python", folder / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index")
    ignore = ("--ignore-installed", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", *install, *ignore, *wheels], check=True)
    return folder / "bin"


@pytest.mark.parametrize("minor", _MINORS)
def test_it_is_installed_found_by_name_tested_and_gated(minor: int, wheels: list[Path], tmp_path: Path) -> None:
    here = {sys.version_info[:2]: sys.executable}
    python = (here | other_pythons(f"{NEEDED}, pytest")).get((3, minor))
    if python is None:
        pytest.skip(f"no Python 3.{minor} here has pytest and what migemu needs; name one in MIGEMU_PYTHONS")
    programs = environment(python, tmp_path / "venv", wheels)

    def done(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / command[0], *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    where = done("python", "-c", "import migemu, hot_first; print(migemu.__file__, hot_first.__file__)")
    assert all(str(tmp_path) in each for each in where.stdout.split()), where
    for name in ("test_hot_first.py", "gate.toml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    assert "hot_first" in done("migemu", "list").stdout
    tried = done("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_hot_first.py")
    assert tried.returncode == 0, tried.stdout
    assert "3 passed" in tried.stdout
    assert "1 explored" in tried.stdout  # by the plugin, which nobody had to name
    swept = done("migemu", "sweep", "gate.toml", "--out", "gate", "--quiet")
    assert swept.returncode == 0, swept.stderr
    gate = ("--fail-if", "lost_ns.mean > +1000%")
    assert done("migemu", "compare", "gate:policy=at_end", "gate:policy=hot_first", *gate).returncode == 0
    gate = ("--fail-if", "fault.count > -100%")
    assert done("migemu", "compare", "gate:policy=at_end", "gate:policy=hot_first", *gate).returncode == 1
