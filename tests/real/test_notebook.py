"""The notebook that comes with migemu, run by a real kernel, whose event loop is running while migemu plays its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "migemu" / "docs" / "examples" / "early_collapse.ipynb"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook with its outputs, run by nbclient's own command, which takes the kernel of this environment."""
    folder = tmp_path_factory.mktemp("notebook")
    copied = shutil.copy(NOTEBOOK, folder)
    command = [Path(sys.executable).with_name("jupyter-execute"), "--inplace", "--timeout=300", copied]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in folder.iterdir()] == [NOTEBOOK.name]  # and nothing is left beside it
    return nbformat.read(copied, as_version=4)


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """The data of one type of all outputs, in order."""
    data = [each.get("data", {}) for cell in notebook.cells if cell.cell_type == "code" for each in cell.outputs]
    return [str(each[kind]) for each in data if kind in each]


def test_it_comes_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")


def test_a_result_shows_what_it_cost_and_the_latency_picture(played: nbformat.NotebookNode) -> None:
    shown = outputs(played, "text/html")
    assert "Result of early (modelled, completed, verified)" in shown[0]
    assert "<svg" in shown[0]


def test_figures_are_drawn_and_tables_filled(played: nbformat.NotebookNode) -> None:
    assert len(outputs(played, "application/vnd.plotly.v1+json")) == 2
    assert any("answered by an urgent piece" in each for each in outputs(played, "text/html"))
    assert "True" in outputs(played, "text/plain")


def test_it_says_what_the_readme_says(played: nbformat.NotebookNode) -> None:
    """Early collapse loses less time than one at the end, on every seed."""
    table = next(each for each in outputs(played, "text/html") if "late - early" in each)
    text = next(each for each in outputs(played, "text/plain") if "late - early" in each)
    differences = [float(line.split()[-1]) for line in text.splitlines() if line.split()[0].isdigit()]
    assert len(differences) == 3
    assert all(each > 0 for each in differences), table
