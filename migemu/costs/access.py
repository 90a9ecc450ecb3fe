"""What a mapping costs the guest: the expected time of an access, by workload and by the levels that map the memory.

What this models
    An access costs its cache line from memory and, with a TLB miss, the page-table walk. Under nested paging the host's
    leaves, which HGM splits and collapse restores, are the second dimension of that walk.

Rules
    1. A miss in both TLB levels walks. Natively it reads one entry a level: 4 for 4K, 3 for 2M, 2 for 1G. Nested, each
       entry of the guest is found through the host's table, and so is the page at last: (g + 1) * (n + 1) - 1 reads, 24
       at most (R. Bhargava et al., "Accelerating Two-Dimensional Page Walks for Virtualized Systems", ASPLOS 2008).
    2. Entries of the last level come out of memory as far as the table that they fill is larger than what the caches
       keep of it; all others out of the cache. A table is 8 bytes a leaf.
    3. The workloads are those of `migemu.guest`, an access to one base page each:
       uniform, zipf   independent accesses, so that `overlap` of them wait at the same time
       sequential      neighbouring pages: the next entry is in the same cache line seven times out of eight
       pointer_chase   each access waits for the one before; else as uniform
    4. Of zipf, a TLB keeps the hottest: an entry brings its hottest page, and its others are as cold as any when the
       hot pages lie scattered.

How near (two constants fitted, `memory_ns` and `entry_ns`; both are what such a processor has)
    Measured over 1 GiB in a virtual machine of an unnamed Xeon (+-30 %, ratios better), dependent and independent
    reads, ns: guest pages of 4K 365 and 26, 2M 227 and 19, 1G 208 and 17.5. The model, whose host maps by 4K: 333 and
    28, 237 and 20, 220 and 18: -9 to +7 %. What the host mapped by is not known from inside. Were it 2M or 1G, the
    model would have 1G pages at 97 and 95 ns. A memory of 205 ns over host leaves of 2M explains 2M and 1G as well,
    but has 4K at 444.

Simplified
    No page-walk caches besides `entry_ns`. Accesses go to mapped memory only, in proportion to its size. Zipf's hot
    pages do not keep their own page-table entries in the cache. The cache keeps no data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import expm1, log
from typing import Final, Literal, get_args

from migemu.costs.tlb import TLBS, Tlb, TlbEntries, held
from migemu.mm.pages import X86_64, Geometry, Level

WorkloadName = Literal["uniform", "zipf", "sequential", "pointer_chase"]

#: Entries that a walk reads down to a leaf, of four levels of tables (x86-64 with 48-bit addresses, arm64 with 4K).
WALK_READS: Final[dict[Level, int]] = {Level.PTE: 4, Level.CONT_PTE: 4, Level.PMD: 3, Level.CONT_PMD: 3, Level.PUD: 2}
ENTRY_BYTES: Final = 8
ENTRIES_PER_LINE: Final = 8


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the guest does. `exponent` and `scatter` are zipf's, `stride` (in base pages) is sequential's.

    ValueError: an unknown workload, or a setting out of range.
    """

    workload: WorkloadName = "uniform"
    exponent: float = 0.99
    scatter: bool = True
    stride: int = 1

    def __post_init__(self) -> None:
        if self.workload not in get_args(WorkloadName):
            raise ValueError(f"workload {self.workload!r} has no cost here: give {', '.join(get_args(WorkloadName))}")
        if self.exponent <= 0 or self.stride < 1:
            raise ValueError(f"exponent={self.exponent}, stride={self.stride}: give more than 0, and 1 or more")

    def hit_share(self, row: TlbEntries) -> float:
        """The share of accesses to the memory of `row` that find their entry held."""
        if row.held >= row.entries:
            return 1.0
        if self.workload == "sequential":
            return 1.0 - min(1.0, self.stride / row.pages)
        if self.workload != "zipf":
            return row.held / row.entries
        total = row.entries * row.pages
        if not self.scatter:
            return self._hottest(row.held * row.pages, total)
        hottest = self._hottest(row.held, total)
        return hottest + (1.0 - hottest) * row.held * (row.pages - 1) / (total - row.held)

    def _hottest(self, ranks: int, total: int) -> float:
        """The share of accesses that go to the `ranks` hottest of `total` pages; sums as integrals from 1/2 on."""
        if not ranks:
            return 0.0
        return (_integral(ranks + 0.5, self.exponent) - _integral(0.5, self.exponent)) / (
            _integral(total + 0.5, self.exponent) - _integral(0.5, self.exponent)
        )


