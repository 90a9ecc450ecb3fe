"""A migration while it runs, as a flat value: what a node tells whoever watches it, once every tenth of a second.

The same value drives the display on the destination's own terminal and, as one JSON line, the display of `migemu run`
over two child processes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from migemu.mm.pages import Level
from migemu.node.outcome import Snapshot
from migemu.wire.states import Stage


@dataclass(frozen=True, slots=True)
class Status:
    """Bytes, counts, and shares of memory by the level that maps it. `cells` has a letter for each cell of the map.

    A cell is `0` to `8` by its share that 4K pieces map, `m` when 2M entries map all of it, `g` when it is inside 1G
    entries.
    """

    stage: Stage
    elapsed_ns: int
    memory_bytes: int
    received_bytes: int
    mapped_4k_bytes: int
    mapped_2m_bytes: int
    mapped_1g_bytes: int
    wire_bytes: int
    faults: int
    faults_open: int
    cells: str

    @classmethod
    def of(cls, snapshot: Snapshot) -> Status:
        """The status of a snapshot of a destination."""
        receiver, leaves, geometry = snapshot.receiver, snapshot.leaves, snapshot.geometry
        began = snapshot.times.run or snapshot.times.advise or snapshot.now_ns
        return cls(
            stage=snapshot.stage,
            elapsed_ns=(snapshot.times.finish or snapshot.now_ns) - began,
            memory_bytes=snapshot.memory_bytes,
            received_bytes=receiver.pages_received * geometry.page_bytes,
            mapped_4k_bytes=leaves.get(Level.PTE, 0) * geometry.size(Level.PTE),
            mapped_2m_bytes=leaves.get(Level.PMD, 0) * geometry.size(Level.PMD),
            mapped_1g_bytes=leaves.get(Level.PUD, 0) * geometry.size(Level.PUD),
            wire_bytes=snapshot.wire_bytes,
            faults=receiver.faults,
            faults_open=receiver.faults_open,
            cells=snapshot.cells,
        )

    def fields(self) -> dict[str, Any]:
        """The status in plain values, for JSON; `parse` reads them."""
        return asdict(self) | {"stage": self.stage.value}

    def line(self) -> str:
        """The status as one line of JSON."""
        return json.dumps({"status": self.fields()}, separators=(",", ":"))

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Status:
        """The status of `fields`. TypeError or ValueError when they are others."""
        return cls(**fields | {"stage": Stage(fields["stage"])})
