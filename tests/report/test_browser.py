"""The page in a real browser, from disk: what a person picks, filters, compares and copies, and what must not run."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from diffsweep.metric.settings import settings
from diffsweep.report import write
from diffsweep.report.command import command
from diffsweep.report.embed import embedded
from diffsweep.report.write import standalone_page, write_all
from diffsweep.store.cells import Store
from tests.rewriting import rewrite

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
EVIL = "\"><img src=x onerror=window.ran=1><script>window.ran=1<'script> 'q' & {{ 7*7 }} \u2028 it's"
MARKUP = "<svg onload=window.ran=1>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path; this test installs none"),
]

Made = Callable[..., Any]
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=60_000)  # ms; a machine that does other things is not a fault of the page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens a report from disk. Whatever a test does, the page logs no error and asks for files and data alone."""
    troubles: list[str] = []
    contexts = []

    def open_(file: Path, place: str = "", **look: Any) -> Page:
        context = browser.new_context(viewport={"width": 1300, "height": 850}, **look)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda told: troubles.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda asked: None if asked.url[:5] in ("file:", "data:") else troubles.append(asked.url))
        page.goto(f"{file.as_uri()}#{place}")
        expect(page.locator("[role=tab][aria-selected=true]")).to_have_count(1)
        expect(page.locator("#count")).not_to_be_empty()  # drawn
        return page

    yield open_
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def made_page(made: Made, opened: Opened) -> Callable[..., Page]:
    """The small sweep's: scales 1 and 7 by seeds 0, 1 and 2; the last cell failed, the one before is exact."""
    store, sweep = made()
    file = write_all(store, sweep).folder / "report.html"
    return lambda place="", **look: opened(file, place, **look)


def shown(page: Page) -> list[int]:
    """The cells in view's order."""
    return [int(str(tile.get_attribute("data-i"))) for tile in page.locator(".tile").all()]


def tile(page: Page, i: int) -> Locator:
    return page.locator(f'.tile[data-i="{i}"]')


def test_any_axes_make_rows_and_columns(made_page: Callable[..., Page]) -> None:
    page = made_page()
    headers = page.locator("[role=rowheader]")
    assert (headers.all_inner_texts(), shown(page)) == (["1", "7"], [0, 1, 2, 3, 4, 5])
    page.get_by_label("rows", exact=True).select_option("seed")
    assert (headers.all_inner_texts(), shown(page)) == (["0", "1", "2"], [0, 3, 1, 4, 2, 5])
    expect(page.get_by_label("columns", exact=True)).to_have_value("guidance.scale")
    assert page.locator("[role=columnheader]").all_inner_texts()[1:] == ["1", "7"]
    page.get_by_label("columns", exact=True).select_option("none")
    assert page.locator("h3").all_inner_texts() == ["seed = 0", "seed = 1", "seed = 2"]
    page.get_by_label("rows", exact=True).select_option("none")
    assert shown(page) == [0, 1, 2, 3, 4, 5] and headers.count() == 0


def test_filters_by_axis_word_and_metric(made_page: Callable[..., Page]) -> None:
    page = made_page()
    page.locator('select[data-axis="guidance.scale"]').select_option("7")
    assert shown(page) == [3, 4, 5]
    page.get_by_label("filter").fill("SEED=1")
    assert shown(page) == [4]
    page.get_by_role("button", name="reset").click()
    assert shown(page) == [0, 1, 2, 3, 4, 5]
    page.get_by_label("least of the metric").fill("22")
    assert shown(page) == [1, 2, 3, 4]  # an exact picture is above any number, a failed one has none
    page.get_by_label("most of the metric").fill("27")
    assert shown(page) == [1, 2]
    page.get_by_label("metric", exact=True).select_option("error")
    page.get_by_label("most of the metric").fill("0.25")
    assert shown(page) == [1, 2, 4]
    page.get_by_label("filter").fill("nothing has this")
    expect(page.locator("#pictures")).to_contain_text("No cell is left")


def test_pictures_grow_and_keep_their_pixels(made_page: Callable[..., Page]) -> None:
    page = made_page()
    image = tile(page, 0).locator("img")
    page.get_by_label("size", exact=True).fill("200")
    assert image.evaluate("i => [i.width, i.height]") == [200, 200]
    assert image.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"


