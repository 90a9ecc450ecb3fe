"""What the model reports of a collapse costs exactly what was known beforehand, by every step and in both versions."""

from __future__ import annotations

import pytest

from migemu.costs.collapse_cost import CostModel
from migemu.costs.operations import of_steps
from migemu.mm import ARM64_4K, MADV_COLLAPSE, MADV_SPLIT, TINY, X86_64, AddressSpace, Geometry, Level
from migemu.mm.gather import GatherStep


@pytest.mark.parametrize("hgm", ["v1", "v2"])
@pytest.mark.parametrize(
    ("geometry", "step_pages"),
    [
        (X86_64, 512), (X86_64, 1 << 17), (X86_64, 1 << 18), (TINY, 4), (TINY, 8), (TINY, 16),
        (ARM64_4K, 16), (ARM64_4K, 512), (ARM64_4K, 8192), (ARM64_4K, 1 << 18),
    ],
)  # fmt: skip
def test_the_model_and_the_counts_agree(geometry: Geometry, step_pages: int, hgm: str) -> None:
    steps: list[GatherStep] = []
    space = AddressSpace(geometry, hgm=hgm, on_gather=steps.append)  # type: ignore[arg-type]
    length = geometry.size(Level.PUD)
    base = space.mmap_hugetlb(length)
    space.populate(base, length)
    space.madvise(base, length, MADV_SPLIT)
    uffd = space.userfaultfd()
    uffd.register(base, length, minor=True)
    per_slot = geometry.pages(Level.PMD)
    for slot in range(base, base + length, geometry.size(Level.PMD)):
        uffd.continue_run(slot, Level.PTE, per_slot)
    costs = CostModel(geometry=geometry)
    below = Level.PTE
    for each in costs.layout(step_pages * geometry.page_bytes).rounds:
        for addr in range(base, base + length, length // each.calls):
            steps.clear()
            space.madvise(addr, length // each.calls, MADV_COLLAPSE)
            assert of_steps(steps) == costs.operations(below, each.level, each.spans)
            assert costs.of_steps(steps) == each.stall.call_ns
        below = each.level
