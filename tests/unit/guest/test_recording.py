"""Recordings: many lines at once mean what they mean one by one, however they come; what is wrong has its line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migemu.errors import InputError
from migemu.guest import recording as recordings
from migemu.guest.recording import Recording, recording
from migemu.guest.replay import path_of
from migemu.scenario.scenario import load
from migemu.store.recordings import read_ahead, recorded


def of(text: str, block: int = 1 << 20) -> Recording:
    data = text.encode()
    return recording("some.trace", [data[at : at + block] for at in range(0, len(data), block)])


def accesses(found: Recording, vcpus: int = 8) -> list[list[tuple[int, bool]]]:
    return [[(code >> 1, bool(code & 1)) for code in found.of(vcpu)] for vcpu in range(vcpus)]


LINES = st.one_of(
    st.tuples(st.integers(0, 7), st.integers(0, (1 << 33) - 1), st.sampled_from("rw")),
    st.sampled_from(["", "# a comment", '{"event":"state","t":1}']),
)


def as_text(line: str | tuple[int, int, str], style: int) -> str:
    if isinstance(line, str):
        return line
    vcpu, page, kind = line
    if style == 0:
        return f"{vcpu} {page} {kind}"
    if style == 1:
        return f"  {vcpu}\t{page}  {kind} \r"
    if style == 2:
        return f"{vcpu} {page} {kind}  # why"
    return json.dumps({"t": 1, "event": "faulted", "first": page, "vcpu": vcpu, "write": kind == "w"})


@given(
    lines=st.lists(LINES, max_size=40), styles=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    block=st.integers(1, 200), ends=st.booleans(),
)  # fmt: skip
def test_however_it_is_written_and_comes_it_is_the_same(
    lines: list[str | tuple[int, int, str]], styles: list[int], block: int, ends: bool
) -> None:
    """Blocks that are alike, blocks that are mixed, lines cut in two, a last line without its end."""
    text = "\n".join(as_text(line, styles[number % len(styles)]) for number, line in enumerate(lines))
    wanted = [[(page, kind == "w") for vcpu, page, kind in (line for line in lines if isinstance(line, tuple))
               if vcpu == each] for each in range(8)]  # fmt: skip
    if not any(wanted):
        with pytest.raises(ValueError, match="holds no access"):
            of(text, block)
        return
    found = of(text + "\n" * ends, block)
    assert accesses(found) == wanted
    assert found.accesses == sum(map(len, wanted))


@given(number=st.integers(0, 60), block=st.integers(1, 300), wrong=st.sampled_from(["0 5", "{", "0 5 x", "x" * 70]))
def test_a_wrong_line_is_found_wherever_it_stands(number: int, block: int, wrong: str) -> None:
    lines = ["0 1 r"] * 61
    lines[number] = wrong
    with pytest.raises(ValueError, match=rf"^some\.trace, line {number + 1}: "):
        of("\n".join(lines), block)


@pytest.mark.parametrize("style", range(4))
def test_the_line_of_what_a_guest_does_not_have_is_told(style: int) -> None:
    lines = [(0, 1, "r")] * 5 + [(3, 1, "w"), (0, 99, "r"), (3, 99, "w")]
    found = of("# first\n" + "\n".join(as_text(line, style) for line in lines), 64)
    found.check(4, 100)
    with pytest.raises(ValueError, match=re.escape("some.trace, line 7: vCPU 3 is not one of the guest's 3")):
        found.check(3)
    with pytest.raises(ValueError, match=re.escape("some.trace, line 8: page 99 is outside the memory of 99 pages")):
        found.check(4, 99)


@pytest.mark.parametrize(
    "line", ["4294967296 1 r", "0 99999999999999999999 r", f"0 {1 << 62} r", "9" * 5000 + " 1 r",
             '{"event":"faulted","vcpu":4294967296,"first":1,"write":true}'],
)  # fmt: skip
def test_numbers_that_no_guest_has_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"^some\.trace, line 2: "):
        of(f"0 1 r\n{line}\n")


def test_a_line_without_end_is_refused_long_before_its_end() -> None:
    came = 0

    def zeros() -> object:
        nonlocal came
        while True:
            came += 1
            yield bytes(1 << 16)

    with pytest.raises(ValueError, match="line 1: is longer than 64K"):
        recording("some.trace", zeros())  # type: ignore[arg-type]
    assert came < 4


def test_accesses_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "ACCESSES_MAX", 1000)
    with pytest.raises(ValueError, match="more than 1000 accesses"):
        recording("some.trace", iter(lambda: b"0 1 r\n" * 100, b""))


def test_an_access_takes_four_bytes() -> None:
    rng = Random(1)
    text = "".join(f"{rng.randrange(8)} {rng.randrange(1 << 28)} r\n" for _ in range(10_000))
    assert of(text).nbytes == 40_000
    assert of(f"0 {1 << 31} r\n0 1 w\n").nbytes == 16, "where pages need more, so do all"


# --- from the disk ---


def test_a_file_is_read_once_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "accesses"
    path.write_text("0 1 r\n")
    first = recorded(str(path))
    assert recorded(str(path)) is first
    path.write_text("0 1 r\n0 2 r\n")
    assert recorded(str(path)).accesses == 2


def test_what_is_replayed_is_read_before_there_is_a_migration(tmp_path: Path) -> None:
    path = tmp_path / "accesses, of a guest"
    path.write_text("0 1 r\n1 2 w\n")
    scenario = load(None, ["guest.vcpus=2", f'guest.workload=replay:path="{path}"'])
    ahead = read_ahead(scenario)
    path.unlink()
    assert ahead.recording(str(path)).accesses == 2
    assert path_of("uniform") == ""


@pytest.mark.parametrize(
    ("text", "says"), [(None, "No such file"), ("0 1", "line 1"), ("2 1 r", "vCPU 2 is not one of the guest's 2")]
)
def test_what_cannot_be_replayed_is_told_at_once(text: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "accesses"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"^guest.workload=replay:path={re.escape(str(path))}: .*{says}"):
        read_ahead(load(None, ["guest.vcpus=2", f"guest.workload=replay:path={path}"]))


def test_a_fifo_is_no_recording(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="it is a pipe"):
        recorded(str(tmp_path / "fifo"))
