"""A sweep's runs as one flat table: a row for each run, for spreadsheets (CSV) and data frames (Parquet).

Columns: cell, one for each axis (`axis.<name>`), seed, status, error, program, wall_ns, then every figure of any run
under its dotted key. An empty field (CSV) or null (Parquet) is a figure that the run does not have. Failed runs are
rows too: what is missing should be seen.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import Any

from migemu.errors import ExtraError
from migemu.experiment.figures import figures
from migemu.experiment.results import Results, StoredRun
from migemu.store.output import Output

_FIXED = ("seed", "status", "error", "program", "wall_ns")


def table(results: Results) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of the columns, and the rows, in the order of the sweep."""
    axes = results.axes()
    rows: list[dict[str, Any]] = []
    keys: dict[str, None] = {}
    for run in results.runs():
        row = {"cell": run.cell, **{f"axis.{axis}": run.coordinates.get(axis) for axis in axes}, **_fixed(run)}
        numbers = figures(run.result)
        keys |= dict.fromkeys(numbers)
        rows.append(row | numbers)
    return ["cell", *(f"axis.{axis}" for axis in axes), *_FIXED, *keys], rows


def _fixed(run: StoredRun) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _FIXED}


def to_csv(results: Results, output: Output) -> int:
    """Write the table as CSV; the number of rows. OSError when it cannot be written."""
    columns, rows = table(results)
    with output.text() as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def to_parquet(results: Results, output: Output) -> int:
    """Write the table as Parquet; the number of rows. ExtraError without pyarrow, OSError when it cannot be written."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ExtraError("--parquet", "pyarrow", "parquet") from None
    columns, rows = table(results)
    arrays = {name: pyarrow.array(list(_column(name, rows))) for name in columns}
    pyarrow.parquet.write_table(pyarrow.table(arrays), output.stream())
    return len(rows)


def _column(name: str, rows: Iterable[dict[str, Any]]) -> Iterator[Any]:
    """A column of one type: whole numbers become floats if one of them is a float."""
    values = [row.get(name) for row in rows]
    mixed = any(isinstance(value, float) for value in values)
    yield from (float(value) if mixed and isinstance(value, int) else value for value in values)
