"""Every method at its default recipe: the same encoder, the same data, the same minutes.

    python benchmarks/methods.py --out benchmarks/results/methods.json

photos: `ownlatent demo --method METHOD` on the built-in photographs, 1.5 minutes of training on 2 cores
(3 CPU-minutes), three seeds. cifar10: `ownlatent pretrain train.parquet --method METHOD`, the default network
for small images, --cifar10-minutes of training, one seed; the folder `--cifar10`, by default
`$OWNLATENT_DATA/cifar10` or `../shared/data/cifar10`, holds `train.parquet` and `test.parquet`. Every run is
a process of its own; the encoder is that of the last epoch, and test images are looked at once.

k-NN with k 20 and temperature 0.07; linear is logistic regression on frozen features. The random encoder is the same
network untrained, with its BatchNorm statistics as they are or calibrated, whichever is better.

Runs that are finished in --runs are not made again. On a GPU: cifar10_gpu.py.
"""

import argparse
import json
import tempfile
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import results
import torch

from ownlatent import Run, methods
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.opening import load_labelled
from ownlatent.data.resident import Resident
from ownlatent.evaluation.baselines import calibrate_batchnorm
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.knn import knn_accuracy
from ownlatent.evaluation.linear import linear_accuracy
from ownlatent.proof.subjects import untrained

NOT_SELF_SUPERVISED = ("random_target", "supervised")
KNN = {"photos": (20, 0.07), "cifar10": (20, 0.07)}
QUICK = ["byol", "supervised"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--methods", metavar="A,B", help="all; two of them with --quick")
    parser.add_argument("--datasets", default="photos,cifar10", metavar="A,B", help=", ".join(KNN))
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B", help="of the photographs; CIFAR-10 takes the first")
    parser.add_argument("--photos-minutes", type=float, default=1.5)
    parser.add_argument("--cifar10-minutes", type=float, default=5)
    parser.add_argument("--cifar10", type=Path, default=results.DATA / "cifar10", metavar="FOLDER")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="keep the run folders here, and go on with them")
    options = parser.parse_args()
    chosen = options.methods.split(",") if options.methods else QUICK if options.quick else methods.names()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick and (options.cifar10 / "train.parquet").exists():
            options.cifar10 = results.thinned(options.cifar10, Path(scratch) / "part")
        for dataset in options.datasets.split(","):
            if dataset != "photos" and not (options.cifar10 / "train.parquet").exists():
                print(f"no CIFAR-10 in {options.cifar10}: that part is left out")
                continue
            seeds = [int(seed) for seed in options.seeds.split(",")]
            for seed in seeds if dataset == "photos" and not options.quick else seeds[:1]:
                for method in chosen[:1] if options.quick and dataset != "photos" else chosen:
                    folder = (options.runs or Path(scratch)) / f"{dataset}-{method}-{seed}"
                    rows.append(one(method, dataset, seed, folder, options))
                    print(json.dumps(rows[-1]), flush=True)
    figures: dict[str, float] = {"methods": len({row["method"] for row in rows})}
    gains = [gain for _, dataset, gain in table(rows) if dataset == "photos" and gain is not None]
    if gains:
        figures["worst_photos_gain_points"] = round(min(gains), 2)
    results.write(options.out, "methods", rows, figures)


