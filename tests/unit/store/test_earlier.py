"""A second run in the same directory has no file of the first one beside its own."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from migemu.errors import BrokenError, InputError
from migemu.store.earlier import OF_RUN, OF_SOURCE, set_aside
from migemu.store.output import Output


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_there_is_nothing_to_set_aside_at_first(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    for directory in (tmp_path, tmp_path / "new"):
        assert set_aside(directory, OF_RUN, [], pytest.fail) is None
    assert names(tmp_path) == ["mine.txt"]


def test_all_files_of_a_run_go_and_no_other(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "kept").mkdir()
    for round_ in ("first", "second"):
        for name in ("result.json", "trace.jsonl", "trace.dest.jsonl.partial", "report.html", "mine.txt"):
            (tmp_path / name).write_text(round_)
        aside = set_aside(tmp_path, OF_RUN, [tmp_path / "mine.txt"], told.append)
        assert aside is not None
        assert names(aside) == ["report.html", "result.json", "trace.dest.jsonl.partial", "trace.jsonl"]
        assert (aside / "result.json").read_text() == round_
        assert told.pop() == f"--out {tmp_path}: the files of an earlier run were moved to {aside}"
    assert names(tmp_path)[:2] == ["kept", "mine.txt"]
    assert len(names(tmp_path)) == 4


def test_a_node_sets_aside_its_own(tmp_path: Path) -> None:
    for name in ("result.json", "trace.source.jsonl"):
        (tmp_path / name).touch()
    aside = set_aside(tmp_path, OF_SOURCE, [], lambda _: None)
    assert aside is not None
    assert names(aside) == ["trace.source.jsonl"]


def test_what_this_run_reads_stays(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").touch()
    with pytest.raises(InputError, match=r"scenario\.toml there is what is read \(.*\); give another --out"):
        set_aside(tmp_path, OF_RUN, [tmp_path / "nothing", tmp_path / "scenario.toml"], pytest.fail)
    assert names(tmp_path) == ["scenario.toml"]


def test_a_directory_in_which_a_run_writes_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").touch()
    output = Output(tmp_path / "result.json")
    with pytest.raises(InputError, match=r"another run writes result\.json\.partial there at this moment"):
        set_aside(tmp_path, OF_RUN, [], pytest.fail)
    assert names(tmp_path) == ["result.json.partial", "trace.jsonl"]
    output.discard()
    with (tmp_path / "trace.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another run writes trace\.jsonl"):
            set_aside(tmp_path, OF_RUN, [], pytest.fail)


def test_a_directory_that_others_can_write_is_told_of(tmp_path: Path) -> None:
    told: list[str] = []
    tmp_path.chmod(0o777)
    set_aside(tmp_path, OF_RUN, [], told.append)
    assert told == [
        f"--out {tmp_path}: can be written by others (mode 0777): what is written there may be replaced by somebody "
        "else"
    ]


def test_what_cannot_be_moved_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "result.json").touch()

    def refused(_self: Path, _target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(BrokenError, match=r"previous-.* cannot be written: Permission denied"):
        set_aside(tmp_path, OF_RUN, [], pytest.fail)
