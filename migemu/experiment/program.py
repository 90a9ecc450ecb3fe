"""Which program made a result: its version and a digest of its code, because seed and scenario are not enough.

Determinism is seed + scenario + code. The version is what people speak of; the digest (xxh3_64 over the sources of the
three packages, in order of name) tells two states of one version apart. Code of third parties (entry points) and the
versions of libraries are not in it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import xxhash

import migemu
from migemu.errors import InputError

_GIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """A version of migemu and the digest of its sources."""

    version: str
    code: str

    def __str__(self) -> str:
        return f"{self.version}+{self.code}"

    def compare(self, other: Program) -> None:
        """InputError when `other` is another version or has other sources: figures of both cannot be compared."""
        if self != other:
            raise InputError(f"the worker runs migemu {other}, the sweep was started by {self}; install the same there")

    @classmethod
    def parse(cls, text: str) -> Program:
        """The program that `text`, made by `str`, describes."""
        version, _, code = text.rpartition("+")
        return cls(version, code)


@cache
def this_commit() -> str:
    """The git commit of the checkout that is running, 12 digits, for people; "" where it is none, or git is not there.

    What was changed since is in the digest of `this_program`, not in this.
    """
    root = Path(migemu.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--short=12", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return said if said.isalnum() else ""


@cache
def this_program() -> Program:
    """The program that is running."""
    hasher = xxhash.xxh3_64()
    for package in ("dest_node", "migemu", "source_node"):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for file in sorted(Path(folder).rglob("*.py")):
                hasher.update(f"{package}/{file.relative_to(folder).as_posix()}\n".encode() + file.read_bytes())
    return Program(migemu.__version__, hasher.hexdigest())