def test_sorts_by_a_metric_in_its_direction(made_page: Callable[..., Page]) -> None:
    page = made_page()
    page.get_by_label("order", exact=True).select_option("best first")
    assert shown(page) == [4, 3, 2, 1, 0, 5]  # exact, 30, 27, 22, 20, failed
    page.get_by_label("metric", exact=True).select_option("error")
    assert shown(page) == [1, 2, 4, 0, 3, 5]  # lower is better
    page.get_by_label("order", exact=True).select_option("worst first")
    assert shown(page) == [3, 0, 4, 2, 1, 5]


def test_hovering_tells_settings_and_numbers(made_page: Callable[..., Page]) -> None:
    page = made_page()
    tile(page, 1).hover()
    card = page.locator("#card")
    expect(card).to_be_visible()
    facts = dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))
    wanted = {
        "guidance.scale": "1",
        "seed": "1",
        "psnr ↑": "22.00",
        "error ↓": "0.100",
        "nfe": "10",
        "seconds": "0.500",
    }
    assert facts == wanted | {"cell": f"{1:020x}"}
    tile(page, 5).hover()
    expect(card).to_contain_text("ValueError: <broken>")


def test_the_panel_has_the_prompt_and_the_whole_configuration(made: Made, opened: Opened) -> None:
    store, sweep = made()
    for i, cell in enumerate(sweep["cells"][:5]):
        config = {"seed": cell["seed"], "prompt": "a dog", "technique": {"name": "inpaint", "strength": i % 2}}
        rewrite(store, cell["cell_id"], config=config)
    page = opened(write_all(store, sweep).folder / "report.html", "pick=0,1")
    panel = page.locator("#panel")
    expect(panel.get_by_role("row", name="prompt a dog a dog")).to_be_visible()
    panel.get_by_text("the rest of the configuration").click()
    expect(panel.get_by_role("row", name="technique.strength 0 1")).to_have_class("differs")
    expect(panel.get_by_role("row", name="technique.name inpaint inpaint")).to_be_visible()


