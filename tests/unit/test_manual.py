"""The man pages: made of help, complete, and without a complaint of man."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from migemu.cli.main import _COMMANDS, main
from migemu.cli.manual import _PROGRAMS, _roff, page, write


def rendered(path: Path) -> str:
    """What man shows, without overstrikes; any complaint of it fails."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("no man, or no groff, on this machine")
    done = subprocess.run(
        ["man", "--warnings", "-E", "ascii", "-P", "cat", "-l", str(path)],
        capture_output=True, text=True, check=True, timeout=60, env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100"},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("program", _PROGRAMS)
def test_man_shows_the_page_without_a_complaint(program: str, tmp_path: Path) -> None:
    (path,) = (path for path in write(tmp_path) if path.stem == program)
    text = " ".join(rendered(path).split())
    for said in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO", f"{program} - "):
        assert said in text
    assert "--help" in text


@pytest.mark.parametrize("program", _PROGRAMS)
def test_the_name_can_be_found_by_apropos(program: str, tmp_path: Path) -> None:
    if shutil.which("lexgrog") is None:
        pytest.skip("no lexgrog on this machine")
    (path,) = (path for path in write(tmp_path) if path.stem == program)
    found = subprocess.run(["lexgrog", str(path)], capture_output=True, text=True, check=True, timeout=60).stdout
    assert f'"{program} - ' in found


def test_every_command_and_every_option_of_help_is_there() -> None:
    text = page("migemu")
    context = click.Context(main, info_name="migemu")
    for name in _COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        assert f".SS migemu {name}\n" in text
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(_roff(each) in text for each in option.opts)
    for words in ("sweep export", "sweep history"):
        assert f".SS migemu {words}\n" in text


def test_nothing_that_is_said_is_taken_for_a_command_of_roff() -> None:
    assert _roff(".x") == "\\&.x"
    assert _roff("'x") == "\\&'x"
    assert _roff("a-b \\n") == "a\\-b \\en"
