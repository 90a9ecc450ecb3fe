"""How mutants are counted, and that each one that is known to change nothing says why."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from tests.mutants.score import Change, change_of, known_equivalents, score_of

DIFF = """\
--- a
+++ b
@@ -1,3 +1,3 @@
 def at(self, page):
-    if page < 0:
+    if page <= 0:
         return None
"""


def test_a_change_is_named_by_its_function_and_said_without_indentation() -> None:
    assert change_of("migemu.wire.bitmap.xǁReaderǁ__init____mutmut_3", DIFF) == Change(
        "migemu.wire.bitmap.Reader.__init__", "if page < 0:", "if page <= 0:"
    )
    assert change_of("migemu.wire.header.x__text__mutmut_12", DIFF).function == "migemu.wire.header._text"


def test_survivors_are_shown_unless_they_are_known_to_change_nothing(tmp_path: Path) -> None:
    rows = [
        {"name": f"migemu.wire.header.x_{name}__mutmut_1", "status": status, "diff": DIFF if shown else ""}
        for name, status, shown in (
            ("a", "killed", False),
            ("b", "timeout", False),
            ("c", "caught by type check", False),
            ("d", "survived", True),
            ("e", "survived", True),
            ("f", "no tests", True),
            ("g", "not checked", False),
        )
    ]
    found = tmp_path / "mutants.json"
    found.write_text(json.dumps(rows), encoding="utf-8")
    known = {Change("migemu.wire.header.e", "if page < 0:", "if page <= 0:")}
    score = score_of("migemu/wire", found, known, 90.0)
    assert score.row() == ["migemu/wire", "6", "2", "1", "1", "1", "1", "1.5"]
    assert [each.splitlines()[0] for each in score.unnoticed] == [
        "migemu.wire.header.d (survived)",
        "migemu.wire.header.f (no tests)",
    ]


def test_every_mutant_that_changes_nothing_says_why_and_is_said_once() -> None:
    rows = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text(encoding="utf-8"))["equivalent"]
    assert rows
    assert all(set(row) == {"function", "was", "now", "why"} and row["why"] for row in rows)
    assert len(known_equivalents()) == len(rows)
