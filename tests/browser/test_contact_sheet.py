"""The page of `data check` in a real browser: nothing of it is cut off on a phone."""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.data_commands import check

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]
LONG = "touching_overlapping_in_a_class_name_without_any_space"


@pytest.fixture
def page() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


@pytest.mark.parametrize("width", [390, 1200])
def test_no_word_and_no_image_of_the_page_is_cut_off(tmp_path, page, width):
    draw = np.random.default_rng(0)
    for name in ("1", LONG):
        for i in range(5):
            gray = np.full((60, 60 + i), 255, np.uint8)
            gray[10:40, 12 : 30 + i] = draw.integers(30, 150, (30, 18 + i))
            path = tmp_path / "set" / name / f"20241127_slide_{i:04d}_metaphase_{i:06d}_{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(gray).save(path)
    check(tmp_path / "set", out=lambda _: None, html=tmp_path / "page.html")
    page.set_viewport_size({"width": width, "height": 844})
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert (
        page.evaluate("[...document.querySelectorAll('body *')].filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1).length")
        == 0
    )
    tops = page.evaluate(
        "[...document.querySelectorAll('figure')].map(f => [...f.querySelectorAll('img')].map(i => i.getBoundingClientRect().top))"
    )
    assert tops and all(len(pair) == 2 and pair[0] == pair[1] for pair in tops)  # what was read stands beside the image
