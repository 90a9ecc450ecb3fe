"""Pages that are made from the program are what the program makes now."""

from __future__ import annotations

import pytest

from migemu.docs.generated import PAGES
from migemu.docs.topics import FOLDER
from migemu.scenario.scenario import describe
from migemu.trace.events import Happening
from migemu.wire.messages import TAGS


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_is_made_now(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "make it anew: python -m migemu.docs.generated"


def test_nothing_is_left_out() -> None:
    for each in describe():
        assert f"`{each.key}`" in PAGES["reference/settings.md"]()
    for happening in Happening:
        assert f"| `{happening.value}` |" in PAGES["reference/events.md"]()
    for message in TAGS:
        assert f"| `{message.__name__}` |" in PAGES["reference/protocol.md"]()
