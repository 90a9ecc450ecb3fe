"""The house rules, over the syntax trees of the program and of its tests: who may import whom, and what nobody does.

Each rule looks at one module and says, per violation, what to do about it. `test_the_rule_bites` shows that each of
them finds what it looks for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from migemu.wire.states import Stage

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("migemu", "source_node", "dest_node")

#: Rings, from the inside out; a ring may import the rings within it.
GROUND, MODEL, CHOICES, SEAMS, SHARED, CORES, NODES, ADAPTERS, READERS, ROOTS = range(10)

#: One row a folder; `migemu/` itself holds loose modules, a row each. The longest name that fits a module counts.
RINGS: Final[dict[str, int]] = {
    "migemu": GROUND, "migemu.units": GROUND, "migemu.errors": GROUND, "migemu.registry": GROUND,
    "migemu.permutation": GROUND, "migemu.address": GROUND, "migemu.named": GROUND, "migemu.values": GROUND,
    "migemu.mm": MODEL, "migemu.costs": MODEL, "migemu.wire": MODEL,
    "migemu.policy": CHOICES, "migemu.guest": CHOICES, "migemu.link": CHOICES, "migemu.trace": CHOICES,
    "migemu.ports": SEAMS, "migemu.scenario": SEAMS,
    "migemu.node": SHARED,
    "source_node.core": CORES, "dest_node.core": CORES,
    "source_node": NODES, "dest_node": NODES,
    "migemu.transport": ADAPTERS, "migemu.store": ADAPTERS, "migemu.checkpoint": ADAPTERS, "migemu.sim": ADAPTERS,
    "migemu.stdio": ADAPTERS,
    "migemu.result": READERS, "migemu.analysis": READERS, "migemu.report": READERS, "migemu.experiment": READERS,
    "migemu.view": READERS,
    "migemu.process": ROOTS, "migemu.worlds": ROOTS, "migemu.ordering": ROOTS, "migemu.cli": ROOTS,
    "migemu.api": ROOTS, "migemu.docs": ROOTS,
    # Modules that stand elsewhere than their folder: where a node is put together as a process.
    "*.__main__": ROOTS, "dest_node.checkpointing": ROOTS, "dest_node.ending": ROOTS, "source_node.record": ROOTS,
}  # fmt: skip
#: Who, in a ring, may import whom in the same one; a folder always may itself.
NEIGHBOURS: Final = {
    ("migemu.costs", "migemu.mm"), ("migemu.wire", "migemu.mm"),
    ("migemu.checkpoint", "migemu.store"), ("migemu.sim", "migemu.store"),
    ("migemu.experiment", "migemu.result"), ("migemu.report", "migemu.result"), ("migemu.report", "migemu.analysis"),
    ("migemu.report", "migemu.experiment"), ("migemu.view", "migemu.analysis"), ("migemu.view", "migemu.report"),
}  # fmt: skip
#: What is made, or told, outside of the services knows none of them.
STRANGERS: Final = {(outer, inner) for outer in (ADAPTERS, READERS) for inner in (CORES, NODES)}
PURE: Final = {*range(NODES)} - {SHARED}
OUTSIDE: Final = ("asyncio", "socket", "time", "os", "mmap", "ctypes", "threading")
#: The one way in for what users name; scenarios and traces, which are read by name, stand in its ring.
WAY_IN: Final = "migemu.named"
#: Who else reads files: its own, or the kernel's, whose names nobody can choose.
READS_ITS_OWN: Final = ("migemu.report.document", "migemu.store.allocate", "migemu.experiment.program",
                        "migemu.trace.recorder", "migemu.view.view_server")  # fmt: skip
#: Where a page table, or a processor, has the levels that it has; and who writes a level's name or figure down.
KNOWS_LEVELS: Final = ("migemu.mm", "migemu.costs")
NAMES_LEVELS: Final = (
    "dest_node.core.leaves", "dest_node.core.receiver", "migemu.analysis.mapping_figures", "migemu.ordering.rules",
    "migemu.report.draw.memory_figures", "migemu.report.terminal.status_line", "migemu.result",
)  # fmt: skip
FUNCTION_LINES_MAX: Final = 70
#: Of a constructor, `self` aside. A frozen dataclass is a record, made of named values, and counts as one of them.
PARAMETERS_MAX: Final = 8


@dataclass(frozen=True)
class Module:
    """A source file. `name` is dotted; that of a package is the package's."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def folder(self) -> str:
        """The row of `RINGS` that it stands in; "" if there is none."""
        names = self.name.split(".")
        prefixes = [".".join(names[:length]) for length in range(len(names), 0, -1)]
        found = next((name for name in (f"*.{names[-1]}", *prefixes) if name in RINGS), "")
        return found if found != "migemu" or self.name == "migemu" else ""

    @property
    def ring(self) -> int | None:
        return RINGS.get(self.folder)

    def imports(self) -> Iterator[tuple[int, str, str]]:
        """(line, module, name) of each import: `import a.b` is (line, "a.b", ""), `from a import b` (line, "a", "b").

        What only a type checker imports is left out: it names the types of what arrives as an argument.
        """
        branches = [node for node in ast.walk(self.tree) if isinstance(node, ast.If)]
        checked = [each for node in branches if ast.unparse(node.test) == "TYPE_CHECKING" for each in node.body]
        left_out = {id(inner) for each in checked for inner in ast.walk(each)}
        for node in ast.walk(self.tree):
            if id(node) in left_out:
                continue
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                yield from ((node.lineno, module, alias.name) for alias in node.names)

    def attributes(self) -> Iterator[tuple[int, str]]:
        """(line, "a.b") of each attribute of a plain name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield node.lineno, f"{node.value.id}.{node.attr}"


def _modules(root: Path) -> list[Module]:
    found = []
    for path in sorted(root.rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(names[:-1] if names[-1] == "__init__" else names)
        found.append(Module(name, path.read_text(encoding="utf-8")))
    return found


PROGRAM: Final = [module for package in PACKAGES for module in _modules(ROOT / package)]
TESTS: Final = [module for module in _modules(ROOT / "tests") if module.name != "tests.test_house"]
KNOWN: Final = {module.name for module in PROGRAM} | set(RINGS)

# --- the rules of the program ---


def has_a_ring(module: Module) -> Iterator[str]:
    if module.ring is None:
        yield "stands in no ring: decide which one and add it to RINGS in tests/test_house.py"


def imports_inwards(module: Module) -> Iterator[str]:
    """No ring imports one outside it, nor a neighbour that is not in the table; the nodes do not know each other."""
    for line, imported, name in module.imports():
        target = f"{imported}.{name}" if f"{imported}.{name}" in KNOWN else imported
        if target.startswith("."):
            yield f"{line}: relative import: write the full name"
        if target.split(".")[0] not in PACKAGES or target == module.name:
            continue
        there = Module(target, "")
        ring, folders = there.ring, (module.folder, there.folder)
        if module.ring is None or ring is None:
            continue
        nodes = {module.name.split(".")[0], target.split(".")[0]}
        if ring > module.ring or (module.ring, ring) in STRANGERS:
            yield f"{line}: ring {module.ring} imports {target} of ring {ring}: let it arrive as an argument"
        elif (
            ring == module.ring
            and ring not in (GROUND, NODES, ROOTS)
            and folders[0] != folders[1]
            and folders not in NEIGHBOURS
        ):
            yield f"{line}: {folders[0]} imports {target} of its own ring: add the pair to NEIGHBOURS, or cut it"
        elif nodes == {"source_node", "dest_node"}:
            yield f"{line}: one node imports {target} of the other: say it over the wire, or move it to migemu"
        elif module.name.startswith("migemu.mm") and target.startswith("migemu.wire"):
            yield f"{line}: mm imports {target}: mm knows nothing of the stream"
        elif module.name.startswith("migemu.wire") and target.startswith("migemu.mm") and target != "migemu.mm.pages":
            yield f"{line}: wire imports {target}: of mm it may know the pages alone"


def is_pure(module: Module) -> Iterator[str]:
    """Rings up to the nodes touch nothing outside; nodes, and what they share, have asyncio, and the rest by ports."""
    if module.ring is None or module.ring > NODES or module.name == WAY_IN:
        return
    for line, imported, _ in module.imports():
        outside = imported.split(".")[0]
        if outside in OUTSIDE and (module.ring in PURE or outside != "asyncio"):
            yield f"{line}: ring {module.ring} imports {outside}: be told (now, bytes), or use a seam of migemu.ports"


def has_no_hidden_randomness(module: Module) -> Iterator[str]:
    if module.ring is None or module.ring > NODES:
        return
    drawn = [(line, f"{a}.{b}") for line, a, b in module.imports() if a == "random"] + list(module.attributes())
    for line, name in drawn:
        if name.startswith("random.") and name not in ("random.", "random.Random"):
            yield f"{line}: {name} is nobody's seed: take a random.Random as an argument"


def keeps_the_loop_out(module: Module) -> Iterator[str]:
    """uvloop is a choice of the composition root."""
    if module.ring != ROOTS:
        for line, imported, _ in module.imports():
            if imported.split(".")[0] == "uvloop":
                yield f"{line}: imports uvloop: only a root chooses the event loop"


def waits_in_order(module: Module) -> Iterator[str]:
    """asyncio.wait and as_completed answer in the order of a set, which differs from run to run."""
    if module.name.startswith("migemu"):
        return
    named = [(line, f"{a}.{b}") for line, a, b in module.imports()] + list(module.attributes())
    for line, name in named:
        if name in ("asyncio.wait", "asyncio.as_completed"):
            yield f"{line}: {name} has the order of a set: await tasks one by one, or use a queue"


#: Modules that make objects, code or commands of bytes, and functions that run what they are told.
_OBEY: Final = ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg", "code", "codeop")
_RUN: Final = ("eval", "exec", "compile", "__import__")


def obeys_no_bytes(module: Module) -> Iterator[str]:
    """Whatever a peer, a file or a user says is data: nothing makes objects of it that are not plain, nor runs it."""
    for line, imported, _ in module.imports():
        if imported.split(".")[0] in _OBEY:
            yield f"{line}: imports {imported}: read plain values and judge each (see migemu.wire.header)"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in _RUN or called.removeprefix("builtins.") in _RUN:
                yield f"{node.lineno}: {called}() runs what it is given: look up a name in a table instead"
            elif called in ("os.system", "os.popen") or any(
                keyword.arg == "shell" and ast.unparse(keyword.value) != "False" for keyword in node.keywords
            ):
                yield f"{node.lineno}: {called}() gives a line to a shell: pass a list of arguments"
            elif called.endswith("load") and any(keyword.arg == "allow_pickle" for keyword in node.keywords):
                yield f"{node.lineno}: allow_pickle: leave it out"


def reads_through_one_door(module: Module) -> Iterator[str]:
    """What a user names may be a pipe, a device, or without end: migemu.named knows, and nobody else opens it."""
    if module.name in (WAY_IN, *READS_ITS_OWN):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            modes = [each.value for each in node.args[called == "open" :] if isinstance(each, ast.Constant)]
            as_text = not node.args and any(keyword.arg == "encoding" for keyword in node.keywords)
            if called.endswith((".read_text", ".read_bytes")) and not called.startswith(("named.", "self.")):
                yield f"{node.lineno}: {called}(): read it by migemu.named"
            elif called.endswith(".open") and ("rb" in modes or "r" in modes or as_text):
                yield f"{node.lineno}: {called}() to read: open it by migemu.named"
            elif called == "open" and modes in ([], ["r"], ["rb"]):
                yield f"{node.lineno}: open() to read: open it by migemu.named"


def asks_for_the_largest_leaf(module: Module) -> Iterator[str]:
    """1G pages are one kind of memory: how large a leaf can be is a property of the geometry."""
    if module.folder in KNOWS_LEVELS or module.name in NAMES_LEVELS:
        return
    for line, name in module.attributes():
        if name == "Level.PUD":
            yield f"{line}: Level.PUD: say geometry.largest, largest_pages or largest_bytes"


def limits_its_msgpack(module: Module) -> Iterator[str]:
    """Lengths come before what they are the length of: without a limit msgpack believes them."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("msgpack.unpack"):
            given = {keyword.arg for keyword in node.keywords}
            if missing := {"max_array_len", "max_map_len"} - given:
                yield f"{node.lineno}: {ast.unparse(node.func)} without {', '.join(sorted(missing))}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "msgpack.Unpacker":
            yield f"{node.lineno}: msgpack.Unpacker keeps what it is fed: take frames apart first, as migemu.wire does"


