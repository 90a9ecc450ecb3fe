"""A headless Chromium of the system's packages, driven by its own chromedriver; without a network.

Selenium drives it: it speaks the W3C protocol to the chromedriver that comes with the browser from the same package
source, so that the two always fit each other, and it brings no browser of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

_INNER = ("data:", "blob:", "chrome:")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _found() -> tuple[str, str]:
    """The browser and its driver. Without them the tests are skipped, or fail where they must not be."""
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), "")
    driver = shutil.which("chromedriver") or ""
    if not browser or not driver:
        reason = "needs Chromium and chromedriver (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("MIGEMU_REQUIRE_BROWSER") == "1":
            pytest.fail(f"MIGEMU_REQUIRE_BROWSER=1, and the test {reason}")
        pytest.skip(reason)
    return browser, driver


class Browser:
    """A browser, and what it has said since it was last asked."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        """Open a page; it draws its figures before this returns."""
        self.complaints()
        self.requests()
        self.driver.get(path.as_uri())
        WebDriverWait(self.driver, 60).until(
            lambda _: self.driver.execute_script("return document.body.dataset.drawn"), "figures were never drawn"
        )

    def complaints(self) -> list[str]:
        """Everything on the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address that was asked for, but for data within a page, and what the browser's own pages need."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent if not each["request"]["url"].startswith(_INNER)]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests; no name resolves in it, and of addresses this machine alone can be reached."""
    browser, driver = _found()
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1500,1000", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options, Service(driver))
    chrome.set_page_load_timeout(120)
    try:
        yield Browser(chrome)
    finally:
        chrome.quit()
