"""The report in a real browser: nothing leaves the file, nothing is logged, sorting, hover and keys work, and no name becomes a script."""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
import fake

import analysis

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]
EVIL = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script><svg onload=window.hurt=1>\'"]]>&'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = fake.make(tmp_path_factory.mktemp("made") / "study", trials=24)
    analysis.write_report(made)
    return made


class Opened:
    """A page with what it logged and asked for."""

    def __init__(self, browser: Any, folder: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.logged: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.logged.append(message.text))
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto((folder / "report.html").as_uri())


@pytest.fixture
def opened(browser, folder) -> Iterator[Opened]:
    page = Opened(browser, folder)
    yield page
    page.page.close()


def test_nothing_is_logged_and_no_request_leaves_the_file(opened, folder):
    opened.page.mouse.wheel(0, 20000)
    opened.page.wait_for_timeout(200)
    assert opened.logged == []
    assert opened.asked == [(folder / "report.html").as_uri()]


def column(page: Any, table: str, number: int) -> list[str]:
    return page.eval_on_selector_all(f"{table} tbody tr", f"rows => rows.map(r => r.cells[{number}].textContent.trim())")


def test_a_click_on_a_head_sorts_down_then_up_with_missing_values_last(opened):
    page = opened.page
    first = "#table-2 table >> nth=0"
    before = page.locator(first).locator("tbody tr th").all_text_contents()
    head = page.locator(first).locator("thead th").nth(2).locator("button")
    read = "t => [...t.tBodies[0].rows].map(r => r.cells[2].dataset.value)"
    head.click()
    down = page.locator(first).evaluate(read)
    numbers = [float(v) for v in down if v]
    assert numbers == sorted(numbers, reverse=True)
    assert down[-1] == ""
    head.focus()
    page.keyboard.press("Enter")
    up = page.locator(first).evaluate(read)
    assert [float(v) for v in up if v] == sorted(numbers)
    assert up[-1] == ""
    assert page.locator(first).locator("tbody tr th").all_text_contents() != before
    assert page.locator(first).locator("thead th").nth(2).get_attribute("aria-sort") == "ascending"


def test_hover_and_keyboard_show_what_a_point_is_and_a_click_leads_to_its_run(opened):
    page = opened.page
    point = page.locator("#table-2 figure svg a").first
    words = point.locator("title").text_content()
    assert "seed 0" in words
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    assert page.locator("#tip").is_visible()
    assert page.locator("#tip").text_content() == words
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()
    point.focus()
    assert page.locator("#tip").is_visible()
    target = point.get_attribute("xlink:href")
    page.keyboard.press("Enter")
    page.wait_for_function(f"location.hash === {target!r}")
    assert page.locator(f"{target} details").get_attribute("open") is not None
    assert page.locator(target).locator("code").first.is_visible()


def test_the_tables_and_figures_are_there_without_javascript(browser, folder):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    assert page.locator("#table-5").get_by_text("did not converge").first.is_visible()
    assert page.locator("figure svg").count() >= 8
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_ground_in_both_themes(browser, folder, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto((folder / "report.html").as_uri())
    ratio = """selector => {
      const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255).map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
                           return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      return Math.min(...[...document.querySelectorAll(selector)].map(e => {
        const s = getComputedStyle(e), text = light(e.closest('svg') ? s.fill : s.color);
        return (Math.max(text, ground) + .05) / (Math.min(text, ground) + .05); }));
    }"""
    for selector in ("p", "td", "th", "a:not(svg a)", "figcaption", "#table-2 svg text", "#timeline svg text, #workers svg text"):
        assert page.evaluate(ratio, selector) >= 4.5, selector
    page.close()


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_itself_never_scrolls_sideways(browser, folder, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((folder / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_script_in_a_name_does_not_run(browser, tmp_path):
    asked, records = fake.study_and_records(trials=24)
    asked, records = copy.deepcopy(asked), copy.deepcopy(records)
    asked["study"] = asked["preset"] = asked["command"] = asked["procedure"] = EVIL
    asked["data"]["classes"][0] = asked["data"]["source"] = EVIL
    asked["space"][EVIL] = {"choices": [EVIL, "b"]}
    for table in asked["tables"]:
        table["title"] = EVIL
        table["arms"][0]["name"] = EVIL
    for i, r in enumerate(records):
        r |= {"procedure": EVIL, "device": EVIL, "checkpoint": EVIL, "worker": f"{EVIL}{i % 2}"}
        r["params"][EVIL] = EVIL if i % 2 else "b"
        if r["error"]:
            r["error"] = {"kind": "error", "message": EVIL}
    analysis.write_report(fake.write(tmp_path, asked, records))
    opened = Opened(browser, tmp_path)
    for details in opened.page.locator("details").all()[:12]:
        details.evaluate("d => { d.open = true; }")
    opened.page.locator("#table-2 figure svg a").first.hover(force=True)
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.hurt") is None
    assert opened.page.locator("script").count() == 1
    assert opened.logged == []
    assert opened.asked == [(tmp_path / "report.html").as_uri()]
    assert EVIL in opened.page.locator("h1").text_content()
    opened.page.close()


def test_every_figure_file_opens_on_its_own(browser, folder):
    for path in sorted((folder / "figures").glob("*.svg")):
        page = browser.new_page()
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.getBoundingClientRect().width") > 100, path.name
        page.close()


def test_what_is_folded_is_printed_too_but_for_the_words_of_each_run(opened):
    seen = "() => [...document.querySelectorAll('details:not([open]) > :not(summary)')].map(e => [!!e.closest('td'), e.checkVisibility()])"
    before = opened.page.evaluate(seen)
    assert before and not any(visible for _, visible in before)
    opened.page.emulate_media(media="print")
    after = opened.page.evaluate(seen)
    assert {visible for of_run, visible in after if not of_run} == {True}
    assert {visible for of_run, visible in after if of_run} == {False}
