"""The page in a real, headless Chromium: it opens fast, asks for nothing, draws and prints its
charts, sorts, filters, fits a phone, runs no name as code.
"""

import itertools
import re
import shutil
import time

import numpy as np
import pytest

from stillrobust.grid import COMMON, Cell
from stillrobust.report import report
from stillrobust.storage.store import Run, Store

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
CLASSES = (HOSTILE, *(f"class {number}" for number in range(1, 30)))
MODELS = 100

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api",
        reason="no playwright to drive a browser with: pip install playwright",
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """100 models × 76 cells."""
    folder = tmp_path_factory.mktemp("page")
    store = Store(folder / "store")
    for index in range(MODELS):
        name, backbone = f"run-{index:03}", HOSTILE if index == 7 else f"model_{index:03}"
        store.write_run(
            Run(name, "classification", backbone, "full_network", "toy", {"seed": 0}, CLASSES)
        )
        for place in [("clean", 0), *((c, s) for c in COMMON for s in range(1, 6))]:
            value = (0.9 - 0.001 * index) * (1 - 0.1 * place[1] * (0.5 + index % 10 / 20))
            examples = {
                "images": np.full((2, 8, 8, 3), 9, np.uint8),
                "image_ids": np.array([HOSTILE, "other.png"]),
                "label": np.array([0, 1]),
                "predicted": np.array([int(place[0] == "fog" and index == 1), 1]),
                "score": np.array([0.9, 0.9]),
            }
            label = np.arange(60) % len(CLASSES)
            ids = np.array([f"{image}.png" for image in range(60)])
            right = np.ones(60, bool) if not place[1] else label % 5 != index
            counted = {
                "image_ids": ids,
                "correct": right,
                "label": label,
                "confidence": 0.9 * np.ones(60),
                "classes": np.array(30),
            }
            kept = examples if index < 2 and place[1] in (0, 3) else None
            statistics = counted if index < 2 else {}
            store.write_cell(
                Cell(name, *place), "k", {"top1": value}, {"seed": 0}, 60, 1.0, statistics, kept
            )
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
    asked = [url for url in asked if not url.startswith(("data:", "blob:"))]  # of the page itself
    assert asked == [made.as_uri()]
    assert page.title() == "Is it still robust?"  # no name ran as code
    page.close()


def column(page, number):
    """Column 1 has the model, 2 the clean score: what all rows share is in the title."""
    cells = f"#runs tbody tr:not([hidden]) > :nth-child({number})"
    return page.eval_on_selector_all(cells, "cells => cells.map(cell => cell.textContent)")


def labelled(inside, title):
    """The list that a label of this title holds; its options are part of the label's text."""
    return inside.locator("label", has_text=re.compile(f"^{title} ")).locator("select")


def test_opens_fast_and_never_scrolls_sideways(opened, made):
    assert opened.seconds < 2
    assert made.stat().st_size < 6_000_000
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def drawn(page, place="main"):
    """Wait for the first chart of a part of the page, and return its figure."""
    figure = page.locator(f"{place} figure.chart").first
    figure.scroll_into_view_if_needed()
    figure.locator(".main-svg").first.wait_for()
    return figure


VISIBLE = "plot => plot._fullData.filter(trace => trace.visible === true).length"


def test_the_answer_and_its_chart_are_first(opened):
    text = opened.locator("h1").text_content()
    assert text.startswith("model_0"), text
    figure = drawn(opened, "header")
    assert figure.bounding_box()["y"] < 1200
    names = figure.locator(".annotation-text").all_text_contents()
    assert len(names) == 2 * 12, "a name and a note for each bar"


