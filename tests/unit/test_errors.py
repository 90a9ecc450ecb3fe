"""What an error says is one line, whatever it quotes."""

from __future__ import annotations

import pytest

from migemu.errors import LINE_MAX, PeerError, one_line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("no room; free some", "no room; free some"),
        ("a\nb\r\n\tc ", "a b c"),
        ("\x1b]0;mine\x07 \x1b[2Jgone \x9b31m", "?]0;mine? ?[2Jgone ?31m"),
        ("\u202etxt.exe\u200b\0", "?txt.exe??"),
        ("déjà vu — 内存", "déjà vu — 内存"),
        ("x" * (LINE_MAX + 1), "x" * (LINE_MAX - 3) + "..."),
    ],
)
def test_an_error_is_one_line_that_no_terminal_obeys(said: str, line: str) -> None:
    assert one_line(PeerError(said)) == line
