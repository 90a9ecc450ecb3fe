"""Geometries small enough to be explored whole, and mappings on them ready for post-copy."""

from __future__ import annotations

from typing import Any

from migemu.mm import Geometry, Level
from tests.exhaustive.twin_mm import Twins

#: 2 PMDs of 4 PTEs, and 2 of 2.
SMALL = Geometry("small", {Level.PTE: 12, Level.PMD: 14, Level.PUD: 15})
SMALLEST = Geometry("smallest", {Level.PTE: 12, Level.PMD: 13, Level.PUD: 14})
#: PTE 1, CONT_PTE 2, PMD 4, CONT_PMD 8, PUD 16 pages; and with one contiguous size only.
CONT = Geometry("cont", {Level.PTE: 12, Level.CONT_PTE: 13, Level.PMD: 14, Level.CONT_PMD: 15, Level.PUD: 16})
CONT_PTES = Geometry("cont_ptes", {Level.PTE: 12, Level.CONT_PTE: 13, Level.PMD: 14, Level.PUD: 15})
CONT_PMDS = Geometry("cont_pmds", {Level.PTE: 12, Level.PMD: 13, Level.CONT_PMD: 14, Level.PUD: 15})


def post_copy(
    geometry: Geometry,
    hstate: Level = Level.PUD,
    hugepages: int = 1,
    modes: tuple[str, ...] = ("minor",),
    *,
    features: int = 0,
    split: int | None = None,
    cached: int | None = None,
    **options: Any,
) -> Twins:
    """One mapping, registered with `modes`; the first `split` hugepages are HGM, the first `cached` hold bytes."""
    twins = Twins(geometry, **options)
    twins.mmap(hstate, hugepages)
    size = geometry.pages(hstate)
    twins.userfaultfd(features)
    if split or split is None:
        twins.do("split", 0, size * (hugepages if split is None else split))
    if modes:
        twins.do("register", 0, size * hugepages, *modes)
    if cached or cached is None:
        twins.do("populate", 0, size * (hugepages if cached is None else cached))
    return twins
