"""The guest's words: what each access must find, what is kept account of, and up to where."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dest_node.guest.ledger import SLOT_BYTES, SLOTS, Ledger, Mistake


def test_the_first_access_finds_whatever_there_is() -> None:
    ledger = Ledger(10)
    ledger.accessed(0, 7, found=123, stamp=None)
    ledger.accessed(1, 7, found=456, stamp=99)
    assert list(ledger.words()) == [(7, 0, 123, 123), (7, SLOT_BYTES, 456, 99)]
    assert (ledger.reads, ledger.writes, ledger.mistakes, len(ledger)) == (1, 1, 0, 2)


def test_every_later_access_must_find_what_was_left() -> None:
    ledger = Ledger(10)
    for found, stamp in [(5, None), (5, 6), (6, 7), (7, None), (7, 8)]:
        ledger.accessed(0, 3, found, stamp)
    assert ledger.mistakes == 0
    assert ledger.first_mistake is None
    assert list(ledger.words()) == [(3, 0, 5, 8)]


def test_a_write_that_was_lost_is_a_mistake() -> None:
    """The source's word is back: a late piece was laid over what the guest had written."""
    ledger = Ledger(10)
    ledger.accessed(2, 3, found=5, stamp=6)
    ledger.accessed(2, 3, found=5, stamp=None)
    ledger.accessed(2, 3, found=0, stamp=None)
    assert ledger.mistakes == 2
    assert ledger.first_mistake == Mistake(2, 3, expected=6, found=5)
    assert str(ledger.first_mistake) == (
        "vCPU 2 found 0x0000000000000005 in base page 3 instead of 0x0000000000000006"
    )  # fmt: skip


def test_a_page_that_was_read_too_early_is_a_mistake() -> None:
    """Zeros first, then the bytes that should have been there."""
    ledger = Ledger(10)
    ledger.accessed(0, 3, found=0, stamp=None)
    ledger.accessed(0, 3, found=5, stamp=None)
    assert ledger.first_mistake == Mistake(0, 3, expected=0, found=5)


def test_a_write_over_a_mistake_counts_from_then_on() -> None:
    ledger = Ledger(10)
    ledger.accessed(0, 3, found=1, stamp=2)
    ledger.accessed(0, 3, found=9, stamp=4)
    ledger.accessed(0, 3, found=4, stamp=None)
    assert ledger.mistakes == 1
    assert list(ledger.words()) == [(3, 0, 1, 4)]


def test_vcpus_beyond_the_lines_of_a_page_share_words() -> None:
    ledger = Ledger(10)
    ledger.accessed(1, 0, found=0, stamp=5)
    ledger.accessed(1 + SLOTS, 0, found=5, stamp=6)
    ledger.accessed(1, 0, found=6, stamp=None)
    assert (ledger.mistakes, len(ledger)) == (0, 1)
    assert list(ledger.words()) == [(0, SLOT_BYTES, 0, 6)]


def test_words_come_in_the_order_of_their_address() -> None:
    ledger = Ledger(10)
    for vcpu, page in [(3, 9), (0, 9), (5, 0), (63, 8), (0, 2**40)]:
        ledger.accessed(vcpu, page, found=0, stamp=None)
    found = [(page, offset // SLOT_BYTES) for page, offset, _, _ in ledger.words()]
    assert found == [
        (0, 5),
        (8, 63),
        (9, 0),
        (9, 3),
        (2**40, 0),
    ]


def test_beyond_the_limit_new_words_are_not_written_and_reads_of_them_not_kept() -> None:
    ledger = Ledger(2)
    ledger.accessed(0, 0, found=1, stamp=None)
    assert ledger.may_write(0, 1)
    ledger.accessed(0, 1, found=2, stamp=3)
    assert not ledger.may_write(0, 2)
    assert ledger.may_write(0, 0)
    assert ledger.may_write(0, 1)
    ledger.accessed(0, 2, found=7, stamp=None)
    ledger.accessed(0, 2, found=8, stamp=None)
    assert (ledger.reads, ledger.writes, ledger.unrecorded, len(ledger), ledger.mistakes) == (3, 1, 2, 2, 0)
    ledger.accessed(0, 0, found=9, stamp=None)
    assert ledger.mistakes == 1, "what is kept account of is still checked"
    assert repr(ledger) == "<Ledger 4 reads, 1 writes, 2 words, 1 mistakes>"


@given(seed=st.integers(0, 2**32), words_max=st.integers(1, 30), broken=st.sampled_from([0.0, 0.0, 0.2]))
def test_a_memory_that_keeps_its_words_makes_no_mistake_and_any_other_does(
    seed: int, words_max: int, broken: float
) -> None:
    """Random accesses against a plain dictionary, which now and then changes a word by itself."""
    random, ledger = Random(seed), Ledger(words_max)
    memory = {(page, slot): random.randrange(4) for page in range(6) for slot in range(5)}
    before = dict(memory)
    expected: dict[tuple[int, int], int] = {}
    mistakes = 0
    for access in range(60):
        page, vcpu = random.randrange(6), random.randrange(5)
        at = page, vcpu
        if random.random() < broken:
            memory[at] += 1000
        stamp = 100 + access if random.random() < 0.5 and ledger.may_write(vcpu, page) else None
        ledger.accessed(vcpu, page, memory[at], stamp)
        if at in expected or stamp is not None or len(expected) < words_max:
            mistakes += expected.setdefault(at, memory[at]) != memory[at]
            if stamp is not None:
                memory[at] = expected[at] = stamp
    assert ledger.mistakes == mistakes
    assert {(page, offset // SLOT_BYTES): current for page, offset, _, current in ledger.words()} == expected
    assert len(expected) <= words_max
    if not broken:
        assert mistakes == 0
        assert all(original == before[page, offset // SLOT_BYTES] for page, offset, original, _ in ledger.words())
