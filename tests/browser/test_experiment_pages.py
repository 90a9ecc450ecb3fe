"""The pages of a sweep and of a comparison in a real browser: they draw, tell, sort, print, and stay legible."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from migemu.cli.report import write_sweep_page
from migemu.experiment.comparison import compare
from migemu.experiment.gate import parse_gate
from migemu.experiment.history import read_history
from migemu.experiment.sources import read_source
from migemu.report import comparison_page, history_page
from tests.browser.conftest import Browser
from tests.browser.drawing import DRAWN, hover, prints_within_paper
from tests.unit.experiment.histories import slower, state, unchanged
from tests.unit.experiment.sweeps import PIECES, run, sweep_of

#: A third axis makes small multiples of it.
DISTANCE = """
[[axis]]
name = "distance"
setting = "link.delay"
values = ["1us", "1ms"]
"""
#: Pairs of words in figures that lie over each other.
OVERLAPPING = """
const apart = (a, b) =>
  a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
return [...document.querySelectorAll(".figure")].flatMap((div) => {
  const texts = [...div.querySelectorAll("text")].filter((each) => each.textContent.trim());
  const words = texts.map((each) => ({ said: each.textContent, box: each.getBoundingClientRect() }));
  return words.flatMap((one, n) =>
    words.slice(n + 1).filter((other) => !apart(one.box, other.box)).map((other) => [one.said, other.said]));
});
"""
#: The colour of words and of what is behind them, where the browser has been asked for a dark page.
PAPERS = """
return [...new Set([...document.querySelectorAll(".figure .main-svg:first-of-type")].map((svg) =>
  getComputedStyle(svg).backgroundColor))];
"""
COLOURS = "const look = getComputedStyle(document.body); return [look.color, look.backgroundColor];"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sweep")
    run(sweep_of(folder, PIECES + DISTANCE), folder / "sweep.sqlite")
    write_sweep_page(folder / "sweep.sqlite", folder / "sweep.html")
    sides = [f"{folder}:policy={policy}" for policy in ("never", "batched:spans=16")]
    gates = [parse_gate("fault.p50_ns > +5%"), parse_gate("fault.p99_ns < -5%")]
    comparison = compare(*map(read_source, sides), ["fault.p*", "fault.mean_ns"], gates)
    (folder / "comparison.html").write_text(comparison_page.html(comparison, "never", "batched"))
    states = [state(folder, number, slower(0.3) if number > 2 else unchanged) for number in range(5)]
    (folder / "history.html").write_text(history_page.html(read_history(states, ["fault.p99_ns", "fault.p50_ns"])))
    return {name: folder / f"{name}.html" for name in ("sweep", "comparison", "history")}


def opened(chromium: Browser, path: Path) -> Browser:
    if chromium.driver.current_url != path.as_uri():
        chromium.open(path)
    return chromium


@pytest.mark.parametrize(("name", "figures"), [("sweep", 6), ("comparison", 4), ("history", 2)])
def test_every_figure_is_drawn_within_its_panel_and_nothing_complains(
    chromium: Browser, pages: dict[str, Path], name: str, figures: int
) -> None:
    chromium.open(pages[name])
    drawn = chromium.driver.execute_script(DRAWN)
    assert len(drawn) >= figures
    for each in drawn:
        assert each["made"] >= each["given"] > 0, each
        assert 200 < each["width"] <= each["room"], each
    assert chromium.driver.execute_script(OVERLAPPING) == []
    assert chromium.complaints() == []
    assert chromium.requests() == [pages[name].as_uri()]


@pytest.mark.parametrize(
    ("name", "selector", "says"),
    [
        ("sweep", "#fault-p50_ns-0 .heatmaplayer .hm:first-of-type image", "3 seeds"),
        ("sweep", "#fault-p50_ns-1 .scatterlayer .trace:first-of-type .point", "3 seeds"),
        ("comparison", "#forest-0 .scatterlayer .trace .point", "3 pairs"),
    ],
)
def test_hovering_tells_cell_and_value(
    chromium: Browser, pages: dict[str, Path], name: str, selector: str, says: str
) -> None:
    page = opened(chromium, pages[name])
    assert says in hover(page, selector)
    assert page.complaints() == []


@pytest.mark.parametrize("name", ["sweep", "comparison", "history"])
def test_it_prints_within_the_paper(chromium: Browser, pages: dict[str, Path], name: str) -> None:
    page = opened(chromium, pages[name])
    page.driver.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        prints_within_paper(page)
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        page.driver.execute_script("window.dispatchEvent(new Event('afterprint'))")


@pytest.mark.parametrize("name", ["sweep", "comparison", "history"])
def test_who_wants_dark_pages_can_read_it(chromium: Browser, pages: dict[str, Path], name: str) -> None:
    """Page and figures alike; and at once when it is asked for."""
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        page = opened(chromium, pages[name])
        WebDriverWait(page.driver, 20).until(lambda _: page.driver.execute_script(PAPERS) == ["rgb(22, 24, 28)"])
        assert page.driver.execute_script(COLOURS) == ["rgb(232, 232, 232)", "rgb(22, 24, 28)"]
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("name", ["sweep", "comparison", "history"])
def test_on_a_phone_nothing_is_wider_than_the_page(chromium: Browser, pages: dict[str, Path], name: str) -> None:
    """What is wider scrolls by itself."""
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    chromium.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        chromium.open(pages[name])
        assert chromium.driver.execute_script("return document.documentElement.scrollWidth") == 390
        assert chromium.driver.execute_script(OVERLAPPING) == []
        assert chromium.complaints() == []
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.driver.get("about:blank")


def test_a_heading_sorts_its_column_up_and_down(chromium: Browser, pages: dict[str, Path]) -> None:
    page = opened(chromium, pages["sweep"])
    heads = page.driver.find_elements(By.CSS_SELECTOR, ".sortable th button")
    column = next(n for n, head in enumerate(heads) if head.text == "fault.p50_ns")
    numbers = (
        f"return [...document.querySelectorAll('.sortable tbody tr')].map((row) => +row.cells[{column}].dataset.by)"
    )
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", heads[column])
    for order in (1, -1):
        page.driver.execute_script("arguments[0].click()", heads[column])
        found = page.driver.execute_script(numbers)
        assert found == sorted(found, key=lambda number: order * number)
    assert len(set(found)) > 2
    assert page.complaints() == []
