"""The sweeps that come with the program: files in `migemu/experiment/sweeps`, known by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

#: The package is installed as files; a zipped one is not supported.
_FOLDER: Final = Path(str(files("migemu.experiment") / "sweeps"))


def shipped() -> dict[str, Path]:
    """The sweeps that come with the program: name -> file, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find(name: Path) -> Path:
    """The file that a user means: a path, or the name of a shipped sweep if there is no such file."""
    return shipped().get(str(name), name) if not name.exists() else name
