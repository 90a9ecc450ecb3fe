"""A run described: frozen, checked once, read from TOML and from `--set section.key=value`.

Rules of this file
    1. A setting is one attrs field: its default, its kind of value (`migemu.values`: text or number in, base unit out),
       and one line of documentation, which `migemu list --settings` prints. There is no second place to keep in step.
    2. Whoever holds a `Scenario` holds a valid one. Mistakes are `ScenarioError`s that name the file, the key, the
       value and what is accepted; unknown keys name the nearest known one.
    3. `resolved()` gives back plain text and numbers that `from_mapping` accepts and that make the same scenario.
    4. Of two `--set` of one setting the last counts, so that a script can put its own before those of its user. A file,
       a preset and the settings of `migemu demo` stand below `--set`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import attrs

from migemu import named
from migemu.costs.collapse_cost import CostModel
from migemu.errors import InputError, ScenarioError
from migemu.guest.workload import WorkloadContext, workloads
from migemu.link.jitter import jitters
from migemu.mm.pages import GEOMETRIES, X86_64, Geometry, Level
from migemu.policy.collapse_policy import collapse_policies
from migemu.policy.push_order import push_orders
from migemu.scenario import fields
from migemu.scenario.net import LimitsSettings, NetSettings, SecuritySettings
from migemu.scenario.presets import PRESETS
from migemu.scenario.recovery_settings import RecoverySettings
from migemu.scenario.shipped_scenarios import find, missing
from migemu.units import format_size
from migemu.values import ValueKind, unknown


def _no_text(path: str) -> str:
    raise FileNotFoundError(path)


_TRIAL_PAGES: Final = X86_64.largest_pages
_TRIAL_GUEST: Final = WorkloadContext(_TRIAL_PAGES, 0, 1, Random(0), 0.5)


@attrs.frozen
class GeneralSettings:
    """Section [scenario]: the name and the seed."""

    name: str = fields.text("unnamed", "what the run is called in results and folder names", "name")
    seed: int = fields.number(int, 1, "seed of the pattern, the orders and the guest", 0, 2**63 - 1, "seed")


@attrs.frozen
class MemorySettings:
    """Section [memory]: size, geometry, contents and backing of the guest's memory."""

    geometry: str = fields.choice(
        "x86_64",
        "page sizes",
        {
            "x86_64": "4K, 2M and 1G pages",
            "tiny": "a '1G page' of 16 base pages in four '2M' of 4, for tests of every order of events",
        },
    )
    size: int = fields.size(
        "1G",
        "size of the seeded pattern, in whole hugetlb pages (an image brings its own size)",
        least="64K",
        most="1T",
    )
    image: str = fields.text(
        "", "file whose bytes are the source's memory, padded with zeros to whole hugetlb pages", "path of a file"
    )
    image_format: str = fields.choice(
        "raw",
        "what of the image is the memory",
        {
            "raw": "its bytes as they are",
            "core": "of an ELF core (kdump, dump-guest-memory) what its PT_LOAD segments hold, by physical address",
        },
    )
    image_copy: bool = fields.switch(
        False, "send a private copy of the image, taken before the migration begins: by reflink where the file system "
        "can, else in memory; off: an image that changes while it is read is told at the end",
    )  # fmt: skip
    zero_share: float = fields.number(
        float, 0.25, "share of zero pages in the pattern", 0.0, 1.0, "share: 0.25 is a quarter"
    )
    backing: str = fields.choice(
        "anonymous",
        "where the destination's bytes live",
        {
            "anonymous": "in private memory of the process",
            "memfd": "in a memfd, as a VMM that shares its guest's memory has it",
            "hugetlbfs": "in 1G hugetlb pages of this machine, which have to be reserved",
        },
    )

    hgm: bool = fields.switch(
        True, "HGM at the destination; off: a hugetlb page is mapped when all of it has come; a fault asks for it all"
    )  # fmt: skip

    def __attrs_post_init__(self) -> None:
        """The rules between settings."""
        hugepage_bytes = GEOMETRIES[self.geometry].largest_bytes
        if self.size % hugepage_bytes:
            raise ValueError(
                f"size: {format_size(self.size)} are not whole hugetlb pages; give a multiple of "
                f"{format_size(hugepage_bytes)}"
            )


