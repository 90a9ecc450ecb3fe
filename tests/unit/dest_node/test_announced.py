"""What a source announces: judged before any of it is set up, and held to it afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from dest_node.core.advise import Announced
from migemu.errors import InputError, PeerError
from migemu.mm.pages import TINY
from migemu.scenario.net import LimitsSettings
from migemu.wire.messages import Advise

HUGEPAGE = 64 << 10
LIMITS = LimitsSettings(memory_max="128K", device_state_max="1K")


def announced(**changes: Any) -> Announced:
    advise = Advise("tiny", 2 * HUGEPAGE, 2 * HUGEPAGE, 1024, False, "")
    return Announced(advise._replace(**changes), LIMITS)


def test_as_much_as_is_allowed_is_accepted() -> None:
    accepted = announced()
    assert (accepted.geometry, accepted.pages) == (TINY, 32)
    assert repr(accepted) == "<Announced 128K of tiny>"
    assert announced(memory_bytes=HUGEPAGE, image_bytes=1).pages == 16


@pytest.mark.parametrize(
    ("memory_bytes", "image_bytes"), [(0, 0), (HUGEPAGE - 1, 0), (HUGEPAGE + 4096, 0), (HUGEPAGE, HUGEPAGE + 1)]
)
def test_what_is_no_image_in_whole_hugetlb_pages_is_the_sources_mistake(memory_bytes: int, image_bytes: int) -> None:
    with pytest.raises(PeerError) as error:
        announced(memory_bytes=memory_bytes, image_bytes=image_bytes)
    assert str(error.value) == (
        f"the source announces {memory_bytes} bytes of memory with an image of {image_bytes}; "
        "that is not an image in whole hugetlb pages of 64K"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"memory_bytes": 3 * HUGEPAGE}, "192K; limits.memory_max of this destination is 128K"),
        ({"device_state_bytes": 2048}, "2K; limits.device_state_max of this destination is 1K"),
    ],
)
def test_what_is_more_than_this_side_allows_names_the_limit(changes: dict[str, int], problem: str) -> None:
    with pytest.raises(InputError) as error:
        announced(**changes)
    assert str(error.value) == f"the source announces {problem}"


def test_a_device_state_comes_in_order_and_whole_before_the_guest_runs() -> None:
    accepted = announced()
    accepted.device_state(0, bytes(1000))
    with pytest.raises(PeerError, match="the source starts the guest after 1000 of 1024 bytes of device state"):
        accepted.may_run()
    accepted.device_state(1000, bytes(24))
    accepted.may_run()


@pytest.mark.parametrize(("offset", "length"), [(999, 1), (1001, 1), (0, 1), (1000, 25)])
def test_a_part_of_the_device_state_that_does_not_follow_is_refused(offset: int, length: int) -> None:
    accepted = announced()
    accepted.device_state(0, bytes(1000))
    with pytest.raises(PeerError) as error:
        accepted.device_state(offset, bytes(length))
    assert str(error.value) == (
        f"device state from byte {offset} to {offset + length} does not follow byte 1000 of 1024"
    )
    accepted.device_state(1000, bytes(24))


def test_a_switch_that_begins_again_brings_the_device_state_from_the_start() -> None:
    accepted = announced()
    accepted.device_state(0, bytes(1000))
    accepted.begin()
    accepted.device_state(0, bytes(1024))
    accepted.may_run()
