"""A userfaultfd in the naive model: who sleeps, what is to be read, and the ioctls that fill pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from errno import EAGAIN, EEXIST, EFAULT, EINVAL, EIO, ENOENT
from typing import TYPE_CHECKING, NamedTuple

from tests.exhaustive.naive_table import BLANK, Refused

if TYPE_CHECKING:
    from tests.exhaustive.naive_mm import NaiveMm, NaiveVma

EVENT_FORK, EVENT_REMOVE, EVENT_UNMAP = 1 << 1, 1 << 3, 1 << 6
SIGBUS, THREAD_ID, EXACT_ADDRESS, WP_ASYNC = 1 << 7, 1 << 8, 1 << 11, 1 << 15


class Answer(NamedTuple):
    """Pages done and the errno, 0 if all went well; `value` is anything else the call says."""

    pages: int = 0
    errno: int = 0
    value: object = None


class Message(NamedTuple):
    """`flags` is made of "write", "wp" and "minor". Page faults have no `end`."""

    page: int
    flags: frozenset[str] = frozenset()
    ptid: int = 0
    event: str = "pagefault"
    end: int = 0


@dataclass
class Waiter:
    vcpu: int
    page: int
    msg: Message
    unread: bool = True


@dataclass
class NaiveUffd:
    mm: NaiveMm
    features: int = 0
    waiters: list[Waiter] = field(default_factory=list)  # in the order in which they fell asleep
    events: list[Message] = field(default_factory=list)  # not read yet

    def sleep(self, vcpu: int, vma: NaiveVma, page: int, write: bool, why: str) -> str:
        """SEMANTICS 1.1: the address as reported. Minor, with HGM: 4K; else the hugepage's, unless EXACT_ADDRESS."""
        if self.features & SIGBUS:
            return "sigbus"
        exact = self.features & EXACT_ADDRESS or (why == "minor" and vma.hgm)
        flags = frozenset({"write"} & ({"write"} if write else set()) | {why} & {"minor", "wp"})
        reported = page if exact else vma.hugepage_first(page)
        ptid = vcpu if self.features & THREAD_ID else 0
        self.waiters.append(Waiter(vcpu, page, Message(reported, flags, ptid)))
        return "waiting"

    def wake_range(self, first: int, end: int) -> None:
        """SEMANTICS 1.3: matched by the address in the message."""
        for waiter in [each for each in self.waiters if first <= each.msg.page < end]:
            self.waiters.remove(waiter)
            self.mm.woken.add((waiter.vcpu, waiter.page))

    def wake(self, page: int, count: int) -> Answer:
        if not count:
            raise Refused(EINVAL)
        self.wake_range(page, page + count)
        return Answer()

    def read(self) -> Answer:
        """Page faults first, then events; each oldest first."""
        for waiter in self.waiters:
            if waiter.unread:
                waiter.unread = False
                return Answer(value=waiter.msg)
        return Answer(value=self.events.pop(0) if self.events else None)

    def target(self, page: int, count: int) -> NaiveVma:
        """What every filling ioctl asks first: nothing unread that changes the layout, one registered VMA."""
        if self.events:
            raise Refused(EAGAIN)
        if not count:
            raise Refused(EINVAL)
        vma = self.mm.vma(page)
        if vma is None or page + count > vma.end or vma.uffd is None:
            raise Refused(ENOENT)
        return vma

    def whole_hugepages(self, vma: NaiveVma, page: int, count: int) -> None:
        if page % vma.size or count % vma.size:
            raise Refused(EINVAL)

    def piecewise(self, page: int, count: int, fill_one: object, dontwake: bool) -> Answer:
        """SEMANTICS 1.3: not transactional; a failure after some progress is EAGAIN with the pages done."""
        at, failure = page, 0
        while at < page + count and not failure:
            try:
                at += fill_one(at, page + count)  # type: ignore[operator]
            except Refused as refused:
                failure = refused.number if at == page else EAGAIN
        if not dontwake:
            self.wake_range(page, at)
        return Answer(at - page, failure)

    def continue_(self, page: int, count: int, dontwake: bool = False, wp: bool = False) -> Answer:
        """SEMANTICS 1.3."""
        vma = self.target(page, count)
        if not vma.hgm:
            self.whole_hugepages(vma, page, count)
        if wp and "wp" not in vma.modes:
            raise Refused(EINVAL)

        def one(at: int, end: int) -> int:
            table, file = vma.table, vma.file
            level = table.choose(at, end) if vma.hgm else table.hstate
            slot = table.walk_to(at, level)
            hugepage = file.hugepage(at - table.first)
            if hugepage not in file.cached:
                raise Refused(EFAULT)
            if not file.clean(at - table.first, table.size(level)):
                raise Refused(EIO)
            if table.kind(slot) not in BLANK:
                raise Refused(EEXIST)
            if file.refs(hugepage) >= file.refs_max:
                raise Refused(EFAULT)
            table.entries.pop(slot, None)  # the marker is consumed
            table.install(slot, wp)
            return table.size(level)

        return self.piecewise(page, count, one, dontwake)

    def copy(self, page: int, count: int, dontwake: bool = False, wp: bool = False) -> Answer:
        """SEMANTICS 1.2: whole hugepages, none of which may be in the page cache or mapped."""
        vma = self.target(page, count)
        if wp and "wp" not in vma.modes:
            raise Refused(EINVAL)
        self.whole_hugepages(vma, page, count)

        def one(at: int, end: int) -> int:
            table, hugepage = vma.table, vma.file.hugepage(at - vma.table.first)
            slot = table.slot(table.hstate, at)
            if table.kind(slot) not in BLANK or hugepage in vma.file.cached:
                raise Refused(EEXIST)
            vma.file.cached.add(hugepage)
            table.entries.pop(slot, None)
            table.install(slot, wp)
            return vma.size

        return self.piecewise(page, count, one, dontwake)

    def poison(self, page: int, count: int, dontwake: bool = False) -> Answer:
        """Whole hugepages, as COPY; not even a marker may be there."""
        vma = self.target(page, count)
        self.whole_hugepages(vma, page, count)

        def one(at: int, end: int) -> int:
            slot = vma.table.slot(vma.table.hstate, at)
            if vma.table.kind(slot) != "none":
                raise Refused(EEXIST)
            vma.table.install(slot, kind="poison")
            return vma.size

        return self.piecewise(page, count, one, dontwake)

    def writeprotect(self, page: int, count: int, on: bool, dontwake: bool = False) -> Answer:
        """SEMANTICS 1.2: whole hugepages. Every entry there, of whatever level; empty ones become markers."""
        if self.events:
            raise Refused(EAGAIN)
        if not count or (on and dontwake):
            raise Refused(EINVAL)
        failure = ENOENT
        for vma in self.mm.overlapping(page, page + count):
            if "wp" not in vma.modes:
                raise Refused(ENOENT)
            self.whole_hugepages(vma, page, count)
            protect(vma, max(page, vma.first), min(page + count, vma.end), on)
            failure = 0
        if not on and not dontwake and not failure:
            self.wake_range(page, page + count)
        return Answer(errno=failure)


def protect(vma: NaiveVma, first: int, end: int, on: bool) -> None:
    table = vma.table
    page = first
    while page < end:
        slot = table.walk(page)
        kind = table.kind(slot)
        if kind == "none" and on:
            table.entries[slot] = "wp_marker"
        elif kind == "wp_marker" and not on:
            del table.entries[slot]
        elif kind in ("leaf", "migration"):
            (table.wp.add if on else table.wp.discard)(slot)
        page = table.pages_of(slot).stop
