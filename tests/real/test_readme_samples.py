"""Every block of every README and of every page of the documentation is true: commands can be typed,
files be read, and what is shown is what comes.

Most is done in this process and on a memory of a few pages: `--set` shrinks what is typed. Figures that were measured
are compared without their numbers; what is compared with nothing says why, in a comment above it (`tests.readmes`).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Final

import click
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

import dest_node.__main__
import source_node.__main__
from migemu.cli.main import main
from migemu.cli.status import remarks, table
from migemu.experiment.sweep_file import load_sweep
from migemu.ordering import OrderingError, explore
from migemu.policy.collapse_policy import collapse_policies
from migemu.process.status_socket import NodeStatus
from migemu.report.terminal.histogram import log2_histogram
from migemu.report.terminal.progress import Rate, panel
from migemu.report.terminal.status_line import Status
from migemu.scenario.scenario import from_mapping, load
from migemu.units import GIB, MIB, SECOND
from migemu.wire.states import Stage, diagram
from tests.distributions import install
from tests.readmes import PAGES, READMES, ROOT, Block, blocks, is_plain, ours
from tests.real.processes import TINY, free_port, node
from tests.unit.experiment.sweeps import PIECES
from tests.unit.experiment.worlds import PLAIN

DOCUMENTS: Final = (*READMES, *PAGES)
BLOCKS: Final = [block for path in DOCUMENTS for block in blocks(path)]
TYPED: Final = [block for block in BLOCKS if block.is_typed()]
SHOWN: Final = [block for block in BLOCKS if block.remark[0] == "shown by"]
SMALL: Final = (
    "--set", "memory.geometry=tiny", "--set", "memory.size=128K", "--set", "guest.vcpus=2", "--set", "link.preset=",
    "--set", "return_link.preset=", "--set", "push.rate=0",
)  # fmt: skip
#: Commands and options that need more than this process, or a minute: they are parsed, and run by other tests.
ELSEWHERE: Final = {"--dask", "--workers", "--pace", "--live", "status", "reproduce", "view"}
#: Programs that need a network, another machine, or this checkout.
NOT_HERE: Final = {
    "make", "pip", ".venv/bin/python", "dask", "ssh", "scp", "git", "sqlite3", "export", "sudo", "jupyter",
}  # fmt: skip
NODES: Final = {"migemu-source": source_node.__main__.main, "migemu-dest": dest_node.__main__.main}


def named(block: Block) -> str:
    return block.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands speak of: two runs, a sweep, an image, results to compare."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("a", "b"):
        arguments = ["sim", "-q", "--trace", "--out", str(folder / "runs" / name), *SMALL]
        assert CliRunner().invoke(main, arguments).exit_code == 0
    text = PIECES.replace("[1, 2, 3]", "[1, 2, 3, 4, 5]").replace('name = "policy"', 'name = "order"')
    (folder / "pieces.toml").write_text(text.replace('"collapse.policy"', '"push.order"').replace(
        '["never", "batched:spans=16"]', '["fill_pmd", "random"]'))  # fmt: skip
    (folder / "vmcore").write_bytes(bytes(range(256)) * 256)
    shutil.copy(folder / "vmcore", folder / "disk.img")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files that may be named."""
    monkeypatch.chdir(tmp_path)
    for name in ("vmcore", "disk.img", "pieces.toml"):
        shutil.copy(made / name, tmp_path / name)
    return tmp_path


# --- all of them ---


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_every_block_is_run_read_shown_or_says_why_not(block: Block) -> None:
    said = block.remark[0]
    if said == "shown by":
        assert block.remark[1] in SAMPLES, "no such sample"
    elif not said:
        assert block.is_typed() or block.language in ("python", "toml"), "say what it is, in a comment above it"


