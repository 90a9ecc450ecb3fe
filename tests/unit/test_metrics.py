"""Metrics for Prometheus: what a scrape shows, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from migemu.checkpoint.writer import Protection
from migemu.errors import InputError
from migemu.process.metrics import METRICS, exposition, metrics_address
from migemu.process.status_socket import NodeStatus
from migemu.units import GIB, SECOND

DESTINATION = NodeStatus(
    "destination", 7, "ab" * 16, "paused", GIB, 2, "silent", received_bytes=GIB // 2, mapped_bytes=GIB // 4,
    faults_waiting=7, vcpus_waiting=4, turned_away=3, whereabouts="destination",
    checkpoint=Protection(9, 3 * SECOND, 5, 100, 200, ""),
)  # fmt: skip
SOURCE = NodeStatus("source", 8, "cd" * 16, "run", GIB, 0, "", sent_bytes=GIB // 3, whereabouts="in doubt")
#: Prometheus's own metrics of a process, which the client adds.
OF_PROCESS = re.compile("process_[a-z_]+")


def scraped(*statuses: NodeStatus) -> dict[tuple[str, str, str], float]:
    """(name, migration, state or "") -> value."""
    code, headers, body = exposition(statuses)
    assert code == 200
    assert dict(headers)["Content-Type"].startswith("text/plain")
    return {
        (sample.name, sample.labels.get("migration", ""), sample.labels.get(sample.name, "")): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_scrape_shows_what_the_status_socket_shows() -> None:
    found = scraped(DESTINATION, SOURCE)
    ab, cd = "abababab", "cdcdcdcd"
    assert found["migemu_memory_bytes", ab, ""] == found["migemu_memory_bytes", cd, ""] == GIB
    assert found["migemu_received_bytes", ab, ""] == GIB / 2
    assert found["migemu_mapped_bytes", ab, ""] == GIB / 4
    assert found["migemu_sent_bytes", cd, ""] == GIB // 3
    assert ("migemu_sent_bytes", ab, "") not in found
    assert ("migemu_received_bytes", cd, "") not in found
    assert (found["migemu_faults_waiting", ab, ""], found["migemu_vcpus_waiting", ab, ""]) == (7, 4)
    assert found["migemu_recoveries_total", ab, ""] == 2
    assert found["migemu_turned_away_total", "", ""] == 3
    assert found["migemu_checkpoint_age_seconds", ab, ""] == pytest.approx(3)
    assert found["migemu_checkpoint_lost", ab, ""] == 0


def test_exactly_one_stage_and_one_place_is_that_of_now() -> None:
    found = scraped(DESTINATION)
    for name, now in (("migemu_stage", "paused"), ("migemu_whereabouts", "destination")):
        assert [state for (metric, _, state), value in found.items() if metric == name and value] == [now]


def test_a_stage_that_no_list_has_is_shown_all_the_same() -> None:
    found = scraped(NodeStatus("source", 8, "cd" * 16, "something new", GIB, 0, ""))
    assert found["migemu_stage", "cdcdcdcd", "something new"] == 1


def test_every_metric_is_shown_and_none_besides() -> None:
    names = {name for name, *_ in scraped(DESTINATION, SOURCE)}
    assert {name for name in names if not OF_PROCESS.fullmatch(name)} == set(METRICS)


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    _, headers, body = exposition([DESTINATION], accept="application/openmetrics-text; version=1.0.0")
    assert dict(headers)["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(("method", "target", "code"), [("GET", "/secret", 404), ("POST", "/metrics", 405)])
def test_nothing_else_is_served(method: str, target: str, code: int) -> None:
    assert exposition([DESTINATION], method, target)[0] == code


def dashboard() -> dict[str, Any]:
    text = resources.files("migemu.process").joinpath("grafana.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_the_dashboard_asks_for_metrics_that_are_there_and_shows_all_of_them() -> None:
    board = dashboard()
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [each["definition"] for each in board["templating"]["list"] if "definition" in each]
    named = {name for expr in asked for name in re.findall(r"\b(?:migemu|process)_\w+", expr)}
    exposed = {name for name, *_ in scraped(DESTINATION, SOURCE)}
    assert named <= exposed
    assert {name for name in named if name.startswith("migemu_")} == set(METRICS)


def test_the_panels_of_the_dashboard_do_not_lie_over_each_other() -> None:
    board = dashboard()
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("text", ["0.0.0.0:9464", "192.0.2.1:9464", "example.org:9464", "unix:/tmp/x", "[::]:1"])
def test_beyond_this_machine_nothing_is_served(text: str) -> None:
    with pytest.raises(InputError, match="on this machine alone"):
        metrics_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:9464", ":9464", "[::1]:0", "localhost:1", "127.8.9.1:1"])
def test_the_loopback_device_is_this_machine(text: str) -> None:
    assert metrics_address(text).port in (0, 1, 9464)


def test_what_is_no_address_is_told() -> None:
    with pytest.raises(InputError, match="is not an address"):
        metrics_address("9464")
