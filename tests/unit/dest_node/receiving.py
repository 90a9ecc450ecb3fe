"""A receiver on TINY (a "2M" of 4 pages, a "1G" of 16), a policy that is dictated, and hands that never fail."""

from __future__ import annotations

from collections.abc import Sequence

from dest_node.core.effects import Collapse, Continue, Effect
from dest_node.core.receiver import Receiver
from migemu.mm.pages import TINY, Level, PageIndex, PieceRun, Span
from migemu.policy.collapse_policy import MappingView, collapse_policies
from migemu.ports import Collapsed

PTE = Level.PTE
TOTAL = 32
NOW = 1000


class Dictated:
    """A collapse policy that proposes what the test tells it to, once each, and remembers what it was told."""

    def __init__(self) -> None:
        self.on_mapped: list[Span] = []
        self.on_collapsed: list[Span] = []
        self.on_ended: list[Span] = []
        self.told: list[tuple[object, ...]] = []

    def mapped(self, first: PageIndex, count: int, view: MappingView) -> Sequence[Span]:
        self.told.append(("mapped", first, count))
        proposed, self.on_mapped = self.on_mapped, []
        return proposed

    def collapsed(self, span: Span, view: MappingView) -> Sequence[Span]:
        self.told.append(("collapsed", *span))
        proposed, self.on_collapsed = self.on_collapsed, []
        return proposed

    def ended(self, view: MappingView) -> Sequence[Span]:
        self.told.append(("ended",))
        return self.on_ended


def make(policy: Dictated | str = "never", *, urgent_piece: Level = PTE) -> Receiver:
    chosen = collapse_policies.create(policy, TINY) if isinstance(policy, str) else policy
    return Receiver(TINY, TOTAL, chosen, urgent_piece=urgent_piece)


def carry_out(receiver: Receiver, effects: Sequence[Effect]) -> list[Effect]:
    """Everything that comes of `effects`, each one's consequences before the next, as the shell does it."""
    stack, done = list(reversed(effects)), []
    while stack:
        effect = stack.pop()
        done.append(effect)
        stack += reversed(receiver.done(effect, NOW, well_done(effect)))
    return done


def well_done(effect: Effect) -> int | Collapsed | None:
    """The result of an effect that met no difficulty."""
    if isinstance(effect, Continue):
        return 0
    return Collapsed(len(effect.spans)) if isinstance(effect, Collapse) else None


def arrive(receiver: Receiver, first: PageIndex, count: int = 1, level: Level = PTE) -> list[Effect]:
    return carry_out(receiver, receiver.arrived(PieceRun(first, count, level), NOW))


def cont(first: PageIndex, count: int = 1, level: Level = PTE) -> Continue:
    return Continue(PieceRun(first, count, level))