def _parameters(node: ast.ClassDef) -> int:
    """Of its constructor, written or made by @dataclass; 0 of what inherits one, and of a frozen dataclass."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return len(each.args.posonlyargs + each.args.args + each.args.kwonlyargs) - 1
    decorators = [ast.unparse(each) for each in node.decorator_list]
    if not any("dataclass" in each and "frozen=True" not in each for each in decorators):
        return 0
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return sum(not re.search(r"ClassVar|init=False", ast.unparse(field)) for field in fields)


def has_short_constructors(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            count = _parameters(node)
            if count > PARAMETERS_MAX:
                yield (
                    f"{node.lineno}: {node.name} is made of {count} things, more than {PARAMETERS_MAX}: name what "
                    "belongs together (a frozen dataclass), or give it a seam instead of callbacks"
                )


#: Names and fields that hold a Stage or, in the details of a trace, its word; and what a stage is handed to.
_HOLDS_A_STAGE: Final = ("stage", "_stage", "detail")
_TAKES_A_STAGE: Final = ("enter", "_enter", "stage", "_stage")
_STAGE_TARGETS: Final = ("STAGE", "STAGES", "PRINTED_STAGES")
_STAGES: Final = frozenset(stage.value for stage in Stage)


def _said_as_text(node: ast.AST) -> Iterator[str]:
    """Words of a Stage that stand in `node` itself, or in the tuple, list or set that it is."""
    for each in node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]:
        if isinstance(each, ast.Constant) and each.value in _STAGES:
            yield each.value


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def names_its_stages(module: Module) -> Iterator[str]:
    """A stage is a member of Stage wherever one is compared, assigned, or entered; its word is for those who read."""
    for node in ast.walk(module.tree):
        said: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            of_a_stage = any(_last_name(part) in _HOLDS_A_STAGE for side in sides for part in ast.walk(side))
            said = sides if of_a_stage else []
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            said = (
                [node.value] if any(_last_name(each).strip("_").upper() in _STAGE_TARGETS for each in targets) else []
            )
        elif isinstance(node, ast.Call):
            said = list(node.args) if _last_name(node.func) in _TAKES_A_STAGE else []
            said += [keyword.value for keyword in node.keywords if keyword.arg in _HOLDS_A_STAGE]
        for word in (word for each in said for word in _said_as_text(each)):
            yield f"{node.lineno}: says {word!r}: name the stage, Stage of migemu.wire.states"


# --- the rules of everything ---


def has_short_functions(module: Module) -> Iterator[str]:
    """A module is one noun, as long as it needs; a function fits a screen."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES_MAX}: cut it in parts"


