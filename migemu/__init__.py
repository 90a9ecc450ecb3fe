"""migemu: post-copy live migration of 1 GB hugetlb pages, emulated.

From a program or a notebook:

    import migemu

    result = migemu.simulate({"guest.vcpus": 48, "link.preset": "25G", "return_link.preset": "25G"}, seed=1)
    result.fault.p99_ns             every key of result.json is an attribute
    result.faults.to_pandas()       each fault, a row each
    result.plot.latency()           the figures of `migemu report`, as plotly figures

`simulate` runs in virtual time, `run` with two processes and real bytes, `sweep` runs many; `check` judges a trace,
`explore` tries a collapse policy in every order of events, `AddressSpace` is the memory model alone.

Each name is imported when it is first used, so that `import migemu` stays free of charge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from migemu.api.campaigns import SweepOptions, SweepResult, sweep
    from migemu.api.columns import Columns
    from migemu.api.judgement import check
    from migemu.api.migrations import run, simulate
    from migemu.api.run_result import Result
    from migemu.errors import MigemuError
    from migemu.mm.address_space import AddressSpace
    from migemu.ordering.exploration import explore

    __version__: str

__all__ = [
    "AddressSpace", "Columns", "MigemuError", "Result", "SweepOptions", "SweepResult", "check", "explore", "run",
    "simulate", "sweep",
]  # fmt: skip
_HOMES = {
    "AddressSpace": "migemu.mm.address_space", "Columns": "migemu.api.columns", "MigemuError": "migemu.errors",
    "Result": "migemu.api.run_result", "SweepOptions": "migemu.api.campaigns", "SweepResult": "migemu.api.campaigns",
    "check": "migemu.api.judgement", "explore": "migemu.ordering.exploration", "run": "migemu.api.migrations",
    "simulate": "migemu.api.migrations", "sweep": "migemu.api.campaigns",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """A name of `__all__`, or `__version__`, when somebody asks for it."""
    if name in _HOMES:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    if name != "__version__":
        raise AttributeError(f"module 'migemu' has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("migemu")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]
