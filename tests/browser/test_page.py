"""The report in a real browser: nothing leaves the file, what is chosen in one figure is chosen in all, the address keeps it, keys do what the mouse does,
both themes and a phone can be read, paper is saved, and no name becomes a script."""

from __future__ import annotations

import copy
import csv
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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


def made(folder: Path, trials: int = 24) -> Path:
    """A study with everything: 24 trials, predictions, patients, heat maps, an embedding."""
    asked, records = fake.study_and_records(trials=trials)
    fake.write(folder, asked, records)
    fake.leave(folder, asked, records)
    fake.doubt(folder)
    (folder / "request.toml").touch()
    analysis.write_report(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("made") / "study")


class Opened:
    """A page with what it logged and asked for."""

    def __init__(self, browser: Any, folder: Path, hash_: str = "", **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.logged: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.logged.append(message.text))
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto((folder / "report.html").as_uri() + hash_)

    def chosen(self) -> list[str]:
        """The runs that the table shows as chosen."""
        return self.page.eval_on_selector_all("#runs-table tr[aria-selected='true']", "rows => rows.map(row => row.id)")

    def rows(self) -> int:
        return self.page.locator("#runs-table tbody tr:visible").count()


@pytest.fixture
def opened(browser, folder) -> Iterator[Opened]:
    page = Opened(browser, folder, viewport={"width": 1280, "height": 900})
    yield page
    page.page.close()


def test_nothing_is_logged_and_no_request_leaves_the_file(opened, folder):
    opened.page.mouse.wheel(0, 20000)
    opened.page.wait_for_timeout(200)
    assert opened.logged == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [(folder / "report.html").as_uri()]


# --- choosing ---------------------------------------------------------------------------------------------------------------------------

SCATTER, CURVES, PARALLEL = (
    f"#explore figure:has-text('{words}')" for words in ("A mark for each run", "A line for each run", "Parallel coordinates")
)


def test_a_run_that_is_chosen_in_one_place_is_chosen_in_all(opened):
    page = opened.page
    page.locator(f"{SCATTER} .mark").nth(3).click(force=True)
    assert len(opened.chosen()) == 1
    for figure in (SCATTER, CURVES, PARALLEL):
        assert page.locator(f"{figure} .on").count() == 1, figure
    assert "1 run chosen" in page.locator("#chosen").text_content() and "configuration" in page.locator("#details").text_content()
    row = page.locator("#runs-table tbody tr", has_text="2/MoCo + SupCon").first
    row.click()
    assert opened.chosen() == [row.get_attribute("id")]
    assert page.locator(f"{CURVES} .on").count() == 1
    assert page.locator("#table-2 .arm.on").count() == 2, "the arm in the gain and in the level plot"
    row.click()
    assert opened.chosen() == [], "once more lets go"


def test_an_arm_in_the_gain_plot_chooses_its_runs(opened):
    page = opened.page
    page.locator("#table-2 .arm", has_text="MoCo + SupCon + CatVar").first.click()
    assert len(opened.chosen()) == 3
    assert page.locator(f"{CURVES} .on").count() == 3
    clicked = opened.chosen()
    page.keyboard.press("Escape")
    page.locator("#table-2 .arm").first.focus()  # by keys: one stop, from arm to arm, with the words that hover shows
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    assert page.locator("#tip").inner_text().startswith("MoCo + SupCon + CatVar\n")
    page.keyboard.press("Enter")
    assert opened.chosen() == clicked
    page.keyboard.press("Escape")
    assert opened.chosen() == [] and page.locator("#tip").is_hidden()


@pytest.mark.parametrize("figure", [SCATTER, CURVES, PARALLEL])
def test_a_rectangle_pulled_over_a_figure_chooses_what_lies_in_it(opened, figure):
    svg = opened.page.locator(f"{figure} svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    opened.page.mouse.move(box["x"] + 0.35 * box["width"], box["y"] + 0.1 * box["height"])
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 0.98 * box["width"], box["y"] + 0.85 * box["height"], steps=4)
    opened.page.mouse.up()
    assert 0 < len(opened.chosen()) < opened.rows()
    assert opened.page.locator("svg .brush").count() == 0
    opened.page.keyboard.press("Escape")
    assert opened.chosen() == []


