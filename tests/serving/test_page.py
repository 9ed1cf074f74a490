"""The web page in a real browser: Chromium, driven by selenium."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import KEYS, ServerProcess

selenium = pytest.importorskip("selenium", reason="needs selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
]
SECONDS = 60
WIDTHS = {"wide": 1100, "narrow": 360}


class Page:
    """The page in a browser.

    Args:
        driver: The browser.
        url: Address of the server.
    """

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, model: str) -> None:
        """Open the page of a model, with the key of the client."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/#{model}")
        self.wait(lambda: not self.find("#access").get_attribute("hidden") or self.find("section"))
        if self.find("#key").is_displayed():
            self.find("#key").send_keys(KEYS["client"] + Keys.ENTER)
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "#panels section"))

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        found: str = self.find(selector).text
        return found

    def wait(self, condition: Callable[[], Any]) -> Any:
        limit = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < limit, self.find("body").text
            time.sleep(0.05)
        return found

    def errors(self) -> list[Any]:
        """Return the messages of the console, without refused requests that a test provokes."""
        return [line for line in self.driver.get_log("browser") if "401" not in line["message"]]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    driver.set_window_size(WIDTHS["wide"], 900)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: Any, server: ServerProcess) -> Iterator[Page]:
    page = Page(driver, server.url)
    yield page
    assert page.errors() == []


def test_a_key_is_asked_for_and_models_are_listed(page):
    page.open("digits")
    names = [option.text for option in page.driver.find_elements(By.CSS_SELECTOR, "option")]
    assert names == ["digits", "reviews", "writer", "masks", "embedder"]
    assert "Classifier" in page.text("#facts")


def test_a_digit_is_drawn_with_the_keyboard(page, tmp_path):
    page.open("digits")
    canvas = page.find(".pad")
    page.wait(canvas.is_displayed)
    canvas.send_keys(" ", *[Keys.ARROW_UP] * 8, " ")
    page.wait(lambda: "%" in page.text(".result"))
    labels = page.text(".result dt")
    assert labels in ("zero", "one", "two")
    assert page.find(".seen img").get_attribute("src").startswith("blob:")
    canvas.send_keys(Keys.DELETE)
    page.wait(lambda: page.text(".result") == "")


def test_a_digit_is_drawn_with_a_pointer(page):
    page.open("digits")
    canvas = page.find(".pad")
    page.wait(canvas.is_displayed)
    actions = webdriver.ActionChains(page.driver)
    actions.move_to_element_with_offset(canvas, 0, -80).click_and_hold()
    actions.move_by_offset(0, 160).release().perform()
    page.wait(lambda: "%" in page.text(".result"))
    center = page.driver.execute_script(
        "const context = document.querySelector('.pad').getContext('2d');"
        "return context.getImageData(140, 140, 1, 1).data[0]"
    )
    assert center == 255
    size = page.driver.execute_script(
        "const i = document.querySelector('.seen img'); return [i.naturalWidth, i.naturalHeight]"
    )
    assert size == [8, 8]


def test_an_image_is_uploaded_and_a_damaged_one_is_reported(page, tmp_path):
    from PIL import Image

    Image.new("L", (12, 12), 200).save(tmp_path / "image.png")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    page.open("digits")
    page.find(".file").send_keys(str(tmp_path / "image.png"))
    page.wait(lambda: "%" in page.text(".result"))
    page.find(".file").send_keys(str(tmp_path / "damaged.png"))
    page.wait(page.find("#problem").is_displayed)
    assert "image" in page.text("#problem")
    page.driver.get_log("browser")  # the browser reports the status 422


def test_classes_of_a_text_and_the_words_that_decide(page):
    page.open("reviews")
    page.find(".text").clear()
    page.find(".text").send_keys("a good film", Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: page.find(".words").is_displayed())
    assert page.text(".result dt") in ("good", "bad")
    words = page.driver.find_elements(By.CSS_SELECTOR, ".word")
    assert [word.text for word in words] == ["a", "good", "film"]
    assert words[1].get_attribute("title").endswith("points")
    strength = words[1].value_of_css_property("background-color")
    assert strength != words[0].value_of_css_property("background-color")


def test_a_text_is_shown_while_it_is_written(page):
    page.open("writer")
    page.find("section button").click()
    page.wait(lambda: len(page.text(".written")) > 3)
    page.wait(lambda: "tokens/s" in page.text(".speed"))


