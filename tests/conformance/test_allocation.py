"""Where a store's bytes come from: zeros of the asked size, or a refusal in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from migemu.errors import BrokenError
from migemu.mm.pages import TINY
from migemu.store.allocate import allocate
from migemu.store.mapped import MappedMemory
from migemu.units import MIB


def resident_bytes() -> int:
    """What this process has in memory, in pages of 4K (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.parametrize("backing", ["anonymous", "memfd"])
def test_memory_is_handed_out_as_zeros_that_can_be_written(backing: str) -> None:
    memory = allocate(1 << 20, backing)
    assert bytes(memory) == bytes(1 << 20)
    memory[:3] = b"abc"
    assert memory[:4] == b"abc\0"
    assert memory[:4] != allocate(1 << 20, backing)[:4], "nobody else's"


@pytest.mark.parametrize("backing", ["anonymous", "memfd"])
def test_released_memory_goes_back_although_somebody_still_refers_to_it(backing: str) -> None:
    """As much as the kernel says that this process has of it: all, then none."""
    size = 64 * MIB
    before = resident_bytes()
    memory = MappedMemory(TINY, size, allocate(size, backing))
    view = memory.landing(0, 1)
    assert resident_bytes() - before > size // 2
    memory.release()
    assert abs(resident_bytes() - before) < size // 2
    assert bytes(view) == bytes(len(view))


@pytest.mark.parametrize("backing", ["anonymous", "memfd", "hugetlbfs"])
def test_more_memory_than_there_is_is_refused_in_one_line(backing: str) -> None:
    """A PiB, and more than the kernel can count."""
    for size in (1 << 50, 1 << 65):
        with pytest.raises(BrokenError, match=r"of .*memory available") as error:
            allocate(size, backing)
        assert "\n" not in str(error.value)