def test_words_and_arms_hide_runs_in_the_table_and_in_the_figures(opened):
    page, whole = opened.page, opened.rows()
    page.get_by_label("Show only runs with these words").fill("margin=0.1 seed")
    assert 0 < opened.rows() < whole
    assert page.locator(f"{CURVES} .line:not(.off)").count() <= opened.rows()
    page.get_by_label("Show only runs with these words").fill("seed=1 catvar")
    assert opened.rows() == 2
    page.get_by_label("Show only runs with these words").fill("")
    page.locator(".chip", has_text="trials of the search").click()
    assert opened.rows() < whole and page.locator(f"{PARALLEL} .line:not(.off)").count() == 1, "the trial that is an arm stays"


def test_the_figures_zoom_to_what_is_chosen_and_back(opened):
    page = opened.page
    ticks = lambda: page.locator(f"{SCATTER} .words").text_content()  # noqa: E731
    before = ticks()
    page.locator("#table-2 .arm", has_text="MoCo + SupCon + CatVar").first.click()
    page.locator("#explore").get_by_label("Across", exact=True).select_option("seconds")
    whole, marks = ticks(), page.locator(f"{SCATTER} .mark").count()
    page.locator("#explore").get_by_role("button", name="zoom to chosen").first.click()
    assert ticks() != whole and page.locator(f"{SCATTER} .mark").count() < marks
    page.locator("#explore").get_by_role("button", name="whole").first.click()
    assert ticks() == whole != before


def test_hover_says_what_is_under_the_pointer_and_marks_it_everywhere(opened):
    page = opened.page
    mark = page.locator(f"{SCATTER} .mark").first
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    assert "seed" in page.locator("#tip").text_content() and page.locator("#tip").is_visible()
    assert page.locator("#runs-table tr.hot").count() == 1 and page.locator(f"{CURVES} .hot").count() == 1
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible() and page.locator(".hot").count() == 0
    page.locator("#table-2 .arm", has_text="MoCo + SupCon").first.hover()
    assert "published: +3.27" in page.locator("#tip").text_content()


def test_the_address_keeps_what_is_chosen_and_a_link_within_the_page_leaves_it(browser, folder, opened):
    page = opened.page
    page.locator("#table-2 .arm", has_text="MoCo + SupCon + CatVar").first.click()
    page.locator("#explore").get_by_label("Across", exact=True).select_option("seconds")
    page.locator(".chip", has_text="trials of the search").click()
    page.locator("#table-2 .controls select").select_option(label="Test F1")
    page.get_by_label("Show only runs with these words").fill("seed")
    ledger = page.locator("#images .controls")
    for label, option in (("Images", "all"), ("second arm", "1"), ("class", "2"), ("patient", "3"), ("order", "file")):
        ledger.get_by_label(label, exact=True).select_option(option)
    ledger.get_by_label("patient", exact=True).select_option("")
    ledger.get_by_role("button", name="later").click()
    picked = [select.input_value() for select in ledger.locator("select").all()], page.locator("#ledger tbody").first.text_content()
    assert "off=trials+of+the+search" in page.evaluate("location.hash"), "by name, not by number"
    chosen = opened.chosen()
    page.locator("nav a", has_text="Classes").click()
    hash_ = page.evaluate("location.hash")
    other = Opened(browser, folder, hash_)
    assert other.chosen() == chosen and len(chosen) == 3
    assert other.rows() == opened.rows() < 50
    assert other.page.locator("#explore").get_by_label("Across", exact=True).input_value() == "seconds"
    assert "Test F1, %" in other.page.locator("#table-2 figure >> nth=1").text_content()
    assert other.page.get_by_label("Show only runs with these words").input_value() == "seed"
    again = other.page.locator("#images .controls select").all()
    assert ([one.input_value() for one in again], other.page.locator("#ledger tbody").first.text_content()) == picked
    gone = Opened(browser, folder, "#off=an+arm+of+before&ledger.a=another&ledger.page=99&ledger.kind=none&metric=2:test_gone")
    assert gone.logged == [] and gone.page.locator("#ledger .ledger tbody tr").count() > 0, "what a page of now has not is passed over"
    gone.page.close()
    other.page.close()


