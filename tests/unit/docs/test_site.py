"""`make docs`: the site is built with every link and anchor checked, and asks nothing of the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from migemu.docs.topics import topics

ROOT = Path(__file__).parents[3]


def test_the_site_is_built_without_a_warning_and_stands_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for page in topics():
        text = (tmp_path / f"{page.name}.html").read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"|<link[^>]*stylesheet[^>]* href="([^"]+)"', text)
        assert loaded
        assert not [name for pair in loaded for name in pair if "//" in name], page.name
    api = (tmp_path / "reference" / "api.html").read_text(encoding="utf-8")
    assert "Run a migration in virtual time" in api
