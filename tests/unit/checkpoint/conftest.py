"""Thousands of small directories are made here: in memory, where there is a file system there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_SHM = Path("/dev/shm")


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """An empty directory on a tmpfs; `tmp_path` where there is none."""
    if not _SHM.is_dir():
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="migemu-", dir=_SHM))
    try:
        yield path
    finally:
        shutil.rmtree(path)
