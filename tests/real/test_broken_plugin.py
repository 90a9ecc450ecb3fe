"""A distribution that cannot be loaded, and `migemu` as somebody types it: one line, and everything else works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributions import install
from tests.real.processes import TINY

REASON = (
    "the entry point pear = orchard:Pear (migemu.collapse) of orchard 1.0 cannot be loaded: "
    "ModuleNotFoundError: No module named 'nowhere'"
)


@pytest.mark.parametrize(
    ("arguments", "code", "more"),
    [
        (["list"], 0, []),
        (["check", "--list"], 0, None),
        (["run", "-q", "--out", "run", *TINY], 0, []),
        (["sweep", "pieces.toml", "-q", "--workers", "1"], 0, []),
        (
            ["sim", "--set", "collapse.policy=pear"], 2,
            [f"migemu: --set: collapse.policy: collapse policy 'pear' cannot be used: {REASON}"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else "",
)  # fmt: skip
def test_a_broken_plugin_is_one_line_and_an_error_only_when_it_is_asked_for(
    arguments: list[str], code: int, more: list[str] | None, tmp_path: Path
) -> None:
    """Once for all processes that a command starts; not at all where nobody looks for such a plugin (`more` None)."""
    points = "[migemu.collapse]\npear = orchard:Pear\n[migemu.workload]\nplum = orchard:Plum\n"
    site = install(tmp_path / "site", "orchard", "import nowhere", points)
    (tmp_path / "pieces.toml").write_text('[base.memory]\ngeometry = "tiny"\nsize = "64K"\n')
    done = subprocess.run(
        [sys.executable, "-m", "migemu", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "seed" not in line]
    assert (done.returncode, said) == (
        code,
        [] if more is None else [f"migemu: a plugin is left out: {REASON}; update or uninstall it", *more],
    )