def one(method: str, dataset: str, seed: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one method, or read what was measured."""
    measured = folder / "measured.json"
    if measured.exists():
        return json.loads(measured.read_text())
    usage = train(method, dataset, seed, folder, options)
    run = Run(folder)
    size = run.encoder.image_size
    bank, test = labelled(dataset, options.cifar10, len(run.encoder.mean), size, options.quick)
    scores = evaluate(run.encoder, bank, test, dataset)
    random = random_scores(dataset, seed, run, bank, test)
    training = run.results["training"]
    row = {
        **{"method": method, "dataset": dataset, "seed": seed, **scores},
        **{f"{name}_random": value for name, value in random.items()},
        "images_per_second": training["images_per_second"],
        **{"peak_mib": usage["peak_mib"], "seconds": training["seconds"], "cpu_seconds": usage["cpu_seconds"]},
        **{"images": training["images"], "steps": training["steps"]},
        **{"backbone": run.recipe.backbone, "precision": run.recipe.precision},
        **{"batch_size": run.recipe.batch_size, "optimizer": run.recipe.optim.name, "lr": run.recipe.optim.lr},
    }
    if DEVICE.type == "cuda":
        row["device"] = torch.cuda.get_device_name()
    measured.write_text(json.dumps(row))
    return row


def train(method: str, dataset: str, seed: int, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    common = ("--method", method, "--seed", seed, "--out", folder, "--overwrite")
    if dataset == "photos":
        minutes = 0.03 if options.quick else options.photos_minutes
        return results.ownlatent("demo", *common, "--minutes", minutes)
    data = options.cifar10 / "train.parquet"
    return results.ownlatent("pretrain", data, *common, "--minutes", 0.03 if options.quick else options.cifar10_minutes)


@cache
def labelled(dataset: str, cifar10: Path, channels: int, size: int, quick: bool) -> tuple[Resident, Resident]:
    """Labelled training and test images."""
    if dataset == "photos":
        parts = [load_labelled(f"photos:{split}", channels, size) for split in ("train", "test")]
    else:
        parts = [load_labelled(str(cifar10 / f"{split}.parquet"), channels, size) for split in ("train", "test")]
    if quick:
        for part in parts:
            part.images, part.labels = part.images[::20], part.labels[::20]  # type: ignore[index]
    return parts[0], parts[1]


def evaluate(encoder: Encoder, bank: Resident, test: Resident, dataset: str) -> dict[str, float]:
    """k-NN and linear accuracy of an encoder."""
    assert bank.labels is not None and test.labels is not None
    encoder = encoder.to(DEVICE)
    x, y = (embed(encoder, part.images, device=DEVICE) for part in (bank, test))
    k, temperature = KNN[dataset]
    return {
        "knn": round(knn_accuracy(x, bank.labels, y, test.labels, k, temperature), 4),
        "linear": round(linear_accuracy(x, bank.labels, y, test.labels), 4),
    }


_RANDOM: dict[tuple[str, int, str | None], dict[str, float]] = {}


def random_scores(dataset: str, seed: int, run: Run, bank: Resident, test: Resident) -> dict[str, float]:
    """The same for the run's encoder before training, in its better form; it is the same for every method."""
    key = (dataset, seed, run.recipe.backbone)
    if key not in _RANDOM:
        encoder = untrained(run.encoder, run.recipe.seed)
        plain = evaluate(encoder, bank, test, dataset)
        calibrate_batchnorm(encoder, bank.images[::10])
        calibrated = evaluate(encoder, bank, test, dataset)
        _RANDOM[key] = {name: max(plain[name], calibrated[name]) for name in plain}
    return _RANDOM[key]


def table(rows: list[dict[str, Any]]) -> list[tuple[str, str, float | None]]:
    """Print the means over the seeds; (method, dataset, k-NN gain over the random encoder in points)."""
    found = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        print(f"\n{dataset}: k-NN with k {KNN[dataset][0]}, temperature {KNN[dataset][1]}, last epoch")
        print("| method | k-NN | over random | linear | images/s | peak MiB | minutes |\n|---|---|---|---|---|---|---|")
        for method in dict.fromkeys(row["method"] for row in rows):
            of = [row for row in rows if row["dataset"] == dataset and row["method"] == method]
            if not of:
                continue
            gains = [100 * (row["knn"] - row["knn_random"]) for row in of]
            spread = f" ({min(gains):+.1f} to {max(gains):+.1f})" if len(of) > 1 else ""
            speed = mean(row["images_per_second"] for row in of)
            print(
                f"| {method} | {100 * mean(row['knn'] for row in of):.1f} % | {mean(gains):+.1f}{spread} "
                f"| {100 * mean(row['linear'] for row in of):.1f} % | {speed:.0f} "
                f"| {max(row['peak_mib'] for row in of):.0f} | {mean(row['seconds'] for row in of) / 60:.1f} |"
            )
            found.append((method, dataset, None if method in NOT_SELF_SUPERVISED else mean(gains)))
    return found


if __name__ == "__main__":
    main()
