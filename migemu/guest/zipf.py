"""Zipf: few pages are touched often, many rarely.

What this models
    The skew of caches and key-value stores. Of `n` pages, the one of rank k (1 is the hottest) is touched
    with probability k**-exponent / H, where H is the sum of i**-exponent for i = 1..n.

Rules
    1. Exact for any exponent above 0, 1 included, and any number of pages, in constant memory and without a table:
       W. Hoermann, G. Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions",
       ACM TOMACS 6(3), 1996, pp. 169-184. Measured here, fewer than 2 draws in 100 are rejected.
    2. Which page has which rank is the same for all vCPUs and all seeds: they share their hot pages, as the threads of
       a guest do. The seed decides only the order of accesses.
    3. With `scatter` the ranks lie all over the memory, so that neighbours of a hot page are as cold as any; without
       it, page k - 1 has rank k and the hot pages are neighbours, which flatters every push that follows faults.

Words
    exponent   s in Zipf's law; 0.99 is the default of YCSB ("zipfian constant")

Simplified
    The law does not change over time: no phases, no working set that moves. `exp` and `log1p` come from the C library;
    where two libraries differ in the last bit, a draw may, very rarely, fall on the neighbouring rank.
"""

from __future__ import annotations

from math import exp, expm1, log, log1p

from migemu import values
from migemu.guest.workload import Access, WorkloadContext, workloads
from migemu.permutation import Scatter


@workloads.register("zipf", exponent=values.number(above=0, most=16, unit="exponent"), layout=values.whole(unit="seed"))
class Zipf:
    """Every vCPU touches few pages often and many rarely, by Zipf's law; all vCPUs share the hot pages.

    Settings: `exponent` of the law, above 0 (0.99 as in YCSB); `scatter`, off to put the hot pages side by side at the
    start of the memory; `layout`, a number that picks another scattering.
    """

    __slots__ = (
        "_at_half", "_at_n_half", "_exponent", "_inverse", "_page_of", "_power", "_random", "_scatter", "_squeeze",
        "_total_pages", "_write_share",
    )  # fmt: skip

    def __init__(
        self, context: WorkloadContext, *, exponent: float = 0.99, scatter: bool = True, layout: int = 0
    ) -> None:
        self._exponent = exponent
        self._power = 1.0 - exponent
        self._inverse = 0.0 if self._power == 0.0 else 1.0 / self._power
        self._total_pages = context.total_pages
        self._scatter = Scatter(context.total_pages, layout) if scatter else None
        self._page_of = None if self._scatter is None else self._scatter.place
        self._random = context.rng.random
        self._write_share = context.write_share
        # The names of the paper: H is `_integral`, its inverse `_rank_at`; a uniform number between H(1.5) - 1 and
        # H(n + 0.5) is turned into a rank, which is taken at once when it lies within `_squeeze` of it.
        self._at_half = self._integral(1.5) - 1.0
        self._at_n_half = self._integral(self._total_pages + 0.5)
        self._squeeze = 2.0 - self._rank_at(self._integral(2.5) - 2.0**-exponent)

    def _integral(self, rank: float) -> float:
        """The integral of x**-exponent from 1 to `rank`. expm1 keeps it exact around exponent 1."""
        if self._power == 0.0:
            return log(rank)
        return expm1(self._power * log(rank)) * self._inverse

    def _rank_at(self, integral: float) -> float:
        """The inverse of `_integral`."""
        if self._power == 0.0:
            return exp(integral)
        return exp(log1p(self._power * integral) * self._inverse)

    def next_access(self) -> Access:
        """An access to a page drawn by Zipf's law; never None."""
        random, power, low, high = self._random, self._power, self._at_half, self._at_n_half
        while True:
            integral = high + random() * (low - high)
            if not power:
                value = exp(integral)
            elif (scaled := power * integral) > -1.0:
                value = exp(log1p(scaled) * self._inverse)
            else:  # a steep law leaves its last ranks less than doubles can tell apart
                value = float(self._total_pages)
            rank = int(value + 0.5)
            if rank < 1:
                rank = 1
            elif rank > self._total_pages:
                rank = self._total_pages
            if rank - value <= self._squeeze or integral >= self._integral(rank + 0.5) - rank**-self._exponent:
                break
        page_of = self._page_of
        page = rank - 1 if page_of is None else page_of(rank - 1)
        return Access(page, random() < self._write_share)

    def __repr__(self) -> str:
        return f"<Zipf {self._exponent:g} over {self._total_pages} pages, {self._scatter or 'side by side'}>"