def is_named_after_a_thing(module: Module) -> Iterator[str]:
    if module.name.split(".")[-1] in ("util", "utils", "helper", "helpers", "misc", "common"):
        yield "is named after nothing: name it after what it holds"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Manager"):
            yield f"{node.lineno}: class {node.name}: say what it is, not that it manages"


def has_nothing_left_to_do(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.split("\n"), 1):
        if found := re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield f"{number}: {found[0]}: do it, drop it, or write down as Simplified what is not modelled"


# --- the rules of tests ---


def does_not_sleep(module: Module) -> Iterator[str]:
    if module.name.startswith("tests.bench."):
        return  # no test: it measures in real time, and has to wait for a quiet machine
    named = [(line, f"{a}.{b}") for line, a, b in module.imports()] + list(module.attributes())
    for line, name in named:
        if name == "time.sleep":
            yield f"{line}: time.sleep: wait for what you wait for, or tell the time as an argument"


def does_not_mock(module: Module) -> Iterator[str]:
    for line, imported, name in module.imports():
        if f"{imported}.{name}".startswith(("unittest.mock", "mock.")):
            yield f"{line}: imports mock: write a fake that implements the seam (migemu.ports)"


def skips_with_a_reason(module: Module) -> Iterator[str]:
    excuses = ("pytest.skip", "pytest.xfail", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail")
    called = {id(node.func): node for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in excuses:
            call = called.get(id(node))
            reasons = [] if call is None else [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
            if call is not None and not name.startswith("pytest.mark.") and call.args:
                reasons = call.args
            if not any(not isinstance(reason, ast.Constant) or reason.value for reason in reasons):
                yield f"{node.lineno}: {name} without a reason: say what has to be there for it to run"


Rule = Callable[[Module], Iterator[str]]
OF_THE_PROGRAM: Final[tuple[Rule, ...]] = (
    has_a_ring, imports_inwards, is_pure, has_no_hidden_randomness, keeps_the_loop_out, waits_in_order, obeys_no_bytes,
    limits_its_msgpack, reads_through_one_door, asks_for_the_largest_leaf, has_short_constructors,
    names_its_stages,
)  # fmt: skip
OF_EVERYTHING: Final[tuple[Rule, ...]] = (has_short_functions, is_named_after_a_thing, has_nothing_left_to_do)
OF_TESTS: Final[tuple[Rule, ...]] = (does_not_sleep, does_not_mock, skips_with_a_reason)


#: Parameters, and fields, of a constructor that is too long.
NINE: Final = "a, b, c, d, e, f, g, h, i"
FIELDS: Final = "".join(f" {name}: int\n" for name in NINE.split(", "))


@pytest.mark.parametrize("rule", [*OF_THE_PROGRAM, *OF_EVERYTHING, *OF_TESTS], ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule: Rule) -> None:
    looked_at = [*(PROGRAM if rule not in OF_TESTS else ()), *(TESTS if rule not in OF_THE_PROGRAM else ())]
    problems = [f"{module.name}: {problem}" for module in looked_at for problem in rule(module)]
    assert not problems, "\n".join(["", *problems])


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (has_a_ring, "migemu.attic", ""),
        (has_a_ring, "migemu.attic.box", ""),
        (imports_inwards, "migemu.units", "from migemu.mm.pages import Level"),
        (imports_inwards, "migemu.mm.pages", "from migemu.wire import messages"),
        (imports_inwards, "migemu.wire.codec", "from migemu.mm.page_table import PageTable"),
        (imports_inwards, "migemu.policy.push_order", "import migemu.ports"),
        (imports_inwards, "migemu.trace.events", "from migemu import ports"),
        (imports_inwards, "source_node.core.sender", "def f():\n    from source_node.service import Source"),
        (imports_inwards, "dest_node.core.receiver", "from dest_node.guest.ledger import Ledger"),
        (imports_inwards, "dest_node.incoming", "from migemu.transport.tcp import TcpChannel"),
        (imports_inwards, "dest_node.service", "from source_node.core.sender import Sender"),
        (imports_inwards, "migemu.store.image", "from dest_node.verification.verify import Verification"),
        (imports_inwards, "migemu.report.terminal.summary", "from dest_node.incoming import Incoming"),
        (imports_inwards, "migemu.report.terminal.summary", "from migemu.cli.main import main"),
        (imports_inwards, "dest_node.service", "from .incoming import Incoming"),
        (is_pure, "migemu.mm.pages", "import os.path"),
        (is_pure, "dest_node.core.receiver", "from asyncio import Queue"),
        (is_pure, "dest_node.guest.vcpus", "import time"),
        (has_no_hidden_randomness, "migemu.policy.push_order", "from random import shuffle"),
        (has_no_hidden_randomness, "migemu.link.model", "import random\nrandom.random()"),
        (keeps_the_loop_out, "migemu.transport.tcp", "import uvloop"),
        (waits_in_order, "source_node.service", "import asyncio\nasync def f(): await asyncio.wait([])"),
        (waits_in_order, "dest_node.service", "from asyncio import as_completed"),
        (obeys_no_bytes, "migemu.store.image", "import pickle"),
        (obeys_no_bytes, "migemu.store.image", "def f():\n    from marshal import loads"),
        (obeys_no_bytes, "migemu.guest.replay", "eval('1 + 1')"),
        (obeys_no_bytes, "migemu.guest.replay", "import builtins\nbuiltins.exec('')"),
        (obeys_no_bytes, "migemu.cli.sweep", "import subprocess\nsubprocess.run('ls', shell=True)"),
        (obeys_no_bytes, "migemu.cli.sweep", "import os\nos.system('ls')"),
        (obeys_no_bytes, "migemu.store.image", "import numpy\nnumpy.load('x', allow_pickle=True)"),
        (asks_for_the_largest_leaf, "dest_node.verdict", "pages = geometry.pages(Level.PUD)"),
        (limits_its_msgpack, "migemu.wire.header", "import msgpack\nmsgpack.unpackb(b'', max_array_len=3)"),
        (limits_its_msgpack, "migemu.wire.header", "import msgpack\nmsgpack.Unpacker()"),
        (reads_through_one_door, "migemu.scenario.scenario", "path.read_text(encoding='utf-8')"),
        (reads_through_one_door, "migemu.store.image", "with path.open('rb') as file: pass"),
        (reads_through_one_door, "migemu.scenario.scenario", "open('x')"),
        (has_short_constructors, "migemu.units", f"class A:\n def __init__(self, {NINE}): ..."),
        (has_short_constructors, "migemu.units", f"class A:\n def __init__(self, *, {NINE}): ..."),
        (has_short_constructors, "migemu.units", "@dataclass(slots=True)\nclass A:\n" + FIELDS),
        (names_its_stages, "migemu.trace.reading", "event.detail == 'run'"),
        (names_its_stages, "migemu.trace.reading", "account.stage.get('source') == 'end'"),
        (names_its_stages, "source_node.service", "self.stage not in ('paused', 'recover')"),
        (names_its_stages, "source_node.service", "self.stage = 'setup'"),
        (names_its_stages, "source_node.service", "self._enter('run')"),
        (names_its_stages, "migemu.report.terminal.pauses", "_STAGES: Final = ('paused', 'recover')"),
        (names_its_stages, "migemu.ordering.cores", "self.record(node, Happening.STATE, detail='run')"),
        (has_short_functions, "migemu.units", "def f():\n" + " 0\n" * 70),
        (is_named_after_a_thing, "migemu.utils", ""),
        (is_named_after_a_thing, "migemu.units", "class PageManager: ..."),
        (has_nothing_left_to_do, "migemu.units", "# TODO: everything"),
        (does_not_sleep, "tests.test_x", "import time\ntime.sleep(1)"),
        (does_not_sleep, "tests.test_x", "from time import sleep"),
        (does_not_mock, "tests.test_x", "from unittest import mock"),
        (does_not_mock, "tests.test_x", "from unittest.mock import patch"),
        (skips_with_a_reason, "tests.test_x", "import pytest\npytest.skip()"),
        (skips_with_a_reason, "tests.test_x", "import pytest\n@pytest.mark.skip\ndef test(): ..."),
        (skips_with_a_reason, "tests.test_x", "import pytest\npytest.mark.skipif(True, reason='')"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_rule_bites(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Module(name, text)))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (has_a_ring, "source_node.__main__", ""),
        (imports_inwards, "migemu.wire.codec", "from migemu.mm.pages import Level"),
        (imports_inwards, "dest_node.incoming", "from dest_node.core.receiver import Receiver\nimport migemu.ports"),
        (imports_inwards, "dest_node.__main__", "from migemu.transport.tcp import TcpNetwork"),
        (imports_inwards, "migemu.transport.shaper", "from migemu.link.model import LinkModel"),
        (
            imports_inwards,
            "migemu.report.terminal.summary",
            "if TYPE_CHECKING:\n    from dest_node.incoming import Incoming",
        ),
        (is_pure, "dest_node.incoming", "import asyncio"),
        (is_pure, "migemu.transport.clock", "import time"),
        (has_no_hidden_randomness, "migemu.policy.push_order", "from random import Random\nrandom = Random(1)"),
        (has_no_hidden_randomness, "migemu.policy.push_order", "import random\nrandom.Random(1)"),
        (keeps_the_loop_out, "migemu.process.options", "import uvloop"),
        (waits_in_order, "source_node.service", "import asyncio\nasync def f(): await asyncio.wait_for(g(), 1)"),
        (obeys_no_bytes, "migemu.cli.sweep", "import re\nre.compile('x')\nimport subprocess\nsubprocess.run(['ls'])"),
        (asks_for_the_largest_leaf, "migemu.mm.page_table", "PUD = Level.PUD"),
        (asks_for_the_largest_leaf, "migemu.result", "leaves[Level.PUD]"),
        (limits_its_msgpack, "migemu.wire.header", "msgpack.unpackb(b'', max_array_len=3, max_map_len=3)"),
        (reads_through_one_door, "migemu.scenario.scenario", "named.read_text(path)\nopen('x', 'w')"),
        (has_short_constructors, "migemu.units", f"class A:\n def __init__(self, {NINE[3:]}): ..."),
        (has_short_constructors, "migemu.units", "@dataclass(frozen=True, slots=True)\nclass A:\n" + FIELDS),
        (
            has_short_constructors,
            "migemu.units",
            "@dataclass\nclass A:\n" + FIELDS.replace("i: int", "i: ClassVar[int]"),
        ),
        (names_its_stages, "source_node.service", "self.stage = Stage.SETUP"),
        (names_its_stages, "migemu.costs.fault_cost", "place == 'run'"),
        (has_short_functions, "migemu.units", "def f():\n" + " 0\n" * 69),
        (skips_with_a_reason, "tests.test_x", "import pytest\npytest.skip('no such kernel')"),
        (skips_with_a_reason, "tests.test_x", "import pytest\npytest.mark.skipif(True, reason='no such kernel')"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_rule_lets_pass(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Module(name, text))) == []


def test_there_is_a_house() -> None:
    """An empty search would keep every rule."""
    assert {module.name for module in PROGRAM} >= {
        "migemu",
        "migemu.units",
        "source_node.core.sender",
        "dest_node.core.receiver",
    }
    assert len(TESTS) > 20


def _package(name: str) -> str:
    """The folder below `migemu/`, or of a node; a loose module is a package of its own."""
    parts = name.split(".")
    is_folder = any(module.name.startswith(f"{'.'.join(parts[:2])}.") for module in PROGRAM)
    return ".".join(parts[:2]) if is_folder or parts[0] == "migemu" else parts[0]


def test_packages_form_no_circle() -> None:
    """At run time: a folder whose folder needs it back is no folder of its own."""
    names = {module.name for module in PROGRAM}
    needs: dict[str, set[str]] = {}
    for module in PROGRAM:
        for _, imported, name in module.imports():
            target = f"{imported}.{name}" if f"{imported}.{name}" in names else imported
            if target in names and _package(target) != _package(module.name):
                needs.setdefault(_package(module.name), set()).add(_package(target))
    while leaves := {package for package in needs if not needs[package] & needs.keys()}:
        for package in leaves:
            del needs[package]
    assert not needs, f"these need each other: {needs}"


#: Names that more than one module or class has, and why that is no mistake.
SHARED_NAMES: Final = {"service": "each node has one", "channels": "each node has some"}


def test_a_name_is_said_once() -> None:
    """A module or a class is found by its name; packages' faces and roots aside."""
    said: dict[str, list[str]] = {}
    for module in PROGRAM:
        short = module.name.rpartition(".")[2]
        if short != "__main__" and not any(other.name.startswith(f"{module.name}.") for other in PROGRAM):
            said.setdefault(short, []).append(module.name)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                said.setdefault(node.name, []).append(f"{module.name}.{node.name}")
    twice = {name: where for name, where in said.items() if len(where) > 1 and name not in SHARED_NAMES}
    assert not twice, "\n".join(f"{name}: {', '.join(where)}" for name, where in sorted(twice.items()))
