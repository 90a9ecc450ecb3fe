"""The scenarios that come with the program: files in `migemu/scenario/scenarios`, known by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from migemu.values import unknown

#: The package is installed as files; a zipped one is not supported.
_FOLDER: Final = Path(str(files("migemu.scenario") / "scenarios"))


def shipped() -> dict[str, Path]:
    """The scenarios that come with the program: name -> file, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find(name: Path) -> Path:
    """The file that a user means: a path, or the name of a shipped scenario if there is no such file."""
    file = shipped().get(str(name))
    return file if file is not None and not name.exists() else name


def missing(name: Path) -> str:
    """What to say when there is no such file: for a bare name, the shipped scenario that it nearly is, or all."""
    bare = str(name) == name.stem
    return f"no such file, and {unknown('scenario', str(name), shipped())}" if bare else ""
