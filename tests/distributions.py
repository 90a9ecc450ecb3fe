"""Distributions of third parties, as pip leaves them in a folder: a module and a dist-info with entry points."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, module: str, entry_points: str, version: str = "1.0") -> Path:
    """Put `module` (its text) into `folder` as NAME.py with its metadata; the folder belongs on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(module, encoding="utf-8")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    return folder
