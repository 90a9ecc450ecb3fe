"""The table at the end of a run: nothing in it is left out without a word."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from migemu.report.terminal.summary import summary
from tests.unit.report.runs import result


def shown(said: dict[str, Any]) -> str:
    """As on a wide terminal, in one line."""
    text = StringIO()
    Console(width=400, file=text).print(summary(said))
    return " ".join(text.getvalue().split())


@pytest.mark.parametrize("section", ["blocktime_ns", "stall_ns"])
@pytest.mark.parametrize(("vcpus", "dots"), [(1, False), (8, False), (9, True), (48, True)])
def test_of_many_vcpus_the_first_are_shown_and_that_there_are_more(section: str, vcpus: int, dots: bool) -> None:
    said = result("modelled")
    said[section]["per_vcpu"] = [(number + 1) * 1_000 for number in range(vcpus)]
    said["stall_ns"]["max"] = 5_000
    text = shown(said)
    last = min(vcpus, 8)
    assert f"{last}us{f' ... ({vcpus} vCPUs)' if dots else ''};" in text
    assert f"{last + 1}us" not in text


def test_no_limit_is_called_so() -> None:
    said = result()
    assert "unlimited out, unlimited back" in shown(said)
    assert "0Gbit" not in shown(said)