def test_two_pictures_are_compared(made_page: Callable[..., Page]) -> None:
    """Cell i is of one colour, (20 scale, 50 seed, 90): the difference of two can be worked out."""
    page = made_page()
    tile(page, 0).click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("Pick a second picture")
    tile(page, 1).click()
    sources = [str(image.get_attribute("src")) for image in panel.locator("img").all()]
    assert sources == [f"../../cells/00/{i:020x}/image.png" for i in (0, 1)]
    assert panel.locator("tr.differs td:first-child").all_inner_texts() == ["seed"]
    expect(panel.locator("tr", has_text="psnr")).to_contain_text("+2.00")

    panel.get_by_role("button", name="wipe").click()
    slider = panel.get_by_label("how much of A is shown")
    for at in (25, 75):
        slider.fill(str(at))
        pixels = picture(panel.locator(".frame"))
        across = [tuple(pixels[len(pixels) // 2, int(pixels.shape[1] * x)]) for x in (0.1, 0.5, 0.9)]
        assert across == [(20, 0, 90), (20, 50, 90) if at == 25 else (20, 0, 90), (20, 50, 90)]

    panel.get_by_role("button", name="difference").click()
    assert tuple(picture(panel.locator(".frame"))[50, 50]) == (0, 4 * 50, 0)
    panel.locator(".frame + label input").fill("1")
    assert tuple(picture(panel.locator(".frame"))[50, 50]) == (0, 50, 0)
    tile(page, 1).click()
    expect(panel.locator("tr.differs")).to_have_count(0)
    panel.get_by_role("button", name="close").click()
    expect(panel).to_be_hidden()


def picture(element: Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB"))


@pytest.fixture
def alone(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small sweep's page with its pictures in it, in a folder of its own; what it was made from is gone."""
    store, sweep = made()
    file = tmp_path_factory.mktemp("alone") / "mailed.html"
    file.write_text(standalone_page(store, sweep, write_all(store, sweep)))
    shutil.rmtree(store.root)
    return file


def test_a_page_that_was_mailed_shows_and_compares_its_pictures(alone: Path, opened: Opened) -> None:
    page = opened(alone, "tab=cells")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.locator("#all img")).to_have_count(5)
    seen(page)
    page.get_by_role("tab", name="About").click()
    for sheet in page.locator("img.sheet").all():
        sheet.scroll_into_view_if_needed()
    seen(page)
    page.get_by_role("tab", name="Pictures").click()
    expect(page.locator(".tile img[src]")).to_have_count(5)
    seen(page)
    for i in (0, 1):
        tile(page, i).click()
    panel = page.locator("#panel")
    panel.get_by_role("button", name="wipe").click()
    pixels = picture(panel.locator(".frame"))
    across = [tuple(pixels[len(pixels) // 2, int(pixels.shape[1] * x)]) for x in (0.1, 0.9)]
    assert across == [(20, 0, 90), (20, 50, 90)]
    panel.get_by_role("button", name="difference").click()
    assert tuple(picture(panel.locator(".frame"))[50, 50]) == (0, 4 * 50, 0)
    assert not [url for url in asked if not url.startswith("data:")]


def seen(page: Page) -> None:
    """Every picture that has an address is shown."""
    page.wait_for_function("[...document.images].every((i) => !i.hasAttribute('src') || i.naturalWidth)")


def test_a_page_in_the_frame_of_another_shows_its_pictures(alone: Path, browser: Browser) -> None:
    """As services show it that hold a page of somebody's: with scripts, and without an origin or an address."""
    text = alone.read_text().replace("&", "&amp;").replace('"', "&quot;")
    page = browser.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.set_content(f'<iframe sandbox="allow-scripts" srcdoc="{text}" width="1300" height="850"></iframe>')
    frame = page.frame_locator("iframe")
    expect(frame.locator(".tile img[src]")).to_have_count(5)
    for i in (0, 1):
        frame.locator(f'.tile[data-i="{i}"]').click()
    expect(frame.locator("#panel img").nth(1)).to_have_js_property("naturalWidth", 8)
    page.wait_for_timeout(400)  # longer than the page waits before it writes its address
    assert troubles == []
    page.close()


def test_what_is_left_out_is_told_where_it_would_be(
    made: Made, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, sweep = made()
    report = write_all(store, sweep)
    monkeypatch.setattr(write, "embedded", lambda *given: replace(embedded(*given), uris=[], at={}, left_out=["all"]))
    file = report.folder / "report_whole.html"
    file.write_text(standalone_page(store, sweep, report))
    page = opened(file, "pick=0,1")
    expect(page.locator("header")).to_contain_text("Left out of this file, which holds at most 25 MB of pictures: all.")
    expect(tile(page, 0)).to_contain_text("not in this file")
    expect(page.locator("#panel .gone")).to_have_text(["not in this file"] * 2)
    expect(page.locator("#panel pre")).to_have_count(2)
    page.get_by_role("tab", name="Cells").click()
    expect(page.locator("#all .tabulator-row")).to_have_count(6)
    page.get_by_role("tab", name="About").click()
    page.locator("img.sheet").first.scroll_into_view_if_needed()
    expect(page.locator("img.sheet").first).not_to_have_js_property("naturalWidth", 0)


def test_all_of_a_cells_pictures_are_within_reach(made: Made, opened: Opened) -> None:
    store, sweep = made()
    first, second = (cell["cell_id"] for cell in sweep["cells"][:2])
    red = np.full((8, 8, 3), (200, 0, 0), np.uint8)
    record = store.record(first)
    shutil.rmtree(store.folder(first))
    store.save(first, {"image": red, "input": red, "view_0": red}, {**record, "facts": {"base": second}})
    page = opened(write_all(store, sweep).folder / "report.html", "pick=0")
    chooser = page.locator("#panel").get_by_label("picture A")
    assert sorted(chooser.locator("option").all_inner_texts()) == ["before enlarging", "image", "input", "view_0"]
    chooser.select_option("before enlarging")
    large = page.locator("#panel .one img")
    assert large.get_attribute("src") == f"../../cells/00/{second}/image.png"
    page.locator("#panel").get_by_role("button", name="view_0").click()
    assert large.get_attribute("src") == f"../../cells/00/{first}/view_0.png"


def test_the_commands_are_those_of_the_cells(made: Made, opened: Opened, browser: Browser) -> None:
    store, sweep = made(command="diffsweep -m +sweeps=made seed=0,1,2 'prompt=\"a, b\"'")
    page = opened(write_all(store, sweep).folder / "report.html", "pick=3")
    wanted = [command(sweep, cell["axes"]) for cell in sweep["cells"]]
    assert page.evaluate("data.ids.map((_, i) => commandOf(i))") == wanted
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.locator("#panel pre")).to_have_text(wanted[3])
    page.locator("#panel").get_by_role("button", name="copy").click()
    expect(page.locator("#panel").get_by_role("button", name="copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == wanted[3]


def test_the_keyboard_suffices(made_page: Callable[..., Page]) -> None:
    page = made_page()
    page.locator("main").focus()
    page.keyboard.press("ArrowRight")
    expect(tile(page, 0)).to_be_focused()
    expect(page.locator("#card")).to_be_visible()
    for key, i in (("ArrowRight", 1), ("ArrowDown", 4), ("ArrowLeft", 3), ("ArrowUp", 0)):
        page.keyboard.press(key)
        expect(tile(page, i)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    expect(page.locator("#panel pre")).to_have_count(2)
    page.keyboard.press("w")
    expect(page.locator("#panel .wipe")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.get_by_label("filter")).to_be_focused()
    page.keyboard.type("seed=2 ?/1")
    expect(page.get_by_label("filter")).to_have_value("seed=2 ?/1")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    expect(page.get_by_role("tab", name="Cells")).to_have_attribute("aria-selected", "true")


def test_a_view_is_its_address(made_page: Callable[..., Page]) -> None:
    page = made_page()
    page.get_by_label("rows", exact=True).select_option("seed")
    page.locator('select[data-axis="seed"]').select_option("2")
    tile(page, 2).click()
    page.wait_for_url("**#*pick=2*")
    place = page.url.partition("#")[2]
    again = made_page(place)
    assert shown(again) == [2, 5]
    expect(again.locator("#panel pre")).to_be_visible()
    expect(made_page("rows=nothing&f.seed=9&pick=99,length&tab=x").locator(".tile")).to_have_count(6)


def test_dark_and_light(made_page: Callable[..., Page]) -> None:
    def brightness(page: Page) -> float:
        return picture(page.locator("body")).mean()

    light, dark = made_page(color_scheme="light"), made_page(color_scheme="dark")
    assert brightness(light) > 150 > 100 > brightness(dark)
    dark.locator("#theme").click()
    assert brightness(dark) > 150


def test_the_tables_sort_and_filter(made_page: Callable[..., Page]) -> None:
    page = made_page("tab=table")

    def lines() -> list[list[str]]:
        rows = page.locator("#settings .tabulator-row")
        expect(rows).to_have_count(2)
        return [row.locator(".tabulator-cell").all_inner_texts() for row in rows.all()]

    assert [row[0] for row in lines()] == ["1", "7"]
    headers = [words.split()[0] for words in page.locator("#settings .tabulator-col").all_inner_texts()]
    assert lines()[0][headers.index("psnr")].startswith("23.00")  # the mean of 20, 22 and 27
    page.locator("#settings .tabulator-col", has_text="psnr").click()
    assert [row[0] for row in lines()] == ["7", "1"]
    page.locator("#settings .tabulator-row").first.click()
    assert shown(page) == [3, 4, 5]
    page.get_by_role("button", name="reset").click()
    page.get_by_role("tab", name="Cells").click()
    expect(page.locator("#all .tabulator-row")).to_have_count(6)
    page.locator("#all .tabulator-col", has_text="psnr").locator("input").press_sequentially("22..30")
    expect(page.locator("#all .tabulator-row")).to_have_count(3)
    page.locator("#all .tabulator-col", has_text="error").locator("input").press_sequentially("<0.2")
    expect(page.locator("#all .tabulator-row")).to_have_count(1)
    page.locator("#all .tabulator-row").click()
    expect(page.locator("#panel")).to_contain_text(f"{1:020x}")


def test_curves_and_points(made: Made, opened: Opened) -> None:
    store, sweep = made()
    there = settings(sweep, store.finished)
    values = [{"of": s.mark, "axes": s.axes, "value": s.axes["guidance.scale"], "cells": 3} for s in there]
    sweep["sets"] = {"fid": {"definition": {"metric": "FID", "direction": "lower"}, "values": values}}
    page = opened(write_all(store, sweep).folder / "report.html", "tab=curves")
    expect(page.locator("#plots svg [aria-label=dot] circle")).to_have_count(2)  # a mean a scale
    expect(page.locator("#plots svg [aria-label=rule] line")).to_have_count(1)  # one value has no interval
    page.get_by_label("up", exact=True).select_option("fid")
    expect(page.locator("#plots svg [aria-label=dot] circle")).to_have_count(2)
    expect(page.get_by_label("along", exact=True).locator("option")).to_have_text(["guidance.scale"])
    page.get_by_label("up", exact=True).select_option("psnr")
    page.get_by_label("along", exact=True).select_option("error")
    page.get_by_label("colour", exact=True).select_option("seed")
    page.get_by_label("colour", exact=True).select_option("none")
    points = page.locator("#plots svg [aria-label=dot] circle")
    expect(points).to_have_count(4)  # the exact and the failed cell have no PSNR
    points.nth(0).hover()
    points.nth(0).click()
    expect(page.locator("#panel")).to_contain_text(f"{0:020x}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_of_a_users_runs(made: Made, opened: Opened, scheme: str) -> None:
    """A prompt, an axis, a sweep's name, a reason, a note and a metric that are markup are shown as they are."""
    store, sweep = made(name=EVIL, command=EVIL, notes=[EVIL], metrics=["psnr", "error", MARKUP])
    sweep["axes"] = {EVIL: [EVIL, "plain"], **sweep["axes"]}
    for number, cell in enumerate(sweep["cells"]):
        cell["axes"] = {EVIL: EVIL if number % 2 else "plain", **cell["axes"]}
        cell["reason"] = cell["reason"] and EVIL
        if store.get(cell["cell_id"]):
            of = {"value": 1.0 + number, "definition": {"metric": EVIL, "direction": "lower", EVIL: EVIL}}
            rewrite(store, cell["cell_id"], metrics={**store.record(cell["cell_id"])["metrics"], MARKUP: of})
    page = opened(write_all(store, sweep).folder / "report.html", color_scheme=scheme)
    assert page.title() == f"{EVIL} – diffsweep"
    page.get_by_label("rows", exact=True).select_option(EVIL)
    page.get_by_label("metric", exact=True).select_option(MARKUP)
    tile(page, 5).hover()
    expect(page.locator("#card")).to_contain_text('"><img src=x onerror')
    for i in (1, 0):
        tile(page, i).click()
    for mode in ("wipe", "difference", "side by side"):
        page.locator("#panel").get_by_role("button", name=mode).click()
    page.get_by_label("rows", exact=True).select_option("none")
    page.get_by_label("order", exact=True).select_option("best first")
    for tab in ("Table", "Cells", "Curves", "About"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)
    for along in ("guidance.scale", MARKUP):
        page.get_by_role("tab", name="Curves").click()
        page.get_by_label("along", exact=True).select_option(along)
        page.locator("#plots svg g[aria-label=dot] > *").first.hover()
        page.wait_for_timeout(100)
    assert page.evaluate("window.ran") is None
    assert page.locator("[onerror], [onload], img[src=x]").count() == 0
    assert page.locator("script:not(body > script)").count() == 0


def test_a_damaged_picture_is_told(made: Made, opened: Opened) -> None:
    store, sweep = made()
    file = write_all(store, sweep).folder / "report.html"
    (store.folder(sweep["cells"][2]["cell_id"]) / "image.png").write_bytes(b"no picture")
    page = opened(file)
    expect(tile(page, 2)).to_contain_text("unreadable")


def test_of_five_thousand_cells_only_pictures_in_view_are_loaded(tmp_path: Path, opened: Opened) -> None:
    store, axes = Store(tmp_path), {"prompt": [f"a photo of thing {i}" for i in range(50)], "seed": list(range(100))}
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(file, format="PNG")
    definition = {"metric": "PSNR", "direction": "higher"}
    cells = []
    for number in range(5000):
        setting = {"prompt": axes["prompt"][number // 100], "seed": number % 100}
        cell_id = f"{number * 0x9E3779B97F4A7C15 % 2**80:020x}"
        folder = store.folder(cell_id)
        folder.mkdir(parents=True)
        (folder / "image.png").write_bytes(file.getvalue())
        files = {"image.png": hashlib.sha256(file.getvalue()).hexdigest()}
        record = {"cell_id": cell_id, "config": setting, "files": files, "nfe": 10, "seconds": 0.1, "facts": {}}
        record["metrics"] = {"psnr": {"value": 20 + number % 97 / 10, "definition": definition}}
        (folder / "record.json").write_text(json.dumps(record))
        cells.append({"cell_id": cell_id, "axes": setting, "seed": setting["seed"], "status": "done", "reason": None})
    sweep = {"name": "many", "command": "diffsweep", "created": "2026", "axes": axes, "cells": cells, "runs": []}
    sweep |= {"metrics": ["psnr"], "notes": [], "grid": {"rows": None, "cols": None}}
    report = write_all(store, sweep).folder / "report.html"
    page = opened(report)
    tile(page, 102).click()
    expect(page.locator("#panel img")).to_be_visible()
    loaded = page.evaluate("[...document.images].filter((i) => i.complete && i.naturalWidth).length")
    assert page.locator(".tile").count() == 5000
    assert 100 < loaded < 1000  # those in view or near it
    last = tile(page, 4999)
    assert last.locator("img").get_attribute("src") is None
    last.scroll_into_view_if_needed()
    expect(last.locator("img")).to_have_js_property("naturalWidth", 32)
    page.get_by_label("order", exact=True).select_option("best first")
    page.locator('select[data-axis="prompt"]').select_option("a photo of thing 7")
    assert page.locator(".tile").count() == 100
