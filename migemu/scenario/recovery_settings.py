"""[recovery]: for how long a lost peer is worth waiting for, and how often."""

from __future__ import annotations

import attrs

from migemu.scenario import fields


@attrs.frozen
class RecoverySettings:
    """[recovery] - what becomes of a migration whose connections are lost after the switch."""

    timeout: int = fields.time(
        "60s", "how long to wait and try without progress before giving up; 0: a lost connection is the end"
    )
    backoff_min: int = fields.time("100ms", "how long the source waits before it connects again; doubles", least="1ms")
    backoff_max: int = fields.time("5s", "the longest of these waits", least="1ms")
    errors_max: int = fields.number(
        int,
        8,
        "how often the peer may break the protocol, or a piece come corrupt, without progress",
        0,
        1_000_000,
        "failures",
    )

    def __attrs_post_init__(self) -> None:
        """The rules between settings."""
        if self.backoff_max < self.backoff_min:
            raise ValueError("backoff_max: it is shorter than backoff_min")
