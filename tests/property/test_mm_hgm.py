"""Long random histories on real sizes, against the naive model; and continue_run against its definition."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, TINY, X86_64, AddressSpace, Geometry, Level
from tests.exhaustive.twin_mm import Twins

PMD, PUD = X86_64.pages(Level.PMD), X86_64.pages(Level.PUD)
HUGEPAGES = 3
TOTAL = HUGEPAGES * PUD

near_a_border = st.builds(
    lambda unit, times, offset: min(max(unit * times + offset, 0), TOTAL),
    st.sampled_from([PMD, PUD, 1]),
    st.integers(0, 6),
    st.sampled_from([0, 0, 0, 0, -PMD, PMD, -1, 1, 7, 200]),
)
pages = near_a_border.map(lambda page: min(page, TOTAL - 1))
ranges = st.tuples(near_a_border, near_a_border).filter(lambda ends: ends[0] != ends[1]).map(sorted)
vcpus = st.integers(0, 3)


class HgmMachine(RuleBasedStateMachine):
    """Three 1G hugepages; the naive model says what every call must answer and leave behind."""

    def __init__(self) -> None:
        super().__init__()
        self.twins = Twins(X86_64, Level.PUD, HUGEPAGES)
        self.twins.do("populate", 0, PUD + 1)
        self.looked_at = {0, TOTAL - 1}

    def note(self, *borders: int) -> None:
        self.looked_at |= {page for at in borders for page in (at - 1, at, at + 1) if 0 <= page < TOTAL}

    @rule(ends=ranges)
    def continue_(self, ends: list[int]) -> None:
        self.note(*ends)
        self.twins.do("continue_", ends[0], ends[1] - ends[0])

    @rule(page=pages, level=st.sampled_from(X86_64.levels))
    def continue_entry(self, page: int, level: Level) -> None:
        size = X86_64.pages(level)
        page = page // size * size
        self.note(page, page + size)
        self.twins.do("continue_", page, size)

    @rule(ends=ranges)
    def collapse(self, ends: list[int]) -> None:
        self.note(*ends)
        self.twins.do("collapse", ends[0], ends[1] - ends[0])

    @rule(page=pages, level=st.sampled_from([Level.PMD, Level.PUD]))
    def collapse_entry(self, page: int, level: Level) -> None:
        size = X86_64.pages(level)
        page = page // size * size
        self.note(page, page + size)
        self.twins.do("collapse", page, size)

    @rule(vcpu=vcpus, page=pages)
    def fault(self, vcpu: int, page: int) -> None:
        self.note(page)
        if vcpu not in self.twins.naive.asleep:
            self.twins.do("fault", vcpu, page)

    @rule()
    def read(self) -> None:
        self.twins.do("read")

    @rule(ends=ranges)
    def wake(self, ends: list[int]) -> None:
        self.twins.do("wake", ends[0], ends[1] - ends[0])

    @rule(ends=ranges)
    def populate(self, ends: list[int]) -> None:
        self.twins.do("populate", ends[0], ends[1] - ends[0])

    @invariant()
    def agree(self) -> None:
        self.twins.compare(self.looked_at)


HgmMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None, derandomize=True)
TestHgm = HgmMachine.TestCase

Snapshot = tuple[object, ...]


class Space:
    """A space to continue in, and what can be seen of it."""

    def __init__(self, geometry: Geometry, before: list[tuple[str, int, int]], tables_max: int | None) -> None:
        self.woken: list[tuple[int, int]] = []
        self.space = AddressSpace(geometry, on_wake=lambda *who: self.woken.append(who), tables_max=tables_max)
        self.page = geometry.page_bytes
        self.length = 3 * geometry.size(Level.PUD)
        self.base = self.space.mmap_hugetlb(self.length, Level.PUD)
        self.space.madvise(self.base, self.length, MADV_SPLIT)
        self.uffd = self.space.userfaultfd()
        self.uffd.register(self.base, self.length, minor=True)
        self.space.populate(self.base, 2 * geometry.size(Level.PUD))
        for name, first, count in before:
            addr, length = self.base + first * self.page, count * self.page
            try:
                if name == "fault":
                    self.space.fault(first, addr, write=True)
                elif name == "collapse":
                    self.space.madvise(addr, length, MADV_COLLAPSE)
                elif name == "poison":
                    self.space.file(self.base).poison(0)
                else:
                    self.uffd.continue_(addr, length, dontwake=name == "dontwake")
            except OSError:
                pass

    def seen(self, pages: range) -> Snapshot:
        walks = [self.space.walk(self.base + page * self.page) for page in pages]
        self.space.validate()
        return walks, self.space.leaves(self.base), self.space.page_table_bytes(self.base), self.woken, self.uffd.read()


def continue_singly(space: Space, addr: int, level: Level, size: int, count: int) -> tuple[int, int] | int:
    """The definition of continue_run."""
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


@given(
    before=st.lists(
        st.tuples(
            st.sampled_from(["continue_", "continue_", "dontwake", "collapse", "fault", "fault", "poison"]),
            st.integers(0, 47),
            st.sampled_from([1, 1, 2, 3, 4, 8, 16]),
        ),
        max_size=8,
        unique_by=lambda call: call[:2],
    ),
    first=st.integers(0, 47),
    level=st.sampled_from(TINY.levels),
    count=st.integers(1, 20),
    tables_max=st.sampled_from([None, None, 0, 1, 3]),
)
@settings(max_examples=1500, deadline=None, derandomize=True)
def test_continue_run_is_single_continues(
    before: list[tuple[str, int, int]], first: int, level: Level, count: int, tables_max: int | None
) -> None:
    """The same answer, entries, tables, waiters and messages, also when it fails half-way."""
    singly, at_once = Space(TINY, before, tables_max), Space(TINY, before, tables_max)
    where = singly.base + first * singly.page, level, TINY.size(level), count
    assert continue_at_once(at_once, *where) == continue_singly(singly, *where)
    assert at_once.seen(range(48)) == singly.seen(range(48))
