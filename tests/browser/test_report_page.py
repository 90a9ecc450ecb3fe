"""The report in a real browser: it draws, says what stands under the pointer, prints, and asks nobody for anything."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from selenium.webdriver.common.by import By

from migemu.cli.report import write_page
from migemu.mm.pages import TINY
from tests.browser.conftest import Browser
from tests.browser.drawing import DRAWN, hover, prints_within_paper
from tests.unit.report.runs import migration, result, write_run
from tests.unit.trace.traces import memory, whole


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("runs")
    return [
        write_run(base / "a", migration(), result(name="here")),
        write_run(base / "b", migration(wire=True), result("modelled", name="sim"), "modelled"),
        write_run(base / "c", migration(TINY, faults=3), result(name="tiny")),
        write_run(base / "d", None, result(name="bare")),
    ]


@pytest.fixture(scope="module")
def page(chromium: Browser, directories: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Browser:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(directories, path)
    chromium.open(path)
    return chromium


def test_every_figure_is_drawn_and_nothing_complains(page: Browser) -> None:
    drawn: list[dict[str, Any]] = page.driver.execute_script(DRAWN)
    assert len(drawn) > 25
    for figure in drawn:
        assert figure["made"] >= figure["given"] > 0, figure
        assert 200 < figure["width"] <= figure["room"], figure
    assert page.complaints() == []


def test_it_opens_offline_and_asks_for_nothing_but_itself(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page([write_run(tmp_path / "run", whole())], path)
    chromium.open(path)
    assert chromium.driver.execute_script("return document.body.dataset.drawn") != "0"
    assert chromium.requests() == [path.as_uri()]
    labels = chromium.driver.execute_script(
        "return [...document.querySelectorAll('.modebar-btn')].map((each) => each.dataset.title)"
    )
    assert labels
    assert not [label for label in labels if "hare" in label or "loud" in label], "nothing offers to send it anywhere"


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        ("#latency-0 .barlayer .point:nth-of-type(2) path", "us: 1 faults"),
        ("#latency-2 .nsewdrag", "p99"),
        ("#memory-0 .nsewdrag", "% at"),
        ("#faults-0 .scatterlayer .point:nth-of-type(9)", "vCPU"),
        ("#attribution-0 .barlayer .trace:nth-of-type(3) .point path", "of the mean"),
        ("#lost-0 .barlayer .point path", "vCPU 0: 5.2ms"),
        ("#map-0-how .heatmaplayer image", "2M 25"),
        ("#map-0-time .heatmaplayer image", "ms"),
    ],
)
def test_hovering_tells_values(
    chromium: Browser, directories: list[Path], tmp_path_factory: pytest.TempPathFactory, selector: str, says: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "hover.html"
    if chromium.driver.current_url != path.as_uri():
        write_page(directories, path)
        chromium.open(path)
    assert says in hover(chromium, selector)
    assert chromium.complaints() == []


def test_it_prints_within_the_paper(chromium: Browser, directories: list[Path], tmp_path: Path) -> None:
    """And after printing all is as before."""
    path = tmp_path / "report.html"
    write_page(directories[:1], path)
    chromium.open(path)
    before = chromium.driver.execute_script(DRAWN)
    chromium.driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        prints_within_paper(chromium)
        shown = chromium.driver.execute_script(
            "return [...document.querySelectorAll('.modebar, nav')].map((each) => getComputedStyle(each).display)"
        )
        assert set(shown) == {"none"}
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    chromium.driver.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert chromium.driver.execute_script(DRAWN) == before
    assert base64.b64decode(chromium.driver.print_page()).startswith(b"%PDF")
    assert chromium.complaints() == []


def test_what_is_printed_begins_on_the_first_page(chromium: Browser, directories: list[Path], tmp_path: Path) -> None:
    """Also from a dark page: it is printed on white, and nothing of the dark is left on it."""
    path = tmp_path / "report.html"
    write_page(directories[:2], path)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        chromium.open(path)
        printed = PdfReader(BytesIO(base64.b64decode(chromium.driver.print_page())))
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    texts = [page.extract_text() for page in printed.pages]
    assert "here, sim" in texts[0]
    assert "What did it cost the guest?" in texts[0]
    assert "a vCPU lost, in the mean" in texts[0]
    assert all(text.strip() for text in texts), "no page is empty"


@pytest.mark.parametrize("is_dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_page(
    chromium: Browser, directories: list[Path], tmp_path: Path, is_dark: bool
) -> None:
    path = tmp_path / "report.html"
    write_page(directories, path)
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]}
    chromium.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    try:
        chromium.open(path)
        assert chromium.driver.execute_script("return document.documentElement.scrollWidth") == 390
        for figure in chromium.driver.execute_script(DRAWN):
            assert figure["made"] >= figure["given"] > 0, figure
            assert 280 < figure["width"] <= figure["room"], figure
        assert chromium.complaints() == []
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_run_that_failed_says_so_and_draws_nothing(chromium: Browser, tmp_path: Path) -> None:
    failed = result(status="failed") | {"fault": {}, "blocktime_ns": {}}
    write_page([write_run(tmp_path, [memory("source"), memory()], failed)], tmp_path / "report.html")
    chromium.open(tmp_path / "report.html")
    assert "the run failed: the source went away" in chromium.driver.find_element(By.TAG_NAME, "body").text
    assert chromium.driver.find_elements(By.CSS_SELECTOR, ".figure") == []
    assert chromium.complaints() == []


def test_a_name_is_never_code(chromium: Browser, tmp_path: Path) -> None:
    name = "<img src=x onerror='window.hit = 1'></script><script>window.hit = 2</script>"
    write_page([write_run(tmp_path, migration(faults=9), result(name=name))], tmp_path / "report.html")
    chromium.open(tmp_path / "report.html")
    assert chromium.driver.execute_script("return window.hit") is None
    assert chromium.driver.find_element(By.TAG_NAME, "h1").text == name
    assert chromium.complaints() == []
