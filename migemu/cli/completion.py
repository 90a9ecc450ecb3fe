"""`migemu completion`: the script that makes a shell complete the commands."""

from __future__ import annotations

from typing import Final

import click

from migemu.process.context import OneOf
from migemu.process.shells import SHELLS

_PROGRAMS: Final = ("migemu", "migemu-source", "migemu-dest")


@click.command()
@click.argument("shell", type=OneOf(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands, options, settings and their values at TAB.

    \b
    bash:   echo 'eval "$(migemu completion bash)"' >> ~/.bashrc
    zsh:    echo 'eval "$(migemu completion zsh)"' >> ~/.zshrc          (behind compinit)
    fish:   migemu completion fish > ~/.config/fish/completions/migemu.fish

    It is for migemu, migemu-source and migemu-dest, and for what is on your PATH under these names. Settings of --set
    and their values, choices with their settings, shipped sweeps, rules, figures and published results are completed.
    """

    from migemu.process.shells import script

    click.echo(script(shell, _PROGRAMS), nl=False)
