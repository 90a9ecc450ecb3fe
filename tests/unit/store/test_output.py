"""Files are complete or what was there before, no input is replaced, and nothing follows a link of somebody else."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from migemu.errors import BrokenError, InputError
from migemu.store.output import PRIVATE, Output, named_files, others_can_write, risk, write_text, writing
from tests.disks import file_size_max


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def test_what_was_there_stays_until_all_of_the_new_one_is_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_text(path, "first")
    output = Output(path)
    output.write(b"sec")
    assert path.read_text() == "first"
    assert names(path.parent) == ["file", "file.partial"]
    output.write(b"ond")
    output.commit()
    assert path.read_text() == "second"
    assert names(path.parent) == ["file"]
    output.discard()
    assert path.read_text() == "second", "once it is in its place, nothing takes it away"


def test_what_fails_on_the_way_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "first")
    with pytest.raises(ZeroDivisionError), writing(path) as output:
        output.write(b"x" * (1 // output.written_bytes))
    with pytest.raises(BrokenError, match="file cannot be written: File too large"), file_size_max(1000):
        write_text(path, "x" * 2000)
    assert path.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_room_that_was_set_aside_is_not_part_of_the_file(tmp_path: Path) -> None:
    output = Output(tmp_path / "file", reserve_bytes=65536)
    assert output.disk_bytes >= 65536
    output.write(b"short")
    output.commit()
    assert (tmp_path / "file").read_bytes() == b"short"


def test_what_a_killed_process_left_is_taken_away_and_what_another_one_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / "file.partial").write_text("left")
    first = Output(tmp_path / "file")
    with pytest.raises(InputError, match="is being written by another run at this moment"):
        Output(tmp_path / "file")
    first.write(b"whole")
    first.commit()
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("link", ["same", "hard", "symbolic"])
def test_an_output_that_is_an_input_is_refused_by_whatever_name(link: str, tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_text("input")
    path = source if link == "same" else tmp_path / "output"
    if link == "hard":
        path.hardlink_to(source)
    elif link == "symbolic":
        path.symlink_to(source)
    with pytest.raises(InputError, match="is what is read") as error:
        Output(path, inputs=[tmp_path / "nothing", source])
    assert "\n" not in str(error.value)
    assert source.read_text() == "input"
    assert "output.partial" not in names(tmp_path)


def test_a_file_that_is_held_is_not_replaced(tmp_path: Path) -> None:
    """As a source holds its image; by another name too. Also when it is only taken later."""
    image = tmp_path / "image"
    image.write_text("image")
    (tmp_path / "dump").hardlink_to(image)
    output = Output(tmp_path / "dump")
    output.write(b"dump")
    with image.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        for refused in (output.check, output.commit, lambda: Output(image)):
            with pytest.raises(InputError, match="is being read or written at this moment"):
                refused()
    assert names(tmp_path) == ["dump", "image"]
    assert image.read_text() == "image"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [(os.mkfifo, "a pipe"), (Path.mkdir, "a directory"), (make_socket, "a socket"),
     (lambda path: path.symlink_to("/dev/null"), "a device")],
)  # fmt: skip
def test_what_is_no_regular_file_is_refused_and_never_waited_for(make: object, said: str, tmp_path: Path) -> None:
    make(tmp_path / "out")  # type: ignore[operator]
    with pytest.raises(InputError, match=f"out: cannot be written: it is {said}; give the name of a file"):
        Output(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_what_has_become_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    make_socket(tmp_path / "out")
    with pytest.raises(InputError, match="it is a socket"):
        output.commit()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_by_name_is_refused(to: str, tmp_path: Path) -> None:
    code = "from migemu.store.output import Output; from pathlib import Path; Output(Path('/dev/stdout'))"
    with (tmp_path / "file").open("wb") as file:
        stdout = subprocess.PIPE if to == "pipe" else file
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert "InputError: /dev/stdout: " in done.stderr
    assert names(tmp_path) == ["file"]


def test_modes_are_those_of_what_the_files_hold(tmp_path: Path) -> None:
    with umask(0o022):
        write_text(tmp_path / "public", "")
        write_text(tmp_path / "private", "", mode=PRIVATE)
        (tmp_path / "before").touch(0o600)
        write_text(tmp_path / "before", "")
        (tmp_path / "dump").touch(0o644)
        Output(tmp_path / "dump", mode=PRIVATE).commit()
    assert mode(tmp_path / "public") == 0o644
    assert mode(tmp_path / "private") == mode(tmp_path / "before") == mode(tmp_path / "dump") == 0o600


def test_a_link_of_ones_own_is_followed_and_stays_one(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to("far")
    (tmp_path / "link").symlink_to("near/../far/file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "file").read_text() == "text"


@pytest.mark.parametrize("others", [0o777, 0o1777])
def test_no_link_is_followed_in_a_directory_that_others_can_write(others: int, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "link").symlink_to(tmp_path / "mine")
    (tmp_path / "shared" / "away").symlink_to(tmp_path)
    (tmp_path / "shared").chmod(others)
    for path in (tmp_path / "shared" / "link", tmp_path / "shared" / "away" / "mine"):
        with pytest.raises(InputError, match="is a symbolic link in a directory that others can write; name the file"):
            write_text(path, "theirs")
    (tmp_path / "shared" / "file.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=r"file\.partial beside it is in the way"):
        write_text(tmp_path / "shared" / "file", "theirs")
    assert (tmp_path / "mine").read_text() == "mine"
    assert names(tmp_path) == ["mine", "shared"]


def test_links_that_lead_nowhere_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(BrokenError, match="a cannot be written: Too many levels of symbolic links"):
        write_text(tmp_path / "a", "")


@pytest.mark.parametrize(
    ("others", "said"),
    [(0o700, None), (0o755, None), (0o1777, None), (0o777, "can be written by others (mode 0777)")],
)
def test_who_can_put_names_into_a_directory(others: int, said: str | None, tmp_path: Path) -> None:
    tmp_path.chmod(others)
    assert risk(tmp_path) == said
    assert others_can_write(tmp_path.stat()) == bool(others & 0o002)
    assert risk(tmp_path / "nothing") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_a_directory_of_somebody_else_is_told(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, -1)
    assert risk(tmp_path) == "belongs to another user"
    os.chown(tmp_path, 0, 65534)
    tmp_path.chmod(0o770)
    assert others_can_write(tmp_path.stat())


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * 4096, 1 << 20, (1 << 20) + 5])
def test_a_sparse_file_reads_as_what_was_written(size: int, tmp_path: Path) -> None:
    random = Random(size)
    blocks = [random.choice((bytes(4096), random.randbytes(4096), bytes(4095) + b"x")) for _ in range(size // 4096 + 1)]
    data = b"".join(blocks)[:size]
    output = Output(tmp_path / "file")
    for start in range(0, size, 64 << 10):
        output.write_sparse(data[start : start + (64 << 10)])
    output.commit()
    assert (tmp_path / "file").read_bytes() == data


def test_zeros_take_no_room(tmp_path: Path) -> None:
    output = Output(tmp_path / "file")
    for number in range(64):
        output.write_sparse(bytes(1 << 20) if number else bytes(4096) + b"x" * 4096 + bytes((1 << 20) - 8192))
    assert output.written_bytes == 64 << 20
    assert output.disk_bytes < 1 << 20
    output.commit()
    assert (tmp_path / "file").stat().st_size == 64 << 20


def test_streams_write_into_it(tmp_path: Path) -> None:
    with writing(tmp_path / "text") as output, output.text() as text:
        text.write("one\n")
        text.write("two\r\n")
    assert (tmp_path / "text").read_bytes() == b"one\ntwo\r\n"
    with writing(tmp_path / "bytes") as output:
        stream = output.stream()
        stream.write(b"abc")
        assert stream.tell() == 3
    assert (tmp_path / "bytes").read_bytes() == b"abc"


def test_settings_name_files_by_themselves_and_in_choices(tmp_path: Path) -> None:
    for name in ("key", "a,b", "trace"):
        (tmp_path / name).touch()
    settings = {
        "security": {"psk_file": str(tmp_path / "key"), "cert": ""},
        "guest": {"vcpus": 3, "workload": f"replay:speed=2,path={tmp_path / 'trace'}"},
        "link": {"distribution": f'samples:path="{tmp_path / "a,b"}"'},
        "memory": {"image": str(tmp_path), "odd": "a\0b", "quote": 'a:b="c'},
    }
    assert named_files(settings) == [tmp_path / "key", tmp_path / "trace", tmp_path / "a,b"]