@attrs.frozen
class PushSettings:
    """[push] - what the source sends unasked."""

    order: str = fields.spec("fault_follow", "push order", push_orders, X86_64, _TRIAL_PAGES, Random(0))
    piece: Level = fields.piece("4K", "size of a background piece: 4K or 2M")
    run: int = fields.size(
        "1M", "most bytes of neighbouring pieces behind one header; an urgent piece waits for at most one run "
        "(a single 2M piece may exceed it)", least="4K", whole="4K", most="64M",
    )  # fmt: skip
    rate: int = fields.rate("0", "limit of the background stream (QEMU: max-postcopy-bandwidth); 0 is none")
    hold: int = fields.time("0", "how long after the switch the background stream waits before it begins")


@attrs.frozen
class PullSettings:
    """[pull] - what the destination asks for."""

    piece: Level = fields.piece("4K", "size of an urgent piece, asked for by a fault: 4K or 2M")
    preempt: bool = fields.switch(True, "urgent pieces on a connection of their own (QEMU: postcopy-preempt)")
    sender: str = fields.choice(
        "request",
        "who sends urgent pieces",
        {
            "request": "whoever reads the request, at once",
            "push": "the thread that pushes, when it comes to it (old QEMU)",
        },
    )
    resend: bool = fields.switch(
        False, "answer a request for a piece that is already under way with a second copy, which may overtake the first"
    )


@attrs.frozen
class CollapseSettings:
    """Section [collapse]: when the destination collapses small mappings."""

    policy: str = fields.spec("eager", "when the destination collapses small mappings", collapse_policies, X86_64)


@attrs.frozen
class CostsSettings:
    """[costs] - by which scheme a kernel with HGM would do what the model does; prices in `costs.collapse_cost`."""

    mapcount: str = fields.choice(
        "thp_like",
        "how mappings of a hugetlb page are counted, which is what a collapse has to change",
        {
            "head_only": "one count on the head page, changed once for each entry (RFC v1 and v2)",
            "thp_like": "an entry smaller than the hugepage counts on each 4K subpage that it covers (v2)",
            "hstate": "one count while the hugepage's entry is not empty: a collapse changes nothing (RFC v1)",
        },
    )
    lock: str = fields.choice(
        "mmap_lock",
        "what a collapse locks",
        {
            "vma_lock": "the VMA: faults on the same VMA or file wait while its loop runs (v1)",
            "mmap_lock": "the mm: every fault and every UFFDIO_CONTINUE of the process waits for the whole call (v2)",
        },
    )
    notifier: str = fields.choice(
        "around",
        "when KVM is told of a collapse",
        {
            "around": "before and after it, and every fault in between is stale (as posted)",
            "after": "once, when all is done (asked for, never built)",
        },
    )
    handler: str = fields.choice(
        "spinning",
        "who handles a fault at the destination",
        {
            "same_core": "a thread on the vCPU's own core",
            "spinning": "a thread on another core, which polls: 27 us more",
            "sleeping": "a thread on another core, which sleeps: 104 us more",
        },
    )
    place: str = fields.choice(
        "run",
        "how pieces that have come are mapped",
        {
            "run": "received in their place; one UFFDIO_CONTINUE for all neighbours that came together",
            "continue": "each copied through the alias and continued by itself (QEMU's doublemap series)",
            "copy": "each by a UFFDIO_COPY of its own (QEMU without HGM)",
        },
    )
    threads: str = fields.choice(
        "one",
        "the destination's threads",
        {"one": "one for all", "three": "one for each channel, and one for faults (QEMU)"},
    )

    def model(self, geometry: Geometry, vcpus: int) -> CostModel:
        """The cost model of a guest of `vcpus` vCPUs."""
        return CostModel(self.mapcount, self.lock, self.notifier, geometry, vcpus=vcpus)  # type: ignore[arg-type]