#: Any page with the same probability.
UNIFORM: Final = Pattern()


def _integral(rank: float, exponent: float) -> float:
    """The integral of x**-exponent from 1 to `rank`; expm1 keeps it exact around exponent 1."""
    power = 1.0 - exponent
    return log(rank) if power == 0.0 else expm1(power * log(rank)) / power


@dataclass(frozen=True, slots=True)
class AccessModel:
    """The guest's processor, and what it maps itself. `guest` None is native: no second dimension."""

    tlb: Tlb = field(default=TLBS["ice_lake_sp"])
    guest: Level | None = Level.PMD
    geometry: Geometry = X86_64
    #: A cache line from memory. Fitted; local DRAM of a server takes 80 to 100 ns.
    memory_ns: float = 95.0
    #: A page-table entry from the cache. Fitted; the second-level cache takes 14 cycles, 4 ns.
    entry_ns: float = 3.3
    #: The second-level TLB instead of the first: 8 to 9 cycles.
    second_tlb_ns: float = 2.5
    #: What the caches keep of a page table while data streams through them: assumed, a fifth of 1.25 MiB.
    cache_bytes: int = 256 << 10
    #: Misses that one core waits for at the same time: the 12 line-fill buffers of Skylake and Ice Lake.
    overlap: int = 12

    def walk_ns(self, leaf: Level, leaves: Mapping[Level, int], pattern: Pattern = UNIFORM) -> float:
        """A walk to a leaf of level `leaf` where `leaves` (counts by level) map the memory."""
        reads, tables = WALK_READS[leaf], [leaves.get(leaf, 0) * ENTRY_BYTES]
        if self.guest is not None:
            reads = (WALK_READS[self.guest] + 1) * (reads + 1) - 1
            tables.append(self._pages(leaves) // self.geometry.pages(self.guest) * ENTRY_BYTES)
        share = 1 / ENTRIES_PER_LINE if pattern.workload == "sequential" else 1.0
        cold = sum(share * (1 - self.cache_bytes / table) for table in tables if table > self.cache_bytes)
        return reads * self.entry_ns + cold * (self.memory_ns - self.entry_ns)

    def miss_share(self, leaves: Mapping[Level, int], pattern: Pattern = UNIFORM) -> float:
        """The share of accesses that have to walk. ValueError: nothing is mapped."""
        rows = held(self.tlb.second, self.tlb.largest, self.geometry, leaves, self.guest)
        return 1.0 - sum(share * pattern.hit_share(rows[level]) for level, share in self._shares(leaves).items())

    def access_ns(self, leaves: Mapping[Level, int], pattern: Pattern = UNIFORM) -> float:
        """The expected time of an access: a mean, hence no integer. ValueError: nothing is mapped."""
        geometry, guest = self.geometry, self.guest
        first = held(self.tlb.first, Level.PUD, geometry, leaves, guest)
        second = held(self.tlb.second, self.tlb.largest, geometry, leaves, guest)
        translation_ns = 0.0
        for level, share in self._shares(leaves).items():
            in_first = pattern.hit_share(first[level])
            in_either = max(in_first, pattern.hit_share(second[level]))
            walk_ns = self.walk_ns(level, leaves, pattern)
            translation_ns += share * ((in_either - in_first) * self.second_tlb_ns + (1.0 - in_either) * walk_ns)
        waiting = 1 if pattern.workload == "pointer_chase" else self.overlap
        return (self.memory_ns + translation_ns) / waiting

    def _shares(self, leaves: Mapping[Level, int]) -> dict[Level, float]:
        total = self._pages(leaves)
        if not total:
            raise ValueError("nothing is mapped, so nothing can be accessed without a fault")
        return {level: count * self.geometry.pages(level) / total for level, count in leaves.items() if count}

    def _pages(self, leaves: Mapping[Level, int]) -> int:
        return sum(count * self.geometry.pages(level) for level, count in leaves.items())
