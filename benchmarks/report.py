"""The report of a run with ten thousand test images, in a browser as a person would open it.

    python benchmarks/report.py --out benchmarks/results/report.json

The gallery holds the 10,000 test images of CIFAR-10 (JPEG q75), or noise where they are not, as an untrained network
and the raw pixels see them; the page is made of it by `ownlatent report` and opened from disk in headless Chromium,
drawn in software. first_picture_seconds: from the request for the page to the first frame of the explorer, the median
of openings in fresh browsers. frames_per_second: of a cloud that turns a little for every frame that the browser
offers, over five seconds. network_requests: everything asked for but the file itself; console_errors: errors and
warnings of the page.
"""

import json
import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import results
import torch

from ownlatent import backbones, report
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.labelled import Labelled
from ownlatent.data.opening import open_source
from ownlatent.data.resident import Resident
from ownlatent.data.source import Source
from ownlatent.evaluation.baselines import Pixels
from ownlatent.evaluation.embed import embed
from ownlatent.proof.gallery import Shown, write_gallery
from ownlatent.train.recipe import Recipe

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking")
DRAWN = "document.documentElement.dataset.ready === 'true' && EXPLORER.clouds.every(cloud => cloud.frames > 0)"
TURNING = """seconds => new Promise(done => {
  const began = performance.now(), cloud = EXPLORER.clouds[0], before = cloud.frames;
  const step = () => {
    cloud.turn(0.02, 0.005 * Math.sin(performance.now() / 500));
    if (performance.now() - began < 1000 * seconds) return requestAnimationFrame(step);
    done(1000 * (cloud.frames - before) / (performance.now() - began));
  };
  requestAnimationFrame(step);
})"""


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--cifar10", type=Path, default=results.DATA / "cifar10", metavar="FOLDER")
    parser.add_argument("--openings", type=int, default=5)
    options = parser.parse_args()
    count = 500 if options.quick else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        run = made(Path(scratch) / "run", options.cifar10 / "test.parquet", count)
        began = perf_counter()
        page = report(run, map="pca")
        row: dict[str, Any] = {"images": count, "render_seconds": round(perf_counter() - began, 2)}
        row["html_mib"] = round(page.stat().st_size / 2**20, 2)
        if BROWSER is None:
            print("no Chromium here: the page is not opened")
        else:
            row |= opened(page, 1 if options.quick else options.openings, 1.0 if options.quick else 5.0)
    print(json.dumps(row), flush=True)
    figures = {"html_mib_10k": row["html_mib"]}
    for name in ("first_picture_seconds", "frames_per_second"):
        if name in row:
            figures[f"{name}_10k"] = row[name]
    figures |= {name: row[name] for name in ("network_requests", "console_errors") if name in row}
    results.write(options.out, "report", [row], figures)


def made(folder: Path, table: Path, count: int) -> Path:
    """A run folder with nothing in it but a recipe and a gallery."""
    folder.mkdir()
    Recipe(data="cifar10", method="byol", epochs=1).save(folder / "recipe.json")
    torch.manual_seed(0)
    source: Source
    if table.exists():
        source = open_source(table, labelled=True)
    else:
        print(f"no CIFAR-10 in {table.parent}: noise in its place")
        labels = torch.arange(count) % 10
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        source = Resident(images, labels, [f"class {n}" for n in range(10)])
    encoder = Encoder(backbones.create("resnet10_w16", image_size=32), 32, (0.5,) * 3, (0.25,) * 3).eval()
    batches = list(Labelled(source).batches(3, 32))
    images, labels = torch.cat([batch[0] for batch in batches])[:count], torch.cat([batch[1] for batch in batches])
    features = {
        "trained": embed(encoder, images),
        "random": embed(encoder, images.flip(1)),
        "pixels": embed(Pixels(), images),
    }
    places = list(range(count))
    shown = Shown(source, places, places, labels[:count].tolist(), list(source.classes or ()), encoder)
    write_gallery(folder, shown, features, {"data": "CIFAR-10", "test": None, "weights": {}, "layer": None})
    return folder


def opened(page: Path, openings: int, seconds: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    first, rates = [], []
    requests: list[str] = []
    said: list[str] = []
    with sync_playwright() as play:
        for _ in range(openings):
            browser = play.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.on("request", lambda request: requests.append(request.url))
            tab.on(
                "console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None
            )
            tab.on("pageerror", lambda error: said.append(str(error)))
            began = perf_counter()
            tab.goto(page.as_uri())
            tab.evaluate("document.getElementById('explorer').scrollIntoView()")
            tab.wait_for_function(DRAWN)
            first.append(perf_counter() - began)
            rates.append(tab.evaluate(TURNING, seconds))
            browser.close()
    outside = [url for url in requests if url.partition(":")[0] not in ("data", "blob") and url != page.as_uri()]
    for line in (*outside, *said):
        print("unwanted:", line)
    return {
        "first_picture_seconds": round(median(first), 2),
        "openings": [round(value, 2) for value in first],
        "frames_per_second": round(median(rates), 1),
        "network_requests": len(outside),
        "console_errors": len(said),
    }


if __name__ == "__main__":
    main()
