"""Who imports whom inside `migemu.mm`: nobody in a circle, for the type checker alone neither."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import migemu.mm

FOLDER = Path(migemu.mm.__file__).parent


def test_there_is_no_circle() -> None:
    imports = {
        path.stem: {
            node.module.removeprefix("migemu.mm.")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("migemu.mm.")
        }
        for path in FOLDER.glob("*.py")
        if path.stem != "__init__"
    }
    assert len(imports) > 20
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        raise AssertionError(f"a circle: {' -> '.join(error.args[1])}") from None
    assert order.index("vma") < order.index("userfaultfd") < order.index("guest_mapping")
