"""What a page has drawn, and what it says under the pointer."""

from __future__ import annotations

from typing import Final

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser.conftest import Browser

#: Of each figure: its name, the traces it was given, and the elements that plotly made of them.
DRAWN: Final = """
return [...document.querySelectorAll(".figure")].map((div) => ({
  name: div.id, given: div.data.length, width: div.getBoundingClientRect().width,
  room: div.parentElement.getBoundingClientRect().width,
  made: div.querySelectorAll(".scatterlayer .trace, .barlayer .trace, .heatmaplayer .hm").length,
}));
"""


#: Figures whose drawing is wider than their place.
OVERFLOWING: Final = """
return [...document.querySelectorAll(".figure")].filter((div) =>
  div.querySelector(".main-svg").getBoundingClientRect().width > div.parentElement.getBoundingClientRect().width
).map((div) => div.id);
"""


def prints_within_paper(page: Browser) -> None:
    """Wait until every figure, as it is printed, fits A4 less its margins: 186 mm, 703 of the browser's pixels.

    A resize of the window may be pending, which plotly follows a tenth of a second later.
    """

    def fits(_: object) -> bool:
        drawn = page.driver.execute_script(DRAWN)
        inside = all(figure["width"] <= figure["room"] <= 704 for figure in drawn)
        return inside and page.driver.execute_script(OVERFLOWING) == []

    WebDriverWait(page.driver, 20).until(fits, "figures are wider than the paper")


def hover(page: Browser, selector: str) -> str:
    """What appears when the pointer rests on the element."""
    element = page.driver.find_element(By.CSS_SELECTOR, selector)
    figure = page.driver.find_element(By.CSS_SELECTOR, f"{selector.split()[0]} .hoverlayer")
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(page.driver).move_to_element(element).move_by_offset(1, 1).perform()
    WebDriverWait(page.driver, 20).until(lambda _: figure.find_elements(By.CSS_SELECTOR, ".hovertext"))
    return " ".join(each.text for each in figure.find_elements(By.CSS_SELECTOR, ".hovertext"))