@attrs.frozen
class GuestSettings:
    """[guest] - who touches the memory at the destination."""

    vcpus: int = fields.number(int, 4, "number of vCPUs; 0 is a migration without a guest", 0, 1024, "vCPUs")
    workload: str = fields.spec("zipf", "how a vCPU picks what it touches", workloads, _TRIAL_GUEST)
    rate: int = fields.number(
        int, 10_000, "how often a vCPU touches memory; 0 is as fast as it can", 0, 10_000_000,
        "accesses per second of each vCPU",
    )  # fmt: skip
    tick: int = fields.time(
        "1ms", "how often a vCPU looks what is due: accesses come in bursts of that distance; 0 takes each at its time"
    )
    write_share: float = fields.number(
        float, 0.2, "share of accesses that write", 0.0, 1.0, "share: 0.2 is one in five"
    )
    accesses_max: int = fields.number(
        int, 0, "accesses after which a vCPU stops; 0 is none", 0, 2**40, "accesses of each vCPU"
    )


@attrs.frozen
class DeviceSettings:
    """Section [device]: the device state that the switch sends."""

    state: int = fields.size("4M", "size of the device state blob, sent while the guest stands still", most="1G")


@attrs.frozen
class LinkSettings:
    """[link] (source to destination) and [return_link] (destination to source): the emulated link."""

    preset: str = fields.choice(
        "",
        "settings of a known kind of link; what else is set here stands above them",
        {"": "none", **{name: preset.shown for name, preset in PRESETS.items()}},
    )
    rate: int = fields.rate("0", "rate of the link; 0 is no limit")
    delay: int = fields.time("0", "propagation delay, one way")
    jitter: int = fields.time("0", "by how much the delay varies; order is kept")
    distribution: str = fields.spec("uniform", "how jitter is distributed", jitters, 0, Random(0), _no_text)
    queue: int = fields.size(
        "0", "bytes the link's queue holds before the sender has to wait; 0 is what it carries in 300us"
    )  # fmt: skip
    scheduling: str = fields.choice(
        "fair",
        "which channel's segment goes into the link's queue next",
        {
            "fair": "channels in turn, the same number of bytes each (deficit round robin, as fq)",
            "fifo": "the frame that was sent first, whole: one buffer for all channels",
            "strict": "urgent channels first; among equals the frame that was sent first",
        },
    )
    segment: int = fields.size(
        "64K", "most bytes of a frame that go out before another channel may", least="512", most="64M"
    )  # fmt: skip
    reorder: bool = fields.switch(False, "jitter lets channels overtake each other; each keeps its own order")
    congestion: str = fields.choice(
        "none",
        "what TCP's window does",
        {
            "none": "there is none: the stream is held back by the link and the send buffer alone",
            "reno": "RFC 5681: slow start, then one segment a round trip; half the window after a loss",
            "cubic": "RFC 9438: 0.7 of the window after a loss, then a cubic curve (Linux's default)",
        },
    )
    loss: float = fields.number(
        float,
        0.0,
        "share of packets that are lost and sent again by TCP",
        0.0,
        0.5,
        "share: 0.001 is one in a thousand",
    )
    rto_min: int = fields.time("200ms", "least time before TCP gives a packet up (Linux: 200ms)", least="1us")
    outages: tuple[tuple[int, int], ...] = fields.spans("", "times from-to at which nothing gets through")

    @property
    def shaped(self) -> bool:
        """Whether anything of it has to be emulated."""
        return bool(self.rate or self.delay)

    def __attrs_post_init__(self) -> None:
        """The rules between settings."""
        if self.jitter > self.delay:
            raise ValueError("jitter: more jitter than delay would need bytes to arrive before they are sent")
        if self.jitter:
            try:
                jitters.create(self.distribution, self.jitter, Random(0), _no_text)
            except OSError:
                pass  # the file is read when it is needed


@attrs.frozen
class IntegritySettings:
    """Section [integrity]: digests of pieces."""

    digests: bool = fields.switch(
        False, "the source sends a digest with each base page: what comes corrupt is refused, and asked for again"
    )


