"""The page of a comparison: what differs, how the gates came out, forest plots, and every figure in a table."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import isfinite

from migemu.experiment.bootstrap import Interval
from migemu.experiment.comparison import Comparison, Row, Ruling
from migemu.experiment.figures import show
from migemu.experiment.text_tables import percent
from migemu.report import document, tables
from migemu.report.draw.forest import LOOKS, WORDS, forests, judged
from migemu.report.draw.style import Section


def html(comparison: Comparison, base: str, new: str) -> str:
    """The whole page as HTML, piece by piece."""
    return "\n".join(_page(comparison, base, new))


def _page(comparison: Comparison, base: str, new: str) -> Iterator[str]:
    intro = (
        "Left is less, right is more. Full marks are settled by these pairs: a disc is better, a square is worse; an "
        "open diamond where the interval holds zero; an open circle is one pair, which settles nothing."
    )
    drawn = Section("forest", "How large are the differences, and how sure?", intro, forests(comparison))
    links = [("gates", "Gates")] if comparison.rulings else []
    links += [("forest", drawn.title)] if drawn.panels else []
    links.append(("figures", "All figures"))
    yield from document.begin(f"{new} against {base}", "A comparison of pairs that share a cell and a seed", links)
    yield document.notice("<b>To be minded:</b>", comparison.notes)
    yield _settings(comparison)
    badge = document.badge(comparison.kind)
    if comparison.rulings:
        yield '<h2 id="gates">How did the gates come out?</h2>'
        yield (
            '<p class="soft">A gate fails when the whole interval is beyond its limit, and is unsure when the limit '
            "lies within.</p>"
        )
        yield f'<div class="wide">{badge}{_gates(comparison)}</div>'
    if drawn.panels:
        yield from document.section(drawn)
    yield '<h2 id="figures">All figures</h2><p class="soft">Choose a heading to sort by it.</p>'
    yield f'<div class="wide">{badge}{_figures(comparison)}</div>'
    yield document.end()


def _settings(comparison: Comparison) -> str:
    rows = [
        [escape(key), escape(_said(old)), escape(_said(other))] for key, (old, other) in comparison.settings.items()
    ]
    if not rows:
        return '<p class="soft">No setting differs.</p>'
    return f'<div class="wide">{tables.table(["setting", "baseline", "new"], rows, "settings")}</div>'


def _said(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else "-" if value is None else str(value)


def _gates(comparison: Comparison) -> str:
    order = {"FAILS": 0, "UNSURE": 1, "HOLDS": 2}
    rows = []
    for ruling in sorted(comparison.rulings, key=lambda each: order[each.verdict.name]):
        point, edges = _about(ruling)
        rows.append([
            escape(str(ruling.gate)), escape(ruling.row.cell) or "-", f"<b>{WORDS[ruling.verdict]}</b>", point, edges,
            str(ruling.row.pairs),
        ])  # fmt: skip
    return tables.table(["fail if", "cell", "verdict", "what is judged", "95 % interval", "pairs"], rows, "best")


def _about(ruling: Ruling) -> tuple[str, str]:
    """The figure that the gate is about, and its interval, in words."""
    gate, row = ruling.gate, ruling.row
    if gate.about == "relative":
        return percent(row.relative), _percents(row.relative_interval)
    value = gate.about == "value"
    interval = row.new_interval if value else row.difference_interval
    edges = "-" if interval is None else " to ".join(show(row.key, edge) for edge in interval)
    return show(row.key, row.new if value else row.difference), edges


def _figures(comparison: Comparison) -> str:
    several = len({row.cell for row in comparison.rows}) > 1
    head = [*(["cell"] if several else []), "figure", "baseline", "new", "difference", "relative", "95 % interval",
            "pairs", "finding"]  # fmt: skip
    lines = [tables.sortable_head(head)]
    for row in comparison.rows:
        edges = row.relative_interval
        said = [tables.sortable_cell(row.cell, escape(row.cell))] if several else []
        said += [
            tables.sortable_cell(row.key, escape(row.key)),
            tables.sortable_cell(repr(row.base), show(row.key, row.base)),
            tables.sortable_cell(repr(row.new), show(row.key, row.new)),
            tables.sortable_cell(repr(row.difference), show(row.key, row.difference)),
            tables.sortable_cell(repr(row.relative) if isfinite(row.relative) else "", percent(row.relative)),
            tables.sortable_cell("" if edges is None else repr(edges.low), _percents(edges)),
            tables.sortable_cell(str(row.pairs), str(row.pairs)),
            tables.sortable_cell(*[_finding(row)] * 2),
        ]
        lines.append(f"<tr>{''.join(said)}</tr>")
    return "".join([*lines, "</tbody></table>"])


def _finding(row: Row) -> str:
    if row.relative_interval is None and row.pairs > 1:
        return "no ratio, the baseline is 0"
    return LOOKS[judged(row.key, row.relative_interval)][0]


def _percents(interval: Interval | None) -> str:
    return "-" if interval is None else f"{percent(interval.low)} to {percent(interval.high)}"
