"""The pieces of a fault against the round trips that were measured."""

from __future__ import annotations

import pytest

from migemu.costs.fault_cost import FaultCosts, Handler


@pytest.mark.parametrize(("handler", "measured_us"), [("same_core", 9), ("spinning", 36), ("sleeping", 113)])
def test_the_measured_round_trips(handler: Handler, measured_us: int) -> None:
    """They were taken with UFFDIO_COPY, of 3.5 us, in place of copying and CONTINUE."""
    costs = FaultCosts(handler)
    assert (costs.fault_ns() - costs.place_ns + 3_500) / 1000 == pytest.approx(measured_us, rel=0.01)


def test_placing_438_000_pieces_takes_a_second() -> None:
    assert FaultCosts().place_ns * 438_000 == pytest.approx(1e9, rel=0.03)


def test_fetching_adds_what_it_takes() -> None:
    costs = FaultCosts(event_ns=1, copy_ns=10, continue_ns=100, wake_ns=1_000)
    assert costs.fault_ns(fetch_ns=50_000) == 51_111


def test_an_unknown_handler_is_refused() -> None:
    with pytest.raises(ValueError, match="give same_core, spinning, sleeping"):
        FaultCosts("elsewhere")  # type: ignore[arg-type]
