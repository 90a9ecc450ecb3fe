"""A power-of-two histogram as bpftrace prints it, because that is what this field pastes into mails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_BAR: Final = 52


def log2_histogram(title: str, buckets: Mapping[int, int]) -> str:
    """Lines of `buckets` (lower bound -> count), empty buckets between the first and the last one included.

    A bucket of bound 2**n holds [2**n, 2**(n+1)); bound 0 holds [0, 1). Bounds from 1024 on are written 1K, 2K, as
    bpftrace does.
    """
    lines = [f"@{title}:"]
    if not buckets:
        return "\n".join([*lines, "(no samples)"])
    first, last, most = min(buckets), max(buckets), max(buckets.values())
    bound = first
    while bound <= last:
        count = buckets.get(bound, 0)
        bar = "@" * (count * _BAR // most)
        lines.append(f"{bucket_label(bound):<16} {count:>8} |{bar:<{_BAR}}|")
        bound = bound * 2 or 1
    return "\n".join(lines)


def bucket_label(bound: int) -> str:
    """`4096` -> `"[4K, 8K)"`: the bucket of that lower bound."""
    return f"[{bound}]" if bound < 2 else f"[{_short(bound)}, {_short(bound * 2)})"


def _short(bound: int) -> str:
    for unit, scale in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if bound >= scale:
            return f"{bound // scale}{unit}"
    return str(bound)
