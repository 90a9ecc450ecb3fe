"""The colours of the picture: those of the report, which people who see no red or no green can tell apart.

Rule: no state is told by colour alone. They differ in brightness too, the legend has words and numbers, a page that is
looked at says its state, and what is stalled is hatched.

Source: M. Okabe and K. Ito, "Color Universal Design", 2008 (`migemu.report.draw.style`).
"""

from __future__ import annotations

from typing import Any, Final

from migemu.report.draw.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, YELLOW
from migemu.view.page_states import PageState

#: What a state is called, and its colour; `MISSING` is told by the background, light or dark.
LEGEND: Final = (
    (PageState.MISSING, "missing", ""),
    (PageState.ASKED, "asked for", VERMILLION),
    (PageState.ARRIVED, "arrived, not mapped", YELLOW),
    (PageState.MAPPED_PTE, "mapped 4K", SKY),
    (PageState.MAPPED_CONT_PTE, "mapped 64K", "#2F93CB"),
    (PageState.MAPPED_PMD, "mapped 2M", BLUE),
    (PageState.MAPPED_CONT_PMD, "mapped 32M", "#00796F"),
    (PageState.MAPPED_PUD, "mapped 1G", GREEN),
)
WRITTEN_COLOUR: Final = PURPLE
#: Phases of a latency, in the order of `migemu.analysis.attribution.PHASES`.
PHASE_COLOURS: Final = (GREY, SKY, BLUE, VERMILLION, ORANGE, YELLOW, GREEN, PURPLE)


def palette() -> dict[str, Any]:
    """All of it, for the page."""
    return {
        "states": [{"state": int(state), "words": words, "colour": colour} for state, words, colour in LEGEND],
        "written": WRITTEN_COLOUR, "phases": PHASE_COLOURS, "stalled": GREY, "asleep": VERMILLION, "running": GREEN,
    }  # fmt: skip