def test_the_keyboard_chooses_in_the_table_and_a_page_has_fewer_than_80_tab_stops(opened):
    page = opened.page
    page.evaluate("document.querySelector('#runs-table tbody tr').focus()")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert len(opened.chosen()) == 2
    page.keyboard.press("Escape")
    assert opened.chosen() == []
    head = page.locator("#runs-table thead button").nth(3)
    page.evaluate("document.querySelector('#runs-table thead button').focus()")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert head.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    numbers = [
        float(v) for v in page.eval_on_selector_all("#runs-table tbody tr", "rows => rows.map(r => r.cells[3].textContent)") if v != "–"
    ]
    assert numbers == sorted(numbers, reverse=True)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    stops = set()
    for _ in range(100):
        page.keyboard.press("Tab")
        place = page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)")
        if place in stops:
            break
        stops.add(place)
    assert 20 < len(stops) < 80


def test_a_click_on_a_head_sorts_down_then_up_with_missing_values_last(opened):
    head = opened.page.locator("#runs-table thead button").nth(4)
    read = lambda: opened.page.eval_on_selector_all("#runs-table tbody tr", "rows => rows.map(r => r.cells[4].textContent)")  # noqa: E731
    head.click()
    down = read()
    head.click()
    up = read()
    for values, reverse in ((down, True), (up, False)):
        numbers = [float(v) for v in values if v != "–"]
        assert numbers == sorted(numbers, reverse=reverse) and values[-1] == "–"


# --- images -----------------------------------------------------------------------------------------------------------------------------


def test_marks_become_a_csv_and_a_what_if_and_stand_in_the_address(browser, folder, opened):
    page = opened.page
    rows = page.locator("#ledger .ledger tbody tr")
    assert rows.count() == 5 == page.locator("#ledger .picture, #ledger .ledger img").count(), (
        "those that no run gets right, with their pictures"
    )
    names = [rows.nth(i).locator("th").text_content().split("patient")[0] for i in (0, 1)]
    rows.nth(0).locator("select").select_option("-1")
    rows.nth(1).locator("select").select_option(label="touching")
    with page.expect_download() as waited:
        page.get_by_role("button", name="relabelling csv").click()
    lines = list(csv.DictReader(io.StringIO(Path(waited.value.path()).read_text())))
    assert {line["file"].split("/")[-1]: (line["new_label"], line["mark"]) for line in lines} == {
        names[0]: ("", "leave out"),
        names[1]: ("touching", "relabel"),
    }
    assert all(line["patient"].startswith("p") and line["label"] in fake.CLASSES for line in lines)
    said = page.locator("#what-if").text_content()
    assert "A what-if and no result" in said and "2 marked images" in said
    other = Opened(browser, folder, page.evaluate("location.hash"))
    assert "2 images marked" in other.page.locator("#ledger").text_content()
    other.page.close()


def test_an_address_that_somebody_wrote_shows_the_ledger_and_marks_nothing_that_is_not_there(browser, folder, opened):
    row = opened.page.locator("#ledger .ledger tbody tr").first
    own = row.locator("td.left").first.text_content().replace("\u200b", "")
    assert own in fake.CLASSES and own not in row.locator("select option").all_text_contents(), "an image keeps its label without a mark"
    row.locator("select").select_option("-1")
    index = int(opened.page.evaluate("[...state.marks.keys()][0]"))
    label = opened.page.evaluate("data.ledger.classes").index(own)
    words = f"ledger.kind=constructor&ledger.order=__proto__&ledger.constructor=x&marks={index}:99,99999:-1,x:0,{index}:{label}"
    other = Opened(browser, folder, f"#{words}")
    assert other.page.locator("#ledger .ledger tbody tr").count() == 5 and not other.logged
    assert "0 images marked" in other.page.locator("#ledger").text_content()
    other.page.close()


