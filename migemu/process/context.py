"""What every command has: `--help`, `--version`, how wide help is. It imports next to nothing."""

from __future__ import annotations

from typing import Final

import click

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _show_version(context: click.Context, _option: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not context.resilient_parsing:
        import migemu

        click.echo(f"migemu, version {migemu.__version__}")
        context.exit()


version_option = click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
