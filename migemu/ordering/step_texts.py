"""The steps of a search in words, as a person would tell them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from dest_node.core.effects import Ask, Collapse, Continue, Effect, Finish, Keep, Refuse, Wake
from migemu.mm.pages import Level, PieceRun
from migemu.ordering.adversary import WOKEN, Adversary, AdversaryState, Step
from migemu.ordering.halves import bits, pages_of
from migemu.ordering.rules import pages_in_words, span_in_words
from migemu.units import format_time


def in_words(adversary: Adversary, steps: Sequence[Step]) -> Iterator[str]:
    """One line of text for each step from the start; the last step may be the one that breaks a rule."""
    state = adversary.start()
    for number, step in enumerate(steps, 1):
        after = adversary.take(state, step) if number < len(steps) else None
        yield f"{number:3}. {_step(adversary, state, step, after)}"
        if after is not None:
            state = after


def _step(adversary: Adversary, before: AdversaryState, step: Step, after: AdversaryState | None) -> str:
    what = step[0]
    if what == "access":
        _, vcpu, page, write = step
        line = f"vCPU {vcpu} {'writes to' if write else 'reads'} base page {page}"
        asleep = not adversary.halves.view(before.memory).mapped >> page & 1
        return f"{line}: not mapped, it sleeps" if asleep else line
    if what == "read":
        return f"the fault of vCPU {before.unread[0]} is read: base page {before.vcpus[before.unread[0]].page}"
    if what == "effect":
        return _effect(adversary.halves.effects[step[1]]) + _woken(before, after)
    if what == "end":
        return "the source says that it has sent everything"
    if what == "deadline":
        deadline = max(before.now, adversary.halves.claim(before.receiver).deadline or 0)
        return f"time passes until the policy's deadline, {format_time(deadline)} after the start"
    urgent = what == "answer"
    run = adversary.answer(step[1]) if urgent else adversary.bounds.messages[step[1]]
    line = f"{'an urgent answer' if urgent else 'the push'} brings {_run(run)}"
    dropped = bits(pages_of(run)) & ~adversary.halves.claim(before.receiver).fresh
    return f"{line}; dropped, as received before: {pages_in_words(dropped)}" if dropped else line


def _effect(effect: Effect) -> str:
    if isinstance(effect, Continue):
        return f"UFFDIO_CONTINUE of {_run(effect.run)}"
    if isinstance(effect, Keep):
        return f"the bytes of {_run(effect.run)} are kept"
    if isinstance(effect, Collapse):
        return f"MADV_COLLAPSE of {', '.join(span_in_words(span) for span in effect.spans)}"
    if isinstance(effect, Wake):
        return f"UFFDIO_WAKE of {pages_in_words(bits(range(effect.first, effect.first + effect.count)))}"
    if isinstance(effect, Ask):
        return f"the source is asked for {_run(effect.run)}"
    if isinstance(effect, Refuse):
        return f"the receiver refuses to collapse {span_in_words(effect.span)}: {effect.reason}"
    if isinstance(effect, Finish):
        return "the receiver says that it is finished"
    assert_never(effect)


def _run(run: PieceRun) -> str:
    pages = pages_in_words(bits(pages_of(run)))
    return f"{pages} ({run.count} x 2M)" if run.level == Level.PMD else pages


def _woken(before: AdversaryState, after: AdversaryState | None) -> str:
    if after is None:
        return ""
    both = enumerate(zip(before.vcpus, after.vcpus, strict=True))
    woken = [str(number) for number, (old, new) in both if old.status != new.status == WOKEN]
    return f"; vCPU {', '.join(woken)} wakes" if woken else ""
