"""What a fault costs at the destination: ns of each piece of handling one with userfaultfd.

What this models
    A vCPU touches a 4K that is in the page cache or not even there, and sleeps until a handler in user space has mapped
    it. The pieces, in order: the event reaches the handler, the bytes arrive and are written through the alias,
    UFFDIO_CONTINUE maps them, the vCPU wakes.

Rules
    1. The pieces follow one another; nothing overlaps. What the network adds arrives as an argument.
    2. Where the handler runs decides most: on the vCPU's own core it costs two context switches, on another one that
       spins an interrupt's way, on another one that sleeps a wake-up.
    3. How pieces are mapped, by `Place`
       run        received in their place; one UFFDIO_CONTINUE for all neighbours that came together, an entry each
       continue   each piece copied through the alias and continued by itself (QEMU's doublemap series)
       copy       each piece by a UFFDIO_COPY of its own (QEMU without HGM)

Sources
    Measured on two virtual x86-64 cores (Xeon), Linux 6.18, from Python, +-30 %. One ioctl UFFDIO_CONTINUE of 4K on
    memfd: 1.0 us; UFFDIO_COPY: 3.2 to 3.8 us; copying by 4 KiB slices: 3.3 GB/s, that is 1.24 us; both together 438,000
    a second, that is 2.28 us, as the two pieces predict. Fault round trip with UFFDIO_COPY: handler on the same core 9
    us, on another that spins 36, on another that sleeps 113. Event and wake-up are what the 9 us leave besides COPY,
    half each (assumed); where the handler runs adds the differences 27 and 104.

Simplified
    One fault at a time: no contention on the userfaultfd's wait queue, which is what limits many vCPUs (SEMANTICS 5.1),
    nor on the fault mutex of the hugepage (SEMANTICS 1.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Handler = Literal["same_core", "spinning", "sleeping"]
Place = Literal["run", "continue", "copy"]

#: What a handler on another core adds to the same core's round trip, in ns (36 - 9 and 113 - 9 us, measured).
HANDLER_NS: Final[dict[Handler, int]] = {"same_core": 0, "spinning": 27_000, "sleeping": 104_000}


@dataclass(frozen=True, slots=True)
class FaultCosts:
    """ns of the pieces of one 4K fault. ValueError: an unknown `handler`."""

    handler: Handler = "same_core"
    event_ns: int = 2_750
    copy_ns: int = 1_240
    continue_ns: int = 1_000
    wake_ns: int = 2_750
    #: A UFFDIO_COPY of 4K, its copying included.
    uffdio_copy_ns: int = 3_500

    def __post_init__(self) -> None:
        if self.handler not in HANDLER_NS:
            raise ValueError(f"handler={self.handler!r} is not accepted: give {', '.join(HANDLER_NS)}")

    @property
    def place_ns(self) -> int:
        """Bytes that have arrived to bytes that are mapped: copy and UFFDIO_CONTINUE."""
        return self.copy_ns + self.continue_ns

    def map_ns(self, place: Place, pieces: int, pages: int, entry_ns: int) -> int:
        """To map so many neighbouring pieces of `pages` base pages each, by the means of rule 3."""
        if place == "run":
            return self.continue_ns + (pieces - 1) * entry_ns
        ioctl_ns = self.continue_ns if place == "continue" else self.uffdio_copy_ns - self.copy_ns
        return pieces * (ioctl_ns + pages * self.copy_ns)

    def fault_ns(self, fetch_ns: int = 0) -> int:
        """From the access to its completion, when the bytes are here `fetch_ns` after the handler has asked."""
        return self.event_ns + HANDLER_NS[self.handler] + fetch_ns + self.place_ns + self.wake_ns
