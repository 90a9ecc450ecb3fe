"""Which guests their source may have back."""

from __future__ import annotations

from typing import Any

import pytest

from migemu.errors import InputError
from source_node.record import Migration


@pytest.mark.parametrize(
    ("known", "may"),
    [
        ({}, True),  # it had not left: the destination cannot tell
        ({"switched": True}, True),
        ({"switched": True, "ran": True}, False),
        ({"switched": True, "downtime_ns": 5}, False),
        ({"switched": True, "completed": True}, False),
    ],
)
def test_a_guest_is_taken_back_unless_it_has_run_elsewhere(known: dict[str, Any], may: bool) -> None:
    migration = Migration("0" * 32, "127.0.0.1:4444", {}, {}, **known)
    if may:
        migration.check_take_back()
        return
    with pytest.raises(InputError, match="it has run at the destination"):
        migration.check_take_back()
