"""The grammar of settings: every kind of value is written and refused in the same way, wherever it is given."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu import values
from migemu.experiment.cell import make_cell
from migemu.guest.workload import workloads
from migemu.link.jitter import jitters
from migemu.policy.collapse_policy import collapse_policies
from migemu.policy.push_order import push_orders
from migemu.registry import Registry, Setting
from migemu.scenario.scenario import Scenario, describe, from_mapping, load
from migemu.trace.checkers.rule import checkers
from migemu.units import GIB, KIB, MS, SECOND
from migemu.values import Plain, ValueKind

REGISTRIES: tuple[Registry[Any], ...] = (push_orders, collapse_policies, workloads, jitters, checkers)

#: A kind, what may be written, what it means.
TAKEN: list[tuple[ValueKind[Any], object, object]] = [
    (values.whole(), "8", 8), (values.whole(), 8, 8), (values.whole(), " -8 ", -8), (values.whole(), "1_000", 1000),
    (values.whole(0, 7), 0, 0), (values.whole(0, 7), "7", 7), (values.whole(3), 10**400, 10**400),
    (values.number(), "1e-3", 0.001), (values.number(), 1, 1.0), (values.number(above=0, most=16), "16", 16.0),
    (values.number(0.0, 1.0), "0", 0.0),
    (values.time(), "1.5ms", 1_500_000), (values.time(), 0, 0), (values.time("1ms", "1s"), " 1 S ", SECOND),
    (values.size(), "4K", 4 * KIB), (values.size(), 5, 5), (values.size("4K", "1G", "4K"), "1G", GIB),
    (values.rate(), "25Gbit", 25 * 10**9), (values.rate(), "unlimited", 0), (values.rate(), "0", 0),
    (values.choice(("", "one", "two")), "one", "one"), (values.choice(("", "one", "two")), "", ""),
    (values.text(), " as it stands ", " as it stands "), (values.text(), "", ""),
    (values.spans(), "1ms-2ms, 3ms-4ms,", ((MS, 2 * MS), (3 * MS, 4 * MS))), (values.spans(), "", ()),
    *[(values.switch(), word, True) for word in ("on", "YES", " true ", "1", 1, True)],
    *[(values.switch(), word, False) for word in ("off", "No", "false", "0", 0, False)],
]  # fmt: skip

#: A kind, what may not be written, and what is said of it.
REFUSED: list[tuple[ValueKind[Any], object, str]] = [
    (values.whole(), "x", "'x' is not accepted here: give a whole number"),
    (values.whole(), 1.0, "1.0 is not accepted here: give a whole number"),
    (values.whole(), True, "True is not accepted here: give a whole number"),
    (values.whole(), "1.5", "'1.5' is not accepted here: give a whole number"),
    (values.whole(0, 7), 8, "8 is not accepted here: give a whole number from 0 to 7"),
    (values.whole(1), "0", "'0' is not accepted here: give a whole number, at least 1"),
    (values.whole(0, 7), 2**300, "a number of 301 bits is not accepted here: give a whole number from 0 to 7"),
    (values.whole(), [1 << 20_000], "this list is not accepted here: give a whole number"),
    (values.number(), "nan", "'nan' is not accepted here: give a number"),
    (values.number(), float("inf"), "inf is not accepted here: give a number"),
    (values.number(above=0, most=16), 0, "0 is not accepted here: give a number above 0, at most 16"),
    (values.number(0.0, 1.0), 10**400, "a number of 1329 bits is not accepted here: give a number from 0.0 to 1.0"),
    (values.time("1ms"), "5", "'5' is not accepted here: give a time such as \"50us\", \"1.5ms\", \"2s\" "
                              "(units: ns us ms s min), at least 1ms"),
    (values.time("1ms", "1s"), "2s", "(units: ns us ms s min), from 1ms to 1s"),
    (values.size("4K", multiple="4K"), "6K", "(binary; units: K M G T), at least 4K, in whole multiples of 4K"),
    (values.size(most="1G"), "2G", "(binary; units: K M G T), at most 1G"),
    (values.size(), "-1K", "'-1K' is not accepted here: give a size such as"),
    (values.rate(), "5", "'5' is not accepted here: give a rate such as \"10Mbit\", \"25Gbit\" (bits"),
    (values.switch(), "maybe", "'maybe' is not accepted here: give on or off (also: yes no, true false, 1 0)"),
    (values.switch(), 2, "2 is not accepted here: give on or off"),
    (values.switch(), 1.0, "1.0 is not accepted here: give on or off"),
    (values.switch(), None, "None is not accepted here: give on or off"),
    (values.choice(("fair", "fifo")), "fiffo", "give one of fair, fifo; did you mean 'fifo'?"),
    (values.choice(("fair", "")), "Fair", "give one of fair, \"\"; did you mean 'fair'?"),
    (values.choice(("fair",)), 3, "3 is not accepted here: give one of fair"),
    (values.text(), 3, "3 is not accepted here: give a text"),
    (values.spans(), "2ms-1ms", "'2ms-1ms' is not accepted here: give times in order such as"),
    (values.spans(), "1ms-2ms, 1ms-2ms", "is not accepted here: give times in order such as"),
    (values.spans(), 3, "3 is not accepted here: give times in order such as"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "written", "value"), TAKEN)
def test_a_value_is_read_and_what_is_shown_of_it_is_read_again(
    kind: ValueKind[Any], written: object, value: object
) -> None:
    assert (parsed := kind.parse(written)) == value
    assert type(parsed) is type(value)
    assert kind.parse(kind.show(parsed)) == value


@pytest.mark.parametrize(("kind", "written", "line"), REFUSED)
def test_a_refusal_repeats_the_value_and_says_what_is_accepted(
    kind: ValueKind[Any], written: object, line: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(line)) as caught:
        kind.parse(written)
    assert " is not accepted here: give " in str(caught.value)
    assert kind.accepted in str(caught.value)


def _settings() -> list[tuple[str, str, Setting]]:
    return [
        (registry.kind, entry.name, each) for registry in REGISTRIES for entry in registry for each in entry.settings
    ]


@pytest.mark.parametrize(("kind", "name", "setting"), _settings())
def test_every_setting_of_every_choice_has_a_default_within_its_limits(kind: str, name: str, setting: Setting) -> None:
    assert kind
    assert name
    assert setting.kind.parse(setting.kind.show(setting.default)) == setting.default


#: What is wrong for each kind, by the first words of what it accepts.
WRONG = {
    "a whole number": "many", "a number": "many", "a time": "soon", "a size": "big", "a rate": "fast",
    "on or off": "maybe", "one of": "xyzzy", "times in order": "always", "4K or 2M": "3K",
}  # fmt: skip


@pytest.mark.parametrize("setting", list(describe()), ids=lambda each: f"{each.section}.{each.key}")
def test_every_setting_is_refused_in_one_shape_wherever_it_is_given(setting: Any) -> None:
    wrong = next((wrong for words, wrong in WRONG.items() if setting.accepted.startswith(words)), None)
    if wrong is None:
        assert setting.accepted == f"a text ({setting.kind.unit})"
        return
    name = f"{setting.section}.{setting.key}"
    ways: list[Callable[[], object]] = [
        lambda: from_mapping({setting.section: {setting.key: wrong}}, "run.toml"),
        lambda: load(None, [f"{name}={wrong}"]),
        lambda: make_cell("a", {}, {setting.section: {setting.key: wrong}}, "sweep.toml", "t").seeded(1),
    ]
    lines = []
    for way in ways:
        with pytest.raises(Exception, match=f"{re.escape(name)}: ") as caught:
            way()
        lines.append(str(caught.value).partition(f"{name}: ")[2])
    assert len({*lines}) == 1
    if "NAME:key=value" in setting.accepted:
        assert re.match(r"unknown [a-z ]+ 'xyzzy'; known: [a-z_]+, ", lines[0])
    else:
        assert lines[0] == f"{wrong!r} is not accepted here: give {setting.accepted}"


SWITCHES = [
    (each.section, each.key) for each in describe() if each.accepted.startswith("on or off")
]  # fmt: skip


@pytest.mark.parametrize(("section", "key"), SWITCHES)
def test_a_switch_takes_the_same_words_as_a_setting_of_a_choice(section: str, key: str) -> None:
    scatter = {setting.name: setting for setting in workloads.parse("zipf")[0].settings}["scatter"]
    for word in ("on", "yes", "true", "1", "off", "no", "false", "0"):
        value = scatter.kind.parse(word)
        assert getattr(getattr(load(None, [f"{section}.{key}={word}"]), section), key) is value
        assert getattr(getattr(from_mapping({section: {key: word}}, "here"), section), key) is value


def test_a_setting_of_a_choice_that_is_given_twice_is_refused_for_every_setting() -> None:
    for kind, name, setting in _settings():
        registry = next(each for each in REGISTRIES if each.kind == kind)
        with pytest.raises(ValueError, match=f"^{kind} '{name}': {setting.name}: it is given twice; give it once$"):
            registry.parse(f"{name}:{setting},{setting}")


def test_what_is_shown_of_a_scenario_is_what_describe_accepts() -> None:
    resolved = Scenario().resolved()
    kinds = {
        f"{section}.{field.name}": field.metadata["kind"]
        for section in resolved
        for field in attrs.fields(type(getattr(Scenario(), section)))
    }
    assert list(kinds) == [f"{each.section}.{each.key}" for each in describe()]
    for (name, kind), shown in zip(
        kinds.items(), itertools.chain.from_iterable(each.values() for each in resolved.values()), strict=True
    ):
        assert kind.show(kind.parse(shown)) == shown, name


@given(st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=8)), max_size=4, unique_by=lambda pair: pair[0]))
def test_any_text_can_be_quoted(pairs: list[tuple[str, str]]) -> None:
    escaped = [(key, "".join(f"\\{letter}" if letter in '\\"' else letter for letter in value)) for key, value in pairs]
    listed = ",".join(f'{key}="{value}"' for key, value in escaped)
    assert values.settings(listed, dict.fromkeys("abc", values.text())) == dict(pairs)


@given(st.integers(0, 2**62))
def test_every_quantity_that_is_shown_is_read_back_exactly(number: int) -> None:
    for kind in (values.time(), values.size(), values.rate()):
        assert kind.parse(kind.show(number)) == number


def test_a_name_is_told_with_the_one_that_it_nearly_is_or_with_where_all_are() -> None:
    assert values.unknown("fruit", "aple", ["pear", "Apple"]) == "unknown fruit 'aple'; did you mean 'Apple'?"
    assert values.unknown("fruit", "fig", ["pear", "apple"]) == "unknown fruit 'fig'; known: pear, apple"
    assert values.unknown("fruit", "fig", []) == "unknown fruit 'fig'; known: none"
    assert values.unknown("fruit", "fig", ["pear"], "see the market") == "unknown fruit 'fig'; see the market"


def test_a_plain_kind_is_its_functions() -> None:
    even = Plain("an even number", int, lambda value: value % 2 == 0)
    assert even.parse("4") == 4
    with pytest.raises(ValueError, match=r"^'5' is not accepted here: give an even number$"):
        even.parse("5")
