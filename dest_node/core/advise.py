"""What the source announced in its Advise, and whether what follows keeps to it. Pure.

A source may be wrong or hostile: sizes are checked before anything is allocated, and the device state has to come
whole and in order before the guest may run.
"""

from __future__ import annotations

from migemu.errors import InputError, PeerError
from migemu.mm.pages import GEOMETRIES, Geometry
from migemu.scenario.net import LimitsSettings
from migemu.units import format_size
from migemu.wire.messages import Advise


class Announced:
    """An Advise that this destination accepts."""

    def __init__(self, advise: Advise, bounds: LimitsSettings) -> None:
        """PeerError when it makes no sense; InputError when it is more than `bounds` allow here."""
        self.advise = advise
        self.geometry: Geometry = GEOMETRIES[advise.geometry]
        self.pages = advise.memory_bytes // self.geometry.page_bytes
        self._state_bytes = 0
        hugepage_bytes = self.geometry.largest_bytes
        if not advise.memory_bytes or advise.memory_bytes % hugepage_bytes or advise.image_bytes > advise.memory_bytes:
            raise PeerError(
                f"the source announces {advise.memory_bytes} bytes of memory with an image of {advise.image_bytes}; "
                f"that is not an image in whole hugetlb pages of {format_size(hugepage_bytes)}"
            )
        for name, announced, most in (
            ("memory_max", advise.memory_bytes, bounds.memory_max),
            ("device_state_max", advise.device_state_bytes, bounds.device_state_max),
        ):
            if announced > most:
                raise InputError(
                    f"the source announces {format_size(announced)}; limits.{name} of this destination is "
                    f"{format_size(most)}"
                )

    def device_state(self, offset: int, payload: bytes) -> None:
        """The next part of the device state. PeerError when it does not follow, or is more than was announced."""
        end = offset + len(payload)
        if offset != self._state_bytes or end > self.advise.device_state_bytes:
            raise PeerError(
                f"device state from byte {offset} to {end} does not follow byte {self._state_bytes} "
                f"of {self.advise.device_state_bytes}"
            )
        self._state_bytes = end

    def begin(self) -> None:
        """The switch begins, perhaps not for the first time: the device state comes from the start."""
        self._state_bytes = 0

    def may_run(self) -> None:
        """The guest is told to run. PeerError when its device state is not complete."""
        if self._state_bytes != self.advise.device_state_bytes:
            raise PeerError(
                f"the source starts the guest after {self._state_bytes} of "
                f"{self.advise.device_state_bytes} bytes of device state"
            )

    def __repr__(self) -> str:
        return f"<Announced {format_size(self.advise.memory_bytes)} of {self.geometry.name}>"
