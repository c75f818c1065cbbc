"""Sources at their worst: a folder of a million images, and files that are damaged in every way.

    python benchmarks/sources.py --out benchmarks/results/sources.json

The folder is made in a temporary folder (`TMPDIR` chooses the disk): a million small JPEG files in 1,000 subfolders,
each with one file and 999 further names for it. It is opened in a fresh process for the first time, again (the median
of `--repeats` processes), and once more after one file was added. The seconds are those of `Folder(root)`, which
includes reading the headers of a few dozen images; the rows hold the whole process and its peak memory too.
Nothing is dropped from the system's caches: the files have just been made, so their folders are in memory, and a
first start from a cold disk takes longer. `scandir_seconds` is the bare reading of all names, for comparison.

The damaged files are those of `tests/data/fuzz.py`. A failure is a crash, a hang, a warning, or any exception but
Unreadable.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep
from types import ModuleType
from typing import Any

import results
from PIL import Image

FUZZ = Path(__file__).resolve().parents[1] / "tests" / "data" / "fuzz.py"
SEED = 0
START = """
import json, resource, sys
from pathlib import Path
from time import perf_counter
from ownlatent.data.sources.folder import Folder
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
began = perf_counter()
source = Folder(Path(sys.argv[1]), labelled=True)
seconds = perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
kept = source.listing.file
print(json.dumps({
    "seconds": round(seconds, 4),
    "images": len(source),
    "classes": len(source.classes),
    "mapped": source.listing.memory is not None,
    "kept_bytes": kept.stat().st_size if kept else 0,
    "peak_mib_before": round(before / 2**20, 1),
    "peak_mib": round(peak / 2**20, 1),
}))
"""


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--folders", type=int, default=1_000)
    parser.add_argument("--images", type=int, default=1_000, help="in each of the folders")
    parser.add_argument("--repeats", type=int, default=5, help="of the second start")
    parser.add_argument("--fuzz", type=int, default=5_000, help="damaged files")
    options = parser.parse_args()
    if options.quick:
        options.folders, options.repeats, options.fuzz = 5, 1, 100
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        listing(Path(scratch), options.folders, options.images, options.repeats, rows, figures)
    fuzz(options.fuzz, rows, figures)
    results.write(options.out, "sources", rows, figures)


def listing(
    scratch: Path, folders: int, images: int, repeats: int, rows: list[dict[str, Any]], figures: dict[str, float]
) -> None:
    """The first start, the ones after it, and one after a change."""
    root = scratch / "images"
    began = perf_counter()
    make(root, folders, images)
    rows.append({"benchmark": "listing", "made_seconds": round(perf_counter() - began, 2)})
    sleep(3)  # what has changed within the last seconds is not trusted yet, and its listing not kept
    began = perf_counter()
    names = sum(len(os.listdir(os.fsencode(folder))) for folder in root.iterdir())
    rows.append({"benchmark": "listing", "scandir_seconds": round(perf_counter() - began, 4), "names": names})
    first = start(root, scratch, "first", rows)
    again = [start(root, scratch, "again", rows) for _ in range(repeats)]
    if not again[-1]["mapped"] or again[-1]["images"] != folders * images:
        raise SystemExit("the second start did not find the listing, or not all images in it")
    (root / "added.jpg").write_bytes(next(root.glob("*/*")).read_bytes())
    (root / "added.jpg").rename(root / f"n{0:08d}" / "added.jpg")
    sleep(3)
    if start(root, scratch, "after a change", rows)["images"] != folders * images + 1:
        raise SystemExit("the added image was not found")
    figures["listing_1m_first_seconds"] = first["seconds"]
    figures["listing_1m_again_seconds"] = statistics.median(row["seconds"] for row in again)
    figures["listing_bytes_per_image"] = round(first["kept_bytes"] / first["images"], 1)


def make(root: Path, folders: int, images: int) -> None:
    """ImageNet's kind of names. A file has one name after another: file systems limit how many, but 1,000 are few."""
    for number in range(folders):
        folder = root / f"n{number:08d}"
        folder.mkdir(parents=True)
        first = folder / f"{folder.name}_0.JPEG"
        Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(first, "JPEG")
        for image in range(1, images):
            os.link(first, folder / f"{folder.name}_{image}.JPEG")


def start(root: Path, scratch: Path, which: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Open the folder in a process of its own, with a cache of its own."""
    began = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", START, str(root)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OWNLATENT_CACHE": str(scratch / "cache")},
    )
    process = round(perf_counter() - began, 2)
    row = {"benchmark": "listing", "start": which, **json.loads(done.stdout), "process_seconds": process}
    print(f"{which:<15} {row['images']} images in {row['seconds']:.3f} s", flush=True)
    rows.append(row)
    return row


def fuzz(count: int, rows: list[dict[str, Any]], figures: dict[str, float]) -> None:
    began = perf_counter()
    tried, failures = damaged_files().run(count, SEED)
    rows.append(
        {"benchmark": "fuzz", "seed": SEED, "seconds": round(perf_counter() - began, 1), "failures": failures[:100]}
    )
    figures["fuzz_files"], figures["fuzz_failures"] = tried, len(failures)


def damaged_files() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", FUZZ)
    if spec is None or spec.loader is None:
        raise SystemExit(f"there is no {FUZZ}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
