"""The destination's memory as a model: page tables of hugetlb mappings, and the system calls that change them.

Pure code: no I/O, no clock, no randomness. Start at `AddressSpace`.
"""

from migemu.mm.address_space import AddressSpace
from migemu.mm.entries import Entry, EntryKind
from migemu.mm.errnos import PartialError, ValidationError, WouldSleepError
from migemu.mm.faults import FaultOutcome
from migemu.mm.gather import GatherKind, GatherStep
from migemu.mm.hugetlb_file import HugetlbFile
from migemu.mm.madvise import MADV_COLLAPSE, MADV_DONTNEED, MADV_HWPOISON, MADV_POPULATE_WRITE, MADV_SPLIT
from migemu.mm.pages import (
    ARM64_4K,
    GEOMETRIES,
    TINY,
    X86_64,
    Geometry,
    Level,
    PageBitmap,
    PageIndex,
    PieceRun,
    Span,
)
from migemu.mm.uffd_msg import UffdEvent, UffdFeature, UffdMsg, UffdPagefault
from migemu.mm.userfaultfd import Userfaultfd

__all__ = [
    "ARM64_4K",
    "GEOMETRIES",
    "MADV_COLLAPSE",
    "MADV_DONTNEED",
    "MADV_HWPOISON",
    "MADV_POPULATE_WRITE",
    "MADV_SPLIT",
    "TINY",
    "X86_64",
    "AddressSpace",
    "Entry",
    "EntryKind",
    "FaultOutcome",
    "GatherKind",
    "GatherStep",
    "Geometry",
    "HugetlbFile",
    "Level",
    "PageBitmap",
    "PageIndex",
    "PartialError",
    "PieceRun",
    "Span",
    "UffdEvent",
    "UffdFeature",
    "UffdMsg",
    "UffdPagefault",
    "Userfaultfd",
    "ValidationError",
    "WouldSleepError",
]
