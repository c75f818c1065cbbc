"""CIFAR-10 on a GPU: ResNet-18, 200 epochs, one row per method, for the field's table.

    python benchmarks/cifar10_gpu.py --out benchmarks/results/cifar10_gpu.json
    python benchmarks/cifar10_gpu.py --methods byol,vicreg --epochs 1000 --optim.base-lr 0.4

Needs this package, torch 2.11 or newer and CIFAR-10 (JPEG q75) as `train.parquet` and `test.parquet` (19 MB in all)
in the folder `--cifar10`, by default `$OWNLATENT_DATA/cifar10` or `../shared/data/cifar10`. Every run is `ownlatent
pretrain` in a process of its own; options that this script does not know go to it. Runs that are finished in --runs
are not made again.

minutes: of training. mfu: share of the GPU's arithmetic that the method's own multiplications take, all of the step's
forward and backward passes counted once by torch's counter, against the vendor's dense figure for bfloat16. k-NN with
k 200 and temperature 0.1, last epoch; linear: logistic regression on frozen features; test images are looked at once.

Marks: 86.9 % k-NN in 122 minutes on an A6000 (lightly, 200 epochs, batches of 128); 92.6 % linear after 1,000 epochs
(solo-learn), both on the lossless originals. Without a GPU only --quick runs: a small network for some steps.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import results
import torch
from torch.utils.flop_counter import FlopCounterMode

from ownlatent import Run
from ownlatent.data.opening import load_labelled
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.knn import knn_accuracy
from ownlatent.evaluation.linear import linear_accuracy
from ownlatent.train.prepare import build

# Dense bfloat16 in 1e12 operations per second, from the vendors' data sheets; the first name that fits counts.
PEAKS = {
    **{"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "A6000": 155, "L40S": 362, "L4": 121, "A10G": 70},
    **{"RTX 4090": 165, "RTX 3090": 71, "B200": 2250},
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--methods", default="byol", metavar="A,B")
    parser.add_argument("--epochs", type=float, default=200)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cifar10", type=Path, default=results.DATA / "cifar10", metavar="FOLDER")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="keep the run folders here")
    options, rest = parser.parse_known_args()
    if not (options.cifar10 / "train.parquet").exists():
        print(f"no CIFAR-10 in {options.cifar10}: nothing to do")
        results.write(options.out, "cifar10_gpu", [], {})
        return
    if DEVICE.type != "cuda" and not options.quick:
        raise SystemExit("200 epochs take days without a GPU: --quick tries everything on a processor")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick:
            options.cifar10 = results.thinned(options.cifar10, Path(scratch) / "part")
        for method in options.methods.split(","):
            rows.append(one(method, (options.runs or Path(scratch)) / f"{method}-{options.seed}", options, rest))
            print(json.dumps(rows[-1]), flush=True)
    table(rows)
    first = rows[0]
    names = ("minutes", "images_per_second", "mfu", "knn", "linear")
    figures = {f"cifar10_{name}": first[name] for name in names if first[name] is not None}
    results.write(options.out, "cifar10_gpu", rows, figures)


def one(method: str, folder: Path, options: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """Train, unless it is done, and evaluate."""
    if not (folder / "results.json").exists() or not Run(folder).results["finished"]:
        backbone, epochs = ("resnet10_w16", 0.5) if options.quick else ("resnet18", options.epochs)
        results.ownlatent(
            *("pretrain", options.cifar10 / "train.parquet", "--method", method, "--out", folder, "--overwrite"),
            *("--backbone", backbone, "--image-size", 32, "--batch-size", options.batch_size, "--epochs", epochs),
            *("--seed", options.seed, *rest),
        )
    run = Run(folder)
    training, recipe = run.results["training"], run.recipe
    parts = [load_labelled(str(options.cifar10 / f"{name}.parquet"), 3, 32) for name in ("train", "test")]
    encoder = run.encoder.to(DEVICE)
    x, y = (embed(encoder, part.images, device=DEVICE) for part in parts)
    labels, truth = (part.labels for part in parts if part.labels is not None)
    flops = flops_per_image(run)
    peak = peak_flops()
    return {
        **{"method": method, "epochs": recipe.epochs, "batch_size": recipe.batch_size, "backbone": recipe.backbone},
        **{"optimizer": recipe.optim.name, "lr": recipe.optim.lr, "precision": recipe.precision},
        **{"compile": recipe.compile, "device": torch.cuda.get_device_name() if peak else "cpu"},
        "minutes": round(training["seconds"] / 60, 2),
        "images_per_second": training["images_per_second"],
        "gflop_per_image": round(flops / 1e9, 3),
        "mfu": round(training["images_per_second"] * flops / peak, 4) if peak else None,
        "knn": round(knn_accuracy(x, labels, y, truth, 200, 0.1), 4),
        "linear": round(linear_accuracy(x, labels, y, truth), 4),
    }


def flops_per_image(run: Run) -> float:
    """Of one training step, for each image: forward and backward of every view through every network."""
    recipe, batch = run.recipe, 8
    assert recipe.image_size and recipe.views
    method = build(recipe, len(run.encoder.mean), None)
    sides = [view.pixels(recipe.image_size) for view in recipe.views]
    views = [torch.randn(batch, len(run.encoder.mean), side, side) for side in sides]
    arguments = (views, torch.zeros(batch, dtype=torch.long)) if method.uses_labels else (views,)
    with FlopCounterMode(display=False) as counter:
        method(*arguments).loss.backward()
    return counter.get_total_flops() / batch


def peak_flops() -> float | None:
    if DEVICE.type != "cuda":
        return None
    name = torch.cuda.get_device_name()
    return next((1e12 * peak for part, peak in PEAKS.items() if part in name), None)


def table(rows: list[dict[str, Any]]) -> None:
    print("\n| method | epochs | minutes | images/s | MFU | k-NN | linear |\n|---|---|---|---|---|---|---|")
    for row in rows:
        share = f"{100 * row['mfu']:.1f} %" if row["mfu"] is not None else "-"
        scores = f"{100 * row['knn']:.1f} % | {100 * row['linear']:.1f} %"
        speed = f"{row['minutes']:.1f} | {row['images_per_second']:.0f} | {share}"
        print(f"| {row['method']} | {row['epochs']:g} | {speed} | {scores} |")


if __name__ == "__main__":
    main()
