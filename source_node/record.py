"""DIR/migration.json: what a source has to know about its migration to go on with it after it was killed.

Rules
    1. `switched` is durable before the guest stops here: a source that finds it without knows that the guest never
       left. With it, the destination knows: it asks for the switch again if it has not heard of it.
       `ran` is what it has heard: the guest has run there. Without it the switch is in doubt, and an operator who has
       read at the destination that the guest has not run there, and cannot any more, may take it back (`take_back`).
    2. Replaced as a whole (write, fsync, rename, fsync of the directory): it is never half.
    3. A directory has one source at a time: it is locked (flock) for as long as the process lives.
    4. The image must be the same: size, time of change, and a digest over samples of it. It is not proof against
       someone who means it; the final comparison of all bytes is.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, get_type_hints

import xxhash

from migemu import named
from migemu.address import Address, TcpAddress, parse_address
from migemu.checkpoint.disk import Disk
from migemu.errors import BrokenError, InputError, MigemuError
from migemu.scenario.scenario import Scenario, from_mapping
from migemu.store.output import PRIVATE, write_text
from migemu.units import KIB

NAME: Final = "migration.json"
_VERSION: Final = 2
#: Told the address as `host` and `port`.
_VERSION_OLD: Final = 1
_SAMPLES: Final = 64
_SAMPLE_BYTES: Final = 4 * KIB


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration as its source knows it. `image` is empty where the memory is a seeded pattern.

    `address` is where its destination listens, as it was last told.
    """

    migration: str
    address: str
    image: dict[str, Any]
    scenario: dict[str, Any]
    switched: bool = False
    downtime_ns: int = 0
    completed: bool = False
    ran: bool = False
    all_sent: bool = False
    taken_back: bool = False

    @classmethod
    def of(cls, migration: str, address: Address, scenario: Scenario) -> Migration:
        """One that begins. InputError when the image cannot be read."""
        return cls(migration, str(address), _identity(scenario.memory.image), scenario.resolved())

    def resumable(self) -> Scenario:
        """Its scenario. InputError tells why it cannot go on: the guest never left, it is over, the image changed."""
        if self.completed:
            raise InputError("that migration was completed; there is nothing to recover")
        if self.taken_back:
            raise InputError("the guest was taken back: it runs here; start a new migration without --recover")
        if not self.switched:
            raise InputError(
                "the guest had not left when that source ended: it runs here; start a new migration without --recover"
            )
        scenario = from_mapping(self._from_anywhere(), NAME)
        if _identity(scenario.memory.image) != self.image:
            raise InputError(
                f"{scenario.memory.image}: is not the image that the migration began with; the guest at the "
                "destination needs that one"
            )
        return scenario

    def check_take_back(self) -> None:
        """InputError: the guest is known to have run at the destination. One that never left may be taken back too."""
        if self.completed or self.ran or self.downtime_ns:
            raise InputError(
                "the guest cannot be taken back: it has run at the destination, and what it did there is only there"
            )

    def _from_anywhere(self) -> dict[str, Any]:
        """The settings, with a path to the image that holds in any directory."""
        if not self.image:
            return self.scenario
        return self.scenario | {"memory": self.scenario["memory"] | {"image": self.image["path"]}}


class Record:
    """The file in `directory`, kept as the migration goes on."""

    def __init__(self, directory: Path, migration: Migration) -> None:
        self._directory = directory
        self._migration = migration
        self._lock: int | None = None
        #: Why the file is behind; None if the last change is in it.
        self.problem: str | None = None

    def claim(self) -> None:
        """Take the directory for as long as this process lives: two sources of one migration would take turns at it.

        InputError when another one has it, BrokenError when it cannot be used.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = Disk().lock(self._directory)
        except OSError as error:
            raise BrokenError(f"{self._directory / NAME} cannot be written: {error.strerror}") from None
        if self._lock is None:
            raise InputError(
                f"--out {self._directory}: a source that runs has it (migemu status {self._directory}), and tries "
                f"{self._migration.address} again by itself; if the destination is elsewhere now: "
                f"migemu recover {self._directory} --connect ADDRESS"
            )

    def save(self, **changes: Any) -> None:
        """Make `changes` durable. InputError and BrokenError when that cannot be done."""
        self._migration = replace(self._migration, **changes)
        text = json.dumps({"version": _VERSION, **asdict(self._migration)}, indent=2) + "\n"
        try:
            write_text(self._directory / NAME, text, mode=PRIVATE)
        except MigemuError as error:
            self.problem = str(error)
            raise
        self.problem = None


def load(directory: Path) -> Migration:
    """What DIR/migration.json says. InputError when there is none, or it is none."""
    path = directory / NAME
    try:
        values = json.loads(named.read_text(path, named.SETTINGS_BYTES_MAX))
        version = values.pop("version")
        if version == _VERSION_OLD:
            values["address"] = str(TcpAddress(values.pop("host"), values.pop("port")))
        elif version != _VERSION:
            raise InputError(f"{path}: is of another version of migemu")
        return _judged(Migration(**values))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give the DIR of the source's --out") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{path}: is not the record of a migration") from None


def _judged(migration: Migration) -> Migration:
    """The same, if each of its fields is what it should be. ValueError."""
    for name, kind in _KINDS.items():
        if type(getattr(migration, name)) is not kind:
            raise ValueError(name)
    image, scenario = migration.image, migration.scenario
    if not _NAME.fullmatch(migration.migration) or not 0 <= migration.downtime_ns < 1 << 63:
        raise ValueError("no such migration")
    if image and {name: type(value) for name, value in image.items()} != _IMAGE_KINDS:
        raise ValueError("image")
    if not scenario or not all(isinstance(section, dict) for section in scenario.values()):
        raise ValueError("scenario")
    if image and ("memory" not in scenario or "\0" in image["path"]):
        raise ValueError("no path")
    try:
        parse_address(migration.address)
    except InputError as error:
        raise ValueError(str(error)) from None
    return migration


#: Field -> its type: what JSON reads, no more and no less.
_KINDS: Final[dict[str, type]] = {
    name: dict if kind not in (str, bool, int) else kind for name, kind in get_type_hints(Migration).items()
}
_IMAGE_KINDS: Final[dict[str, type]] = {"path": str, "bytes": int, "mtime_ns": int, "sample": str}
_NAME: Final = re.compile("[0-9a-f]{32}")


def _identity(image: str) -> dict[str, Any]:
    """Size, time of change and a digest of samples of a file; nothing of none."""
    if not image:
        return {}
    try:
        path = named.expanded(image).absolute()
        with named.opened(path, devices=True) as file:
            size = file.seek(0, os.SEEK_END)
            hashed = xxhash.xxh3_64()
            for sample in range(_SAMPLES + 1):
                file.seek(max(0, size - _SAMPLE_BYTES) * sample // _SAMPLES)
                hashed.update(file.read(_SAMPLE_BYTES))
            changed_ns = os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        raise InputError(f"{image}: cannot be read: {error.strerror}") from None
    return {
        "path": str(path),
        "bytes": size,
        "mtime_ns": changed_ns,
        "sample": hashed.hexdigest(),
    }
