"""The sweeps that come with the program: files in `migemu/experiment/sweeps`, known by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from migemu import named
from migemu.errors import InputError
from migemu.values import unknown

#: The package is installed as files; a zipped one is not supported.
_FOLDER: Final = Path(str(files("migemu.experiment") / "sweeps"))


def shipped() -> dict[str, Path]:
    """The sweeps that come with the program: name -> file, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find(name: Path) -> Path:
    """The file that a user means: a path, or the name of a shipped sweep if there is no such file.

    InputError: it can be no path, having no suffix, and no sweep of that name is shipped.
    """
    if str(name) == named.DASH or name.exists() or name.suffix or len(name.parts) > 1:
        return name
    known = shipped()
    if str(name) not in known:
        raise InputError(f"{unknown('sweep', str(name), known)}; a file is given as FILE.toml")
    return known[str(name)]
