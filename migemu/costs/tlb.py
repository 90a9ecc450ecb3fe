"""TLBs: how much memory their entries reach when it is mapped by leaves of several levels.

What this models
    The data TLBs of named processors, first and second level, as pools of entries: each pool takes leaves of certain
    levels and has so many places.

Rules
    1. One entry maps one leaf. Under nested paging it maps no more than the smaller of the guest's own page and the
       host's leaf, because it holds the two translations in one.
    2. Places go to the largest entries first: each of them is used more often than a small one, so an LRU keeps it.
    3. A level that no pool takes is never held. `largest` is the size that a TLB breaks larger leaves into.

Sources
    skylake_sp       Intel, 64 and IA-32 Architectures Optimization Reference Manual, table "TLB parameters of the
                     Skylake client microarchitecture"; the server's are the same (J. McCalpin, Intel community, 2022)
    ice_lake_sp      the same manual's table of the Ice Lake client: of 2,048 shared entries 2M pages may use one half,
                     1G pages the other, 4K pages both
    sapphire_rapids  Golden Cove: first level 96, 32 and 8; second level 2,048 entries, split taken to be Ice Lake's
    rome             WikiChip, Zen 2: 64 for all sizes; 2,048 for 4K and 2M, where 1G pages are held as 2M
    neoverse_n1      Arm, Cortex-A76 and Neoverse N1 core: 48 for all sizes, fully associative; 1,280, 5-way, which hold
                     contiguous groups as one

Simplified
    Fully associative, true LRU, all places free for data. Instruction TLBs and the separate ones for stores are left
    out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from migemu.mm.pages import Geometry, Level

_PTE, _CONT_PTE, _PMD, _CONT_PMD, _PUD = Level


class Pool(NamedTuple):
    """`entries` places for leaves of any of `levels`."""

    levels: frozenset[Level]
    entries: int


@dataclass(frozen=True, slots=True)
class Tlb:
    """First and second level of one core's data TLB."""

    name: str
    first: tuple[Pool, ...]
    second: tuple[Pool, ...]
    largest: Level = Level.PUD
    """What an entry of the second level maps at most."""


def _pool(entries: int, *levels: Level) -> Pool:
    return Pool(frozenset(levels), entries)


_INTEL_SECOND: Final = (_pool(1024, _PTE, _PMD), _pool(1024, _PTE, _PUD))

TLBS: Final[dict[str, Tlb]] = {
    tlb.name: tlb
    for tlb in (
        Tlb(
            "skylake_sp",
            (_pool(64, _PTE), _pool(32, _PMD), _pool(4, _PUD)),
            (_pool(1536, _PTE, _PMD), _pool(16, _PUD)),
        ),
        Tlb("ice_lake_sp", (_pool(64, _PTE), _pool(32, _PMD), _pool(8, _PUD)), _INTEL_SECOND),
        Tlb("sapphire_rapids", (_pool(96, _PTE), _pool(32, _PMD), _pool(8, _PUD)), _INTEL_SECOND),
        Tlb("rome", (_pool(64, _PTE, _PMD, _PUD),), (_pool(2048, _PTE, _PMD),), largest=_PMD),
        Tlb("neoverse_n1", (_pool(48, *Level),), (_pool(1280, *Level),)),
    )
}


class TlbEntries(NamedTuple):
    """Of the memory under leaves of one level: `held` of `entries` TLB entries, each mapping `pages` base pages."""

    entries: int
    held: int
    pages: int


def held(
    pools: tuple[Pool, ...], largest: Level, geometry: Geometry, leaves: Mapping[Level, int], guest: Level | None
) -> dict[Level, TlbEntries]:
    """What `pools` hold of `leaves` (counts by level) when all memory is in use, by the level of the leaf.

    `guest` is the level of the guest's own pages, None without nested paging.
    """
    room = [pool.entries for pool in pools]
    found: dict[Level, TlbEntries] = {}
    for leaf in sorted(leaves, reverse=True):
        level = min(leaf, largest, leaf if guest is None else guest)
        pages = geometry.pages(level)
        entries = leaves[leaf] * (geometry.pages(leaf) // pages)
        places = 0
        for number, pool in enumerate(pools):
            if level in pool.levels:
                taken = min(room[number], entries - places)
                room[number] -= taken
                places += taken
        found[leaf] = TlbEntries(entries, places, pages)
    return found


def reach_bytes(tlb: Tlb, geometry: Geometry, leaves: Mapping[Level, int], guest: Level | None = None) -> int:
    """Bytes that the second level of `tlb` maps at once of memory under `leaves` (counts by level)."""
    rows = held(tlb.second, tlb.largest, geometry, leaves, guest).values()
    return sum(row.held * row.pages for row in rows) * geometry.page_bytes
