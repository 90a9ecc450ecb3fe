"""Replay: the format as documented, and every refusal with its line."""

from __future__ import annotations

import re
from random import Random

import pytest

from migemu.guest.recording import Recording, recording
from migemu.guest.workload import Access, NoFiles, Workload, WorkloadContext, workloads


class OneFile(NoFiles):
    """WorkloadFiles with the same text under every name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.opened: list[str] = []

    def recording(self, path: str) -> Recording:
        self.opened.append(path)
        return recording(path, [self.text.encode()])


def replay(text: str, vcpu: int = 0, vcpus: int = 2, total_pages: int = 100) -> Workload:
    files = OneFile(text)
    workload = workloads.create(
        "replay:path=some.trace", WorkloadContext(total_pages, vcpu, vcpus, Random(1), 0.5, files)
    )
    assert files.opened == ["some.trace"]
    return workload


def rest(workload: Workload) -> list[Access]:
    accesses = []
    while (access := workload.next_access()) is not None:
        accesses.append(access)
    assert workload.next_access() is None, "what has ended stays ended"
    return accesses


TEXT = """# two vCPUs
0 5 r

1 99 w      # the last page
  0  7  w
0 5 r\r
"""

TRACE = """{"schema": "migemu-trace", "version": 1, "kind": "measured"}
{"t":10,"node":"destination","event":"state","detail":"running"}
{"t":20,"node":"destination","event":"faulted","first":5,"vcpu":0,"write":false}
{"t":25,"node":"destination","event":"requested","first":5,"count":1,"level":"PTE"}
{"t":30,"node":"destination","event":"faulted","first":99,"vcpu":1,"write":true}
{"t":40,"node":"destination","event":"faulted","first":7,"vcpu":0,"write":true}
{"t":50,"node":"destination","event":"faulted","first":5,"vcpu":0,"write":false}
"""


@pytest.mark.parametrize("text", [TEXT, TRACE, TRACE.splitlines()[0] + "\n" + TEXT])
def test_each_vcpu_gets_its_own_accesses(text: str) -> None:
    assert rest(replay(text, vcpu=0)) == [(5, False), (7, True), (5, False)]
    assert rest(replay(text, vcpu=1)) == [(99, True)]


def test_a_vcpu_without_lines_ends_at_once() -> None:
    assert rest(replay("0 1 r", vcpu=1)) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 5", "'0 5' is not an access: give \"vcpu page r|w\""),
        ("0 5 x", "'0 5 x' is not an access"),
        ("0 5 r w", "'0 5 r w' is not an access"),
        ("0 -5 r", "'0 -5 r' is not an access"),
        ("0 0x5 r", "'0 0x5 r' is not an access"),
        ("zero 5 r", "'zero 5 r' is not an access"),
        ("0 100 r", "page 100 is outside the memory of 100 pages"),
        ("2 5 r", "vCPU 2 is not one of the guest's 2"),
        ('{"event":"faulted","vcpu":0,"first":5', "is not JSON"),
        ('{"event":"faulted","vcpu":0,"first":5}', 'is no access: a fault has integers "vcpu", "first" and a boolean'),
        ('{"event":"faulted","vcpu":0,"first":"5","write":true}', "is no access"),
        ('{"event":"faulted","vcpu":0,"first":5,"write":1}', "is no access"),
        ('{"event":"faulted","vcpu":true,"first":5,"write":true}', "is no access"),
        ('{"event":"faulted","vcpu":0,"first":100,"write":true}', "page 100 is outside"),
        ('{"event":"faulted","vcpu":0,"first":-1,"write":true}', "page -1 is outside"),
        ('{"event":"faulted","vcpu":9,"first":1,"write":true}', "vCPU 9 is not one"),
        ("x" * 1000, "xxx...' is not an access"),
    ],
)
@pytest.mark.parametrize("vcpu", [0, 1])
def test_a_wrong_line_is_refused_with_its_number_for_every_vcpu(line: str, message: str, vcpu: int) -> None:
    with pytest.raises(ValueError, match=r"^some\.trace, line 3: .*" + re.escape(message)):
        replay(f"# a comment\n0 1 r\n{line}\n0 2 r\n", vcpu)


@pytest.mark.parametrize("text", ["", "# nothing\n", TRACE.splitlines()[0]])
def test_a_file_without_accesses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"some\.trace holds no access: give"):
        replay(text)


def test_a_file_must_be_named() -> None:
    with pytest.raises(ValueError, match=r'give "replay:path=\.\.\."'):
        workloads.create("replay", WorkloadContext(16, 0, 1, Random(1), 0.5))


def test_shows_itself() -> None:
    workload = replay("0 1 r\n0 2 r\n")
    workload.next_access()
    assert repr(workload) == "<Replay of some.trace: 1/2>"