def test_keys_turn_the_pages_of_the_ledger_without_losing_their_place(opened):
    page = opened.page
    page.locator("#images").get_by_label("Images", exact=True).select_option("all")
    page.get_by_role("button", name="later", exact=True).focus()
    for key, at, left in (("Enter", "2 of", "later"), ("Enter", "3 of", "later")):
        page.keyboard.press(key)
        assert at in page.locator("#ledger p.controls").last.text_content()
        assert page.evaluate("document.activeElement.textContent") == left
    page.get_by_role("button", name="earlier", exact=True).focus()
    for left in ("earlier", "later"):
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.textContent") == left


def test_the_ledger_shows_what_one_arm_wins_over_another_by_class_and_patient(opened):
    page = opened.page
    page.locator("#images").get_by_label("Images", exact=True).select_option("wins")
    words = page.locator("#images p", has_text="gets").first.text_content()
    wins = int(words.split(" gets ")[1].split(" ")[0])
    assert page.locator("#ledger p.quiet").text_content().startswith(f"{wins} of 180 images; by class: ")
    page.locator("#images").get_by_label("class", exact=True).select_option(label="touching")
    assert set(page.locator("#ledger .ledger tbody td:nth-child(3)").all_text_contents()) == {"touching"}


# --- looks ------------------------------------------------------------------------------------------------------------------------------


def test_the_tables_are_there_without_javascript(browser, folder):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    assert page.locator("#table-5").get_by_text("did not converge").first.is_visible()
    assert page.locator("#runs-table tbody tr").count() > 30 and page.locator("#runs-table").is_visible()
    assert page.locator("table.matrix").first.is_visible()
    page.locator("#images summary").click()
    assert page.get_by_text("this is no result").is_visible()
    context.close()


