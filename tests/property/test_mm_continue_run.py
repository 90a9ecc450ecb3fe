"""`continue_run` against its definition: single CONTINUEs of one entry each, the existing ones passed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from migemu.mm import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_HWPOISON,
    MADV_SPLIT,
    TINY,
    AddressSpace,
    Geometry,
    Level,
    WouldSleepError,
)
from tests.exhaustive.worlds import CONT

Snapshot = tuple[object, ...]
HUGEPAGES, PAGES = 3, 16  # of which two are in the page cache


class Space:
    """A space to continue in, and what can be seen of it."""

    def __init__(
        self, geometry: Geometry, before: Sequence[tuple[str, int, int]], tables_max: int | None, hwpoison: Any
    ) -> None:
        self.woken: list[tuple[int, int]] = []
        self.space = AddressSpace(
            geometry, on_wake=lambda *who: self.woken.append(who), tables_max=tables_max, hwpoison=hwpoison
        )
        self.page = geometry.page_bytes
        self.hugepage = geometry.size(Level.PUD)
        self.length = HUGEPAGES * self.hugepage
        self.base = self.space.mmap_hugetlb(self.length, Level.PUD)
        self.space.madvise(self.base, self.length, MADV_SPLIT)
        self.uffd = self.space.userfaultfd()
        self.uffd.register(self.base, self.length, minor=True, wp=True)
        self.space.populate(self.base, 2 * self.hugepage)
        for call in before:
            try:
                self.prepare(*call)
            except (OSError, WouldSleepError):
                pass

    def prepare(self, name: str, first: int, count: int) -> None:
        addr, length = self.base + first * self.page, count * self.page
        whole = self.base + first // PAGES * self.hugepage, self.hugepage
        file = self.space.file(self.base)
        if name == "fault":
            self.space.fault(first, addr, write=True)
        elif name == "collapse":
            self.space.madvise(addr, length, MADV_COLLAPSE)
        elif name == "poison":
            self.space.madvise(addr, self.page, MADV_HWPOISON)
        elif name == "protect":
            self.uffd.writeprotect(*whole, True)
        elif name == "dontneed":
            self.space.madvise(*whole, MADV_DONTNEED)
        elif name == "migrate" and file.refs[first // PAGES]:
            file.try_to_migrate(first // PAGES)
        else:
            self.uffd.continue_(addr, length, dontwake=name == "dontwake")

    def seen(self) -> Snapshot:
        at = range(self.base, self.base + self.length, self.page)
        walks = [(self.space.walk(addr), self.space.is_uffd_wp(addr), self.space.mapcount(addr)) for addr in at]
        self.space.validate()
        return walks, self.space.leaves(self.base), self.space.page_table_bytes(self.base), self.woken, self.uffd.read()


def continue_singly(space: Space, addr: int, level: Level, size: int, count: int) -> tuple[int, int] | int:
    mapped = existing = 0
    for piece in range(addr, addr + count * size, size):
        try:
            space.uffd.continue_(piece, size)
            mapped += 1
        except FileExistsError:
            existing += 1
        except OSError as error:
            return error.errno or 0
    return mapped, existing


def continue_at_once(space: Space, addr: int, level: Level, size: int, count: int) -> tuple[int, int] | int:
    try:
        return space.uffd.continue_run(addr, level, count)
    except OSError as error:
        return error.errno or 0


names = ["continue_", "continue_", "continue_", "dontwake", "collapse", "fault", "fault"]
rare = ["poison", "protect", "dontneed", "migrate"]


@given(
    geometry=st.sampled_from([TINY, CONT]),
    before=st.lists(
        st.tuples(
            st.sampled_from(names + rare),
            st.integers(0, HUGEPAGES * PAGES - 1),
            st.sampled_from([1, 1, 2, 3, 4, 8, 16]),
        ),
        max_size=8,
        unique_by=lambda call: call[:2],
    ),
    first=st.integers(0, HUGEPAGES * PAGES - 1),
    level=st.integers(0, 4),
    count=st.integers(1, 20),
    tables_max=st.sampled_from([None, None, 0, 1, 3]),
    hwpoison=st.sampled_from(["hugepage", "page"]),
)
@settings(max_examples=2000, deadline=None, derandomize=True)
def test_continue_run_is_single_continues(
    geometry: Geometry,
    before: list[tuple[str, int, int]],
    first: int,
    level: int,
    count: int,
    tables_max: int | None,
    hwpoison: str,
) -> None:
    """The same answer, entries, tables, waiters and messages, also when it fails half-way."""
    singly, at_once = (Space(geometry, before, tables_max, hwpoison) for _ in range(2))
    of = geometry.levels[level % len(geometry.levels)]
    where = singly.base + first * singly.page, of, geometry.size(of), count
    assert continue_at_once(at_once, *where) == continue_singly(singly, *where)
    assert at_once.seen() == singly.seen()
