"""`migemu list`: what there is to choose from, and every setting of a scenario."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from migemu.guest.workload import workloads
from migemu.link.jitter import jitters
from migemu.policy.collapse_policy import collapse_policies
from migemu.policy.push_order import push_orders
from migemu.registry import Registry
from migemu.scenario.scenario import describe


@click.command("list")
@click.option("--settings", is_flag=True, help="Every setting of a scenario: its section, key, default and meaning.")
def list_(settings: bool) -> None:
    """List every push order, collapse policy and workload with its settings; or every setting of a scenario."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    if settings:
        table = Table("setting", "default", "meaning", "values", title="settings of a scenario", title_justify="left")
        for each in describe():
            table.add_row(f"{each.section}.{each.key}", each.default or '""', each.doc, each.accepted)
        console.print(table)
        return
    registries: tuple[tuple[str, Registry[Any]], ...] = (
        ("push.order", push_orders), ("collapse.policy", collapse_policies), ("guest.workload", workloads),
        ("link.distribution", jitters),
    )  # fmt: skip
    for key, registry in registries:
        table = Table("name", "what it does", "settings", title=f"{key} - {registry.kind}", title_justify="left")
        for entry in registry:
            accepted = "\n".join(f"{setting}: {setting.kind.accepted}" for setting in entry.settings)
            table.add_row(entry.name, entry.summary, accepted)
        console.print(table)
    console.print(
        "Use one as in --set push.order=random or --set guest.workload=zipf:exponent=1.2,scatter=off; a value with a "
        'comma in double quotes, replay:path="a,b"',
        markup=False,
    )