@attrs.frozen
class CheckpointSettings:
    """[checkpoint] - how often the destination makes durable what it has (`migemu-dest --checkpoint DIR`)."""

    interval: int = fields.time("1s", "how old a checkpoint becomes before another one is made", least="10ms")
    arrived: int = fields.size("256M", "bytes of pages that may have come before another one is made", least="4K")
    log: int = fields.size("64M", "length at which the log of guest writes is folded", least="4K")


_SECTIONS: Final[dict[str, type[Any]]] = {
    "scenario": GeneralSettings,
    "memory": MemorySettings,
    "push": PushSettings,
    "pull": PullSettings,
    "collapse": CollapseSettings,
    "costs": CostsSettings,
    "guest": GuestSettings,
    "device": DeviceSettings,
    "link": LinkSettings,
    "return_link": LinkSettings,
    "net": NetSettings,
    "recovery": RecoverySettings,
    "integrity": IntegritySettings,
    "checkpoint": CheckpointSettings,
    "limits": LimitsSettings,
    "security": SecuritySettings,
}


@attrs.frozen
class Scenario:
    """Everything that determines a run. Sections are the attributes; `migemu list --settings` prints them all."""

    scenario: GeneralSettings = attrs.field(factory=GeneralSettings)
    memory: MemorySettings = attrs.field(factory=MemorySettings)
    push: PushSettings = attrs.field(factory=PushSettings)
    pull: PullSettings = attrs.field(factory=PullSettings)
    collapse: CollapseSettings = attrs.field(factory=CollapseSettings)
    costs: CostsSettings = attrs.field(factory=CostsSettings)
    guest: GuestSettings = attrs.field(factory=GuestSettings)
    device: DeviceSettings = attrs.field(factory=DeviceSettings)
    link: LinkSettings = attrs.field(factory=LinkSettings)
    return_link: LinkSettings = attrs.field(factory=LinkSettings)
    net: NetSettings = attrs.field(factory=NetSettings)
    recovery: RecoverySettings = attrs.field(factory=RecoverySettings)
    integrity: IntegritySettings = attrs.field(factory=IntegritySettings)
    checkpoint: CheckpointSettings = attrs.field(factory=CheckpointSettings)
    limits: LimitsSettings = attrs.field(factory=LimitsSettings)
    security: SecuritySettings = attrs.field(factory=SecuritySettings)

    @property
    def geometry(self) -> Geometry:
        """The geometry of both nodes."""
        return GEOMETRIES[self.memory.geometry]

    def resolved(self) -> dict[str, dict[str, Any]]:
        """Every setting as plain text or number; `from_mapping` of it gives this scenario again."""
        return {
            section: {
                field.name: field.metadata["kind"].show(getattr(getattr(self, section), field.name))
                for field in attrs.fields(kind)
            }
            for section, kind in _SECTIONS.items()
        }

    def toml(self) -> str:
        """The scenario as a TOML file that `load` reads back to the same scenario."""
        lines: list[str] = []
        for section, settings in self.resolved().items():
            lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in settings.items()), ""]
        return "\n".join(lines)


def _toml(value: Any) -> str:
    """JSON is TOML here, but for two things: escaped surrogate pairs, and DEL as it stands."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def from_mapping(values: Mapping[str, Any], where: str) -> Scenario:
    """A scenario from nested mappings. ScenarioError names `where`, the key, the value and what is accepted."""
    _check(values, where)
    sections: dict[str, Any] = {}
    for section, settings in values.items():
        try:
            sections[section] = _SECTIONS[section](**_preset(settings), **settings)
        except ValueError as error:  # a rule between settings; it names the setting itself
            raise ScenarioError(where, section, str(error)) from None
    return Scenario(**sections)


def _preset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the preset that is named, without those that are set beside it."""
    preset = PRESETS.get(settings.get("preset", ""))
    return {} if preset is None else {key: value for key, value in preset.settings.items() if key not in settings}


