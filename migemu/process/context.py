"""What every command has: `--help`, `--version`, how wide help is. It imports next to nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class OneOf(click.Choice):  # type: ignore[type-arg]
    """One of a few words; a wrong one is refused with the one that is nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """The line of the refusal."""
        from migemu.values import refusal

        return refusal(value, f"one of {', '.join(self.choices)}", self.choices)


class Commands(click.Group):
    """A group whose unknown commands are refused with the one that is nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:  # fmt: skip
        """The command that `args` begin with, and the arguments behind it; UsageError names the nearest one."""
        if not ctx.resilient_parsing and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(_unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


def spelled(error: click.ClickException) -> click.ClickException:
    """The error, which of an unknown option names the one that is nearest."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    options = [
        name
        for option in error.ctx.command.get_params(error.ctx)
        if isinstance(option, click.Option) and not option.hidden
        for name in (*option.opts, *option.secondary_opts)
    ]
    return click.UsageError(_unknown("option", error.option_name, options), error.ctx)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    from migemu.values import unknown  # most starts of the program have no use for it

    return unknown(what, name, known)


def _show_version(context: click.Context, _option: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not context.resilient_parsing:
        import migemu

        click.echo(f"migemu, version {migemu.__version__}")
        context.exit()


version_option = click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
    help="Show the version and exit.",
)  # fmt: skip
