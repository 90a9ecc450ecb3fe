"""Completion in the shells themselves: the script of `migemu completion` loaded, and TAB pressed."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PATIENCE_S = 30.0
_BIN = Path(sys.executable).parent


def _script(shell: str, tmp_path: Path) -> Path:
    path = tmp_path / f"migemu.{shell}"
    path.write_bytes(subprocess.run([_BIN / "migemu", "completion", shell], check=True, stdout=subprocess.PIPE).stdout)
    return path


def _environment(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{_BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb", "PS1": "$ ", "LANG": "C.UTF-8",
        **{name: os.environ[name] for name in ("FPATH", "MODULE_PATH") if name in os.environ},
    }  # fmt: skip


class _Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, command: list[str], tmp_path: Path) -> None:
        self._end, there = pty.openpty()
        self._shell = subprocess.Popen(
            command, stdin=there, stdout=there, stderr=there, env=_environment(tmp_path), start_new_session=True
        )
        os.close(there)

    def typed(self, text: str, until: str) -> str:
        """What the shell shows for `text` up to `until`; AssertionError when that does not come."""
        os.write(self._end, text.encode())
        shown, end_s = "", time.monotonic() + _PATIENCE_S
        while until not in shown:
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{until!r} is not in {shown!r}"
            if select.select([self._end], [], [], left_s)[0]:
                # Without the bell, the carriage returns and the escape sequences of the line editor.
                shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\a\r]", "", os.read(self._end, 4096).decode())
        return shown

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._end)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("migemu stat\t", "migemu status "),
        ("migemu sim --set link.rat\t", "migemu sim --set link.rate="),
        ("migemu sim --set costs.mapcount=hea\t", "migemu sim --set costs.mapcount=head_only "),
        ("migemu sim --set collapse.policy=budget:\t", "migemu sim --set collapse.policy=budget:stall="),
        ("migemu sim --set 'collapse.policy=bud\t", "migemu sim --set 'collapse.policy=budget' "),
        ("migemu sim --set=guest.vc\t", "migemu sim --set=guest.vcpus="),
        ("migemu sweep hgm_q\t", "migemu sweep hgm_question "),
        ("migemu check --rule no_hole\t", "migemu check --rule no_hole_collapsed "),
        ("migemu compare a b --metric fault.p99_\t", "migemu compare a b --metric fault.p99_ns "),
        ("migemu-dest --list\t", "migemu-dest --listen "),
    ],
)
def test_bash_completes(typed: str, completed: str, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    script = _script("bash", tmp_path)
    shell = _Terminal(["bash", "--norc", "--noprofile", "-i"], tmp_path)
    try:
        shell.typed(f". {script}; echo re''ady\n", "ready")
        shell.typed(typed, completed)
    finally:
        shell.close()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("migemu stat\t", "migemu status"),
        ("migemu sim --set link.rat\t", "migemu sim --set link.rate="),
        ("migemu sim --set costs.mapcount=hea\t", "migemu sim --set costs.mapcount=head_only"),
        ("migemu sim --set collapse.policy=budget:\t", "migemu sim --set collapse.policy=budget:stall="),
    ],
)
def test_zsh_completes(typed: str, completed: str, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh on this machine")
    script = _script("zsh", tmp_path)
    shell = _Terminal(["zsh", "-f", "-i"], tmp_path)
    try:
        shell.typed(f"autoload -U compinit; compinit -u -D; . {script}; echo re''ady\n", "ready")
        shell.typed(typed, completed)
    finally:
        shell.close()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("migemu stat", "status"),
        ("migemu sim --set link.rat", "link.rate="),
        ("migemu sim --set costs.mapcount=hea", "costs.mapcount=head_only"),
        ("migemu sim --set collapse.policy=budget:", "collapse.policy=budget:stall="),
    ],
)
def test_fish_completes(typed: str, completed: str, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish on this machine")
    script = _script("fish", tmp_path)
    shown = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C '{typed}'"],
        env=_environment(tmp_path), stdout=subprocess.PIPE, text=True, check=True, timeout=_PATIENCE_S,
    ).stdout  # fmt: skip
    assert completed in [line.partition("\t")[0] for line in shown.splitlines()]
