"""The finder against a plain look at the bitmap, page by page."""

from __future__ import annotations

import pytest

from migemu.mm.pages import TINY, PageBitmap
from migemu.policy.unsent import UnsentFinder


def bitmap(picture: str) -> PageBitmap:
    """`#` is sent, `.` is not."""
    picture = picture.replace(" ", "")
    sent = PageBitmap(TINY, len(picture))
    for page, mark in enumerate(picture):
        if mark == "#":
            sent.add(page, 1)
    return sent


PICTURES = [
    ".... .... .... ....",
    "#### #### #### ####",
    ".### #### #### ###.",
    "#### ##.# #### ####",
    "..## #### ##.. #.#. #### #### #### ###.",
    "#### #### #### #### #### .#.# #### ####",
]


@pytest.mark.parametrize("picture", PICTURES)
def test_both_directions_from_everywhere(picture: str) -> None:
    sent = bitmap(picture)
    clear = [page for page in range(sent.total) if not sent.pages[page]]
    finder = UnsentFinder(sent)
    for _ in range(2):  # the second time over remembered ways
        for place in range(sent.total + 1):
            assert finder.forward(place) == min((page for page in clear if page >= place), default=-1)
            assert finder.backward(place) == max((page for page in clear if page < place), default=-1)


def test_what_is_remembered_stays_right_while_pages_are_sent() -> None:
    sent = bitmap("#### #### .... #### #### .... #### ####")
    finder = UnsentFinder(sent)
    assert (finder.forward(0), finder.backward(32)) == (8, 23)
    sent.add(8, 4)
    assert (finder.forward(0), finder.backward(20)) == (20, -1)
    sent.add(20, 4)
    assert (finder.forward(0), finder.backward(32)) == (-1, -1)


class Watched(bytearray):
    """The marks of a bitmap, and how many of them the longest look took in."""

    longest = 0

    def _looked(self, start: int, end: int | None) -> None:
        self.longest = max(self.longest, (len(self) if end is None else end) - (start or 0))

    def find(self, mark: int, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        self._looked(start, end)
        return super().find(mark, start, end)

    def rfind(self, mark: int, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        self._looked(start, end)
        return super().rfind(mark, start, end)


def test_no_step_looks_at_more_than_one_pmd() -> None:
    """Else a search from a fault costs as much as the memory is large, once per fault."""
    sent = bitmap("#### .### #### #### #### ###. #### ####")
    sent.pages = watched = Watched(sent.pages)
    finder = UnsentFinder(sent)
    for place in range(sent.total + 1):
        finder.forward(place)
        finder.backward(place)
    assert watched.longest == 4


def test_a_search_that_was_made_is_not_made_again() -> None:
    sent = bitmap("#### " * 51 + "....")
    sent.pages = watched = Watched(sent.pages)
    finder, looks = UnsentFinder(sent), []
    watched._looked = lambda start, end: looks.append(start)  # type: ignore[method-assign]
    for _ in range(2):
        looks.clear()
        assert (finder.forward(0), finder.backward(204)) == (204, -1)
    assert len(looks) <= 4


@pytest.mark.parametrize(
    ("first", "pages_max", "run"), [(0, 8, (0, 4)), (1, 2, (1, 2)), (4, 4, (4, 2)), (7, 4, (7, 1)), (12, 1, (12, 1))]
)
def test_run_from(first: int, pages_max: int, run: tuple[int, int]) -> None:
    assert UnsentFinder(bitmap(".... ..#. .... ....")).run_from(first, pages_max) == run


@pytest.mark.parametrize(
    ("last", "pages_max", "run"), [(3, 8, (0, 4)), (3, 2, (2, 2)), (7, 4, (7, 1)), (5, 4, (4, 2)), (12, 9, (12, 1))]
)
def test_run_to(last: int, pages_max: int, run: tuple[int, int]) -> None:
    assert UnsentFinder(bitmap(".... ..#. .... ....")).run_to(last, pages_max) == run


def test_a_run_ends_before_the_first_page_of_all_if_that_was_sent() -> None:
    assert UnsentFinder(bitmap("#... .... .... ....")).run_to(3, 8) == (1, 3)


def test_shows_itself() -> None:
    assert repr(UnsentFinder(bitmap("#### ##.# #### ####"))) == "<UnsentFinder 1 unsent of 16>"
