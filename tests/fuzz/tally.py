"""What came of the inputs: how many, of which kind, and where in the program they were refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from migemu.wire.messages import TAGS

#: Who judges a frame, in order; `heard` is one that was understood and legal.
JUDGES: Final = ("codec", "header", "limits", "states", "integrity", "heard")
_KINDS: Final = {kind.__name__: None for kind in TAGS}
_UNKNOWN: Final = "(unknown)"


class Tally:
    """Counts. `frames` are those that a decoder has judged, each once: heard, or refused."""

    def __init__(self) -> None:
        self.inputs: Counter[str] = Counter()
        self.frames = 0
        self.by_kind: Counter[tuple[str, str]] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.places: Counter[tuple[str, int]] = Counter()

    def frame(self, kind: str, judge: str) -> None:
        """A frame of `kind` came as far as `judge`."""
        self.frames += 1
        self.by_kind[kind, judge] += 1

    def refused(self, error: BaseException, kind: str = "") -> None:
        """Something was refused, by the code that raised `error`; a frame of `kind`, as far as that is known."""
        assert "\n" not in str(error), "an error is one line"
        trace = error.__traceback__
        assert trace is not None
        while trace.tb_next is not None:
            trace = trace.tb_next
        judge = trace.tb_frame.f_globals["__name__"].rpartition(".")[2]
        self.places[judge, trace.tb_lineno] += 1
        self.outcomes[f"refused by {judge}"] += 1
        if judge in JUDGES:
            named = str(error).split(" ", 1)[0].split(".", 1)[0]
            self.frame(named if named in _KINDS else kind if judge not in ("codec", "header") else _UNKNOWN, judge)

    def table(self) -> Iterator[str]:
        """Kinds of messages by who judged them, in lines; then the other outcomes."""
        yield f"{'frames of':16}" + "".join(f"{judge:>12}" for judge in JUDGES)
        for kind in (*_KINDS, _UNKNOWN):
            yield f"{kind:16}" + "".join(f"{self.by_kind[kind, judge]:>12}" for judge in JUDGES)
        yield ""
        for name, number in sorted(self.outcomes.items()):
            yield f"{number:>12}  {name}"
        yield f"{len(self.places):>12}  places in the program that refused something"
