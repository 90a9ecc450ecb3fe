"""How often a page counts as mapped: the three schemes that HGM went through.

What this models
    page_mapcount() of a base page under each scheme of SEMANTICS 3.5, counted from the page tables.

Rules
    hstate      RFC v1: 1 for each mapping whose hugepage-level entry leads anywhere, a leaf or a table
    head_only   RFC v2 and v1: 1 for each leaf, all on the head page, so every base page of the hugepage shows the sum
    thp_like    v2: a hugepage-size leaf adds 1 for the compound, a smaller leaf 1 on every base page it covers

Simplified
    Nothing is stored: the counts are what the kernel would have counted. Migration, poison and marker entries map
    nothing and do not count.
"""

from __future__ import annotations

from typing import Final, Literal

from migemu.mm.entries import LEAF, TABLE
from migemu.mm.hugetlb_file import HugetlbFile
from migemu.mm.pages import PageIndex

MapcountScheme = Literal["hstate", "head_only", "thp_like"]

#: What each version of HGM posted (SEMANTICS 3.5).
MAPCOUNT_OF: Final[dict[str, MapcountScheme]] = {"v1": "head_only", "v2": "thp_like"}


def page_mapcount(file: HugetlbFile, page: PageIndex, scheme: MapcountScheme) -> int:
    """The mapcount of base page `page` of `file`, over all its mappings."""
    hugepage = page // file.geometry.pages(file.hstate)
    if scheme == "head_only":
        return file.refs[hugepage]
    tables = [vma.table for vma in file.mapped_by(hugepage)]
    if scheme == "hstate":
        entries = [table.hugepage_entry(hugepage) for table in tables]
        return sum(entry == TABLE or entry >= LEAF for entry in entries)
    return sum(table.walk_end(page)[1] >= LEAF for table in tables)
