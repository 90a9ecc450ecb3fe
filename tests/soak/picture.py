"""The curves of a soak as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from migemu.units import MIB
from tests.soak.curve import Sample

#: Blue and orange of the Okabe-Ito palette: told apart by the colour-blind.
_COLOURS = ("#0072b2", "#e69f00")


def write(samples: Sequence[Sample], title: str, path: Path) -> None:
    """Resident memory above, descriptors below, of each process that was sampled."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, subplot_titles=("resident memory, MiB", "open descriptors")
    )
    for process, colour in zip(sorted({each.process for each in samples}), _COLOURS, strict=False):
        own = [each for each in samples if each.process == process]
        minutes = [each.seconds / 60 for each in own]
        for row, values in ((1, [each.rss_bytes / MIB for each in own]), (2, [each.descriptors for each in own])):
            trace = go.Scatter(
                x=minutes, y=values, name=process, line={"color": colour, "width": 1}, showlegend=row == 1
            )
            figure.add_trace(trace, row=row, col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(title_text="minutes", row=2, col=1)
    figure.update_layout(template="plotly_white", height=700)
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, div_id="soak")
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<h1>{escape(title)}</h1><script>{get_plotlyjs()}</script>{drawn}</html>",
        encoding="utf-8",
    )
