"""Series that stay small however long a run was: rows thinned out over time, sums in bins, percentiles.

Rules
    1. None of them knows the end beforehand. Each begins finely, and whenever it holds twice what it may, it doubles
       its step and halves what it holds: so the same events always give the same series.
    2. Thinning drops rows and never changes one; bins add up, and lose nothing but the moment.
    3. A series says its step, so that whoever draws it can say how it was reduced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from migemu.units import MS, US

T = TypeVar("T")
POINTS_MAX: Final = 600


class Thinned(Generic[T]):
    """Rows at ascending times, at most one per `step_ns`: the last row in each step. `step_ns` doubles as needed."""

    __slots__ = ("_most", "_rows", "step_ns")

    def __init__(self, step_ns: int = 100 * US, most: int = POINTS_MAX) -> None:
        self.step_ns = step_ns
        self._most = most
        self._rows: list[tuple[int, T]] = []

    def add(self, t: int, row: T) -> None:
        """Add the row that is valid from `t` on."""
        rows = self._rows
        if rows and rows[-1][0] // self.step_ns == t // self.step_ns:
            rows[-1] = (t, row)
            return
        rows.append((t, row))
        while len(rows) > self._most:
            self.step_ns *= 2
            rows[:] = [
                each
                for each, after in zip(rows, [*rows[1:], None], strict=True)
                if after is None or after[0] // self.step_ns != each[0] // self.step_ns
            ]

    def rows(self) -> list[tuple[int, T]]:
        """The (t, row) pairs that were kept, by time."""
        return list(self._rows)


class Bins:
    """Sums of several quantities over time: bin k sums what came in [k * step_ns, (k + 1) * step_ns)."""

    __slots__ = ("_bins", "_most", "_width", "step_ns")

    def __init__(self, quantities: int, step_ns: int = MS, most: int = POINTS_MAX) -> None:
        self.step_ns = step_ns
        self._width = quantities
        self._most = most
        self._bins: dict[int, list[int]] = {}

    def add(self, t: int, quantity: int, amount: int) -> None:
        """Add `amount` of the quantity with that number, at time `t`."""
        row = self._bins.get(t // self.step_ns)
        if row is None:
            row = self._bins[t // self.step_ns] = [0] * self._width
            while max(self._bins) - min(self._bins) >= self._most:
                self._double()
            row = self._bins[t // self.step_ns]
        row[quantity] += amount

    def rows(self, step_ns: int = 0) -> list[tuple[int, tuple[int, ...]]]:
        """(start of the bin in ns, sums) from the first bin to the last, empty bins between them included.

        `step_ns` asks for wider bins, for example those of another series: a multiple of this one's own step.
        """
        if not self._bins:
            return []
        step_ns = max(step_ns, self.step_ns)
        bins, empty = self._wider(step_ns // self.step_ns), [0] * self._width
        return [(place * step_ns, tuple(bins.get(place, empty))) for place in range(min(bins), max(bins) + 1)]

    def _double(self) -> None:
        self.step_ns *= 2
        self._bins = self._wider(2)

    def _wider(self, factor: int) -> dict[int, list[int]]:
        wider: dict[int, list[int]] = {}
        for place, row in self._bins.items():
            into = wider.setdefault(place // factor, [0] * self._width)
            for quantity, amount in enumerate(row):
                into[quantity] += amount
        return wider


class Percentile(NamedTuple):
    """`share` of the values (0 to 1) are at most `value`."""

    share: float
    value: int


#: Shares of a cumulated distribution up to p99.99, dense where the tail is.
SHARES: Final = tuple(
    sorted(
        {number / 100 for number in range(91)}
        | {1 - 10**-digits * rest / 20 for digits in (1, 2, 3) for rest in range(20, 1, -1)}
        | {0.9999}
    )
)


def percentiles(ascending: Sequence[int], shares: Sequence[float] = SHARES) -> list[Percentile]:
    """Nearest-rank percentiles. Only the last may equal the maximum, so that `n` values claim no finer percentile."""
    count = len(ascending)
    shown: list[Percentile] = []
    for share in shares:
        if not count or (shown and share < 1 and share * count > count - 1 and shown[-1].value == ascending[-1]):
            break
        shown.append(Percentile(share, int(ascending[_rank(share, count)])))
    return shown


def _rank(share: float, count: int) -> int:
    """Index of the smallest value that at least `share` of all do not exceed; shares are exact to a millionth."""
    return max(0, -(-count * round(share * 1_000_000) // 1_000_000) - 1)
