"""The moving picture in a real browser: any moment is that of a replay, keys and clicks do what they say, nothing else
is asked for, on a desk and on a phone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from migemu.mm.pages import TINY, X86_64, Geometry
from migemu.store.trace_file import FileRecorder
from migemu.trace.events import Event, Happening
from migemu.view.index_builder import build_index
from migemu.view.live_run import LiveRun
from migemu.view.page_states import PageStates
from migemu.view.run_picture import RunPicture
from migemu.view.view_server import ViewServer
from tests.browser.conftest import Browser
from tests.unit.report.runs import migration
from tests.unit.trace.traces import PAGES, whole, write_lines

WAIT_S = 60
DESK, PHONE = (1400, 950), (390, 800)

Show = Callable[..., Browser]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Addresses of a run of one hugetlb page, of a tiny one, and of both side by side."""
    base = tmp_path_factory.mktemp("traces")
    with ExitStack() as stack:
        pictures = {}
        for name, events, kind in (("big", migration(wire=True), "modelled"), ("tiny", whole(), "measured")):
            trace = write_lines(base / f"{name}.jsonl", events, kind)
            index = stack.enter_context(build_index(trace, records_max=700 if name == "big" else 9))
            pictures[name] = RunPicture("<i>big</i>" if name == "big" else name, index, trace)
        urls = {}
        for names in (("big",), ("tiny",), ("big", "tiny")):
            server = ViewServer([pictures[name] for name in names])
            thread = threading.Thread(target=server.run)
            thread.start()
            stack.callback(server.close)
            stack.callback(thread.join, WAIT_S)
            stack.callback(server.stop)
            urls["+".join(names)] = server.url
        yield urls


@pytest.fixture
def show(chromium: Browser, served: dict[str, str]) -> Iterator[Show]:
    """Open a page in a window of some size, light or dark."""

    def opened(name: str, size: tuple[int, int] = DESK, dark: bool = False) -> Browser:
        driver = chromium.driver
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 700}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        chromium.complaints()
        chromium.requests()
        driver.get(served[name])
        until(chromium, "return document.body.dataset.ready === '1' && document.body.dataset.shown !== ''")
        return chromium

    yield opened
    chromium.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def until(page: Browser, script: str, *arguments: Any) -> Any:
    """What the script answers, once that is true."""
    return WebDriverWait(page.driver, WAIT_S, 0.02).until(lambda driver: driver.execute_script(script, *arguments))


