"""Both models of HGM side by side: every call goes to both, every answer and every page is compared.

Pages are counted from the first mapping's first page. A call is a name and its arguments, so that an explorer can list
them; `("child", name, ...)` is a call of the first child.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from migemu.mm import (
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_HWPOISON,
    MADV_POPULATE_WRITE,
    MADV_SPLIT,
    AddressSpace,
    FaultOutcome,
    GatherStep,
    Geometry,
    HugetlbFile,
    Level,
    PartialError,
    UffdMsg,
    WouldSleepError,
)
from tests.exhaustive.gathered import check_gathered
from tests.exhaustive.naive_file import NaiveFile
from tests.exhaustive.naive_mm import NaiveMm
from tests.exhaustive.naive_seen import key, observe
from tests.exhaustive.naive_table import Refused
from tests.exhaustive.naive_uffd import Answer, Message

Call = tuple[Any, ...]

_NAMES = {
    FaultOutcome.MAPPED: "mapped",
    FaultOutcome.WAITING: "waiting",
    FaultOutcome.SIGBUS: "sigbus",
    FaultOutcome.SIGBUS_MCEERR: "mceerr",
    FaultOutcome.SIGSEGV: "sigsegv",
    FaultOutcome.RETRY: "retry",
}
#: Calls of one userfaultfd, of the file of the first mapping, and those that name a range of pages.
_UFFD = ("continue_", "copy", "writeprotect", "poison", "wake", "read", "register", "unregister")
_FILE = ("isolate", "putback", "try_to_migrate", "remove_migration_ptes")
_ADVICE = {
    "split": MADV_SPLIT,
    "collapse": MADV_COLLAPSE,
    "populate_write": MADV_POPULATE_WRITE,
    "dontneed": MADV_DONTNEED,
    "hwpoison_at": MADV_HWPOISON,
}


class Twins:
    """`AddressSpace` and `NaiveMm`. Make both alike with `mmap`, `userfaultfd` and calls, then `do` what is tested."""

    def __init__(self, geometry: Geometry, **options: Any) -> None:
        """`options` are those of AddressSpace."""
        hgm = options.get("hgm", "v2")
        self.naive = NaiveMm(
            geometry,
            hgm,
            options.get("mapcount") or {"v1": "head_only", "v2": "thp_like"}[hgm],
            options.get("hwpoison", "hugepage"),
            options.get("tables_max"),
        )
        self.space = AddressSpace(geometry, on_wake=self.on_wake, on_gather=self.on_gather, **options)
        self.base = 0
        self.uffds: list[Any] = []
        self.files: list[tuple[NaiveFile, HugetlbFile]] = []
        self.children: list[Twins] = []
        self.woken: set[tuple[int, int]] = set()
        self.steps: list[GatherStep] = []

    # --- making them ---

    def mmap(self, hstate: Level, hugepages: int, file: NaiveFile | None = None) -> NaiveFile:
        """The file mapped; map it again for an alias."""
        geometry = self.naive.geometry
        real = next((real for naive, real in self.files if naive is file), None)
        length = hugepages * geometry.size(hstate)
        addr = self.space.mmap_hugetlb(length, hstate, file=real)
        self.base = self.base or addr
        if file is None:
            file = NaiveFile(geometry, hstate, hugepages, self.naive.hwpoison == "page")
            self.files.append((file, self.space.file(addr)))
        self.naive.mmap(self.page(addr), length // geometry.page_bytes, file)
        return file

    def userfaultfd(self, features: int = 0) -> None:
        self.uffds.append(self.space.userfaultfd(features))
        self.naive.userfaultfd(features)

    def fork(self) -> Answer:
        """The child is compared from now on, too."""
        child = Twins.__new__(Twins)
        child.naive, child.base, child.files = self.naive.fork(), self.base, self.files
        child.uffds, child.children, child.woken, child.steps = [], [], set(), []
        child.space = self.space.fork(on_wake=child.on_wake, on_gather=child.on_gather)
        self.children.append(child)
        return Answer()

    def refs_max(self, most: int) -> None:
        """SEMANTICS 1.3: what a reference count can hold, in both."""
        for file in self.files[0]:
            file.refs_max = most

    # --- what the real one says ---

    def addr(self, page: int) -> int:
        return self.base + page * self.naive.geometry.page_bytes

    def page(self, addr: int) -> int:
        return (addr - self.base) // self.naive.geometry.page_bytes

    def on_wake(self, vcpu: int, addr: int) -> None:
        self.woken.add((vcpu, self.page(addr)))

    def on_gather(self, step: GatherStep) -> None:
        self.steps.append(step)

    def message(self, msg: UffdMsg | None) -> Message | None:
        if msg is None:
            return None
        event = msg.event.name.lower()
        if event == "fork":
            self.children[-1].uffds.append(msg.uffd)
            return Message(0, event=event)
        flags = {flag.name.lower() for flag in type(msg.flags) if flag and flag in msg.flags and flag.name}
        end = self.page(msg.end) if msg.end else 0
        return Message(self.page(msg.address), frozenset(flags), msg.ptid, event, end)

    def real(self, name: str, *arguments: Any, uffd: int = 0) -> Answer:
        """The call as the kernel's."""
        kib = self.naive.geometry.page_bytes
        if name == "fault":
            vcpu, page, write = arguments
            return Answer(value=_NAMES[self.space.fault(vcpu, self.addr(page), write)])
        if name == "read":
            return Answer(value=self.message(self.uffds[uffd].read()))
        if name in _FILE:
            getattr(self.files[0][1], name)(*arguments)
            return Answer()
        if name == "process_collapse":
            ranges = [(self.addr(page), count * kib) for page, count in arguments]
            return Answer(self.space.process_madvise(ranges, MADV_COLLAPSE) // kib)
        page, count, *more = arguments
        where = self.addr(page), count * kib
        if name in _ADVICE:
            self.space.madvise(*where, _ADVICE[name])
        elif name in ("populate", "munmap"):
            getattr(self.space, name)(*where)
        elif name == "register":
            self.uffds[uffd].register(*where, **dict.fromkeys(more, True))
        elif name in ("continue_", "copy"):
            return Answer(getattr(self.uffds[uffd], name)(*where, *more) // kib)
        else:
            done = getattr(self.uffds[uffd], name)(*where, *more)
            return Answer(done // kib if name == "poison" else 0)
        return Answer()

    def by_the_book(self, name: str, *arguments: Any, uffd: int = 0) -> Answer:
        """The call on the naive model."""
        naive = self.naive
        try:
            if name in ("register", "unregister"):
                return getattr(naive, name)(naive.uffds[uffd], *arguments)  # type: ignore[no-any-return]
            if name in _UFFD:
                return getattr(naive.uffds[uffd], name)(*arguments)  # type: ignore[no-any-return]
            if name in _FILE:
                return getattr(self.files[0][0], name)(*arguments) or Answer()
            return getattr(naive, name)(*arguments)  # type: ignore[no-any-return]
        except Refused as refused:
            return Answer(errno=refused.number)

    # --- comparing ---

    def do(self, name: str, *arguments: Any, uffd: int = 0) -> Answer:
        """Call both; the answer they agree on."""
        if name == "child":
            return self.children[0].do(*arguments, uffd=uffd)
        if name == "fork":
            return self.fork()
        if name == "touch":
            page, write = arguments
            answer = self.do("fault", 0, page, write)
            if answer.value == "waiting":
                first = self.naive.here(page).hugepage_first(page)
                self.do("wake", first, page + 1 - first)
            return answer
        self.woken, self.steps, self.naive.woken = set(), [], set()
        expected = self.by_the_book(name, *arguments, uffd=uffd)
        try:
            answer = self.real(name, *arguments, uffd=uffd)
        except PartialError as error:
            answer = Answer(self.page(error.mapped + self.base), error.errno or 0)
        except WouldSleepError:
            answer = Answer(value="waiting")
        except OSError as error:
            answer = Answer(errno=error.errno or 0)
        assert answer == expected, f"{name}{arguments}: {answer}, and by the book {expected}"
        assert self.woken == self.naive.woken, f"{name}{arguments} woke {self.woken}, by the book {self.naive.woken}"
        check_gathered(self.steps, *self.naive.gathered(), flush_first=self.naive.hgm == "v1" and "collapse" in name)
        return expected

    def compare(self, pages: Iterable[int] | None = None) -> None:
        """All that can be seen, of `pages` or of all of them; and the real model's own invariants."""
        for family in self.family():
            at = family.pages(pages)
            seen, by_the_book = family.observe(at), observe(family.naive, at)
            for page, real, naive in zip(at, seen[0], by_the_book[0], strict=True):
                assert real == naive, f"page {page}: {real}, and by the book {naive}"
            assert seen[1:] == by_the_book[1:]
        self.validate()

    def validate(self) -> None:
        for family in self.family():
            family.space.validate()

    def glance(self) -> list[Any]:
        """What tells one state of the real model from another: every entry, the counts of tables and of references."""
        glances = []
        for family in self.family():
            space, family_pages = family.space, family.pages(None)
            entries = [(space.walk(addr), space.is_uffd_wp(addr)) for addr in map(family.addr, family_pages)]
            counts = [space.page_table_bytes(family.addr(vma.first)) for vma in family.naive.vmas]
            refs = [(list(real.refs), real.hardware_corrupted) for _, real in family.files]
            glances.append((entries, counts, refs))
        return glances

    def key(self) -> object:
        """The whole state by the book."""
        return tuple(key(family.naive) for family in self.family())

    def family(self) -> list[Twins]:
        return [self, *(each for child in self.children for each in child.family())]

    def pages(self, pages: Iterable[int] | None) -> list[int]:
        """All that are mapped, of `pages` if given."""
        mapped = [page for vma in self.naive.vmas for page in range(vma.first, vma.end)] if pages is None else pages
        return [page for page in mapped if pages is None or self.naive.vma(page)]

    def observe(self, pages: list[int]) -> tuple[Any, ...]:
        """As `naive_seen.observe`."""
        space, kib, at = self.space, self.naive.geometry.page_bytes, [self.addr(page) for page in pages]
        each = [
            (*walked(space.walk(addr)), space.is_mapped(addr), space.is_uffd_wp(addr), space.mapcount(addr))
            for addr in at
        ]
        mappings, smaps = [], []
        for vma in self.naive.vmas:
            addr = self.addr(vma.first)
            file, fields = space.file(addr), space.smaps(addr)
            mappings.append(
                (space.leaves(addr), space.page_table_bytes(addr) // kib, list(file.refs), file.hardware_corrupted)
            )
            smaps.append({name: fields[name] for name in fields if name.endswith(("Mapped", "PageSize"))})
        return each, mappings, smaps


def walked(entry: Any) -> tuple[Level, str]:
    level, kind = entry
    return level, kind.name.lower()
