"""`migemu pause`, `resume`, `recover`, `cancel` on real processes: what is said, exit codes, and the guest."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

from migemu.address import LOOPBACK, TcpAddress
from migemu.cli.main import main
from migemu.process.status_socket import Order, ask, give
from tests.real.processes import NodeProcess, asked, destination, free_port, node, source

#: Nothing is pushed for a while: time enough for an operator, however slow the machine.
HELD = ("--set", "push.hold=3s", "--set", "guest.rate=200", "--set", "pull.preempt=off")


def migemu(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], env={"COLUMNS": "140"})


@pytest.fixture
def out() -> Iterator[Path]:
    with TemporaryDirectory(prefix="m-") as directory:
        yield Path(directory)


def stage(path: Path, name: str) -> None:
    asked(path, lambda status: status.stage == name)


def verified(dest: NodeProcess, sender: NodeProcess, out: Path) -> dict[str, object]:
    assert sender.wait() == 0, sender.error
    assert dest.wait() == 0, dest.error
    result: dict[str, object] = json.loads((out / "d" / "result.json").read_text())
    assert result["verified"]
    return result


def test_both_are_paused_and_resumed_and_wait_longer_than_they_would_by_themselves(out: Path) -> None:
    short = ("--set", "recovery.timeout=3s")
    with destination(*HELD, *short, "--out", str(out / "d")) as dest:
        with source(dest.port, *HELD, *short, "--out", str(out / "s")) as sender:
            dest.wait_for_stage("run")
            done = migemu("pause", out / "d", out / "s")
            assert done.exit_code == 0, done.output
            assert "destination: paused: vCPUs run on where their pages are here" in done.output
            assert "source: paused: nothing is sent" in done.output
            shown = migemu("status", out / "s", out / "d")
            assert shown.output.count("last error: an operator has paused it") == 2
            again = migemu("pause", out / "s")
            assert again.exit_code == 2
            assert "source: it is paused already; migemu resume ends that" in again.output
            # Longer than either would wait by itself, by the clock of a third process.
            with destination(*HELD, "--set", "net.listen_timeout=4s") as clock:
                assert clock.wait() == 3
            assert migemu("resume", out / "d", out / "s").exit_code == 0
            verified(dest, sender, out)
        told = [said["notice"] for said in sender.said if "notice" in said]
        assert "paused by an operator, until migemu resume" in told
        assert "resumed by an operator" in told


def test_a_source_that_would_try_the_old_way_for_long_is_told_another_one_and_keeps_it(out: Path) -> None:
    patient = ("--set", "recovery.backoff_min=60s", "--set", "recovery.backoff_max=60s")
    elsewhere = TcpAddress(LOOPBACK, free_port())
    with (
        destination(*HELD, "--out", str(out / "d")) as dest,
        source(dest.port, *HELD, *patient, "--out", str(out / "s")) as sender,
    ):
        dest.wait_for_stage("run")
        refused = migemu("recover", out / "s", "--connect", elsewhere)
        assert refused.exit_code == 2
        assert f"source: it is not paused (stage run): it is connected to 127.0.0.1:{dest.port}" in refused.output
        assert migemu("pause", out / "d").exit_code == 0
        stage(out / "s" / "source.sock", "paused")
        opened = migemu("recover", out / "d", "--listen", elsewhere)
        assert opened.exit_code == 0, opened.output
        assert f"destination: listens on {elsewhere} too" in opened.output
        assert "paused until migemu resume: " in opened.output
        assert migemu("resume", out / "d").exit_code == 0
        gone = migemu("recover", out / "s", "--connect", elsewhere)
        assert gone.exit_code == 0, gone.output
        assert gone.output == f"source: {elsewhere} is tried from now on\n"
        assert json.loads((out / "s" / "migration.json").read_text())["address"] == str(elsewhere)
        verified(dest, sender, out)


def test_a_destination_moves_to_a_socket_file_and_a_source_that_is_killed_there_finds_it_again(out: Path) -> None:
    there = out / "there.sock"
    with destination(*HELD, "--out", str(out / "d")) as dest:
        with source(dest.port, *HELD, "--out", str(out / "s")) as first:
            dest.wait_for_stage("run")
            assert migemu("pause", out / "s").exit_code == 0
            assert migemu("recover", out / "d", "--listen", f"unix:{there}").exit_code == 0
            assert migemu("recover", out / "s", "--connect", f"unix:{there}").exit_code == 0
            stage(out / "s" / "source.sock", "run")
            first.signal(signal.SIGKILL)
            first.wait()
        with node("source_node", "--recover", str(out / "s")) as second:
            verified(dest, second, out)
    assert not there.exists()


def test_beyond_this_machine_the_same_is_asked_for_as_at_the_start(out: Path) -> None:
    with (
        destination(*HELD, "--out", str(out / "d")) as dest,
        source(dest.port, *HELD, "--out", str(out / "s")) as sender,
    ):
        dest.wait_for_stage("run")
        opened = migemu("recover", out / "d", "--listen", "0.0.0.0:0")
        assert opened.exit_code == 2
        assert "destination: listening on 0.0.0.0 without TLS or a pre-shared key" in opened.output
        assert migemu("pause", out / "s").exit_code == 0
        gone = migemu("recover", out / "s", "--connect", "192.0.2.1:4444")
        assert gone.exit_code == 2
        assert "source: connecting to 192.0.2.1 without TLS or a pre-shared key" in gone.output
        assert ask(out / "s" / "source.sock")[0].last_error == "an operator has paused it"
        taken = migemu("recover", out / "d", "--listen", f"{LOOPBACK}:{dest.port}")
        assert taken.exit_code == 3
        assert "Address already in use" in taken.output
        assert migemu("resume", out / "s").exit_code == 0
        verified(dest, sender, out)


def test_before_the_switch_a_migration_is_cancelled_at_no_cost(out: Path) -> None:
    slow = ("--set", "device.state=1M", "--set", "link.rate=2Mbit")
    with destination("--out", str(out / "d")) as dest, source(dest.port, *slow, "--out", str(out / "s")) as sender:
        dest.wait_for_stage("listen")
        refused = migemu("pause", out / "s")
        assert refused.exit_code == 2
        assert "the guest is here (stage listen)" in refused.output
        done = migemu("cancel", out / "s")
        assert done.exit_code == 0, done.output
        assert done.output.startswith("source: cancelled: the guest runs on here")
        assert sender.wait() == 130
        assert sender.error == "cancelled by its operator. The guest runs on at the source, whose image is unchanged"
        said = "the source gave up: cancelled by its operator"
        dest.wait_until(lambda told: said in told.get("notice", ""))  # and it waits for another source
    assert not json.loads((out / "s" / "migration.json").read_text())["switched"]


def test_after_the_switch_it_is_told_what_is_lost_first(out: Path) -> None:
    with (
        destination(*HELD, "--out", str(out / "d")) as dest,
        source(dest.port, *HELD, "--out", str(out / "s")) as sender,
    ):
        dest.wait_for_stage("run")
        told = migemu("cancel", out / "d")
        assert told.exit_code == 2
        assert "destination: the guest has run here, and written " in told.output
        assert "all of it is lost, and the guest with it" in told.output
        assert migemu("cancel", out / "s").exit_code == 2
        done = migemu("cancel", out / "d", "--yes")
        assert done.exit_code == 0, done.output
        assert dest.wait() == 130
        assert sender.wait() == 3
        assert "the destination gave up: cancelled by its operator" in sender.error
    result = json.loads((out / "d" / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["error"] == "cancelled by its operator"


def test_with_a_checkpoint_nothing_is_lost(out: Path) -> None:
    kept = ("--checkpoint", str(out / "kept"), "--set", "checkpoint.interval=50ms")
    with destination(*HELD, *kept, "--out", str(out / "d")) as dest:
        port = dest.port
        with source(port, *HELD, "--out", str(out / "s")) as sender:
            dest.wait_for_stage("run")
            told = migemu("cancel", out / "d")
            assert "all of it is in its checkpoint, to go on from with the same command" in told.output
            assert migemu("cancel", out / "d", "--yes").exit_code == 0
            assert dest.wait() == 130
            stage(out / "s" / "source.sock", "paused")
            with destination("--listen", f"127.0.0.1:{port}", *HELD, *kept, "--out", str(out / "d")) as again:
                verified(again, sender, out)


def test_of_several_migrations_one_is_chosen(out: Path) -> None:
    with destination(*HELD, "--migrations", "2", "--out", str(out / "d")) as dest:
        with source(dest.port, *HELD) as one, source(dest.port, *HELD, "--set", "scenario.seed=2") as other:
            dest.wait_until(
                lambda said: [each["stage"] for each in said.get("migrations", {}).values()].count("run") == 2
            )
            unclear = migemu("pause", out / "d")
            assert unclear.exit_code == 2
            assert "2 migrations are going on here: say --migration and one of" in unclear.output
            names = [status.migration[:8] for status in ask(out / "d" / "destination.sock")]
            assert migemu("pause", out / "d", "--migration", names[0]).exit_code == 0
            stages = {status.migration[:8]: status.stage for status in ask(out / "d" / "destination.sock")}
            assert stages == {names[0]: "paused", names[1]: "run"}
            assert migemu("resume", out / "d", "--migration", names[0]).exit_code == 0
            assert (one.wait(), other.wait()) == (0, 0)
        assert dest.wait() == 0


def test_of_a_directory_with_both_nodes_each_gets_what_is_for_it(out: Path) -> None:
    with destination(*HELD, "--out", str(out)) as dest, source(dest.port, *HELD, "--out", str(out)) as sender:
        dest.wait_for_stage("run")
        done = migemu("pause", out)
        assert done.exit_code == 0, done.output
        assert sorted(line.partition(":")[0] for line in done.output.splitlines()) == ["destination", "source"]
        assert migemu("recover", out, "--listen", "127.0.0.1:0").output.startswith("destination: listens on 127.0.0.1:")
        assert migemu("resume", out).exit_code == 0
        assert sender.wait() == 0, sender.error
        assert dest.wait() == 0, dest.error


def test_bad_input_is_told_in_one_line(out: Path) -> None:
    for arguments, told in (
        (("pause", out / "nowhere"), "cannot be asked: No such file"),
        (("cancel", out), "no node runs with this --out"),
        (("recover", out), "give --connect to a source, or --listen to a destination"),
        (("recover", out, "--connect", "x:1", "--listen", "y:1"), "give --connect to a source, or --listen"),
        (("recover", out, "--connect", "localhost:²"), "is not an address"),
    ):
        done = migemu(*arguments)
        assert done.exit_code == 2
        assert told in done.output.replace("\n", " ")
    with destination(*HELD, "--out", str(out / "d")) as dest:
        assert dest.port
        for arguments, told in (
            (("pause", out / "d"), "destination: no migration is going on here"),
            (("recover", out / "d", "--connect", "x:1"), "destination: a destination does not connect: give --listen"),
        ):
            done = migemu(*arguments)
            assert done.exit_code == 2
            assert told in done.output.replace("\n", " ")
        assert give(out / "d" / "destination.sock", Order("listen", address="nowhere")).exit == 2