def press(page: Browser, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


#: The number of events that have happened, and the states and counts then, of the run of that number.
SHOWN = """
const run = page.runs[arguments[0]];
if (page.pending || page.steps || page.wantedJump) return null;
const here = run.loaded(run.chunk);
let events = run.chunks[run.chunk].event;
for (let at = 0; at < run.at; at += 1) if (here.events.kind[at] !== 255) events += 1;
return [events, Array.from(run.states), Array.from(run.counts)];
"""


def expected(events: list[Event], count: int, geometry: Geometry, pages: int) -> PageStates:
    states = PageStates(geometry, pages)
    for event in events[:count]:
        states.take(event)
    return states


@pytest.mark.parametrize("share", [0.9, 0.1, 0.5, 0.52, 0.0, 1.0])
def test_any_moment_is_that_of_a_replay_from_the_start(show: Show, share: float) -> None:
    """Whichever way one comes there: from the beginning, and back again."""
    page, events = show("big"), migration(wire=True)
    page.driver.execute_script("page.go(page.timeline.until * 0.6)")
    until(page, SHOWN, 0)
    page.driver.execute_script("page.go(page.timeline.until * arguments[0])", share)
    count, states, counts = until(page, SHOWN, 0)
    t = page.driver.execute_script("return page.runs[0].zero + page.tau")
    assert count == sum(event.t <= t for event in events)
    replayed = expected(events, count, X86_64, X86_64.pages(X86_64.levels[-1]))
    assert bytes(states) == replayed.states
    assert counts == replayed.counts
    assert page.complaints() == []


def test_single_events_one_after_the_other_and_back(show: Show) -> None:
    page, events = show("tiny"), whole()
    press(page, Keys.HOME)
    until(page, SHOWN, 0)
    begin = until(page, SHOWN, 0)[0]
    for step in range(1, 21):
        press(page, Keys.ARROW_RIGHT)
        count, states, _ = until(page, SHOWN, 0)
        assert count == min(len(events), begin + step)
        assert bytes(states) == expected(events, count, TINY, PAGES).states
    for _ in range(7):
        press(page, Keys.ARROW_LEFT)
    count, states, _ = until(page, SHOWN, 0)
    assert bytes(states) == expected(events, count, TINY, PAGES).states


def test_it_steps_by_fault_and_by_collapse(show: Show) -> None:
    page, events = show("big"), migration(wire=True)
    faulted = [number for number, event in enumerate(events, 1) if event.event is Happening.FAULTED]
    press(page, Keys.HOME)
    until(page, SHOWN, 0)
    for number in faulted[:4]:
        press(page, "f")
        assert until(page, SHOWN, 0)[0] == number
    press(page, "F")
    assert until(page, SHOWN, 0)[0] == faulted[2]
    began = page.driver.execute_script("return [...page.runs[0].collapses.began]")
    press(page, Keys.HOME, "c")
    until(page, SHOWN, 0)
    assert page.driver.execute_script("return page.runs[0].t") == min(began)


def test_it_plays_to_the_end_and_stops_there(show: Show) -> None:
    page, events = show("big"), migration(wire=True)
    page.driver.execute_script("page.setSpeed(90)")
    press(page, " ")
    until(page, "return page.tau >= page.timeline.until && !page.playing")
    count, states, _ = until(page, SHOWN, 0)
    assert count == len(events)
    assert bytes(states) == expected(events, count, X86_64, X86_64.pages(X86_64.levels[-1])).states
    assert page.driver.find_element(By.ID, "play").get_attribute("aria-label") == "Play"
    assert page.complaints() == []


def test_what_is_drawn_is_what_is_so(show: Show) -> None:
    """Each piece of the tiny memory has the colour of its state; what is hatched or chosen lies on a canvas above."""
    page = show("tiny")
    for share in (0.3, 1.0):
        page.driver.execute_script("page.go(page.timeline.until * arguments[0])", share)
        until(page, SHOWN, 0)
        wrong = until(
            page,
            """const picture = page.panels[0].memory, run = page.runs[0], wrong = [];
            if (run.allDirty || run.dirty.includes(1)) return null;
            for (let at = 0; at < run.pages; at += 1) {
              const [x, y, wide, high] = picture.place(at, 1);
              const [r, g, b] = picture.context.getImageData(x + wide / 3, y + high / 3, 1, 1).data;
              const hex = "#" + [r, g, b].map((each) => each.toString(16).padStart(2, "0")).join("");
              if (hex !== page.colours.css[run.states[at] & 15].toLowerCase()) wrong.push([at, hex, run.states[at]]);
            }
            return [wrong];""",
        )
        assert wrong == [[]]


def test_a_page_that_is_clicked_shows_all_that_happened_to_it(show: Show) -> None:
    page, events = show("tiny"), whole()
    press(page, Keys.END)
    x, y = page.driver.execute_script(
        "const p = page.panels[0].memory, [x, y, w, h] = p.place(9, 1);"
        "return [(x + w / 2) / p.ratio, (y + h / 2) / p.ratio];"
    )
    canvas = page.driver.find_element(By.CSS_SELECTOR, ".memory canvas")
    ActionChains(page.driver).move_to_element_with_offset(
        canvas, round(x - canvas.size["width"] / 2), round(y - canvas.size["height"] / 2)
    ).click().perform()
    rows = until(
        page, "return [...document.querySelectorAll('.details tr[data-number]')].map((each) => each.innerText)"
    )
    heading = page.driver.find_element(By.CSS_SELECTOR, ".details h3").text
    assert heading == "Page 9"
    assert len(rows) == len([event for event in events if about(event, 9)])
    assert "dropped" in " ".join(rows)
    assert "duplicate" in " ".join(rows)
    tree = page.driver.find_element(By.CSS_SELECTOR, ".tree").get_attribute("aria-label")
    assert tree == "entry 0 of the 1G level: one leaf maps all of it"
    press(page, Keys.ESCAPE)
    assert not page.driver.find_element(By.CSS_SELECTOR, ".details").is_displayed()


def about(event: Event, at: int) -> bool:
    count = TINY.pages(event.level) if event.event is Happening.COLLAPSED and event.level is not None else event.count
    return event.first is not None and event.first <= at < event.first + (count or 1)


def test_a_sleep_that_is_clicked_shows_where_its_time_went(show: Show) -> None:
    page = show("big")
    page.driver.execute_script("page.go(page.timeline.until * 0.3); page.laneFactor = 0.2; page.setLanes()")
    until(page, SHOWN, 0)
    where = until(
        page,
        """const lanes = page.panels[0].lanes;
        for (const [faults, at] of page.runs[0].faultsWithin(lanes.from, page.runs[0].t)) {
          const x = lanes.x((faults.began[at] + faults.ended[at]) / 2);
          if (x > 60 && x < lanes.wide - 5) return [x, lanes.y(faults.vcpu[at]) + lanes.lane / 2, faults.number[at]];
        }
        return null;""",
    )
    canvas = page.driver.find_element(By.CSS_SELECTOR, ".lanes canvas")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(page.driver).move_to_element_with_offset(
        canvas, round(where[0] - canvas.size["width"] / 2), round(where[1] - canvas.size["height"] / 2)
    ).click().perform()
    text = until(page, "const d = document.querySelector('.details'); return d.querySelector('.phases') && d.innerText")
    assert f"Fault {where[2]}" in text
    for words in ("detect", "uplink", "queue", "wake", "In front of it at the source", "Meanwhile, to this page"):
        assert words in text


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("name", ["big", "big+tiny"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_its_window(show: Show, name: str, size: tuple[int, int], dark: bool) -> None:
    page = show(name, size, dark)
    press(page, "?")
    wide = page.driver.execute_script("return document.documentElement.scrollWidth")
    assert wide <= size[0]
    for canvas in page.driver.find_elements(By.TAG_NAME, "canvas"):
        assert canvas.size["width"] <= size[0]
    background = page.driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(19, 19, 23)" if dark else "rgb(255, 255, 255)")
    small = page.driver.execute_script(
        "return [...document.querySelectorAll('.transport button')].filter("
        "(each) => each.offsetParent && each.offsetHeight < arguments[0]).map((each) => each.id)",
        34 if size == PHONE else 28,
    )
    assert small == [], "fingers find the buttons"
    assert page.complaints() == []


def test_two_runs_share_one_bar_of_time_and_no_figure(show: Show) -> None:
    page = show("big+tiny")
    page.driver.execute_script("page.go(500000)")
    for run in (0, 1):
        until(page, SHOWN, run)
    times = page.driver.execute_script("return page.runs.map((run) => run.t - run.zero)")
    assert times == [500000, 500000]
    kinds = [each.text for each in page.driver.find_elements(By.CSS_SELECTOR, ".kind")]
    assert kinds == ["MODELLED", "MEASURED"]
    assert len(page.driver.find_elements(By.ID, "bar")) == 1


def test_it_can_be_used_and_read_without_seeing_it(show: Show) -> None:
    page = show("tiny")
    driver = page.driver
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('button, input, canvas[role], [role=slider], section')].filter("
        "(each) => !(each.getAttribute('aria-label') || each.innerText.trim())).map((each) => each.outerHTML)"
    )
    assert unnamed == []
    bar = driver.find_element(By.ID, "bar")
    press(page, Keys.END)
    until(page, "return document.getElementById('bar').ariaValueNow === document.getElementById('bar').ariaValueMax")
    assert "since the guest runs at the destination" in (bar.get_attribute("aria-valuetext") or "")
    canvas = driver.find_element(By.CSS_SELECTOR, ".memory canvas")
    driver.execute_script("arguments[0].focus()", canvas)
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert driver.find_element(By.ID, "said").get_attribute("textContent").startswith("page 1: mapped")
    press(page, Keys.ENTER)
    until(page, "return document.getElementById('said').textContent.includes('events')")
    rows = driver.find_elements(By.CSS_SELECTOR, ".legend tr")
    assert rows[0].text.startswith("missing")
    assert rows[-1].text.startswith("stalled: under a collapse")


def test_a_run_that_goes_on_is_shown_as_it_comes(chromium: Browser, tmp_path: Path) -> None:
    """The page is opened before the run begins, follows it, and has it exactly in the end."""
    events, driver = migration(wire=True), chromium.driver
    runs: list[RunPicture] = []
    server, live = ViewServer(runs), LiveRun(tmp_path, runs)
    threads = [threading.Thread(target=server.run), threading.Thread(target=live.work)]
    for thread in threads:
        thread.start()
    try:
        chromium.complaints()
        driver.get(server.url)
        until(chromium, "return !document.getElementById('waiting').hidden")
        with FileRecorder(tmp_path / "trace.jsonl", "modelled") as recorder:
            for count in (300, 900, len(events)):
                for event in events[recorded(runs) : count]:
                    recorder.emit(event)
                recorder.flush()
                until(chromium, "return window.page && page.runs[0].events === arguments[0]", count)
                until(chromium, "return page.tau === page.timeline.until && !page.pending")
                newest = (
                    f"const shown = ((...arguments) => {{ {SHOWN} }})(0); return shown?.[0] === {count} && shown[1];"
                )
                states = until(chromium, newest)
                assert bytes(states) == expected(events, count, X86_64, X86_64.pages(X86_64.levels[-1])).states
                assert driver.find_element(By.ID, "follow").is_displayed()
            press(chromium, Keys.HOME)
            until(chromium, "return document.getElementById('follow').ariaPressed === 'false'")
        live.over.set()
        until(chromium, "return !page.live && document.getElementById('follow').hidden")
        assert chromium.complaints() == []
    finally:
        live.stop.set()
        server.stop()
        for thread in threads:
            thread.join(WAIT_S)
        server.close()
        for run in runs:
            run.close()


def recorded(runs: list[RunPicture]) -> int:
    return runs[0].index.events if runs else 0


def test_without_its_server_the_page_says_so(chromium: Browser, tmp_path: Path) -> None:
    runs: list[RunPicture] = []
    server = ViewServer(runs)
    thread = threading.Thread(target=server.run)
    thread.start()
    driver = chromium.driver
    driver.get(server.url)
    until(chromium, "return !document.getElementById('waiting').hidden")
    server.stop()
    thread.join(WAIT_S)
    server.close()
    until(chromium, "return !document.getElementById('trouble').hidden")
    assert "cannot be shown" in driver.find_element(By.ID, "trouble").text
    chromium.complaints()


def test_a_name_is_never_code_and_nothing_else_is_asked_for(show: Show, served: dict[str, str]) -> None:
    page = show("big")
    assert page.driver.find_element(By.TAG_NAME, "h2").text == "<i>big</i>"
    page.driver.execute_script("page.panels[0].choose(100)")
    until(page, "return document.querySelector('.details tr[data-number]')")
    assert {url[: len(served["big"])] for url in page.requests()} == {served["big"]}
    assert page.complaints() == []
