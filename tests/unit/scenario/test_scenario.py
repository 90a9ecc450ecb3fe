"""Scenarios: every setting, where it may come from, and that a mistake is told with file, key, value and answer."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.errors import ScenarioError
from migemu.mm.pages import TINY, X86_64, Level
from migemu.scenario.scenario import Scenario, describe, from_mapping, load, replace
from migemu.units import GIB, KIB, MIB, MS, SECOND

WriteToml = Callable[[str], Path]

SETTINGS = [(each.section, each.key) for each in describe()]


@pytest.fixture
def toml(tmp_path: Path) -> WriteToml:
    def write(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(call: Callable[[], object]) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        call()
    assert "\n" not in str(caught.value), "an error is one line"
    return caught.value


# --- what is accepted ---


def test_the_defaults_are_base_units() -> None:
    scenario = Scenario()
    assert scenario.memory.size == GIB
    assert scenario.push.piece is Level.PTE
    assert scenario.push.run == MIB
    assert scenario.push.rate == 0
    assert scenario.pull.preempt is True
    assert scenario.net.idle_timeout == 10 * SECOND
    assert scenario.limits.frame_bytes_max == 64 * MIB
    assert scenario.geometry is X86_64


def test_no_file_and_no_assignment_is_the_defaults() -> None:
    assert load(None) == Scenario() == from_mapping({}, "nowhere")


@pytest.mark.parametrize(("section", "key"), SETTINGS)
def test_every_default_is_accepted_when_it_is_written_down(section: str, key: str) -> None:
    shown = Scenario().resolved()[section][key]
    assert from_mapping({section: {key: shown}}, "here") == Scenario()
    assert load(None, [f"{section}.{key}={shown}"]) == Scenario()


def test_every_setting_has_a_line_of_documentation() -> None:
    for each in describe():
        assert each.doc, each
        assert each.accepted, each
        assert "\n" not in each.doc + each.accepted, each
        shown = attrs.fields_dict(type(getattr(Scenario(), each.section)))[each.key].metadata["default"]
        assert each.default == (("off", "on")[shown] if isinstance(shown, bool) else str(shown)), each


#: A value other than the default of every setting, as a user writes it, and what it becomes.
OTHERS: Mapping[str, tuple[Any, Any]] = {
    "scenario.name": ("zipf over a slow link", "zipf over a slow link"),
    "scenario.seed": (0, 0),
    "memory.geometry": ("tiny", "tiny"),
    "memory.size": ("1024G", 1024 * GIB),
    "memory.image": ("/images/guest", "/images/guest"),
    "memory.image_format": ("core", "core"),
    "memory.image_copy": ("on", True),
    "memory.zero_share": (0.75, 0.75),
    "memory.backing": ("memfd", "memfd"),
    "memory.hgm": ("off", False),
    "push.order": ("bubbling:pivots=2,dual=off", "bubbling:pivots=2,dual=off"),
    "push.piece": ("2M", Level.PMD),
    "push.run": ("4K", 4 * KIB),
    "push.rate": ("1.5Gbit", 1_500_000_000),
    "push.hold": ("1.5ms", 1_500_000),
    "pull.piece": ("2M", Level.PMD),
    "pull.preempt": (False, False),
    "pull.sender": ("push", "push"),
    "pull.resend": ("yes", True),
    "collapse.policy": ("batched:spans=4", "batched:spans=4"),
    "costs.mapcount": ("head_only", "head_only"),
    "costs.lock": ("vma_lock", "vma_lock"),
    "costs.notifier": ("after", "after"),
    "costs.handler": ("sleeping", "sleeping"),
    "costs.place": ("continue", "continue"),
    "costs.threads": ("three", "three"),
    "guest.vcpus": (0, 0),
    "guest.workload": ("sequential:stride=2", "sequential:stride=2"),
    "guest.rate": ("0", 0),
    "guest.tick": ("10us", 10_000),
    "guest.write_share": (1, 1.0),
    "guest.accesses_max": (7, 7),
    "device.state": (0, 0),
    "link.rate": ("25Gbit", 25 * 10**9),
    "link.delay": ("50us", 50_000),
    "link.preset": ("25G", "25G"),
    "link.distribution": ("pareto:shape=2", "pareto:shape=2"),
    "link.scheduling": ("strict", "strict"),
    "link.segment": ("1500", 1500),
    "link.reorder": ("on", True),
    "link.congestion": ("cubic", "cubic"),
    "link.loss": (0.001, 0.001),
    "link.rto_min": ("5ms", 5 * MS),
    "link.outages": ("10ms-20ms, 1s-1100ms", ((10 * MS, 20 * MS), (SECOND, 1100 * MS))),
    "link.queue": ("1000", 1000),
    "return_link.rate": ("1bit", 1),
    "return_link.delay": ("1ns", 1),
    "return_link.preset": ("25G", "25G"),
    "return_link.distribution": ("pareto:shape=2", "pareto:shape=2"),
    "return_link.scheduling": ("strict", "strict"),
    "return_link.segment": ("1500", 1500),
    "return_link.reorder": ("on", True),
    "return_link.congestion": ("cubic", "cubic"),
    "return_link.loss": (0.001, 0.001),
    "return_link.rto_min": ("5ms", 5 * MS),
    "return_link.outages": ("10ms-20ms, 1s-1100ms", ((10 * MS, 20 * MS), (SECOND, 1100 * MS))),
    "return_link.queue": (12_345, 12_345),
    "net.connect_timeout": ("1ms", MS),
    "net.listen_timeout": ("1min", 60 * SECOND),
    "net.hello_timeout": ("1001us", 1_001_000),
    "net.idle_timeout": ("10ms", 10 * MS),
    "net.answer_timeout": ("10ms", 10 * MS),
    "net.rate_min": ("9600bit", 9600),
    "net.read": ("1M", MIB),
    "net.read_hot": ("16K", 16 * KIB),
    "net.write_hot": ("16K", 16 * KIB),
    "net.write": ("4K", 4 * KIB),
    "net.high_water": ("1M", MIB),
    "net.send_buffer": ("64K", 64 * KIB),
    "net.receive_buffer": ("64K", 64 * KIB),
    "net.congestion": ("bbr", "bbr"),
    "net.busy_poll": ("0", 0),
    "recovery.timeout": ("90s", 90_000_000_000),
    "recovery.backoff_min": ("50ms", 50_000_000),
    "recovery.backoff_max": ("1s", 1_000_000_000),
    "recovery.errors_max": (3, 3),
    "integrity.digests": ("on", True),
    "limits.frame_bytes_max": ("2M", 2 * MIB),
    "checkpoint.interval": ("10ms", 10 * MS),
    "checkpoint.arrived": ("4K", 4 * KIB),
    "checkpoint.log": ("1G", GIB),
    "limits.memory_max": ("4G", 4 * GIB),
    "limits.device_state_max": (0, 0),
    "limits.migrations_max": ("2", 2),
    "limits.connections_max": ("2", 2),
    "limits.queue_frames_max": (1000, 1000),
    "limits.written_words_max": (1, 1),
    "security.certificate": ("/etc/node.pem", "/etc/node.pem"),
    "security.key": ("/etc/node.key", "/etc/node.key"),
    "security.authority": ("/etc/authority.pem", "/etc/authority.pem"),
    "security.peer_name": ("dest.example", "dest.example"),
    "security.psk_file": ("/etc/migration.psk", "/etc/migration.psk"),
}


def test_the_table_of_other_values_has_every_setting() -> None:
    """Jitter is left out: its value depends on the delay, and it has a test of its own."""
    assert sorted(OTHERS) == sorted(f"{s}.{k}" for s, k in SETTINGS if k != "jitter")


@pytest.mark.parametrize("name", OTHERS)
def test_every_setting_can_be_set_in_all_ways_and_comes_back(name: str, toml: WriteToml) -> None:
    """From a mapping, a TOML file, `--set` and an option; and `resolved` makes the same scenario again."""
    section, _, key = name.partition(".")
    written, value = OTHERS[name]
    scenario = from_mapping({section: {key: written}}, "here")
    assert getattr(getattr(scenario, section), key) == value
    assert scenario != Scenario()
    assert load(toml(f"[{section}]\n{key} = {json.dumps(written)}\n")) == scenario
    assert load(None, [f"{name}={written}"]) == scenario
    assert replace(Scenario(), **{f"{section}__{key}": written}) == scenario
    assert from_mapping(scenario.resolved(), "again") == scenario
    assert from_mapping(json.loads(json.dumps(scenario.resolved())), "from JSON") == scenario


@given(name=st.text(max_size=30).filter(lambda text: text.isprintable() or text.isascii()), share=st.floats(0, 1))
def test_a_scenario_written_as_toml_is_read_back(name: str, share: float) -> None:
    scenario = replace(Scenario(), scenario__name=name, memory__zero_share=share)
    assert from_mapping(tomllib.loads(scenario.toml()), "its own text") == scenario


def test_assignments_stand_above_the_file_and_those_below(toml: WriteToml) -> None:
    path = toml("[guest]\nvcpus = 2\nrate = 5\n[push]\norder = 'random'\n")
    scenario = load(path, [" guest.vcpus = 8 "], below=["guest.vcpus=3", "guest.rate=6"])
    assert (scenario.guest.vcpus, scenario.guest.rate, scenario.push.order) == (8, 6, "random")


def test_of_two_assignments_of_one_setting_the_last_counts() -> None:
    assert load(None, ["guest.vcpus=3", "push.piece=2M", "guest.vcpus=8"]).guest.vcpus == 8
    error = refusal(lambda: load(None, ["guest.vcpus=three", "guest.vcpus=8"]))
    assert error.key == "guest.vcpus", "what does not count is read all the same"


def test_an_assignment_may_hold_an_equals_sign_and_dots() -> None:
    scenario = load(None, ["push.order=random:block=64", "memory.image=../a=b.img"])
    assert (scenario.push.order, scenario.memory.image) == ("random:block=64", "../a=b.img")


def test_nothing_is_said_in_a_unit_that_means_nothing() -> None:
    """A rate of 0 is no limit, so that 0Gbit would read as the opposite; 0T and 0s are no more than a 0."""
    shown = [value for section in Scenario().resolved().values() for value in section.values()]
    assert {value for value in shown if isinstance(value, str) and value.startswith("0")} == {"0", "0s"}
    for text in ("0", "0Gbit", "0bit", "unlimited"):
        assert load(None, [f"link.rate={text}"]).resolved()["link"]["rate"] == "unlimited"


def test_replace_keeps_everything_else(toml: WriteToml) -> None:
    scenario = replace(load(toml("[guest]\nvcpus = 2\n")), push__piece="2M")
    assert (scenario.guest.vcpus, scenario.push.piece) == (2, Level.PMD)


def test_a_scenario_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Scenario().guest.vcpus = 3  # type: ignore[misc]


# --- what is refused ---


@pytest.mark.parametrize(
    ("section", "key", "value", "answer"),
    [
        ("scenario", "name", 7, "7 is not accepted here: give a text"),
        ("scenario", "seed", -1, "-1 is not accepted here: give a whole number from 0 to 9223372036854775807"),
        ("scenario", "seed", 1.0, "1.0 is not accepted here: give a whole number"),
        ("scenario", "seed", True, "True is not accepted here: give a whole number"),
        ("scenario", "seed", "one", "'one' is not accepted here: give a whole number"),
        ("scenario", "seed", [1], "[1] is not accepted here: give a whole number"),
        ("memory", "size", "32K", '"1G", "64G" (binary; units: K M G T), from 64K to 1T'),
        ("memory", "geometry", "arm64_4k", "'arm64_4k' is not accepted here: give one of x86_64, tiny"),
        ("memory", "size", "2T", '"1G", "64G" (binary; units: K M G T), from 64K to 1T'),
        ("memory", "size", "big", "'big' is not accepted here: give a size such as"),
        ("memory", "zero_share", 1.01, "1.01 is not accepted here: give a number from 0.0 to 1.0"),
        ("memory", "zero_share", "nan", "'nan' is not accepted here: give a number from 0.0 to 1.0"),
        ("memory", "zero_share", 10**400, "give a number from 0.0 to 1.0"),
        ("memory", "backing", "swap", "'swap' is not accepted here: give one of anonymous, memfd, hugetlbfs"),
        ("push", "order", "eager", "unknown push order 'eager'; known: bubbling, fault_follow"),
        ("push", "order", "random:blok=3", "push order 'random': unknown setting 'blok'; did you mean 'block'?"),
        ("push", "order", "random:block=-1", "block: '-1' is not accepted here: give a whole number, at least 0"),
        ("push", "order", 3, "3 is not accepted here: give a text"),
        ("push", "piece", "1G", "'1G' is not accepted here: give 4K or 2M"),
        ("push", "piece", True, "True is not accepted here: give 4K or 2M"),
        ("push", "run", "6K", "from 4K to 64M, in whole multiples of 4K"),
        ("push", "run", "0", "from 4K to 64M, in whole multiples of 4K"),
        ("push", "rate", "5", "'5' is not accepted here: give a rate such as"),
        ("push", "hold", "5", "'5' is not accepted here: give a time such as"),
        ("pull", "preempt", "maybe", "'maybe' is not accepted here: give on or off"),
        ("pull", "preempt", 2, "2 is not accepted here: give on or off"),
        ("pull", "preempt", 1.0, "1.0 is not accepted here: give on or off"),
        (
            "collapse",
            "policy",
            "batched:spans=0",
            "spans: '0' is not accepted here: give a whole number from 1 to 65536",
        ),
        (
            "collapse",
            "policy",
            "batched:spans=x",
            "spans: 'x' is not accepted here: give a whole number from 1 to 65536",
        ),
        ("collapse", "policy", "batched:spans=8,spans=9", "spans: it is given twice; give it once"),
        (
            "guest",
            "workload",
            "zipf:exponent=-1",
            "exponent: '-1' is not accepted here: give a number above 0, at most 16",
        ),
        ("guest", "workload", "replay", 'give "replay:path=..."'),
        ("guest", "vcpus", 1025, "1025 is not accepted here: give a whole number from 0 to 1024"),
        (
            "link",
            "preset",
            "5G",
            "'5G' is not accepted here: give one of \"\", loopback, 10G, 25G, 100G, cross-zone, WAN",
        ),
        ("link", "distribution", "lumpy", "unknown jitter distribution 'lumpy'; known: constant, normal, pareto"),
        ("link", "distribution", "samples", 'give "samples:path=..."'),
        ("link", "scheduling", "wfq", "'wfq' is not accepted here: give one of fair, fifo, strict"),
        ("link", "segment", "511", "(binary; units: K M G T), from 512 to 64M"),
        ("link", "congestion", "bbr", "'bbr' is not accepted here: give one of none, reno, cubic"),
        ("link", "loss", 0.51, "0.51 is not accepted here: give a number from 0.0 to 0.5"),
        ("link", "loss", -0.1, "-0.1 is not accepted here: give a number from 0.0 to 0.5"),
        ("link", "rate", "-1Gbit", "'-1Gbit' is not accepted here: give a rate such as"),
        ("link", "outages", "5ms", "'5ms' is not accepted here: give times in order such as"),
        ("link", "outages", "5ms-4ms", "'5ms-4ms' is not accepted here: give times in order such as"),
        ("link", "outages", "1ms-3ms, 2ms-4ms", "'1ms-3ms, 2ms-4ms' is not accepted here: give times in order"),
        ("link", "outages", 5, "5 is not accepted here: give times in order"),
        ("net", "idle_timeout", "9ms", "(units: ns us ms s min), at least 10ms"),
        ("limits", "connections_max", "1", "'1' is not accepted here: give a whole number from 2 to 4096"),
    ],
)
def test_a_wrong_value_is_told_with_key_value_and_what_is_accepted(
    section: str, key: str, value: object, answer: str
) -> None:
    error = refusal(lambda: from_mapping({section: {key: value}}, "run.toml"))
    assert (error.where, error.key) == ("run.toml", f"{section}.{key}")
    assert str(error).startswith(f"run.toml: {section}.{key}: ")
    assert answer in str(error)


@pytest.mark.parametrize(
    ("values", "key", "answer"),
    [
        ({"gest": {}}, "gest", "unknown section 'gest'; did you mean 'guest'?"),
        ({"xyzzy": {}}, "xyzzy", "unknown section 'xyzzy'; known: scenario, memory, push"),
        ({"guest": {"vcpu": 3}}, "guest.vcpu", "unknown setting 'vcpu'; did you mean 'vcpus'?"),
        ({"collapse": {"xyzzy": 3}}, "collapse.xyzzy", "unknown setting 'xyzzy'; known: policy"),
        ({"guest": 3}, "guest", "3 is not a section; write [guest] and settings below it"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(values: dict[str, Any], key: str, answer: str) -> None:
    error = refusal(lambda: from_mapping(values, "run.toml"))
    assert (error.where, error.key) == ("run.toml", key)
    assert answer in str(error)


@pytest.mark.parametrize("section", ["link", "return_link"])
def test_jitter_needs_as_much_delay(section: str) -> None:
    error = refusal(lambda: from_mapping({section: {"delay": "1ms", "jitter": "1001us"}}, "run.toml"))
    assert (error.where, error.key) == ("run.toml", section)
    assert "more jitter than delay" in str(error)
    kept = from_mapping({section: {"delay": "1ms", "jitter": "1ms"}}, "run.toml")
    assert from_mapping(kept.resolved(), "again") == kept


@pytest.mark.parametrize("section", ["link", "return_link"])
def test_samples_are_times_by_themselves(section: str) -> None:
    settings = {"delay": "1ms", "jitter": "1us", "distribution": "samples:path=/no/such/file"}
    error = refusal(lambda: from_mapping({section: settings}, "run.toml"))
    assert "leave jitter at 0" in str(error)
    assert from_mapping({section: {**settings, "jitter": 0}}, "run.toml") != Scenario()


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ({"size": "512M"}, "size: 512M are not whole hugetlb pages; give a multiple of 1G"),
        ({"size": "1536M"}, "size: 1.5G are not whole hugetlb pages; give a multiple of 1G"),
        ({"size": "72K", "geometry": "tiny"}, "size: 72K are not whole hugetlb pages; give a multiple of 64K"),
    ],
)
def test_memory_is_whole_hugetlb_pages(values: dict[str, str], answer: str) -> None:
    error = refusal(lambda: from_mapping({"memory": values}, "run.toml"))
    assert (error.where, error.key) == ("run.toml", "memory")
    assert answer in str(error)
    tiny = from_mapping({"memory": {"size": "192K", "geometry": "tiny"}}, "run.toml")
    assert tiny.geometry is TINY
    assert from_mapping(tiny.resolved(), "again") == tiny


def test_assignments_are_judged_together(toml: WriteToml) -> None:
    """A rule between two settings holds for what comes out, not for each assignment by itself."""
    assert load(toml("[link]\ndelay = '5ms'\n"), ["link.jitter=2ms"]).link.jitter == 2 * MS
    assert load(None, ["link.jitter=2ms", "link.delay=5ms"]).link.delay == 5 * MS
    error = refusal(lambda: load(None, ["link.jitter=2ms"]))
    assert "more jitter than delay" in str(error)


@pytest.mark.parametrize(
    ("assignment", "key", "answer"),
    [
        ("guest.vcpus", "guest.vcpus", "write section.key=value, for example guest.vcpus=8"),
        ("vcpus=8", "vcpus=8", "write section.key=value"),
        ("", "", "write section.key=value"),
        ("=", "=", "write section.key=value"),
        ("guest.vcpus=many", "guest.vcpus", "'many' is not accepted here: give a whole number"),
        ("guest.cpus=8", "guest.cpus", "did you mean 'vcpus'?"),
        ("gust.vcpus=8", "gust", "did you mean 'guest'?"),
        ("guest.=8", "guest.", "unknown setting ''"),
    ],
)
def test_a_wrong_assignment_is_told_as_one(assignment: str, key: str, answer: str, toml: WriteToml) -> None:
    """Also when there is a file, which is not to blame."""
    for path in (None, toml("[guest]\nvcpus = 2\n")):
        error = refusal(lambda path=path: load(path, [assignment]))  # type: ignore[misc]
        assert (error.where, error.key) == ("--set", key)
        assert answer in str(error)


def test_a_mistake_in_the_file_is_told_with_its_name(toml: WriteToml) -> None:
    path = toml("[guest]\nvcpus = 'many'\n")
    error = refusal(lambda: load(path, ["guest.rate=5"]))
    assert (error.where, error.key) == (str(path), "guest.vcpus")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(lambda: load(tmp_path / "none.toml"))
    assert str(error) == f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in str(refusal(lambda: load(tmp_path)))


@pytest.mark.parametrize(
    "content",
    [b"[guest\nvcpus = 2", b"vcpus", b"\xff\xfe", b"\x00", b"[scenario]\nseed = " + b"1" * 5000, b"a = " + b"[" * 5000],
    ids=["unclosed", "no value", "not UTF-8", "NUL", "too long a number", "too deep"],
)
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    assert str(refusal(lambda: load(path))).startswith(f"{path}: is not TOML: ")