def test_the_legend_toggles_both_charts(opened):
    figure = drawn(opened)
    group = opened.locator("main .chart-group").first
    other = group.locator("figure.chart").nth(1)
    other.scroll_into_view_if_needed()
    other.locator(".main-svg").first.wait_for()
    plots = [one.locator(".plot") for one in (figure, other)]
    before = [plot.evaluate(VISIBLE) for plot in plots]
    assert before == [8, 9], "the best and the worst, and the line of no drop"
    button = group.locator("[data-series]").first
    assert button.get_attribute("aria-pressed") == "true"
    button.focus()
    opened.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert [plot.evaluate(VISIBLE) for plot in plots] == [7, 8]
    group.get_by_role("button", name="Show all").click()
    assert plots[0].evaluate(VISIBLE) == MODELS


def test_the_search_holds_for_charts(opened):
    plot = drawn(opened).locator(".plot")
    first = opened.locator("main .legend [data-run]").first.text_content()
    opened.fill("#search", first)
    assert plot.evaluate(VISIBLE) == 1
    opened.locator("button[type=reset]").click()
    opened.locator("output", has_text="100 of 100 rows").wait_for()
    assert plot.evaluate(VISIBLE) == 8


def test_charts_have_hover_values_and_are_saved(opened):
    figure = drawn(opened)
    hover = figure.locator(".plot").evaluate("plot => plot.data[0].hovertext")
    assert re.fullmatch(r"<b>model_\d+</b><br>clean: [\d.]+ %", hover[0])
    for name, begin in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
        with opened.expect_download() as download:
            figure.get_by_role("button", name=f"Save as {name}").click()
        path = download.value.path()
        assert path.read_bytes().startswith(begin)
        assert download.value.suggested_filename.endswith(name.lower())


