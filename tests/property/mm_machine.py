"""A random walk through every call of migemu.mm, on real sizes, against the naive model.

One hypothesis machine for every geometry: a file mapped twice (guest and alias), a userfaultfd with every feature that
adds messages, at most one child. After each call the two models are compared at every border that any call so far has
named, and at a few places of their own.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from migemu.mm import Geometry, Level
from tests.exhaustive.explorer import folio_allows
from tests.exhaustive.naive_uffd import EVENT_FORK, EVENT_REMOVE, EVENT_UNMAP, EXACT_ADDRESS, THREAD_ID, WP_ASYNC
from tests.exhaustive.twin_mm import Call, Twins

VCPUS = 3
LOOKED_AT = 60
MODES = [("minor",), ("minor", "wp"), ("missing", "wp"), ("missing", "minor", "wp"), ("missing",)]
EVENTS = EVENT_FORK | EVENT_REMOVE | EVENT_UNMAP


def histories(how_many: int) -> settings:
    return settings(max_examples=how_many, stateful_step_count=30, deadline=None, derandomize=True)


class MmMachine(RuleBasedStateMachine):
    """Subclasses choose the geometry, the hugepages and how many."""

    geometry: Geometry
    hstate = Level.PUD
    hugepages = 3

    @initialize(
        modes=st.sampled_from(MODES),
        features=st.sampled_from([0, EVENTS, EVENTS | EXACT_ADDRESS | THREAD_ID, EVENT_FORK | WP_ASYNC]),
        split=st.integers(0, 3),
        hgm=st.sampled_from(["v2", "v2", "v1"]),
        hwpoison=st.sampled_from(["hugepage", "page"]),
        mapcount=st.sampled_from([None, "hstate", "head_only", "thp_like"]),
        cached=st.integers(0, 3),
        tables_max=st.sampled_from([None, None, None, 4]),
    )
    def begin(self, modes: tuple[str, ...], features: int, split: int, cached: int, **options: Any) -> None:
        """All but the first hugepage are HGM if `split` is 0, else all; the first `cached` hold bytes."""
        self.size = self.geometry.pages(self.hstate)
        self.total = self.size * self.hugepages
        self.steps = [self.geometry.pages(level) for level in self.geometry.levels if level <= self.hstate]
        self.twins = Twins(self.geometry, **options)
        file = self.twins.mmap(self.hstate, self.hugepages)
        self.twins.mmap(self.hstate, self.hugepages, file)
        self.alias = self.twins.naive.vmas[1].first
        self.looked_at: dict[int, None] = dict.fromkeys((0, self.total - 1, self.alias))
        self.twins.userfaultfd(features)
        first = 0 if split else self.size
        self.twins.do("split", first, self.total - first)
        self.twins.do("register", 0, self.total, *modes)
        if cached:
            self.twins.do("populate", 0, self.size * cached)

    # --- where ---

    def page(self, data: st.DataObject) -> int:
        """Near a border of some level, more often near the start, where it is crowded."""
        step = data.draw(st.sampled_from(self.steps), "step")
        times = data.draw(st.integers(0, min(6, self.total // step)), "times")
        offset = data.draw(st.sampled_from([0, 0, 0, 0, -1, 1, 7, self.steps[1], -self.steps[1]]), "offset")
        return max(0, min(step * times + offset, self.total))

    def range(self, data: st.DataObject) -> tuple[int, int]:
        """An entry of some level, or between any two borders; (first, count)."""
        if data.draw(st.booleans(), "entry"):
            step = data.draw(st.sampled_from(self.steps), "size")
            return min(self.page(data), self.total - 1) // step * step, step
        first, end = sorted((self.page(data), self.page(data)))
        return (first, end - first) if first < end else (min(first, self.total - 1), 1)

    def whole(self, data: st.DataObject) -> tuple[int, int]:
        """Whole hugepages, and seldom not quite."""
        first = data.draw(st.integers(0, self.hugepages - 1), "hugepage")
        count = data.draw(st.integers(1, self.hugepages - first), "hugepages")
        slip = data.draw(st.sampled_from([0] * 9 + [1]), "slip")
        return first * self.size + slip, count * self.size - slip

    def do(self, name: str, *arguments: Any) -> None:
        """Where it makes sense; and look there from now on."""
        call: Call = (name, *arguments)
        if not folio_allows(self.twins, call):
            return
        target = arguments if name == "child" else call
        if len(target) > 2 and target[0] not in ("fault", "process_collapse"):
            self.look(target[1], target[1] + target[2])
        self.twins.do(*call)

    def look(self, *borders: int) -> None:
        for page in (page for at in borders for page in (at - 1, at, at + 1)):
            self.looked_at.pop(page, None)
            self.looked_at[page] = None
        while len(self.looked_at) > LOOKED_AT:
            del self.looked_at[next(iter(self.looked_at))]

    def asleep(self, vcpu: int, twins: Twins) -> bool:
        return any(waiter.vcpu == vcpu for uffd in twins.naive.uffds for waiter in uffd.waiters)

    # --- the calls ---

    @rule(data=st.data(), dontwake=st.sampled_from([False, False, True]), wp=st.sampled_from([False, False, True]))
    def continue_(self, data: st.DataObject, dontwake: bool, wp: bool) -> None:
        self.do("continue_", *self.range(data), dontwake, wp)

    @rule(data=st.data())
    def continue_once_more(self, data: st.DataObject) -> None:
        self.do("continue_", *self.range(data))

    @rule(data=st.data(), times=st.sampled_from([1, 1, 8]))
    def continue_small_pieces(self, data: st.DataObject, times: int) -> None:
        first = min(self.page(data), self.total - times)
        for page in range(first, first + times):
            self.do("continue_", page, 1)

    @rule(data=st.data())
    def collapse(self, data: st.DataObject) -> None:
        self.do("collapse", *self.range(data))

    @rule(data=st.data())
    def collapse_once_more(self, data: st.DataObject) -> None:
        self.do("collapse", *self.range(data))

    @rule(data=st.data(), count=st.integers(0, 4))
    def process_collapse(self, data: st.DataObject, count: int) -> None:
        self.do("process_collapse", *(self.range(data) for _ in range(count)))

    @rule(data=st.data(), name=st.sampled_from(["split", "unregister", "dontneed", "munmap"]))
    def whole_hugepages(self, data: st.DataObject, name: str) -> None:
        if name != "munmap" or len(self.twins.naive.vmas) > 3:
            self.do(name, *self.whole(data))

    @rule(data=st.data())
    def fill_or_watch_whole_hugepages(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(["copy", "copy", "poison", "register"]), "name")
        more: tuple[Any, ...] = ()
        if name != "poison":
            more = data.draw(st.sampled_from(MODES if name == "register" else [(False, False), (False, True)]), "more")
        self.do(name, *self.whole(data), *more)

    @rule(data=st.data(), on=st.booleans(), dontwake=st.sampled_from([False, False, False, True]))
    def writeprotect(self, data: st.DataObject, on: bool, dontwake: bool) -> None:
        self.do("writeprotect", *self.whole(data), on, dontwake)

    @rule(
        data=st.data(), vcpu=st.integers(0, VCPUS - 1), write=st.booleans(), alias=st.sampled_from([False, False, True])
    )
    def fault(self, data: st.DataObject, vcpu: int, write: bool, alias: bool) -> None:
        if not self.asleep(vcpu, self.twins):
            page = min(self.page(data), self.total - 1) + (self.alias if alias else 0)
            self.look(page)
            self.do("fault", vcpu, page, write)

    @rule()
    def read(self) -> None:
        self.do("read")

    @precondition(lambda self: self.twins.naive.uffds[0].events)
    @rule()
    def read_all(self) -> None:
        while self.twins.naive.uffds[0].events:
            self.do("read")

    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        self.do("wake", *self.range(data))

    @rule(data=st.data())
    def populate(self, data: st.DataObject) -> None:
        self.do("populate", *self.range(data))

    @rule(data=st.data(), count=st.sampled_from([1, 1, 1, 3]))
    def hwpoison(self, data: st.DataObject, count: int) -> None:
        self.do("hwpoison_at", min(self.page(data), self.total - count), count)

    @rule(data=st.data())
    def populate_write(self, data: st.DataObject) -> None:
        self.do("populate_write", min(self.page(data), self.total - 3), 3)

    @rule(
        hugepage=st.integers(0, 2),
        name=st.sampled_from(["isolate", "putback", "try_to_migrate", "remove_migration_ptes"]),
    )
    def folio(self, hugepage: int, name: str) -> None:
        self.do(name, hugepage)

    @precondition(lambda self: self.twins.files[0][0].unmapped)
    @rule()
    def migration_ends(self) -> None:
        self.do("remove_migration_ptes", min(self.twins.files[0][0].unmapped))

    # --- the child ---

    @precondition(lambda self: not self.twins.children)
    @rule()
    def fork(self) -> None:
        self.do("fork")

    @precondition(lambda self: self.twins.children)
    @rule(data=st.data(), name=st.sampled_from(["collapse", "dontneed", "split", "munmap"]))
    def in_the_child(self, data: st.DataObject, name: str) -> None:
        self.do("child", name, *(self.range(data) if name == "collapse" else self.whole(data)))

    @precondition(lambda self: self.twins.children)
    @rule(data=st.data(), write=st.booleans())
    def fault_in_the_child(self, data: st.DataObject, write: bool) -> None:
        if not self.asleep(0, self.twins.children[0]):
            self.do("child", "fault", 0, min(self.page(data), self.total - 1), write)

    @precondition(lambda self: self.twins.children and self.twins.children[0].uffds)
    @rule(data=st.data(), name=st.sampled_from(["continue_", "wake"]))
    def the_childs_userfaultfd(self, data: st.DataObject, name: str) -> None:
        self.do("child", name, *self.range(data))

    @invariant()
    def agree(self) -> None:
        self.twins.compare(self.looked_at)
