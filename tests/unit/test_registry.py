"""Choices by name: what may be registered, what a spec may say, and that every refusal holds the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from migemu import values
from migemu.guest.workload import workloads
from migemu.policy.collapse_policy import collapse_policies
from migemu.policy.push_order import push_orders
from migemu.registry import Registry

Fruits = Registry[Any]


@dataclass
class Fruit:
    """A fruit that remembers how it was made.

    The second paragraph is not its summary.
    """

    name: str
    size: int = 0
    sour: bool = False
    share: float = 0.0
    word: str = ""


@pytest.fixture
def fruits() -> Fruits:
    """A registry with one factory without settings and one with a setting of each kind."""
    registry: Fruits = Registry("fruit", "migemu.tests.no_such_group")

    @registry.register("plain")
    def _plain(name: str) -> Fruit:
        """A plain fruit."""
        return Fruit(name)

    @registry.register("chosen")
    def _chosen(name: str, *, size: int = 3, sour: bool = False, share: float = 0.5, word: str = "a") -> Fruit:
        """A fruit as it is chosen."""
        if size < 0:
            raise ValueError(f"size={size}: give 0 or more")
        return Fruit(name, size, sour, share, word)

    return registry


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        ("plain", Fruit("x")), (" plain ", Fruit("x")), ("plain:", Fruit("x")), ("plain:,", Fruit("x")),
        ("chosen", Fruit("x", 3, False, 0.5, "a")),
        ("chosen:size=7", Fruit("x", 7, False, 0.5, "a")),
        ("chosen:size=-0", Fruit("x", 0, False, 0.5, "a")),
        ("chosen: size = 7 , sour = yes ", Fruit("x", 7, True, 0.5, "a")),
        ("chosen:share=1e-3,word=b=c", Fruit("x", 3, False, 0.001, "b=c")),
        ("chosen:word=/a:b", Fruit("x", 3, False, 0.5, "/a:b")),
        ("chosen:word=", Fruit("x", 3, False, 0.5, "")),
        ('chosen:word="a,b"', Fruit("x", 3, False, 0.5, "a,b")),
        ('chosen: word = " a=b, c" , size=7', Fruit("x", 7, False, 0.5, " a=b, c")),
        (r'chosen:word="a\"b\\",sour=on', Fruit("x", 3, True, 0.5, 'a"b' + "\\")),
        ('chosen:word=a"b', Fruit("x", 3, False, 0.5, 'a"b')),
    ],
)  # fmt: skip
def test_a_spec_makes_its_choice(fruits: Fruits, spec: str, made: Fruit) -> None:
    assert fruits.create(spec, "x") == made


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), ("YES", True), ("true", True), ("1", True), ("off", False), ("No", False), ("0", False)],
)
def test_booleans_have_many_words(fruits: Fruits, text: str, value: bool) -> None:
    assert fruits.create(f"chosen:sour={text}", "x").sour is value


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("pear", "unknown fruit 'pear'; known: chosen, plain"),
        ("", "unknown fruit ''; known: chosen, plain"),
        (":size=3", "unknown fruit ''; known: chosen, plain"),
        ("plain:size=3", "fruit 'plain': unknown setting 'size'; known: none"),
        ("chosen:hue=red", "fruit 'chosen': unknown setting 'hue'; known: size, sour, share, word"),
        ("chosen:size", "'chosen': size: it has no value; write size=VALUE, and give a whole number"),
        ("chosen:size=big", "size: 'big' is not accepted here: give a whole number"),
        ("chosen:size=1.5", "size: '1.5' is not accepted here: give a whole number"),
        ("chosen:size=", "size: '' is not accepted here: give a whole number"),
        ("chosen:sour=maybe", "sour: 'maybe' is not accepted here: give on or off"),
        ("chosen:share=half", "share: 'half' is not accepted here: give a number"),
        ("chosen:share=nan", "share: 'nan' is not accepted here: give a number"),
        ("chosen:sie=3", "fruit 'chosen': unknown setting 'sie'; did you mean 'size'?"),
        ("chosn", "unknown fruit 'chosn'; did you mean 'chosen'?"),
        ("chosen:size=3,size=4", "fruit 'chosen': size: it is given twice; give it once"),
        ("chosen:size=3,sour=on,size=3", "size: it is given twice"),
        ("chosen:size=-1", "size=-1: give 0 or more"),
        ('chosen:word="a,b', 'word="a: the quote does not end, or something follows it'),
        ('chosen:word="a"b', 'word="a"b: the quote does not end, or something follows it'),
    ],
)
def test_a_refusal_names_what_is_known(fruits: Fruits, spec: str, answer: str) -> None:
    with pytest.raises(ValueError, match=re.escape(answer)):
        fruits.create(spec, "x")


def test_parsing_makes_nothing(fruits: Fruits) -> None:
    """A spec can be checked before there is anything to make the choice with."""
    entry, settings = fruits.parse("chosen:size=-1,sour=on")
    assert (entry.name, settings) == ("chosen", {"size": -1, "sour": True})


def test_entries_are_listed_by_name_with_summary_and_settings(fruits: Fruits) -> None:
    chosen, plain = fruits
    assert (chosen.name, chosen.summary) == ("chosen", "A fruit as it is chosen.")
    assert [(str(s), s.kind.accepted.split(" (")[0]) for s in chosen.settings] == [
        ("size=3", "a whole number"), ("sour=off", "on or off"), ("share=0.5", "a number"), ("word=a", "a text")
    ]  # fmt: skip
    assert (plain.name, plain.settings) == ("plain", ())
    assert "chosen, plain" in repr(fruits)


def test_a_class_is_a_factory_too(fruits: Fruits) -> None:
    fruits.add("class", Fruit)
    assert fruits.create("class", "x") == Fruit("x")
    assert next(entry for entry in fruits if entry.name == "class").summary.startswith("A fruit that remembers")


def test_annotations_that_are_not_postponed_are_understood() -> None:
    def factory(*, size=1): ...  # type: ignore[no-untyped-def]

    factory.__doc__ = "Made by hand."
    factory.__annotations__ = {"size": int}
    registry: Fruits = Registry("fruit", "migemu.tests.no_such_group")
    registry.add("hand", factory)
    assert registry.parse("hand:size=4")[1] == {"size": 4}


def _undocumented(name: str) -> Fruit:
    return Fruit(name)


def _listy(*, size: list[int] = []) -> Fruit:  # noqa: B006 - never called
    """A setting of a type that no text can be converted to."""
    return Fruit("x")


def _without_default(*, size: int) -> Fruit:
    """A setting that has to be given."""
    return Fruit("x", size)


def _unannotated(*, size=3) -> Fruit:  # type: ignore[no-untyped-def]
    """A setting of no known type."""
    return Fruit("x", size)


@pytest.mark.parametrize(
    ("factory", "answer"),
    [
        (_undocumented, "fruit 'new' has no docstring"),
        (_listy, "setting 'size' needs a default and one of int, float, bool, str"),
        (_without_default, "setting 'size' needs a default"),
        (_unannotated, "setting 'size' needs a default and one of"),
    ],
)
def test_a_factory_is_checked_when_it_is_registered(fruits: Fruits, factory: Any, answer: str) -> None:
    with pytest.raises(TypeError, match=answer):
        fruits.add("new", factory)
    with pytest.raises(ValueError, match="unknown fruit 'new'"):
        fruits.create("new")


def test_a_kind_that_is_given_stands_above_the_annotation_and_has_to_belong_to_a_setting(fruits: Fruits) -> None:
    def _bounded(*, size: int = 3) -> Fruit:
        """A fruit that fits into a basket."""
        return Fruit("x", size)

    fruits.add("bounded", _bounded, size=values.whole(1, 9))
    assert fruits.create("bounded:size=9") == Fruit("x", 9)
    with pytest.raises(ValueError, match=r"^fruit 'bounded': size: '10' is not accepted here: give a whole number fr"):
        fruits.create("bounded:size=10")
    with pytest.raises(TypeError, match="fruit 'other' has no setting 'weight' to be of a kind"):
        fruits.add("other", _bounded, weight=values.whole())


def test_a_name_can_be_taken_once(fruits: Fruits) -> None:
    """Another object is refused, and both are named; the same one again is nothing (a decorator and an entry point)."""
    plain = fruits.parse("plain")[0].factory
    fruits.add("plain", plain)
    assert fruits.register("plain")(plain) is plain
    with pytest.raises(TypeError, match=r"fruit 'plain' is .*_plain already, it cannot be .*Fruit too"):
        fruits.add("plain", Fruit)
    assert fruits.parse("plain")[0].factory is plain


@pytest.mark.parametrize("registry", [push_orders, collapse_policies, workloads], ids=lambda registry: registry.kind)
def test_every_choice_that_is_shipped_has_a_summary_of_one_sentence(registry: Registry[Any]) -> None:
    entries = list(registry)
    assert len(entries) >= 4
    for entry in entries:
        assert entry.summary.endswith("."), entry
        assert len(entry.summary) <= 120, entry
        assert registry.parse(entry.name) == (entry, {})