def test_charts_follow_dark_mode_and_print_light(opened):
    plot = drawn(opened, "header").locator(".plot")
    colour = "plot => plot._fullData[1].marker.color"
    dark = plot.evaluate(colour)
    opened.emulate_media(color_scheme="light")
    light = plot.evaluate(colour)
    assert light != dark
    opened.emulate_media(color_scheme="dark")
    assert plot.evaluate(colour) == dark
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert plot.evaluate(colour) == light
    assert opened.locator("figure.chart:not(:has(.main-svg))").count() == 0, "all are drawn"
    opened.emulate_media(media="print")
    widths = "all => all.map(one => one.getBoundingClientRect().width)"
    assert max(opened.eval_on_selector_all(".main-svg", widths)) <= 700
    assert not opened.locator("nav").is_visible()
    assert (
        opened.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    opened.emulate_media(media="screen")
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert plot.evaluate(colour) == dark


def test_links_of_the_contents_bring_their_section_into_view(opened):
    links = opened.locator("nav a")
    assert links.count() == 7
    for index in range(links.count()):
        link = links.nth(index)
        heading = opened.locator(link.get_attribute("href"))
        link.click()
        place = heading.bounding_box()["y"]
        assert 0 <= place <= opened.viewport_size["height"], link.text_content()


def test_wide_screens_are_used(browser, made):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(made.as_uri(), wait_until="load")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for place in ("#runs", "table.heat", "main .charts", "header.answer"):
        box = page.locator(place).first.bounding_box()
        assert box["width"] > 0.9 * 1440, place
        assert box["x"] + box["width"] <= 1440, place
    page.close()


def test_sorts_by_keyboard_and_says_so(opened):
    if opened.viewport_size["width"] < 640:  # a card has no heads
        assert not opened.locator("#runs thead").is_visible()
        opened.get_by_label("Sort by").first.select_option(label="Clean ↓")
        scores = [float(text) for text in column(opened, 2)]
        assert scores == sorted(scores, reverse=True)
        return
    button = opened.locator("#runs th button", has_text="Clean")
    button.focus()
    opened.keyboard.press("Enter")
    scores = [float(text) for text in column(opened, 2)]
    assert scores == sorted(scores)
    assert opened.locator("#runs th", has_text="Clean").get_attribute("aria-sort") == "ascending"
    opened.keyboard.press("Enter")
    assert (
        [float(text) for text in column(opened, 2)] == scores[::-1] == sorted(scores, reverse=True)
    )
    assert opened.locator("#runs th", has_text="Clean").get_attribute("aria-sort") == "descending"


def test_search_and_filter_hold_for_every_figure(opened):
    opened.fill("#search", "model_01")
    assert sorted(column(opened, 1)) == [f"model_01{digit}" for digit in range(10)]
    assert opened.locator("output").first.text_content() == "10 of 100 rows"
    assert opened.locator("table.heat tbody:not([hidden]) tr[data-run]:not([hidden])").count() == 10
    assert opened.locator("main .legend button[data-run]:not([hidden])").count() == 10
    opened.locator("button[type=reset]").click()
    opened.locator("[data-filter=backbone]").select_option("model_042")
    assert column(opened, 1) == ["model_042"]
    opened.locator("button[type=reset]").click()
    opened.locator("output", has_text="100 of 100 rows").wait_for()


def test_one_severity_at_a_time(opened):
    heat = opened.locator("table.heat").first
    assert heat.locator("tbody:visible").count() == 1
    labelled(opened, "Show").first.select_option(label="severity 5")
    assert heat.locator("tbody:visible").get_attribute("data-block") == "severity 5"


def test_hostile_name_is_shown_as_it_is(opened):
    assert HOSTILE in column(opened, 1)
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"


def test_steps_through_the_worst_changes_of_two_models(opened):
    assert opened.locator(".step:visible").count() == 1
    assert opened.locator(".step .model:visible").count() == 2
    told = opened.locator(".filters output", has_text="largest change first")
    assert told.text_content().startswith("1 of 30")
    assert "fog" in opened.locator(".step:visible figcaption").text_content()
    opened.get_by_role("button", name="Next").press("Enter")
    assert told.text_content().startswith("2 of 30")
    opened.get_by_role("button", name="Previous").press("Enter")
    assert told.text_content().startswith("1 of 30")
    opened.get_by_label("Second model").select_option(index=0)  # the same model twice is one
    assert opened.locator(".step .model:visible").count() == 1


def test_the_gallery_can_be_narrowed(opened):
    form = opened.locator("form", has=opened.get_by_role("button", name="Next"))
    told = form.locator("output")
    opened.get_by_label("Only changed predictions").check()
    assert told.text_content().startswith("1 of 1,")
    labelled(form, "Corruption").select_option("snow 3")
    assert told.text_content() == "No match; relax the filters"
    assert opened.locator(".step:visible").count() == 0
    opened.get_by_label("Only changed predictions").uncheck()
    assert told.text_content().startswith("1 of 2,")
    labelled(form, "Class").select_option("class 1")
    assert told.text_content().startswith("1 of 1,")
    assert "other.png" in opened.locator(".step:visible figcaption").text_content()


def test_every_class_can_be_found(opened):
    table = opened.locator(".classes table")
    heads = table.locator(".heads th")
    assert heads.count() == 1 + 20
    opened.get_by_label("Find a class").fill("CLASS 29")
    assert heads.count() == 1 + 1
    assert table.locator("tbody tr[data-run]").first.locator("td").all_text_contents() == ["0"]
    opened.get_by_role("button", name="Show all 30").click()
    assert heads.count() == 1 + 30
    assert HOSTILE in heads.nth(1).text_content() + "".join(heads.all_text_contents())
    opened.get_by_label("Find a class").fill("")
    assert heads.count() == 1 + 20
    assert opened.locator(".classes output").text_content() == "20 of 30 classes"


def test_a_phone_has_cards_and_nothing_to_push_sideways(opened):
    wide = opened.viewport_size["width"] > 640
    shown = opened.eval_on_selector("#runs tbody tr", "row => getComputedStyle(row).display")
    assert shown == ("table-row" if wide else "grid")
    frames = ".scroll:has(#runs), .scroll:has(table.heat), .scroll:has(table.cards)"
    pushed = opened.eval_on_selector_all(
        frames, "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    )
    assert wide or pushed == 0
    if not wide:
        assert (
            opened.eval_on_selector(
                "#runs td", "cell => getComputedStyle(cell, '::before').content"
            )
            == '"Clean"'
        )
        assert opened.locator("#runs").get_attribute("role") == "table"


def test_what_a_screen_reader_needs(opened):
    """Names, heads, live regions, landmarks; the rest of what it hears is text."""
    controls = "button, select, input, a[href], [tabindex='0']"
    named = """all => all.filter(one =>
        one.offsetParent !== null && !(one.labels && one.labels.length) &&
        !one.getAttribute('aria-label') && !one.textContent.trim()
    ).map(one => one.outerHTML)"""
    assert opened.eval_on_selector_all(controls, named) == []
    assert opened.locator("th:not([scope])").count() == 0
    assert opened.eval_on_selector_all(
        "table.numbers, table.heat, table.gallery", "all => all.every(one => one.caption)"
    )
    assert opened.locator(".tile:not([aria-hidden])").count() == 0
    assert opened.locator(".plot:not([role=img][aria-label][tabindex='0'])").count() == 0
    assert opened.locator("figure.chart:not(:has(details table caption))").count() == 0
    # each is a live region by its nature: role status
    assert opened.eval_on_selector_all("output", "all => all.length > 2")
    assert (
        opened.locator("html[lang]").count()
        == opened.locator("main").count()
        == opened.locator("h1").count()
        == 1
    )
    levels = opened.eval_on_selector_all(
        "h1, h2, h3", "all => all.map(one => Number(one.tagName[1]))"
    )
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert opened.locator("section:not([aria-labelledby])").count() == 0
    table = opened.locator("#runs").aria_snapshot()
    assert "rowheader" in table
    assert opened.viewport_size["width"] < 640 or "columnheader" in table


def test_the_focus_goes_down_the_page_and_is_seen(opened):
    before = """one => { window.last = window.last || document.body;
        const active = document.activeElement;
        const order = window.last.compareDocumentPosition(active); window.last = active;
        const style = getComputedStyle(active);
        return [(order & 4) > 0 || (order & 16) > 0, style.outlineStyle,
            parseFloat(style.outlineWidth), active.tabIndex]; }"""
    for _ in range(40):
        opened.keyboard.press("Tab")
        onward, style, width, index = opened.evaluate(before, None)
        assert (onward, style, index) == (True, "solid", 0)
        assert width >= 2


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !one.getClientRects().length) continue;
    if (one.closest("script, option, title, .plot")) continue;
    const style = getComputedStyle(one);
    const paint = parse(style.color);
    seen += 1;
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const found = ratio(paint, behind(one));
    const text = walker.currentNode.data.slice(0, 30);
    if (found < (large ? 3 : 4.5)) poor.push([found.toFixed(2), one.tagName, one.className, text]);
  }
  for (const one of document.querySelectorAll("input, select")) {
    const style = getComputedStyle(one);
    const edge = parse(style.borderTopColor);
    if (one.getClientRects().length && ratio(edge, behind(one.parentElement)) < 3)
      poor.push(["edge", one.outerHTML.slice(0, 60)]);
  }
  return [seen, poor.slice(0, 9)];
}"""


VARIABLE_CONTRAST = """name => {
  const light = (name) => {
    const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const [x, y] = [light(name), light("--paper")].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_everything_that_is_seen(opened, scheme):
    """WCAG 2.2: 4.5 : 1 for text, 3 : 1 for large text and for the edges of controls
    (1.4.3, 1.4.11), as computed. Series and text of charts: the style variables.
    """
    opened.emulate_media(color_scheme=scheme)
    seen, poor = opened.evaluate(CONTRAST)
    assert seen > 1000
    assert poor == []
    for name, least in [("soft", 4.5), ("ink", 4.5), *((f"series-{n}", 3) for n in range(1, 7))]:
        found = opened.evaluate(VARIABLE_CONTRAST, f"--{name}")
        assert found >= least, (name, found)
