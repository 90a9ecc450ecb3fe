"""Both models of HGM side by side: every call goes to both, every answer and every page is compared."""

from __future__ import annotations

from collections.abc import Iterable

from migemu.mm import MADV_COLLAPSE, MADV_SPLIT, AddressSpace, FaultOutcome, Geometry, Level, PartialError
from tests.exhaustive.naive_mm import Answer, NaiveMapping

_NAMES = {FaultOutcome.MAPPED: "mapped", FaultOutcome.WAITING: "waiting", FaultOutcome.SIGBUS: "sigbus"}


class Twins:
    """`AddressSpace` with one mapping, and `NaiveMapping`."""

    def __init__(self, geometry: Geometry, hstate: Level, hugepages: int, tables_max: int | None = None) -> None:
        self.naive = NaiveMapping(geometry, hstate, hugepages, tables_max=tables_max)
        self.woken: set[tuple[int, int]] = set()
        self.space = AddressSpace(geometry, tables_max=tables_max, on_wake=self.on_wake)
        self.page_bytes = geometry.page_bytes
        length = hugepages * geometry.size(hstate)
        self.base = self.space.mmap_hugetlb(length, hstate)
        self.space.madvise(self.base, length, MADV_SPLIT)
        self.uffd = self.space.userfaultfd()
        self.uffd.register(self.base, length, minor=True)

    def addr(self, page: int) -> int:
        return self.base + page * self.page_bytes

    def do(self, name: str, *arguments: int) -> Answer:
        """Call both; the answer they agree on."""
        self.woken = set()
        self.naive.woken = set()
        expected: Answer = getattr(self.naive, name)(*arguments)
        try:
            answer = getattr(self, name)(*arguments)
        except PartialError as error:
            answer = Answer(error.mapped // self.page_bytes, error.errno or 0)
        except OSError as error:
            answer = Answer(errno=error.errno or 0)
        assert answer == expected, f"{name}{arguments}: {answer}, and by the book {expected}"
        assert self.woken == self.naive.woken, f"whom {name}{arguments} woke"
        return expected

    def continue_(self, page: int, count: int) -> Answer:
        return Answer(self.uffd.continue_(self.addr(page), count * self.page_bytes) // self.page_bytes)

    def collapse(self, page: int, count: int) -> Answer:
        self.space.madvise(self.addr(page), count * self.page_bytes, MADV_COLLAPSE)
        return Answer()

    def touch(self, page: int) -> Answer:
        answer = self.fault(0, page)
        self.uffd.wake(self.addr(page), self.page_bytes)
        return answer

    def fault(self, vcpu: int, page: int) -> Answer:
        return Answer(value=_NAMES[self.space.fault(vcpu, self.addr(page), write=False)])

    def wake(self, page: int, count: int) -> Answer:
        self.uffd.wake(self.addr(page), count * self.page_bytes)
        return Answer()

    def read(self) -> Answer:
        msg = self.uffd.read()
        return Answer(value=None if msg is None else (msg.address - self.base) // self.page_bytes)

    def on_wake(self, vcpu: int, addr: int) -> None:
        self.woken.add((vcpu, (addr - self.base) // self.page_bytes))

    def populate(self, page: int, count: int) -> Answer:
        self.space.populate(self.addr(page), count * self.page_bytes)
        return Answer()

    def memory_failure(self, hugepage: int) -> Answer:
        self.space.file(self.base).poison(hugepage)
        return Answer()

    def isolate(self, hugepage: int) -> Answer:
        self.space.file(self.base).isolate(hugepage)
        return Answer()

    def putback(self, hugepage: int) -> Answer:
        self.space.file(self.base).putback(hugepage)
        return Answer()

    def compare(self, pages: Iterable[int] | None = None) -> None:
        """Every page's walk, the counts, and the model's own invariants."""
        naive, space = self.naive, self.space
        for page in pages or range(naive.pages):
            level, kind = space.walk(self.addr(page))
            assert (level, kind.name.lower()) == naive.walk(page), f"page {page}"
            assert space.is_mapped(self.addr(page)) == (naive.walk(page)[1] == "leaf"), f"page {page}"
        counts = dict.fromkeys(naive.geometry.levels, 0)
        for slot in naive.leaves:
            counts[slot.level] += 1
        assert space.leaves(self.base) == counts
        assert space.page_table_bytes(self.base) == len(naive.tables) * self.page_bytes
        space.validate()
