"""Known kinds of link: values of [link] under a name, each with where it comes from.

A preset describes one direction: set it in [link] and in [return_link]. Delays are what the network takes one way, half
of a published round trip; what hosts take to send and receive is not part of a link. Rates are the nominal ones. In
data centres the queue holds two segments: what byte queue limits leave a device is of that order (assumed).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings of [link] as a user would write them, and their source."""

    settings: Mapping[str, Any]
    source: str

    @property
    def shown(self) -> str:
        """The settings as they would be written: `rate=10Gbit, delay=50us`."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())


PRESETS: Final[dict[str, Preset]] = {
    "loopback": Preset(
        {"rate": "32Gbit", "delay": "6us"},
        "measured with this project on a virtual machine of two cores: 4.0 GB/s of 4K pieces behind one header; a "
        "4 KiB request and its answer between processes on one core take 12 us",
    ),
    "10G": Preset(
        {"rate": "10Gbit", "delay": "50us", "queue": "128K", "congestion": "cubic"},
        "M. Alizadeh et al., Data Center TCP (DCTCP), SIGCOMM 2010: round trips below 250 us when no queue has built "
        "up; 100 us assumed",
    ),
    "25G": Preset(
        {"rate": "25Gbit", "delay": "25us", "queue": "128K", "congestion": "cubic"},
        "R. Mittal et al., TIMELY, SIGCOMM 2015, and G. Kumar et al., Swift, SIGCOMM 2020: base round trips of some "
        "tens of microseconds; 50 us assumed",
    ),
    "100G": Preset(
        {"rate": "100Gbit", "delay": "6500ns", "queue": "128K", "congestion": "cubic"},
        "Y. Li et al., HPCC, SIGCOMM 2019: 13 us is the base round trip of its simulations of 100 Gbit/s",
    ),
    "cross-zone": Preset(
        {"rate": "10Gbit", "delay": "500us", "jitter": "50us", "distribution": "pareto", "congestion": "cubic"},
        "J. Hamilton, AWS Innovation at Scale, re:Invent 2014: zones less than 2 ms apart, usually less than 1 ms; "
        "rate and jitter assumed",
    ),
    "WAN": Preset(
        {
            "rate": "1Gbit", "delay": "35ms", "jitter": "1ms", "distribution": "pareto", "congestion": "cubic",
            "loss": 0.00001,
        },
        "Microsoft, Azure network round-trip latency statistics: some 70 ms between the coasts of the United States; "
        "rate, jitter and loss assumed",
    ),
}  # fmt: skip
