"""The page in a real browser, as a person uses it: points that turn, images on hovering, neighbours on clicking."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import HOSTILE

from ownlatent import report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if BROWSER is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")

FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
READY = "document.documentElement.dataset.ready === 'true'"
DRAWN = f"{READY} && EXPLORER.clouds.every(cloud => cloud.frames > 0)"


class Tab:
    """A page, and everything that it said or asked for."""

    def __init__(self, browser: Any, **options: Any):
        # Scrolling is done at once, so that places on the screen stay where they are.
        self.page = browser.new_page(reduced_motion="reduce", **options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, path: Path, until: str = DRAWN) -> Any:
        self.page.goto(path.as_uri())
        if until == DRAWN:
            self.page.evaluate("document.getElementById('explorer').scrollIntoView()")
        self.page.wait_for_function(until)
        return self.page

    def check(self) -> None:
        assert self.said == []
        assert [url for url in self.asked if url.partition(":")[0] not in ("file", "data", "blob")] == []
        self.page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield opened
        opened.close()


def inked(page: Any, selector: str = "#ex-panes canvas") -> int:
    """How many pixels of a canvas are not empty, right after it was drawn."""
    return page.evaluate(
        """async selector => {
            const canvas = document.querySelector(selector), cloud = EXPLORER.clouds.find(c => c.canvas === canvas);
            cloud.renderer.render(cloud.scene, cloud.camera);
            const flat = document.createElement("canvas");
            [flat.width, flat.height] = [canvas.width, canvas.height];
            const pen = flat.getContext("2d");
            pen.drawImage(canvas, 0, 0);
            return pen.getImageData(0, 0, flat.width, flat.height).data.filter((v, i) => i % 4 === 3 && v > 0).length;
        }""",
        selector,
    )


def point_at(page: Any, number: int, cloud: int = 0) -> dict[str, float]:
    return page.evaluate(f"EXPLORER.clouds[{cloud}].where({number})")


def test_the_explorer_is_drawn_turned_hovered_clicked_and_filtered(browser: Any, hostile_run: Path) -> None:
    tab = Tab(browser, viewport={"width": 1280, "height": 900})
    page = tab.open(hostile_run / "report.html")
    assert inked(page) > 30 * 20
    before = point_at(page, 0)
    box = page.locator("#ex-panes canvas").first.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + 20, box["y"] + box["height"] - 20)
    page.mouse.down()
    page.mouse.move(middle[0], middle[1], steps=5)
    page.mouse.up()
    page.wait_for_timeout(100)
    after = point_at(page, 0)
    assert abs(after["x"] - before["x"]) + abs(after["y"] - before["y"]) > 10

    number = page.evaluate(  # one that nothing lies in front of
        """() => { const c = EXPLORER.clouds[0]; for (let i = 0; i < c.items.length; i++) {
            const at = c.where(i); if (c.at(at.x, at.y) === i) return i; } }"""
    )
    at, name = point_at(page, number), page.evaluate(f"EXPLORER.gallery.names[{number}]")
    page.mouse.move(at["x"], at["y"])
    assert name in page.locator("#tip").inner_text() and page.locator("#tip .tile").is_visible()
    page.mouse.click(at["x"], at["y"])
    rows = page.locator("#ex-chosen .row")
    assert rows.count() == 4 and rows.nth(1).locator(".card").count() == 10
    nearest = page.evaluate(f"EXPLORER.gallery.nearest(EXPLORER.gallery.encoders[0], {number})")
    titles = [rows.nth(1).locator(".card").nth(n).get_attribute("title") for n in range(10)]
    assert titles == [page.evaluate(f"EXPLORER.gallery.names[{i}]") for i in nearest]
    right = page.evaluate(f"{nearest}.map(i => EXPLORER.gallery.labels[i] === EXPLORER.gallery.labels[{number}])")
    marks = ["right" in (rows.nth(1).locator(".card").nth(n).get_attribute("class") or "") for n in range(10)]
    assert marks == right
    page.locator("#ex-chosen button", has_text="close").click()

    page.locator("#ex-find").fill(HOSTILE[3])
    assert page.locator("#ex-found").inner_text() == "6 of 30"
    assert page.locator("#ex-matches .card").count() == 6
    page.locator("#ex-matches .card").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#ex-chosen .card.query").is_visible()
    tab.check()


def test_arrow_keys_turn_and_other_maps_and_colours_are_drawn(browser: Any, hostile_run: Path) -> None:
    tab = Tab(browser)
    page = tab.open(hostile_run / "report.html")
    before = point_at(page, 0)
    page.locator("#ex-panes canvas").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert abs(point_at(page, 0)["x"] - before["x"]) > 3
    for map in ("PCA, 2-D", "PCA, 3-D"):
        page.locator("#ex-map").select_option(map)
        for colour in ("label", "cluster"):
            page.locator("#ex-colour").select_option(colour)
            assert inked(page) > 100
    page.locator("#ex-colour").select_option("label")
    assert page.locator("#ex-legend button").count() == 5
    page.locator("#ex-legend button").nth(2).click()
    assert page.locator("#ex-found").inner_text() == "6 of 30"  # of the class, whatever other names hold
    tab.check()


def test_hostile_names_are_text(browser: Any, hostile_run: Path) -> None:
    tab = Tab(browser)
    page = tab.open(hostile_run / "report.html")
    legend = page.locator("#ex-legend button").all_inner_texts()
    assert set(legend) == set(HOSTILE)
    assert page.evaluate("document.querySelectorAll('main script, main img[onerror], b').length") == page.evaluate(
        "document.querySelectorAll('.health b').length"
    )
    tab.check()


def test_curves_have_a_line_for_each_run_that_can_be_switched_off(
    browser: Any, hostile_run: Path, plain_run: Path, tmp_path: Path
) -> None:
    tab = Tab(browser)
    page = tab.open(report(hostile_run, plain_run, out=tmp_path / "both.html", map="pca"))
    panels = page.locator("#curve-panels .panel")
    assert panels.count() >= 6
    series = panels.first.locator(".u-series")
    assert series.count() == 3  # the steps and both runs
    page.locator("#curve-runs input").first.uncheck()
    assert "u-off" in (series.nth(1).get_attribute("class") or "")
    page.locator("#ex-run").select_option("1")
    assert page.locator("#explorer-about").inner_text().startswith("60 images that the encoder was trained on")
    page.locator("#ex-colour").select_option("run")
    assert page.evaluate("EXPLORER.clouds[0].items.length") == 90
    page.locator("#neighbours-app .card").first.click()  # of the other run, which is opened
    assert page.locator("#ex-run").input_value() == "0" and page.locator("#ex-chosen .card.query").is_visible()
    tab.check()


@pytest.mark.parametrize("options", [{"viewport": {"width": 390, "height": 844}}, {"color_scheme": "dark"}])
def test_it_fits_a_phone_and_the_dark(browser: Any, hostile_run: Path, options: dict[str, Any]) -> None:
    tab = Tab(browser, **options)
    page = tab.open(hostile_run / "report.html")
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        ".map(c => c.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
    )
    assert (ground < ink) == (options.get("color_scheme") == "dark") and abs(ground - ink) > 300
    tab.check()


def test_a_run_that_broke_off_is_shown_without_an_error(browser: Any, copied: Path) -> None:
    for name in ("gallery.npz", "results.json", "metrics.csv", "views.png"):
        (copied / name).unlink()
    tab = Tab(browser)
    page = tab.open(report(copied), READY)
    assert "There is nothing to explore" in page.locator("#explorer").inner_text()
    tab.check()


def test_the_sound_of_a_dot_is_played_and_its_spectrogram_shown(browser: Any, sound_run: Path) -> None:
    tab = Tab(browser)
    page = tab.open(sound_run / "report.html")
    assert page.locator("#ex-hear").is_visible()
    assert "42 sounds" in page.locator("#explorer-about").inner_text()
    kept = page.evaluate("EXPLORER.gallery.sounds.size")
    assert kept == 42
    page.evaluate("() => { window.played = []; Audio.prototype.play = async function () { played.push(this); }; }")
    numbers = page.evaluate("Array.from(EXPLORER.clouds[0].items.keys())")
    number = next(n for n in numbers if page.evaluate(f"EXPLORER.gallery.sounds.has({n})"))
    at = point_at(page, number)
    page.mouse.move(at["x"], at["y"])
    page.wait_for_function("() => played.length === 1")
    assert page.locator("#tip .tile").is_visible()
    # It is a sound that this browser can play, of the length that was learned from.
    length = page.evaluate(
        """() => new Promise((done, failed) => {
            const sound = played[0];
            sound.addEventListener("loadedmetadata", () => done(sound.duration));
            sound.addEventListener("error", () => failed(new Error(sound.error.message)));
            sound.load();
        })"""
    )
    assert 0.15 < length < 1.0
    page.locator("#ex-sound").uncheck()
    page.locator("#ex-find").fill("high")
    page.locator("#ex-matches .card").first.click()
    assert page.evaluate("played.length") == 1
    tab.check()


def test_a_report_of_images_offers_no_sound(browser: Any, hostile_run: Path) -> None:
    tab = Tab(browser)
    page = tab.open(hostile_run / "report.html")
    assert not page.locator("#ex-hear").is_visible()
    tab.check()