LIGHT = """const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => c.startsWith('color(') ? +x : x / 255).map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
                       return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
  const plain = c => { const box = document.createElement('canvas').getContext('2d'); box.fillStyle = c; box.fillRect(0, 0, 1, 1);
                       return 'rgb(' + [...box.getImageData(0, 0, 1, 1).data].slice(0, 3).join() + ')'; };
  const apart = (a, b) => { const [x, y] = [light(plain(a)), light(plain(b))]; return (Math.max(x, y) + .05) / (Math.min(x, y) + .05); };"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_from_the_ground_in_both_themes(browser, folder, scheme):
    page = Opened(browser, folder, color_scheme=scheme).page
    ground = "getComputedStyle(document.body).backgroundColor"
    text = f"""selector => {{ {LIGHT} return Math.min(...[...document.querySelectorAll(selector)].map(e => {{
        const s = getComputedStyle(e); return apart(e.closest('svg') ? s.fill : s.color, {ground}); }})); }}"""
    for selector in ("p", "td:not([style])", "th", "a", "figcaption", "svg text", ".chip", "select"):
        assert page.evaluate(text, selector) >= 4.5, selector
    cells = f"""() => {{ {LIGHT} return Math.min(...[...document.querySelectorAll('table.matrix td[style]')].map(e => {{
        const s = getComputedStyle(e); return apart(s.color, s.backgroundColor); }})); }}"""
    assert page.evaluate(cells) >= 4.5
    marks = f"""() => {{ {LIGHT} return Math.min(...[...document.querySelectorAll('#explore circle.mark, #explore .line path:not(.wide-hit), .slot, .ours, .theirs')].map(e => {{
        const s = getComputedStyle(e); return apart(s.fill === 'none' || e.tagName === 'line' || e.closest('.line') ? s.stroke : s.fill, {ground}); }})); }}"""
    assert page.evaluate(marks) >= 3, "the worst trial too"
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_covered_or_written_over_something_else(browser, folder, width):
    page = Opened(browser, folder, viewport={"width": width, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for link in page.locator("nav a").all():
        link.click()
        page.wait_for_function("() => { const y = scrollY; return new Promise(done => setTimeout(() => done(y === scrollY), 120)); }")
        covered = page.evaluate(
            """hash => { const head = document.querySelector(hash + ' h2').getBoundingClientRect(), nav = document.querySelector('nav').getBoundingClientRect();
                       return head.top < nav.bottom && head.bottom > nav.top; }""",
            link.get_attribute("href"),
        )
        assert not covered, link.get_attribute("href")
    axes = page.evaluate(
        """['middle', 'end'].flatMap(side => [...document.querySelectorAll('.arms figure svg, #explore figure svg')]
          .map(svg => svg.querySelectorAll(`.words text[text-anchor=${side}]:not(.name)`).length).filter(Boolean))"""
    )
    assert len(axes) > 5 and min(axes) >= 3, "one or two ticks tell no scale"
    over = page.evaluate(
        """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
        const edge = svg.getBoundingClientRect(), all = [...svg.querySelectorAll('text')].filter(t => t.textContent && !svg.classList.contains('map'));
        const boxes = all.map(t => t.getBoundingClientRect()), bad = [];
        boxes.forEach((a, i) => {
          if (a.left < edge.left - 2 || a.right > edge.right + 2) bad.push(`cut: ${all[i].textContent}`);
          boxes.slice(i + 1).forEach((b, j) => {
            if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
              bad.push(`${all[i].textContent} | ${all[i + 1 + j].textContent}`);
          });
        });
        return bad.map(words => svg.getAttribute('aria-label').slice(0, 40) + ': ' + words); })"""
    )
    assert over == []
    wide = page.locator(".wide:has(table.matrix:not(.dense))").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
    assert wide and max(wide) <= 1, "a small confusion matrix fits a phone"
    page.close()


def test_on_paper_the_page_takes_no_more_than_six_sheets(opened):
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 703, "height": 1000})  # A4 within its margins
    wide = "all => all.filter(one => one.clientHeight && one.scrollWidth > one.clientWidth + 1).map(one => one.textContent.trim().slice(0, 60))"
    assert opened.page.locator(".wide").evaluate_all(wide) == [], "nothing lies on what stands beside it"
    opened.page.emulate_media(media="print")
    sheets = opened.page.pdf(format="A4").count(b"/Type /Page\n")
    assert 2 <= sheets <= 6
    assert not any(one.is_visible() for one in opened.page.locator(".further").all()), "nobody types a command off paper"
    assert opened.page.locator("#table-2 figure svg").first.is_visible() and not opened.page.locator("#explore input").is_visible()


def test_slices_and_parallel_coordinates_appear_only_with_trials_enough(browser, tmp_path):
    few = Opened(browser, made(tmp_path, trials=6))
    assert few.page.locator(PARALLEL).count() == 0 and few.page.locator(SCATTER).count() == 1
    assert few.logged == []
    few.page.close()


@pytest.mark.parametrize("keep", [[], ["failed"], ["pruned"], ["diverged", "failed"]])
def test_the_page_of_an_empty_or_a_failed_study_opens_without_a_fault(browser, tmp_path, keep):
    asked, records = fake.study_and_records()
    analysis.write_report(fake.write(tmp_path, asked, [r for r in records if r["status"] in keep]))
    page = Opened(browser, tmp_path)
    assert page.logged == [] and "No answer yet" in page.page.locator("#answer").text_content()
    assert page.page.locator(".standing").bounding_box()["y"] < page.page.locator("h1").bounding_box()["y"]
    assert page.page.locator("#table-2 .arm").count() == 12
    page.page.close()


def test_a_study_at_work_is_looked_at_again_and_what_is_chosen_stays(browser, tmp_path):
    asked, records = fake.study_and_records()
    analysis.write_report(fake.write(tmp_path, asked, records[:20]), figures="light")
    page = browser.new_page()
    page.clock.install()
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("#runs-table tbody tr").nth(2).click()
    page.mouse.move(2, 2)
    hash_ = page.evaluate("location.hash")
    analysis.write_report(fake.write(tmp_path, asked, records[:25]), figures="light")
    assert page.locator("#runs-table tbody tr").count() == 20
    with page.expect_navigation():
        page.clock.fast_forward(91_000)
    assert page.locator("#runs-table tbody tr").count() == 25
    assert page.evaluate("location.hash") == hash_ and page.locator("tr[aria-selected='true']").count() == 1
    page.close()


def test_a_figure_is_saved_as_an_svg_file_that_opens_on_its_own(browser, opened, tmp_path):
    with opened.page.expect_download() as waited:
        opened.page.locator("#table-2 figcaption button").first.click()
    waited.value.save_as(tmp_path / "figure.svg")
    page = browser.new_page()
    page.goto((tmp_path / "figure.svg").as_uri())
    assert page.locator("text", has_text="gain over Training from scratch, points").count() == 1
    assert page.evaluate("document.documentElement.getBoundingClientRect().width") > 100
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_name_of_any_length_and_direction_fits_the_page_and_turns_nothing_beside_it(browser, tmp_path, width):
    asked, records = fake.study_and_records(seeds=2, trials=0)
    names = ["A" * 300, "many words " * 28, "\u05e9\u05dc\u05d5\u05dd (2) x", "\u0627\u0644\u0639"]
    for arm, name in zip(asked["tables"][0]["arms"], names, strict=False):
        arm["name"] = name
    asked["tables"][0]["baseline_arm"] = names[0]
    asked["data"]["classes"] = ["C" * 300, names[2], *asked["data"]["classes"][2:]]
    fake.write(tmp_path, asked, records)
    fake.leave(tmp_path, asked, records)
    analysis.write_report(tmp_path)
    page = Opened(browser, tmp_path, viewport={"width": width, "height": 900}).page
    page.eval_on_selector_all("details", "all => all.forEach(one => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(f"#table-2 tbody th bdi[title='{names[0]}']").first.text_content() == "A" * 40 + "…" + "A" * 39
    assert page.locator("#table-2 tbody th bdi", has_text=names[2]).count() > 1
    assert page.eval_on_selector("#table-2 svg .arm text", "text => getComputedStyle(text).unicodeBidi") == "plaintext"
    assert f"\u2068{names[2][:4]}" in page.locator("#table-2 .claims").text_content()
    page.close()


def test_a_table_that_does_not_fit_a_phone_is_shaded_at_the_edge_where_it_goes_on(browser, folder):
    page = Opened(browser, folder, viewport={"width": 390, "height": 900}).page
    table = page.locator("#table-2 .wide").first
    assert table.evaluate("one => one.scrollWidth > one.clientWidth")

    def shade() -> int:
        """How much darker the right edge is than the paper, at its middle pixel by brightness."""
        image = Image.open(io.BytesIO(table.screenshot())).convert("L")
        return 254 - sorted(image.getpixel((image.width - 2, y)) for y in range(image.height))[image.height // 2]

    assert shade() > 25
    table.evaluate("one => one.scrollTo(1e4, 0)")
    assert shade() < 5
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
    opened.page.locator("#table-2 figure .arm").first.hover(force=True)
    opened.page.locator("#runs-table tbody tr").first.click()
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.hurt") is None
    assert opened.page.locator("script").count() == 2
    assert opened.logged == []
    assert opened.asked == [(tmp_path / "report.html").as_uri()]
    assert EVIL in opened.page.locator("h1").text_content()
    opened.page.close()