def test_similarity_of_two_texts(page):
    page.open("embedder")
    for selector in (".text", ".second"):
        page.find(selector).clear()
        page.find(selector).send_keys("good film")
    page.find("section button").click()
    page.wait(lambda: "Cosine similarity" in page.text(".result"))
    assert page.text(".result dd") == "1.000"


@pytest.fixture
def documents_page(driver: Any, answering: ServerProcess) -> Iterator[Page]:
    page = Page(driver, answering.url)
    yield page
    assert page.errors() == []


def ask(page: Page, question: str) -> str:
    """Ask with the keyboard, and return the answer."""
    box = page.find(".text")
    box.clear()
    box.send_keys(question, Keys.CONTROL, Keys.ENTER)
    shown = page.wait(
        lambda: page.driver.find_elements(By.CSS_SELECTOR, ".result:not(.busy) .answer")
    )
    return str(shown[0].text)


def test_answer_is_shown_with_the_cited_span_marked(documents_page: Page) -> None:
    page = documents_page
    page.open("documents")
    assert "Documents" in page.text("#facts")
    assert ask(page, "How long lives an oak?") == "An oak lives for five hundred years."
    (mark,) = page.driver.find_elements(By.CSS_SELECTOR, ".cited mark")
    assert mark.text == "An oak lives for five hundred years."
    assert "plants.txt" in page.text(".cited .document")
    assert "search score" in page.text(".cited .hint")
    assert "Moss grows on wet stones." in page.text(".cited blockquote")
    assert "%" in page.text(".result dd")
    page.find("details summary").send_keys(Keys.ENTER)
    assert page.find(".others li").is_displayed()


def test_follow_up_question_and_a_new_conversation(documents_page: Page) -> None:
    page = documents_page
    page.open("documents")
    ask(page, "What does a whale breathe?")
    page.driver.execute_script("document.querySelector('.answer').remove()")
    assert ask(page, "And how deep does it dive?") == "It dives for squid, a mile deep."
    assert "Searched: What does a whale breathe? And how" in page.text(".result")
    page.find(".restart").send_keys(Keys.ENTER)
    assert page.text(".result") == ""
    assert page.driver.switch_to.active_element == page.find(".text")
    assert "Searched" not in (ask(page, "And what is soft and white?"), page.text(".result"))[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_passages_fit_the_screen_and_marks_are_legible(
    documents_page: Page, scheme: str, width: str
) -> None:
    page = documents_page
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": WIDTHS[width], "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.open("documents")
    ask(page, "How long lives an oak?")
    wider = page.driver.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wider == 0
    if folder := os.environ.get("SCREENSHOTS"):
        page.driver.save_screenshot(f"{folder}/documents-{scheme}-{width}.png")
    mark = page.find("mark")
    colors = [mark.value_of_css_property(name) for name in ("color", "background-color")]
    assert contrast(*colors) >= 4.5
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def contrast(*colors: str) -> float:
    """Return the contrast of two colors, as in WCAG 2.2."""

    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        red, green, blue = (
            p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(luminance, colors))
    return (high + 0.05) / (low + 0.05)


def test_every_control_has_a_name_and_is_reached_by_tab(page):
    page.open("reviews")
    nameless = page.driver.execute_script(
        "return [...document.querySelectorAll('input, select, textarea, button, canvas')]"
        ".filter(e => e.offsetParent && !(e.labels?.length || e.getAttribute('aria-label')"
        " || (e.tagName == 'BUTTON' && e.textContent.trim()))).map(e => e.outerHTML)"
    )
    assert nameless == []
    page.driver.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(5):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.driver.switch_to.active_element.tag_name)
    assert {"select", "textarea", "button"} <= set(reached)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_the_screen_in_both_color_schemes(page, scheme, width):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": WIDTHS[width], "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.open("reviews")
    page.find("section button").click()
    page.wait(lambda: page.find(".words").is_displayed())
    wider = page.driver.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wider == 0
    background = page.find("body").value_of_css_property("background-color")
    assert ("251" in background) == (scheme == "light")
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_requests_nothing_from_other_hosts(page):
    page.open("digits")
    requested = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert len(requested) >= 4
    assert all(url.startswith((page.url, "data:", "blob:")) for url in requested)


def test_files_of_the_page_name_no_other_host():
    folder = Path(__file__).parents[2] / "serving" / "page"
    for path in folder.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