def _check(values: Mapping[str, Any], where: str) -> None:
    """Each setting by itself; ScenarioError as `from_mapping`."""
    for section, settings in values.items():
        if section not in _SECTIONS:
            raise ScenarioError(where, section, unknown("section", section, _SECTIONS))
        if not isinstance(settings, Mapping):
            problem = f"{settings!r} is not a section; write [{section}] and settings below it"
            raise ScenarioError(where, section, problem)
        known = {field.name: field for field in attrs.fields(_SECTIONS[section])}
        for name in settings:
            if name not in known:
                raise ScenarioError(where, f"{section}.{name}", unknown("setting", name, known))
        for name, value in settings.items():
            try:
                known[name].metadata["kind"].parse(value)
            except ValueError as error:
                raise ScenarioError(where, f"{section}.{name}", str(error)) from None


def parse_assignments(assignments: Iterable[str], where: str = "--set") -> dict[str, dict[str, str]]:
    """Section -> key -> value, checked but as it was written, of `section.key=value` texts.

    Of two for one setting the last counts. ScenarioError names `where`: the form, the name or the value is wrong.
    """
    found: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        section, dot, name = (each.strip() for each in key.partition("."))
        if not equals or not dot:
            raise ScenarioError(where, assignment, "write section.key=value, for example guest.vcpus=8")
        _check({section: {name: value.strip()}}, where)
        found.setdefault(section, {})[name] = value.strip()
    return found


def read_settings(path: Path) -> dict[str, Any]:
    """Section -> key -> value of a TOML file, or of a shipped scenario, checked but as it was written.

    ScenarioError names the file.
    """
    try:
        values = tomllib.loads(named.read_text(find(path), named.SETTINGS_BYTES_MAX, once=True))
    except OSError as error:
        other = missing(path) if isinstance(error, FileNotFoundError) else ""
        raise ScenarioError(str(path), "", other or f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError, a number without end
        raise ScenarioError(str(path), "", f"is not TOML: {error}") from None
    from_mapping(values, str(path))  # so that a mistake in the file is told with the file's name
    return values


def load(path: Path | None, assignments: Iterable[str] = (), below: Iterable[str] = ()) -> Scenario:
    """The scenario of a TOML file (or the defaults) with `section.key=value` assignments on top of it.

    `path` may be the name of a shipped scenario. `-` is standard input, read once, as a pipe is.
    `below`: assignments that those of the user stand above.

    ScenarioError when the file cannot be read or anything in it, or in an assignment, is wrong.
    """
    values = read_settings(path) if path is not None else {}
    for layer in (below, assignments):
        for section, settings in parse_assignments(layer).items():
            values.setdefault(section, {}).update(settings)
    return from_mapping(values, str(path) if path is not None else "--set")


def replace(scenario: Scenario, where: str = "option", **settings: Any) -> Scenario:
    """`scenario` with settings changed, written `section__key=value`."""
    values = scenario.resolved()
    for key in settings:
        section, _, name = key.partition("__")
        if name == "preset":
            values[section] = {}  # all of it; what is set in the same call stands above it
    for key, value in settings.items():
        section, _, name = key.partition("__")
        values[section][name] = value
    return from_mapping(values, where)


class Described(NamedTuple):
    """A setting for people: `default` as it would be written, `kind` says what may be written and in which unit."""

    section: str
    key: str
    default: str
    kind: ValueKind[Any]
    doc: str

    @property
    def name(self) -> str:
        """`section.key`, as `--set` takes it."""
        return f"{self.section}.{self.key}"

    @property
    def accepted(self) -> str:
        """What may be written, as `migemu.values.ValueKind` has it."""
        return self.kind.accepted


def describe() -> Iterable[Described]:
    """Every setting, in the order of the file."""
    for section, settings in _SECTIONS.items():
        for field in attrs.fields(settings):
            kind, default = field.metadata["kind"], field.metadata["default"]
            shown = ("off", "on")[default] if isinstance(default, bool) else str(default)
            yield Described(section, field.name, shown, kind, field.metadata["doc"])


def find_settings(name: str) -> list[Described]:
    """The settings that `name` means: `section.key`, a section, or a key, which several sections may have.

    InputError names what is near when there is none.
    """
    every = list(describe())
    found = [each for each in every if name in (each.name, each.section, each.key)]
    if not found:
        names = [word for each in every for word in (each.name, each.section, each.key)]
        raise InputError(unknown("setting", name, dict.fromkeys(names), "migemu list --settings shows all"))
    return found
