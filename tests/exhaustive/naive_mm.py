"""A second model of HGM, page by page, written from kernel-semantics alone: the exhaustive and property tests compare.

It knows three sets, by (level, first page): entries that map memory, that are poisoned, that are tables. It is slow and
has no cleverness; whatever it shares with the real model is shared by accident.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import NamedTuple

from migemu.mm.pages import Geometry, Level


class Slot(NamedTuple):
    level: Level
    first: int


class Answer(NamedTuple):
    """Pages done and the errno, 0 if all went well; `value` is anything else the call says."""

    pages: int = 0
    errno: int = 0
    value: object = None


@dataclass
class NaiveMapping:
    """One shared mapping of `hugepages` hugepages with MADV_SPLIT, registered MINOR if `minor`."""

    geometry: Geometry
    hstate: Level
    hugepages: int
    minor: bool = True
    tables_max: int | None = None
    leaves: set[Slot] = field(default_factory=set)
    poison: set[Slot] = field(default_factory=set)
    tables: set[Slot] = field(default_factory=set)
    cached: set[int] = field(default_factory=set)
    poisoned: set[int] = field(default_factory=set)
    isolated: set[int] = field(default_factory=set)
    asleep: dict[int, int] = field(default_factory=dict)  # vCPU -> page
    unread: list[int] = field(default_factory=list)  # vCPUs, in the order in which they fell asleep
    woken: set[tuple[int, int]] = field(default_factory=set)  # (vCPU, page) of the last call

    def size(self, level: Level) -> int:
        return self.geometry.pages(level)

    @property
    def levels(self) -> list[Level]:
        """From the hugepage down."""
        return [level for level in reversed(self.geometry.levels) if level <= self.hstate]

    @property
    def pages(self) -> int:
        return self.hugepages * self.size(self.hstate)

    def slot(self, level: Level, page: int) -> Slot:
        return Slot(level, page // self.size(level) * self.size(level))

    def hugepage(self, page: int) -> int:
        return page // self.size(self.hstate)

    def kind(self, slot: Slot) -> str:
        for name, group in (("table", self.tables), ("leaf", self.leaves), ("poison", self.poison)):
            if slot in group:
                return name
        return "none"

    def walk(self, page: int) -> tuple[Level, str]:
        for level in self.levels:
            kind = self.kind(self.slot(level, page))
            if kind != "table":
                return level, kind
        raise AssertionError("a table at the lowest level")

    def choose(self, page: int, end: int) -> Level:
        """1.3: the largest size aligned at the position that fits in the rest."""
        return next(level for level in self.levels if page % self.size(level) == 0 and page + self.size(level) <= end)

    def walk_to(self, page: int, wanted: Level) -> int:
        """The helper that CONTINUE and COLLAPSE share: an errno, or 0 once the entry of `wanted` exists."""
        for level in self.levels:
            slot = self.slot(level, page)
            if level == wanted:
                return 0
            if self.kind(slot) in ("leaf", "poison"):
                return errno.EEXIST
            if self.kind(slot) == "none":
                if self.tables_max is not None and len(self.tables) >= self.tables_max:
                    return errno.ENOMEM
                self.tables.add(slot)
        raise AssertionError("no such level")

    def continue_(self, page: int, count: int) -> Answer:
        """1.3: install, then wake for the mapped range only."""
        answer = self.install(page, count)
        self.wake(page, answer.pages)
        return answer

    def wake(self, page: int, count: int) -> Answer:
        self.woken = {(vcpu, at) for vcpu, at in self.asleep.items() if page <= at < page + count}
        for vcpu, _ in self.woken:
            del self.asleep[vcpu]
        self.unread = [vcpu for vcpu in self.unread if vcpu in self.asleep]
        return Answer()

    def read(self) -> Answer:
        """3.2: one message a fault, oldest first; the address is rounded to 4K (1.1)."""
        return Answer(value=self.asleep[self.unread.pop(0)] if self.unread else None)

    def install(self, page: int, count: int) -> Answer:
        start, end = page, page + count
        while page < end:
            level = self.choose(page, end)
            slot = self.slot(level, page)
            failure = self.walk_to(page, level)
            if not failure and self.hugepage(page) not in self.cached:
                failure = errno.EFAULT
            if not failure and self.hugepage(page) in self.poisoned:
                failure = errno.EIO
            if not failure and self.kind(slot) != "none":
                failure = errno.EEXIST
            if failure:
                return Answer(page - start, errno.EAGAIN if page > start else failure)
            self.leaves.add(slot)
            page += self.size(level)
        return Answer(count)

    def collapse(self, page: int, count: int) -> Answer:
        """2.1, v2: nobody is woken."""
        end = page + count
        while page < end:
            level = self.choose(page, end)
            slot = self.slot(level, page)
            failure = self.walk_to(page, level)
            if failure:
                return Answer(errno=failure)
            if self.kind(slot) == "table":
                hugepage = self.hugepage(page)
                if hugepage in self.poisoned:
                    page = (hugepage + 1) * self.size(self.hstate)
                    continue
                if hugepage in self.isolated:
                    return Answer(errno=errno.EBUSY)
                inside = range(page, page + self.size(level))
                for group in (self.leaves, self.poison, self.tables):
                    group -= {below for below in group if below.level <= level and below.first in inside}
                if hugepage in self.cached:
                    self.leaves.add(slot)
            page += self.size(level)
        return Answer()

    def touch(self, page: int) -> Answer:
        """A fault, and a wake for whoever waits then."""
        answer = self.fault(0, page)
        self.wake(page, 1)
        return answer

    def fault(self, vcpu: int, page: int) -> Answer:
        """3.1, 3.2, 3.4."""
        level, kind = self.walk(page)
        if kind == "leaf":
            return Answer(value="mapped")
        if kind == "poison" or self.hugepage(page) in self.poisoned:
            return Answer(value="sigbus")
        if self.hugepage(page) in self.cached and self.minor:
            self.asleep[vcpu] = page
            self.unread.append(vcpu)
            return Answer(value="waiting")
        self.cached.add(self.hugepage(page))
        self.leaves.add(self.slot(level, page))
        return Answer(value="mapped")

    def populate(self, page: int, count: int) -> Answer:
        """3.2: whole hugepages."""
        self.cached |= {self.hugepage(each) for each in range(page, page + count)}
        return Answer()

    def memory_failure(self, hugepage: int) -> Answer:
        """3.4: the whole hugepage, wherever it is mapped."""
        self.poisoned.add(hugepage)
        hit = {slot for slot in self.leaves if self.hugepage(slot.first) == hugepage}
        self.leaves -= hit
        self.poison |= hit
        return Answer()

    def isolate(self, hugepage: int) -> Answer:
        self.isolated.add(hugepage)
        return Answer()

    def putback(self, hugepage: int) -> Answer:
        self.isolated.discard(hugepage)
        return Answer()

    def key(self) -> tuple[frozenset[object], ...]:
        """The whole state."""
        return tuple(
            frozenset(group)
            for group in (self.leaves, self.poison, self.tables, self.cached, self.poisoned, self.isolated)
        )
