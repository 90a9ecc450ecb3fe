"""Pseudo-random orders of `0 .. size-1` in constant memory: a walk that meets each number once, and a shuffle.

What this models
    What an array shuffled by Fisher-Yates would give, without the array: for the 268 million pages of 1 TiB that would
    be gigabytes, and a second of start-up for a memory of 16 GiB.

Rules
    1. Both work on the next power of two and skip numbers outside (cycle walking, Black and Rogaway 2002), at most
       every second one on average.
    2. Numbers are mixed by steps that can be undone: xor with their own high bits, product with an odd number. That
       spreads the high bits, which the generator of rule 3 draws well, over the low ones, which it does not.
    3. `CyclicWalk` steps a linear congruential generator of full period (Hull and Dobell 1962: for modulus 2**k, an
       odd increment and a multiplier of 1 modulo 4) and mixes what comes out, so its cycle holds every number once.
    4. Integers only: the same on every machine and every Python.

Simplified
    A few of the `size`! orders: good enough to scatter pages, no cipher. Some seeds are a little more regular than
    a true shuffle in the distances from one number to the next.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np

    Words = np.ndarray[Any, np.dtype[np.uint64]]

# The splitmix64 generator's constants (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
GAMMA: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB
MASK_64: Final = (1 << 64) - 1


def mix(value: int) -> int:
    """The splitmix64 output function, a permutation of 64-bit numbers: neighbours come out far apart."""
    value = (value + GAMMA) & MASK_64
    value = (value ^ value >> 30) * _MIX_1 & MASK_64
    value = (value ^ value >> 27) * _MIX_2 & MASK_64
    return value ^ value >> 31


def mix_all(values: Words) -> Words:
    """`mix` of each value of an array of uint64."""
    uint64 = values.dtype.type
    values = values + uint64(GAMMA)
    values = (values ^ values >> uint64(30)) * uint64(_MIX_1)
    values = (values ^ values >> uint64(27)) * uint64(_MIX_2)
    return values ^ values >> uint64(31)


def _odd(number: int, bits: int) -> int:
    """`number` as an odd multiplier of `bits` bits that is not small: a small one would mix little."""
    return number & ((1 << bits) - 1) | 1 << (bits - 2) | 1 << (bits // 2) | 1


def _bits(size: int) -> int:
    if size < 1:
        raise ValueError(f"a permutation of {size} numbers is none: give 1 or more")
    return max(2, (size - 1).bit_length())


class CyclicWalk:
    """Visits every number below `size` once, in pseudo-random order, then again in the same order, for ever."""

    __slots__ = ("_first", "_increment", "_mask", "_multiplier", "_second", "_shift", "_state", "size")

    def __init__(self, size: int, rng: Random) -> None:
        """Takes the order and the place to begin from five draws of `rng`."""
        bits = _bits(size)
        self.size = size
        self._mask = (1 << bits) - 1
        self._shift = (bits + 1) // 2
        self._multiplier = int(rng.random() * (1 << bits)) & ~3 | 5
        self._increment = int(rng.random() * (1 << bits)) | 1
        self._first = _odd(int(rng.random() * (1 << bits)), bits)
        self._second = _odd(int(rng.random() * (1 << bits)), bits)
        self._state = int(rng.random() * (1 << bits))

    def step(self) -> int:
        """The next number of the walk."""
        state, mask, size, shift = self._state, self._mask, self.size, self._shift
        multiplier, increment, first, second = self._multiplier, self._increment, self._first, self._second
        while True:
            state = (state * multiplier + increment) & mask
            number = ((state ^ (state >> shift)) * first) & mask
            number = ((number ^ (number >> shift)) * second) & mask
            number ^= number >> shift
            if number < size:
                self._state = state
                return number

    def __repr__(self) -> str:
        return f"<CyclicWalk of {self.size}>"


class Scatter:
    """A shuffle of the numbers below `size`: `place(n)` is where number `n` lies. Another `key`, another shuffle."""

    __slots__ = ("_first", "_mask", "_second", "_shift", "_third", "size")

    def __init__(self, size: int, key: int) -> None:
        """The shuffle depends on `size` and `key` alone."""
        bits = _bits(size)
        self.size = size
        self._mask = (1 << bits) - 1
        self._shift = (bits + 1) // 2
        self._first, self._second, self._third = (_odd(mix(3 * key + n), bits) for n in range(3))

    def place(self, number: int) -> int:
        """The place of `number` in the permutation."""
        mask, shift, size = self._mask, self._shift, self.size
        first, second, third = self._first, self._second, self._third
        while True:
            # The number 0 would stay at 0 under xors and products: the addition moves it.
            number = ((number + third) * first) & mask
            number = ((number ^ (number >> shift)) * second) & mask
            number ^= number >> shift
            number = (number * third) & mask
            number ^= number >> shift
            if number < size:
                return number

    def __repr__(self) -> str:
        return f"<Scatter of {self.size}>"
