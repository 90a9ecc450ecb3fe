"""Whatever a user gets wrong: one clear line, a non-zero exit, nothing lost."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.real.processes import TINY, destination, free_port, migemu, node, source


def one_line(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1, stderr
    assert "Traceback" not in stderr
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "collapse.policy=eagre"], ["collapse.policy", "eagre", "eager"]),
        (["--set", "push.order=fifo"], ["push.order", "fifo", "fault_follow", "bubbling"]),
        (["--set", "guest.workload=zipf:exponnt=2"], ["guest.workload", "exponnt", "exponent"]),
        ([*TINY, "--set", "guest.workload=replay:path=/nowhere"], ["guest.workload", "/nowhere"]),
        (["--set", "push.piece=3M"], ["push.piece", "3M", "4K or 2M"]),
        (["--set", "memory.size=1000000000"], ["memory", "size", "whole hugetlb pages", "1G"]),
        (["--set", "memory.size=0"], ["memory.size", "from 64K to 1T"]),
        (["--set", "gest.vcpus=1"], ["gest", "guest"]),
        (["--set", "guest.vcpu=1"], ["guest.vcpu", "vcpus"]),
        (["--set", "guest.vcpus=-1"], ["guest.vcpus", "-1", "0"]),
        (["--set", "guest.vcpus"], ["guest.vcpus", "section.key=value"]),
        (["--set", "link.delay=10"], ["link.delay", "10", "50us"]),
        (["--set", "link.delay=50us"], ["link.delay", "50us", "1ms"]),
        (["--set", "link.rate=400Gbit"], ["link.rate", "400Gbit", "10Gbit"]),
        (["--set", "link.jitter=2ms"], ["link", "jitter"]),
        (["--image", "nothing-here"], ["nothing-here", "No such file"]),
        (["--image", "empty"], ["empty", "nothing to migrate"]),
        (["--image", "."], ["."]),
        (["missing.toml"], ["missing.toml", "No such file"]),
        (["broken.toml"], ["broken.toml", "TOML"]),
        (["wrong.toml"], ["wrong.toml", "push.run", "lots"]),
        (["--out", "empty/below"], ["empty"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], says: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "broken.toml").write_text("[push\n")
    (tmp_path / "wrong.toml").write_text('[push]\nrun = "lots"\n')
    done = migemu("run", *arguments, cwd=tmp_path)
    line = one_line(done.stderr)
    assert done.returncode in (2, 3)
    for word in says:
        assert word in line


def test_an_unreadable_image_is_told(tmp_path: Path) -> None:
    image = tmp_path / "image"
    os.mkfifo(image)
    done = migemu("run", "--image", str(image), cwd=tmp_path)
    assert done.returncode == 2
    assert str(image) in one_line(done.stderr)


def test_more_memory_than_there_is_is_refused_before_it_is_touched(tmp_path: Path) -> None:
    done = migemu("run", "--set", "memory.size=1T", cwd=tmp_path)
    assert done.returncode == 3
    line = one_line(done.stderr)
    assert "no 1T of memory available" in line
    assert "migrate less memory" in line


def test_a_sparse_image_larger_than_the_destination_s_memory_is_refused_by_the_destination(tmp_path: Path) -> None:
    """The image costs the source nothing; it is the destination that has no memory, and the source learns why."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(1 << 40)
    with destination() as dest, source(dest.port, "--image", str(image)) as sender:
        assert sender.wait() == 3
        assert "no 1T of memory available" in dest.wait_for_notice()
        assert "the destination gave up" in sender.error
        assert "no 1T of memory available" in sender.error


def test_hugetlbfs_without_reserved_pages_says_how_to_get_them(tmp_path: Path) -> None:
    reserved = sum(int(path.read_text()) for path in Path("/sys/kernel/mm/hugepages").glob("*/nr_hugepages"))
    if reserved:
        pytest.skip("this machine has hugetlb pages reserved; the refusal cannot be seen")
    done = migemu("run", *TINY, "--set", "memory.backing=hugetlbfs", cwd=tmp_path)
    assert done.returncode == 3
    assert "nr_hugepages" in one_line(done.stderr)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with node("dest_node", "--listen", f"127.0.0.1:{port}", *TINY) as dest:
            assert dest.wait() == 3
            assert f"127.0.0.1:{port}" in dest.error
            assert "in use" in dest.error


def test_a_source_tries_for_a_set_time_and_then_says_that_nobody_answers() -> None:
    port = free_port()
    with source(port, "--set", "net.connect_timeout=300ms") as sender:
        assert sender.wait() == 3
        assert f"nobody answers at 127.0.0.1:{port}" in sender.error
        assert "300ms" in sender.error


@pytest.mark.parametrize("address", ["", "4444", "host:port", "127.0.0.1:99999", "nowhere.invalid:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with node("source_node", "--connect", address, *TINY, "--set", "net.connect_timeout=200ms") as sender:
        assert sender.wait() in (2, 3)
        assert sender.error


def test_dump_and_trace_say_beforehand_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with destination("--dump", str(tmp_path / "file" / "dump")) as dest:
        assert dest.wait() == 3
        assert "file/dump cannot be written: Not a directory" in dest.error
    with destination("--trace") as dest:
        assert dest.wait() == 2
        assert "--out" in dest.error


def test_a_destination_can_stop_waiting_for_a_source() -> None:
    with destination("--set", "net.listen_timeout=200ms") as dest:
        assert dest.wait() == 3
        assert "no source came within 200ms" in dest.error


def test_help_and_version_and_list_teach(tmp_path: Path) -> None:
    for command in (["--help"], ["run", "--help"], ["demo", "--help"], ["list", "--help"]):
        done = migemu(*command, cwd=tmp_path)
        assert done.returncode == 0
        assert "Usage:" in done.stdout
    assert "migemu demo" in migemu("--help", cwd=tmp_path).stdout
    assert migemu("--version", cwd=tmp_path).stdout.startswith("migemu, version ")
    choices = migemu("list", cwd=tmp_path).stdout
    for name in ("fill_pmd", "bubbling", "batched", "at_end", "pointer_chase", "replay", "exponent=", "spans="):
        assert name in choices
    settings = migemu("list", "--settings", cwd=tmp_path).stdout
    for key in ("link.rate", "return_link.delay", "pull.preempt", "net.idle_timeout"):
        assert key in settings
