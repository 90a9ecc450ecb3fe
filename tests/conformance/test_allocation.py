"""Where a store's bytes come from: zeros of the asked size, or a refusal in one line."""

from __future__ import annotations

import pytest

from migemu.errors import BrokenError
from migemu.store.allocate import allocate


@pytest.mark.parametrize("backing", ["anonymous", "memfd"])
def test_memory_is_handed_out_as_zeros_that_can_be_written(backing: str) -> None:
    memory = allocate(1 << 20, backing)
    assert bytes(memory) == bytes(1 << 20)
    memory[:3] = b"abc"
    assert memory[:4] == b"abc\0"
    assert memory[:4] != allocate(1 << 20, backing)[:4], "nobody else's"


@pytest.mark.parametrize("backing", ["anonymous", "memfd", "hugetlbfs"])
def test_more_memory_than_there_is_is_refused_in_one_line(backing: str) -> None:
    """A PiB, and more than the kernel can count."""
    for size in (1 << 50, 1 << 65):
        with pytest.raises(BrokenError, match=r"of .*memory to be had") as error:
            allocate(size, backing)
        assert "\n" not in str(error.value)
