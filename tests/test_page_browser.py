"""The page in a real, headless Chromium: it opens fast, asks for nothing, sorts, filters, fits a phone, runs no name as code."""

import shutil
import time

import numpy as np
import pytest

from stillrobust.report import report
from stillrobust.robustness import COMMON
from stillrobust.store import Cell, Run, Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
MODELS = 100

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive a browser with: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """100 models × 76 cells."""
    folder = tmp_path_factory.mktemp("page")
    store = Store(folder / "store")
    for index in range(MODELS):
        name, backbone = f"run-{index:03}", HOSTILE if index == 7 else f"model_{index:03}"
        store.write_run(Run(name, "classification", backbone, "full_network", "toy", {"seed": 0}, (HOSTILE, "b")))
        for place in [("clean", 0), *((c, s) for c in COMMON for s in range(1, 6))]:
            value = (0.9 - 0.001 * index) * (1 - 0.1 * place[1] * (0.5 + index % 10 / 20))
            examples = {
                "images": np.full((1, 8, 8, 3), 9, np.uint8),
                "image_ids": np.array([HOSTILE]),
                "label": np.array([0]),
                "predicted": np.array([0]),
                "score": np.array([0.9]),
            }
            kept = examples if index < 2 and place[1] in (0, 3) else None
            store.write_cell(Cell(name, *place), "k", {"top1": value}, {"seed": 0}, 4, 1.0, {}, kept)
    return report(folder / "store", folder / "out", replicates=0)


@pytest.fixture(params=[1280, 390], ids=["desktop", "phone"])
def opened(browser, made, request):
    asked, errors = [], []
    page = browser.new_page(viewport={"width": request.param, "height": 844}, color_scheme="dark")
    page.set_default_timeout(10_000)
    page.on("request", lambda one: asked.append(one.url))
    page.on("pageerror", lambda one: errors.append(str(one)))
    page.on("console", lambda one: errors.append(one.text))
    start = time.monotonic()
    page.goto(made.as_uri(), wait_until="load")
    page.seconds = time.monotonic() - start
    yield page
    assert errors == []
    assert [url for url in asked if not url.startswith("data:")] == [made.as_uri()]
    assert page.title() == "Is it still robust?"  # no name ran as code
    page.close()


def column(page, number):
    cells = f"#runs tbody tr:not([hidden]) > :nth-child({number})"
    return page.eval_on_selector_all(cells, "cells => cells.map(cell => cell.textContent)")


def test_opens_fast_and_never_scrolls_sideways(opened, made):
    assert opened.seconds < 2
    assert made.stat().st_size < 8_000_000
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_sorts_by_keyboard_and_says_so(opened):
    button = opened.locator("#runs th button", has_text="Clean")
    button.focus()
    opened.keyboard.press("Enter")
    scores = [float(text) for text in column(opened, 5)]
    assert scores == sorted(scores)
    assert opened.locator("#runs th", has_text="Clean").get_attribute("aria-sort") == "ascending"
    opened.keyboard.press("Enter")
    assert [float(text) for text in column(opened, 5)] == scores[::-1] == sorted(scores, reverse=True)
    assert opened.locator("#runs th", has_text="Clean").get_attribute("aria-sort") == "descending"


def test_search_and_filter_hold_for_every_figure(opened):
    opened.fill("#search", "model_01")
    assert sorted(column(opened, 2)) == [f"model_01{digit}" for digit in range(10)]
    assert opened.locator("output").first.text_content() == "10 of 100 lines"
    assert opened.locator("table.heat tbody:not([hidden]) tr[data-run]:not([hidden])").count() == 10
    opened.locator("button[type=reset]").click()
    opened.locator("[data-filter=backbone]").select_option("model_042")
    assert column(opened, 2) == ["model_042"]
    opened.locator("button[type=reset]").click()
    opened.locator("output", has_text="100 of 100 lines").wait_for()


def test_one_severity_at_a_time(opened):
    heat = opened.locator("table.heat").first
    assert heat.locator("tbody:visible").count() == 1
    opened.locator(".choose select").first.select_option(label="severity 5")
    assert heat.locator("tbody:visible").get_attribute("data-block") == "severity 5"


def test_hostile_name_is_shown_as_it_is(opened):
    assert HOSTILE in column(opened, 2)
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"


def test_steps_through_the_worst_changes_of_two_models(opened):
    assert opened.locator(".step:visible").count() == 1
    assert opened.locator(".step .model:visible").count() == 2
    told = opened.locator(".filters output", has_text="the worst change first")
    assert told.text_content().startswith("1 of 12")
    opened.get_by_role("button", name="Next").press("Enter")
    assert told.text_content().startswith("2 of 12")
    opened.get_by_role("button", name="Previous").press("Enter")
    assert told.text_content().startswith("1 of 12")
    opened.locator(".choose select").last.select_option(index=0)  # the same model twice is one
    assert opened.locator(".step .model:visible").count() == 1
