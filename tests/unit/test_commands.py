"""The command line: every command is found where its table says, and none is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from migemu.cli.main import _COMMANDS, main

SUMMARY_MAX = 60


@pytest.mark.parametrize("name", _COMMANDS)
def test_a_command_is_where_the_table_says_and_help_shows_its_line(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert len(_COMMANDS[name].summary) <= SUMMARY_MAX
    assert _COMMANDS[name].summary in CliRunner().invoke(main, ["--help"]).output
    assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_a_command_that_is_none_is_refused() -> None:
    assert CliRunner().invoke(main, ["migrate"]).exit_code == 2


#: What takes long to import, and no help has a use for.
HEAVY = (
    "rich", "attr", "numpy", "plotly", "jinja2", "uvloop", "asyncio", "msgpack", "xxhash", "multiprocessing",
    "migemu.scenario", "migemu.guest", "migemu.transport", "migemu.worlds", "migemu.sim", "migemu.trace",
)  # fmt: skip
HELP = [[], *[[name] for name in _COMMANDS], ["sweep", "run"], ["sweep", "export"], ["sweep", "history"]]


@pytest.mark.parametrize("words", [["--version"], *[[*words, "--help"] for words in HELP]], ids=" ".join)
def test_version_and_help_import_no_library_but_click(words: list[str]) -> None:
    """What they took was 0.6 s of processor time, nearly all of it for libraries that they do not use."""
    program = (
        "import sys; from click.testing import CliRunner; from migemu.cli.main import main;"
        f"code = CliRunner().invoke(main, {words}).exit_code;"
        f"print(code, sorted(set({HEAVY}) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "0 []\n"
