"""What a collapse costs: ns of each primitive, of a call, and how long which vCPUs wait for it.

What this models
    The duration of one MADV_COLLAPSE on a hugetlb VMA with HGM, as the sum of its primitives
    (`migemu.costs.operations`), for each way to count mappings, to lock and to tell KVM that was posted or wished
    for (SEMANTICS 2.3, 3.5).
    `CostModel(mapcount=..., lock=..., notifier=...)` is all that one has to choose; every constant is a field too.

Schemes
    mapcount   head_only  RFC v2 and v1: one count on the head page, changed once a leaf
               thp_like   v2: a leaf smaller than the hugepage counts on each 4K subpage that it covers
               hstate     RFC v1: +1 while the hugepage's entry is not empty: a collapse changes nothing
    lock       vma_lock   v1: faults on the same VMA or file wait while the loop runs
               mmap_lock  v2: every fault and CONTINUE of the process waits for the whole call
    notifier   around     as posted: KVM is told before and after, and judges every fault in between stale
               after      asked for, never built (SEMANTICS 7.1): KVM is told when all is done

Rules
    1. A cleared leaf costs its walk and its entry, and a change of the folio's dirty flag and of its reference count
       (SEMANTICS 2.1 step 3, 1.3), both on the head page; a new leaf its entry and a reference.
    2. thp_like changes a count in the struct page of each subpage, and with each also the number of mapped subpages,
       which is one word for the whole folio (`_nr_pages_mapped`; Linux 2024, "mm/rmap: minimize folio->_nr_pages_mapped
       updates when batching PTE (un)mapping", which sped up munmap of 2M folios by 27 %).
    3. Subpages that the same call has just counted down are counted up in this CPU's cache.
    4. The notifier zaps one SPTE a leaf, since KVM maps no larger than the host does; the EPT tables go later, on a
       vCPU's next EPT violation (SEMANTICS 2.3).

Two constants are fitted to SEMANTICS 2.4, all others are measured elsewhere or assumed
    `spte_ns`: the notifier's 10 to 30 ms. `line_ns`, a read-modify-write of a cache line that this CPU does not hold:
    published is 1 s with thp_like, 30 % more than head_only, so (1 s - 1 s / 1.3) / 262,144 = 0.88 us for one more such
    line a leaf. Rules 1 and 2 count three lines a leaf for head_only and four for thp_like; so the 30 % come out of
    counting, and the same 0.88 us yields 0.75 s, 1 s, and 310 x for 2M to 1G. It is long: on a quiet machine a line of
    another CPU costs 65 ns (J. D. Brouer, netdev list, Feb 2017, Skylake i7-6700K; 6.8 ns for one's own), one from DRAM
    80 to 150. There, every vCPU of a guest hammered the memory, and those that spun on the notifier the reference count
    of the very head page. `dataclasses.replace(model, line_ns=150)` is a quiet host. Not met: that head_only's
    decrements are about as costly as all other work. They are 1.7 x of it with the reference counts, 0.5 x without.

Simplified
    Contention is a constant, not a queue: with `after` nobody spins, and `line_ns` would be lower, by an amount that
    nobody has measured. The guest has touched all it has mapped: an SPTE for every leaf. No cost for NUMA.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from migemu.costs.operations import Operations, collapse_operations, full, of_steps
from migemu.mm.gather import GATHER_BATCH, GatherStep
from migemu.mm.mapcount import MapcountScheme
from migemu.mm.pages import X86_64, Geometry, Level

LockScheme = Literal["vma_lock", "mmap_lock"]
NotifierScheme = Literal["around", "after"]
#: Whom the lock shuts out: those who fault anywhere in the process, or on the same VMA and file (SEMANTICS 2.3).
Scope = Literal["process", "file"]

_SCHEMES: Final = {"mapcount": MapcountScheme, "lock": LockScheme, "notifier": NotifierScheme}


class Stall(NamedTuple):
    """Who waits for one call, and how long at most: that is, one who comes at the very beginning."""

    call_ns: int
    """The call itself: what the thread that collapses waits."""
    fault_ns: int
    """A vCPU whose access needs a host fault, anywhere in `scope`: it sleeps on the lock. So does a CONTINUE."""
    access_ns: int
    """A vCPU that touches the range through an EPT entry that is gone: it spins until the notifier window ends."""
    refault_ns: int
    """Afterwards, the first access of each vCPU to the new entries: one EPT violation for each of them."""
    scope: Scope

    @property
    def longest_ns(self) -> int:
        """The longest wait of any vCPU."""
        return max(self.fault_ns, self.access_ns)


class Round(NamedTuple):
    """Calls of one kind in a row: `calls` calls, each over `spans` spans of `level`."""

    calls: int
    spans: int
    level: Level
    stall: Stall


@dataclass(frozen=True, slots=True)
class Layout:
    """How one hugepage is collapsed, call by call."""

    step_bytes: int
    rounds: tuple[Round, ...]

    @property
    def calls(self) -> int:
        """How many madvise calls all rounds make together."""
        return sum(each.calls for each in self.rounds)

    @property
    def total_ns(self) -> int:
        """Duration in ns of all calls together."""
        return sum(each.calls * each.stall.call_ns for each in self.rounds)

    @property
    def longest_ns(self) -> int:
        """The longest wait of any vCPU for any call."""
        return max(each.stall.longest_ns for each in self.rounds)


@dataclass(frozen=True, slots=True)
class CostModel:
    """The price of each primitive, in ns, and the schemes. ValueError: an unknown scheme, or a negative price."""

    mapcount: MapcountScheme = "thp_like"
    lock: LockScheme = "mmap_lock"
    notifier: NotifierScheme = "around"
    geometry: Geometry = X86_64
    #: CPUs that run threads of the process, to be interrupted by a flush: the largest VM of SEMANTICS 5.1.
    vcpus: int = 48
    #: Clear or set one entry: walk, page-table lock, entry. Measured: UFFDIO_CONTINUE of 1 GiB of memfd in one ioctl
    #: takes 34.5 ms, a 262,144th of it is 132 ns, look-up and counts on warm lines included. Clearing: assumed alike.
    entry_ns: int = 132
    #: Change a word whose cache line is elsewhere: fitted, see above.
    line_ns: int = 880
    #: ... whose line this CPU holds: 6.8 ns (Brouer, as above).
    own_line_ns: int = 7
    #: Give a table page back to the allocator. Assumed.
    free_ns: int = 200
    #: Flush a TLB: one's own and starting the interrupts, then each CPU's answer. An interrupt and its answer take 1 to
    #: 3 us; 14 us for 64 CPUs, 50 us for 256 are told (general knowledge, no single source).
    flush_ns: int = 1_000
    interrupt_ns: int = 200
    #: Start and end a notifier window: locks, finding the memory slot. Assumed.
    notifier_ns: int = 2_000
    #: Zap one SPTE. 10 to 30 ms for 4K to 1G (SEMANTICS 2.4) are 38 to 114 ns each; the middle.
    spte_ns: int = 76
    #: Take the lock for write: wait until one reader, a 4K CONTINUE of 1.0 us (measured), is out. Assumed.
    lock_ns: int = 1_000
    #: Enter and leave the kernel, find the VMA. Assumed.
    syscall_ns: int = 200
    #: One EPT violation on memory that the host has mapped: demand_paging_test without userfaultfd, 2 vCPUs, does
    #: 375,130 a second (KU1, if its unit is pages a second and vCPU).
    ept_violation_ns: int = 2_670
    gather_batch: int = GATHER_BATCH

    def __post_init__(self) -> None:
        for name, scheme in _SCHEMES.items():
            if getattr(self, name) not in get_args(scheme):
                raise ValueError(f"{name}={getattr(self, name)!r} is not accepted: give {', '.join(get_args(scheme))}")
        for name in self.__slots__:
            if (name.endswith("_ns") or name == "vcpus") and getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is not accepted: give 0 or more")

    # ------------------------------------------------------------------------------------------------- counting

    def operations(self, from_level: Level, to_level: Level, spans: int = 1) -> Operations:
        """The counts of one call over `spans` full spans of `to_level`, all mapped by entries of `from_level`."""
        return self._operations(full(self.geometry, from_level, to_level), to_level, spans)

    def _operations(self, leaves: Mapping[Level, int], to_level: Level, spans: int = 1) -> Operations:
        return collapse_operations(self.geometry, leaves, to_level, spans, self.gather_batch)

    # -------------------------------------------------------------------------------------------------- pricing

    def breakdown(self, operations: Operations) -> dict[str, int]:
        """What each kind of work takes, in the order of a call; the sum is the duration."""
        cleared, installed = operations.leaves_cleared, operations.leaves_installed
        flush_ns = self.flush_ns + self.interrupt_ns * self.vcpus
        zaps_ns = cleared * self.spte_ns + (flush_ns if cleared else 0) * operations.calls
        return {
            "syscall": operations.calls * self.syscall_ns,
            "lock": operations.calls * self.lock_ns,
            "notifier": operations.calls * self.notifier_ns + zaps_ns,
            "entries": (cleared + installed) * self.entry_ns,
            "dirty": cleared * self.line_ns,
            "refcount": (cleared + installed) * self.line_ns,
            "mapcount": self._mapcount_ns(operations),
            "flush": operations.flushes * flush_ns,
            "free": operations.tables_freed * self.free_ns,
        }

    def _mapcount_ns(self, operations: Operations) -> int:
        if self.mapcount == "hstate":
            return 0
        if self.mapcount == "head_only":
            return (operations.leaves_cleared + operations.leaves_installed) * self.line_ns
        ns = 0
        for leaves, subpage_ns in ((operations.cleared, self.line_ns), (operations.installed, self.own_line_ns)):
            for level, count in leaves.items():
                if level >= self.geometry.largest:
                    ns += count * self.line_ns  # the compound count
                else:
                    ns += count * self.geometry.pages(level) * (subpage_ns + self.line_ns)
        return ns

    def duration_ns(self, operations: Operations) -> int:
        """How long `operations` take; of several calls, all together."""
        return sum(self.breakdown(operations).values())

    def of_steps(self, steps: Iterable[GatherStep]) -> int:
        """How long what `AddressSpace(on_gather=...)` has reported takes."""
        return self.duration_ns(of_steps(steps))

    def collapse_ns(self, leaves: Mapping[Level, int], to_level: Level) -> int:
        """How long a call takes that puts one entry of `to_level` in place of `leaves` (counts by level)."""
        return self.duration_ns(self._operations(leaves, to_level))

    def stall(self, operations: Operations) -> Stall:
        """Who waits for `operations`, the counts of one call, and how long.

        v1: notifier, [lock, loop, unlock], flush and free, end of the window. v2: the lock around everything; notifier,
        loop, end of the window, flush and free (SEMANTICS 2.3).
        """
        ns = self.breakdown(operations)
        loop_ns = ns["entries"] + ns["dirty"] + ns["refcount"] + ns["mapcount"]
        tail_ns = ns["flush"] + ns["free"]
        call_ns = sum(ns.values())
        scope: Scope
        if self.lock == "mmap_lock":
            scope, held_ns, window_ns = "process", call_ns - ns["syscall"] - ns["lock"], ns["notifier"] + loop_ns
        else:
            scope, held_ns, window_ns = "file", loop_ns, ns["notifier"] + ns["lock"] + loop_ns + tail_ns
        if self.notifier == "after":
            window_ns = ns["notifier"]  # what had been mapped stays so until KVM is told
        return Stall(call_ns, held_ns, window_ns, operations.leaves_installed * self.ept_violation_ns, scope)

    # ---------------------------------------------------------------------------------------------------- steps

    def layout(self, step_bytes: int, from_level: Level = Level.PTE) -> Layout:
        """One hugepage, full and mapped by `from_level`, collapsed in calls of `step_bytes`, then as a whole.

        A step of the hugepage's size is a single call. A smaller one makes entries of the largest level that fits it,
        as the range picks the level (SEMANTICS 2.1); the last call goes from these to the hugepage. ValueError: the
        step does not divide the hugepage, or no entry above `from_level` fits it.
        """
        geometry, hugepage = self.geometry, self.geometry.largest_bytes
        if not 0 < step_bytes <= hugepage or hugepage % step_bytes:
            raise ValueError(f"steps of {step_bytes} bytes do not divide a hugepage of {hugepage}")
        above = (level for level in geometry.levels if from_level < level <= geometry.largest)
        fitting = [level for level in above if geometry.size(level) <= step_bytes]
        if not fitting:
            raise ValueError(f"no entry of {geometry.name} above {from_level.name} fits {step_bytes} bytes")
        level, rounds, below = fitting[-1], [], from_level
        if level < geometry.largest:
            spans = step_bytes // geometry.size(level)
            stall = self.stall(self.operations(from_level, level, spans))
            rounds.append(Round(hugepage // step_bytes, spans, level, stall))
            below = level
        rounds.append(Round(1, 1, geometry.largest, self.stall(self.operations(below, geometry.largest))))
        return Layout(step_bytes, tuple(rounds))
