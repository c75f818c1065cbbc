"""What a run costs as it grows: a step, a folder of files, an evaluation.

    python benchmarks/cost.py --out benchmarks/results/cost.json

step: time of a training step (the whole loop) and the memory that training adds to the process, BYOL on random images
of 32 px in memory, resnet10_w16, batches of 64; one thing is varied at a time: the batch, the side of the images, the
network, the number of views (DINO), the length of the queue (MoCo v2). Every row is a process of its own; medians of
steps. files: small JPEG files in folders of a thousand names: listing them, again when nothing changed, and one epoch
of the streaming loader with two workers. features: k-NN (k 20) and the linear probe on random features of width 512
with ten classes, 2,000 test images.

The figures are exponents, from the last two sizes of a series: 1 where twice as much takes twice as long.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from math import log
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import results
import torch
from sources import make, start
from step import times_of_fit

from ownlatent.augment.recipes import RECIPES, View
from ownlatent.data.loader import Batches, StreamingLoader
from ownlatent.data.sources.folder import Folder
from ownlatent.evaluation.knn import knn_accuracy
from ownlatent.evaluation.linear import linear_accuracy
from ownlatent.train.fit import silently
from ownlatent.train.prepare import prepare
from ownlatent.train.recipe import Recipe, edit

PARTS = ("step", "features", "files")
STEPS = 20
BASE: dict[str, Any] = {"backbone": "resnet10_w16", "image_size": 32, "batch_size": 64, "views": 2}
SERIES: dict[str, list[Any]] = {
    "batch_size": [16, 32, 64, 128, 256, 512],
    "image_size": [16, 32, 64, 128],
    "backbone": ["resnet10_w16", "resnet8_w64", "resnet18", "resnet50"],
    "views": [2, 4, 6, 10],
    "queue": [1024, 4096, 16384, 65536],
}
METHOD = {"views": "dino", "queue": "moco_v2"}  # of what only they have
FILES, FEATURES, WIDTH = (1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000, 50_000, 100_000), 512


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), metavar="A,B", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--one", metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    rows: list[dict[str, Any]] = []
    parts = options.parts.split(",")
    for name, values in SERIES.items() if "step" in parts else ():
        for value in values[:2] if options.quick else values:
            setting = {**BASE, "method": METHOD.get(name, "byol"), name: value}
            setting["steps"] = 3 if options.quick else STEPS
            measured = one(setting) if options.quick else in_a_process(setting)
            rows.append({"varied": name, "value": value, **measured})
            print(json.dumps(rows[-1]), flush=True)
    for count in () if "files" not in parts else (100, 200) if options.quick else FILES:
        rows.append({"varied": "files", "value": count, **files(count)})
        print(json.dumps(rows[-1]), flush=True)
    for count in () if "features" not in parts else (500, 1000) if options.quick else FEATURES:
        rows.append({"varied": "features", "value": count, **features(count)})
        print(json.dumps(rows[-1]), flush=True)
    results.write(options.out, "cost", rows, figures(rows))


def in_a_process(setting: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", json.dumps(setting)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(setting: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a step, and MiB that training added to the process."""
    steps, views, queue = setting.pop("steps"), setting.pop("views"), setting.pop("queue", None)
    size = setting["image_size"]
    images = torch.randint(0, 256, (max(2048, 4 * setting["batch_size"]), size, size, 3), dtype=torch.uint8)
    given: dict[str, Any] = {**setting, "data": "object:array", "epochs": 1000, "precision": "32", "accelerator": "cpu"}
    if setting["method"] == "dino":
        given["views"] = [*RECIPES["dino_small"][:2], *[RECIPES["dino_small"][2]] * (views - 2)]
    if queue is not None:
        given["method.queue"] = queue
    with silently():
        job = prepare(edit(Recipe(), given), objects={"data": images.numpy()})
    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    times = times_of_fit(job, steps, 3)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {
        "ms_per_step": round(1000 * median(times), 2),
        "added_mib": round(after - before),
    }


def files(count: int) -> dict[str, float]:
    """Seconds to list so many files, to list them again, and of one epoch over them."""
    batch = 100
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "images"
        folders = max(10, count // 1000)
        make(root, folders, count // folders)
        sleep(3)  # what has changed within the last seconds is not trusted yet, and its listing not kept
        first, again = (start(root, Path(scratch), which, []) for which in ("first", "again"))
        os.environ["OWNLATENT_CACHE"] = str(Path(scratch) / "cache")
        loader = StreamingLoader(Folder(root), (View(), View()), 32, Batches(count, batch, seed=0), workers=2)
        began, batches = perf_counter(), iter(loader)
        for _ in range(count // batch):
            next(batches)
        epoch = perf_counter() - began
        batches.close()  # type: ignore[attr-defined]
    return {"listing_seconds": first["seconds"], "again_seconds": again["seconds"], "epoch_seconds": round(epoch, 3)}


def features(count: int) -> dict[str, float]:
    """Seconds of both protocols with a bank of so many features."""
    torch.manual_seed(0)
    centres = torch.randn(10, WIDTH)

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(n) % 10
        return centres[labels] + 4 * torch.randn(n, WIDTH), labels

    bank, test = draw(count), draw(2000)
    found = {}
    for name, protocol in (("knn", knn_accuracy), ("linear", linear_accuracy)):
        began = perf_counter()
        protocol(*bank, *test)
        found[f"{name}_seconds"] = round(perf_counter() - began, 3)
    return found


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    found = {}
    for varied, measured in (
        *((name, "ms_per_step") for name in ("batch_size", "image_size", "views", "queue")),
        *(("files", name) for name in ("listing_seconds", "epoch_seconds")),
        *(("features", name) for name in ("knn_seconds", "linear_seconds")),
    ):
        of = [row for row in rows if row["varied"] == varied]
        if not of:
            continue  # a part that was not asked for
        before, last = of[-2:]
        grown = log(max(last[measured], 1e-4) / max(before[measured], 1e-4))
        name = f"step_by_{varied}" if measured == "ms_per_step" else measured.replace("seconds", f"by_{varied}")
        found[f"{name}_exponent"] = round(grown / log(last["value"] / before["value"]), 3)
    return found


if __name__ == "__main__":
    main()