def test_a_block_that_nobody_speaks_for_is_found(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(
        "<!-- shown by: x -->\n```\na\n```\n\n    make b  # c\n\n```sh\n$ migemu d \\\n  e  # f\nanswer\n```\n"
    )
    one, two, three = blocks(path)
    assert (one.remark, one.text, one.is_typed()) == (("shown by", "x"), "a", False)
    assert (two.text, [*two.commands()], two.remark) == ("make b  # c", ["make b"], ("", ""))
    assert [*three.commands()] == ["migemu d    e"]


# --- commands ---


@pytest.mark.parametrize("block", TYPED, ids=named)
def test_every_command_can_be_typed(block: Block) -> None:
    """Options, settings, names of targets and files; nothing is run."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in block.commands():
        for program, *arguments in ours(command):
            _parse(program, arguments)
        first, *words = command.split()
        if first == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), command
            assert all(word.partition("=")[0] in makefile for word in words[1:]), command
        elif first.endswith("/python"):
            assert all((ROOT / word.partition("::")[0]).exists() for word in words if word.startswith("tests/")), (
                command
            )


def _parse(program: str, arguments: list[str]) -> None:
    command: click.Command = NODES.get(program, main)
    context = command.make_context(program, [*arguments])
    while isinstance(command, click.Group):
        name, sub, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert sub is not None
        command = sub
        context = command.make_context(name, rest, parent=context)
    if assignments := context.params.get("assignments"):
        load(None, assignments)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_does_what_it_says(path: Path, here: Path, made: Path) -> None:
    """All in their order, in one folder; on a small memory, unless the document shows what is printed."""
    mine = [block for block in BLOCKS if block.path == path]
    full = any(answer for block in mine if not block.remark[0] for _, answer in block.answers())
    for block in mine:
        if block.remark[0] == "file":
            (here / block.remark[1]).write_text(block.text + "\n", encoding="utf-8")
        elif block.remark[0] == "two processes":
            _at_once(block)
        elif block.is_typed() and not block.remark[0]:
            answers = dict(block.answers())
            for command in [block.text] if _is_script(block) else block.commands():
                _type(command, answers.get(command, ""), here, made, full, block.name)


def _is_script(block: Block) -> bool:
    """It is a loop, not a line for each command."""
    return bool(re.search(r"(^|; )do$", block.text, re.MULTILINE))


def _type(command: str, answer: str, here: Path, made: Path, full: bool, where: str) -> None:
    """Type one line. A gate may fail, a bug on purpose must; what is answered by an error may end as it likes."""
    given = [*ours(command)] if not command.startswith("for ") else []
    for words in given:
        _provide(words[1:], here, made)
    if given and is_plain(command):
        printed = "".join(_run(words, answer, full, f"{where}: {command}") for words in given)
    elif command.split()[0] in NOT_HERE:
        return
    else:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        run = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command], cwd=here,
            env={**os.environ, "PATH": path, "COLUMNS": "100"}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert run.returncode == 0 or "--fail-if" in command, f"{where}: {command}: {run.stdout} {run.stderr}"
        printed = run.stdout
    assert not answer or matches(printed, answer), f"{where}: {command}: {printed}"


def _run(words: list[str], answer: str, full: bool, where: str) -> str:
    """What a command shows on a terminal, errors and notices included, progress not; run in this process."""
    program, *arguments = words
    if program != "migemu" or ELSEWHERE & {*arguments}:
        return answer
    done = CliRunner().invoke(main, _shrunk(arguments, full), env={"COLUMNS": "100"})
    expected = {1} if "--wrong" in arguments else {0, 1} if "--fail-if" in arguments else {0}
    if "migemu: " in answer:
        expected |= {1, 2, 3, 4, 5}
    assert done.exit_code in expected, f"{where}: {done.output} {done.exception}"
    progress = {line for line in done.stderr.splitlines() if not line.startswith("migemu: ")}
    return "".join(f"{line}\n" for line in done.output.splitlines() if line not in progress)


def matches(printed: str, answer: str) -> bool:
    """Whether it is that answer, in which `...` stands for whatever is left out."""
    wanted = ".*?".join(re.escape(part) for part in plain(answer).split("..."))
    return bool(re.fullmatch(rf"\s*{wanted}\s*", plain(printed), re.DOTALL))


def _at_once(block: Block) -> None:
    """Processes of both nodes, on this machine, as two terminals would have them."""
    address = f"127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        nodes = []
        for program, *arguments in (words for command in block.commands() for words in ours(command)):
            moved, host = _moved(arguments, address)
            if "security.certificate" in " ".join(moved) and "security.peer_name" not in " ".join(moved):
                moved += ["--set", f"security.peer_name={host}"]
            nodes.append(
                stack.enter_context(node({"migemu-source": "source_node"}.get(program, "dest_node"), *moved, *TINY))
            )
            if program == "migemu-dest":
                nodes[-1].wait_until(lambda told: "listening" in told)
        for each in nodes:
            assert each.wait() == 0, f"{block.name}: {each.error}"


def _moved(arguments: list[str], address: str) -> tuple[list[str], str]:
    """The same with its address on this machine, and the host that it had."""
    at = next(at for at, word in enumerate(arguments) if word in ("--listen", "--connect")) + 1
    return [*arguments[:at], address, *arguments[at + 1 :]], arguments[at].rpartition(":")[0]


def _provide(arguments: list[str], here: Path, made: Path) -> None:
    """Runs and sweeps that a command reads, and no command of this block has made."""
    if arguments[0] not in ("check", "compare", "report") and "history" not in arguments:
        return
    for word in arguments:
        if (found := re.match(r"runs/(\w+)", word)) and not (here / found[0]).exists() and found[1] in ("a", "b"):
            shutil.copytree(made / found[0], here / found[0])
        elif word.startswith("runs/sweep-pieces") and not (here / "runs" / "sweep-pieces").exists():
            assert CliRunner().invoke(main, ["sweep", "-q", "pieces.toml", "--world", PLAIN]).exit_code == 0
        elif word.endswith(".sqlite") and not (here / word).exists():
            out = here / "runs" / f"of-{word}"
            assert (
                CliRunner().invoke(main, ["sweep", "-q", "pieces.toml", "--world", PLAIN, "--out", str(out)]).exit_code
                == 0
            )
            shutil.copy(out / "sweep.sqlite", here / word)


def _shrunk(arguments: list[str], full: bool) -> list[str]:
    name = arguments[0]
    if name in ("run", "demo") or (name == "sim" and not full):
        small = {word.partition("=")[0] for word in SMALL}
        said = [n for n in range(1, len(arguments)) if arguments[n - 1] == "--set"]
        taken = {place for n in said if arguments[n].partition("=")[0] in small for place in (n - 1, n)}
        return [*(word for n, word in enumerate(arguments) if n not in taken), *SMALL]
    if name == "sweep" and not full and arguments[1] not in ("export", "history", "--list"):
        return [*arguments, "--world", PLAIN]
    return arguments


def test_nobody_is_sent_to_an_index_that_has_no_migemu() -> None:
    """What is optional is installed from the checkout, whoever says so: `.[dask]`, as pyproject.toml calls it."""
    extras = {*tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]}
    texts = [*READMES, *PAGES, *(path for name in ("migemu", "source_node", "dest_node", "tests") for path in
                         (ROOT / name).rglob("*.py") if path != Path(__file__))]  # fmt: skip
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bmigemu\[", text), path
        assert {*re.findall(r"'\.\[(\w+)\]'", text)} <= extras, path


# --- files ---


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=named)
def test_every_file_can_be_read(block: Block, tmp_path: Path) -> None:
    said = tomllib.loads(block.text)
    if "sweep" in said:
        (tmp_path / "sweep.toml").write_text(block.text, encoding="utf-8")
        assert not load_sweep(tmp_path / "sweep.toml").impossible
    elif "project" in said:
        assert {*said["project"]["entry-points"]} <= {"migemu.collapse", "migemu.push", "migemu.workload"}
    else:
        assert from_mapping(said, block.name)


#: What a test of a README explores, without the guest: with it, plugin/test_explore.py takes its time.
QUICK: Final = """
import pytest
@pytest.fixture
def migemu_explore(migemu_explore):
    return lambda policy, **options: migemu_explore(policy, **{"accesses": 0, **options})
"""


def python_of(readme: str, number: int) -> str:
    return [block for block in BLOCKS if block.path == ROOT / readme and block.language == "python"][number].text


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python" and block.remark[0] != "file"], ids=named
)
def test_all_python_runs(block: Block, tmp_path: Path) -> None:
    if "def test_" in block.text:
        (tmp_path / "test_sample.py").write_text(block.text, encoding="utf-8")
        (tmp_path / "conftest.py").write_text(QUICK, encoding="utf-8")
        done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_sample.py", folder=tmp_path)
        assert done.returncode == 0, done.stdout
    elif "collapse_policies.register" not in block.text:  # the recipe is a distribution of its own, below
        exec(compile(block.text, block.name, "exec"), {"__name__": "sample"})


def python(*arguments: str, folder: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120,
        env={"PYTHONPATH": path, "COLUMNS": "160", "PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("document", "module", "policy"),
    [
        ("migemu/docs/reference/plugins.md", "your_package", "impatient:share=50"),
        ("migemu/docs/howto/my-policy.md", "hot", "hot:faults=2"),
    ],
)
def test_the_recipe_for_a_package_of_ones_own_works_as_it_stands(
    document: str, module: str, policy: str, tmp_path: Path
) -> None:
    """Installed, it is listed, and a migration runs with it."""
    (entry_points,) = (
        block.text
        for block in BLOCKS
        if block.path == ROOT / document and block.language == "toml" and "entry-points" in block.text
    )
    ((group, named_there),) = tomllib.loads(entry_points)["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in named_there.items())]
    site = install(tmp_path / "site", module, python_of(document, 0), "\n".join(lines))
    listed = python("-m", "migemu", "list", folder=tmp_path, path=str(site))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert policy.partition(":")[0] in listed.stdout
    arguments = ("sim", "-q", "--out", "run", "--set", f"collapse.policy={policy}", *SMALL)
    ran = python("-m", "migemu", *arguments, folder=tmp_path, path=str(site))
    assert (ran.returncode, ran.stderr) == (0, "")


# --- what is shown ---


def _demo() -> str:
    """The panel of that moment, and the histogram: drawn from the figures that the README has."""
    (block,) = (block for block in SHOWN if block.remark[1] == "demo")
    rows = [line.strip("\u2502 ") for line in block.text.splitlines()]
    cells = "".join(f"{row:<64}" for row in rows[6:8])
    fill = {glyph: str(number) for number, glyph in enumerate(" \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588")}
    status = Status(
        Stage.RUNNING, int(2.2 * SECOND), GIB, int(314.59 * MIB), int(0.28 * GIB), int(0.03 * GIB), 0, 0, 1904, 4,
        "".join(fill.get(glyph, "m") for glyph in cells.rstrip()),
    )  # fmt: skip
    histogram = log2_histogram("usecs (fault latency)", {512: 3, 1024: 7, 2048: 5772, 4096: 260, 8192: 3})
    return f"{printed(panel(status, Rate(155e6, 849, 5 * SECOND), 'demo'))}{histogram}"


def printed(what: RenderableType) -> str:
    """As on a terminal of 100 columns, without its colours."""
    console = Console(width=100, file=StringIO(), force_terminal=True, color_system="truecolor", record=True)
    console.print(what)
    return console.export_text()


def _exploration() -> str:
    exec(compile(python_of("migemu/docs/reference/plugins.md", 0), "plugins.md", "exec"), {"__name__": "your_package"})
    try:
        with pytest.raises(OrderingError) as found:
            explore("impatient:share=75")
    finally:
        del collapse_policies._entries["impatient"]
    return str(found.value)


def _wrong() -> str:
    return CliRunner().invoke(main, ["check", "--wrong", "no_wake_after_collapse", "--rule", "sleepers_woken"]).stdout


def _status() -> str:
    """Of the node that the README asks: its own line, and the table of it."""
    (block,) = (block for block in SHOWN if block.remark[1] == "status")
    line = "".join(each.strip() for each in block.text[block.text.index("{") :].splitlines())
    node = NodeStatus.parse(line)
    table_, (one, two) = printed(table([node])).rstrip(), (f"$ {command}" for command in block.commands())
    return "\n".join([one, table_, *remarks([node]), two, node.line()])


SAMPLES: Final[dict[str, Callable[[], str]]] = {
    "demo": _demo, "explore": _exploration, "check --wrong": _wrong, "status": _status, "states": diagram,
    "a killed source": lambda: "", "a killed destination": lambda: "",  # test_what_nodes_say_when_they_are_killed
}  # fmt: skip


@pytest.mark.parametrize("block", [each for each in SHOWN if "killed" not in each.remark[1]], ids=named)
def test_what_is_shown_is_what_comes(block: Block) -> None:
    assert plain(SAMPLES[block.remark[1]]()) == plain(block.text)


def plain(text: str) -> str:
    """Without spaces at the end of lines; and JSON, which is wrapped to be read, in one line."""
    lines = "\n".join(line.rstrip() for line in text.rstrip().splitlines())
    return re.sub(r",\n +\"", ',"', lines)


def test_what_nodes_say_when_they_are_killed_is_what_the_readme_shows(tmp_path: Path) -> None:
    """A source that is killed and comes back, then the destination; without numbers, and how the connection ended."""
    shown = {block.remark[1]: said(block.text.replace("migemu: ", "")) for block in SHOWN}
    address, kept, out = f"127.0.0.1:{free_port()}", tmp_path / "kept", tmp_path / "dest"
    dest = ("dest_node", "--listen", address, "--out", str(out), "--checkpoint", str(kept), *TINY)
    slow = ("--set", "push.rate=4Mbit", "--set", "memory.size=4M", "--set", "push.run=16K")
    tiny = ("--set", "memory.geometry=tiny", "--set", "scenario.name=test")  # TINY is of another size
    arguments = ("--connect", address, "--out", str(tmp_path / "source"), *tiny, *slow)
    with node(*dest) as first:
        first.wait_until(lambda told: "listening" in told)
        with node("source_node", *arguments) as source:
            first.wait_until(lambda told: told.get("status", {}).get("received_bytes", 0) >= 64 << 10)
            source.signal(signal.SIGKILL)
            paused = first.wait_until(lambda told: "paused" in told.get("notice", ""))["notice"]
        with node("source_node", "--recover", str(tmp_path / "source")):
            back = first.wait_until(lambda told: "goes on" in told.get("notice", ""))["notice"]
            first.wait_until(lambda told: told.get("status", {}).get("received_bytes", 0) >= 256 << 10)
            first.signal(signal.SIGKILL)
            first.wait()
            with node(*dest) as second:
                kept_on = second.wait_until(lambda told: "goes on with" in told.get("notice", ""))["notice"]
    assert said(f"{paused}\n{back}") == shown["a killed source"]
    assert said(kept_on.replace(str(kept), "runs/kept")) == shown["a killed destination"]


def said(text: str) -> str:
    """What nodes say, without lines, numbers, addresses and how a connection ended."""
    text = " ".join(text.split())
    text = re.sub(r"the (?:connection to|source closed) .*? vCPUs", "the connection broke. vCPUs", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "ID", text)
    return re.sub(r"\d+", "N", text)
