"""The same encoder, data, seconds and cores: ownlatent's defaults and lightly's BYOL with its documented ones.

    pip install '.[bench]'
    python benchmarks/equal_time.py --out benchmarks/results/equal_time.json

photos: grayscale patches of the built-in photographs, 60 s on one core. cifar10: CIFAR-10 (JPEG q75), 20 minutes on
two cores; the folder `--cifar10`, by default `$OWNLATENT_DATA/cifar10` or `../shared/data/cifar10`, holds
`train.parquet` and `test.parquet`, and without it that part is left out. Encoder: resnet10_w16. The seconds are those
of training; every run is a process of its own, pinned to its cores, with as many threads, and nothing else runs.

The kept results of CIFAR-10 are of one core for each tool and both tools at once (`taskset -c 0` with `--tools lightly`
beside `taskset -c 1` with `--tools ownlatent`, the same --runs), which is half of the computation.

ownlatent: `pretrain DATA --minutes M --backbone resnet10_w16`. lightly: see peers.py; its loader has the number of
processes that was the fastest here (--workers). Its target's schedule follows the clock.

k-NN with k 20 and temperature 0.07: photos by all training patches, cifar10 by the first 10,000 training images;
linear is logistic regression on the same images. Last epoch, all test images. Runs that are in --runs are not made
again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import peers
import results
import torch

from ownlatent import Run, backbones
from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.opening import load_labelled
from ownlatent.data.resident import Resident
from ownlatent.evaluation.baselines import calibrate_batchnorm
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.knn import knn_accuracy
from ownlatent.evaluation.linear import linear_accuracy

BACKBONE, SIZE, BANK = "resnet10_w16", 32, 10_000
SECONDS, CORES, CHANNELS = {"photos": 60, "cifar10": 1200}, {"photos": 1, "cifar10": 2}, {"photos": 1, "cifar10": 3}
TOOLS = ("lightly", "ownlatent")


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--datasets", default=",".join(SECONDS), metavar="A,B")
    parser.add_argument("--tools", default=",".join(TOOLS), metavar="A,B")
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B")
    parser.add_argument("--workers", type=int, default=0, help="of lightly's loader")
    parser.add_argument("--cifar10", type=Path, default=results.DATA / "cifar10", metavar="FOLDER")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="keep what was trained here, and go on with it")
    parser.add_argument("--kept", action="store_true", help="only what --runs holds already")
    parser.add_argument("--lightly", nargs=3, metavar=("DATASET", "SEED", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lightly:
        train_lightly(options.lightly[0], int(options.lightly[1]), Path(options.lightly[2]), options)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick and (options.cifar10 / "train.parquet").exists():
            options.cifar10 = results.thinned(options.cifar10, Path(scratch) / "part")
        for dataset in options.datasets.split(","):
            if dataset == "cifar10" and not (options.cifar10 / "train.parquet").exists():
                print(f"no CIFAR-10 in {options.cifar10}: that part is left out")
                continue
            tools = [tool for tool in options.tools.split(",") if tool == "ownlatent" or has_lightly()]
            for seed in [0] if options.quick else map(int, options.seeds.split(",")):
                for tool in tools:
                    if options.kept and not kept(options.runs, dataset, tool, seed).exists():
                        continue
                    rows.append(one(dataset, tool, seed, options.runs or Path(scratch), options))
                    print(json.dumps(rows[-1]), flush=True)
    results.write(options.out, "equal_time", rows, figures(rows))


def kept(runs: Path, dataset: str, tool: str, seed: int) -> Path:
    """Where what was measured of one run is kept."""
    return runs / f"{dataset}-{tool}-{seed}.json"


def one(dataset: str, tool: str, seed: int, runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate once, or read what was measured."""
    measured = kept(runs, dataset, tool, seed)
    folder = measured.with_suffix("")
    if measured.exists():
        return json.loads(measured.read_text())
    runs.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))[: CORES[dataset]]
    command = of_ownlatent(dataset, seed, folder, options) if tool == "ownlatent" else of_lightly(dataset, seed, folder)
    if tool == "lightly":
        command += ["--workers", options.workers, "--cifar10", options.cifar10, *(["--quick"] * options.quick)]
    subprocess.run(
        [sys.executable, *map(str, command)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": str(len(cores))},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        stdout=subprocess.DEVNULL,
        stderr=None if options.quick else subprocess.DEVNULL,
    )
    if tool == "ownlatent":
        run = Run(folder)
        encoder, training = run.encoder, run.results["training"]
        made = {name: training[name] for name in ("seconds", "images", "images_per_second", "steps")}
        made |= {"precision": run.recipe.precision, "batch_size": run.recipe.batch_size, "workers": 0}
    else:
        stored = torch.load(folder.with_suffix(".pt"), weights_only=True)
        encoder = encoder_of_lightly(dataset)
        encoder.backbone.net.load_state_dict(stored["net"])
        made = stored["made"]
    row = {
        "dataset": dataset,
        "tool": tool,
        "seed": seed,
        "cores": len(cores),
        **evaluate(dataset, encoder, options),
        **made,
    }
    measured.write_text(json.dumps(row))
    return row


def of_ownlatent(dataset: str, seed: int, folder: Path, options: argparse.Namespace) -> list[Any]:
    data = "photos:train" if dataset == "photos" else options.cifar10 / "train.parquet"
    minutes = 0.05 if options.quick else SECONDS[dataset] / 60
    plain = ["-m", "ownlatent", "pretrain", data, "--out", folder, "--overwrite", "--seed", seed]
    return [*plain, "--minutes", minutes, "--backbone", BACKBONE]


def of_lightly(dataset: str, seed: int, folder: Path) -> list[Any]:
    return [Path(__file__), "--lightly", dataset, seed, folder.with_suffix(".pt")]


def train_lightly(dataset: str, seed: int, out: Path, options: argparse.Namespace) -> None:
    """Train for the seconds and keep the network."""
    torch.manual_seed(seed)
    images = labelled(dataset, "train", options.cifar10).images
    net = backbones.create(BACKBONE, channels=CHANNELS[dataset], image_size=SIZE).net
    seconds = 3.0 if options.quick else SECONDS[dataset]
    learner = peers.Lightly(net, images, SIZE, peers.LIGHTLY_BATCH, options.workers)
    began, count = perf_counter(), 0
    for _ in learner.steps(lambda: (perf_counter() - began) / seconds):
        count += 1
        if perf_counter() - began >= seconds:
            break
    spent = perf_counter() - began
    made = {"seconds": round(spent, 2), "images": count * peers.LIGHTLY_BATCH, "steps": count, "precision": "32"}
    made |= {"images_per_second": round(count * peers.LIGHTLY_BATCH / spent, 1), "workers": options.workers}
    torch.save({"net": net.state_dict(), "made": {**made, "batch_size": peers.LIGHTLY_BATCH}}, out)


def encoder_of_lightly(dataset: str) -> Encoder:
    """A fresh encoder with the colours that lightly trains on."""
    gray = CHANNELS[dataset] == 1
    mean, std = ((peers.GRAY_MEAN,), (peers.GRAY_STD,)) if gray else (IMAGENET_MEAN, IMAGENET_STD)
    return Encoder(backbones.create(BACKBONE, channels=CHANNELS[dataset], image_size=SIZE), SIZE, mean, std)


@cache
def labelled(dataset: str, split: str, cifar10: Path) -> Resident:
    name = f"photos:{split}" if dataset == "photos" else str(cifar10 / f"{split}.parquet")
    return load_labelled(name, CHANNELS[dataset], SIZE)


def evaluate(dataset: str, encoder: Encoder, options: argparse.Namespace) -> dict[str, float]:
    """k-NN and linear accuracy, and those of the random encoder with calibrated BatchNorm."""
    bank, test = (labelled(dataset, split, options.cifar10) for split in ("train", "test"))
    assert bank.labels is not None and test.labels is not None
    step = 10 if options.quick else 1
    images, labels = bank.images[:BANK:step], bank.labels[:BANK:step]
    if dataset == "photos":
        images, labels = bank.images[::step], bank.labels[::step]
    found = {}
    torch.manual_seed(0)
    random = encoder_of_lightly(dataset)
    calibrate_batchnorm(random, images)
    for suffix, each in (("", encoder), ("_random", random)):
        x, y = embed(each, images), embed(each, test.images[::step])
        found[f"knn{suffix}"] = round(knn_accuracy(x, labels, y, test.labels[::step], 20, 0.07), 4)
        found[f"linear{suffix}"] = round(linear_accuracy(x, labels, y, test.labels[::step]), 4)
    return found


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds, and how many points ownlatent is ahead, by the seeds that both have."""
    found: dict[str, float] = {}
    for dataset in SECONDS:
        of = {tool: {r["seed"]: r for r in rows if r["dataset"] == dataset and r["tool"] == tool} for tool in TOOLS}
        seeds = sorted(of["lightly"].keys() & of["ownlatent"].keys())
        for score in ("knn", "linear"):
            ours, theirs = ([of[tool][seed][score] for seed in of[tool]] for tool in ("ownlatent", "lightly"))
            found |= {f"{dataset}_{score}": round(mean(ours), 4)} if ours else {}
            found |= {f"{dataset}_{score}_lightly": round(mean(theirs), 4)} if theirs else {}
            if seeds:
                name = f"{dataset}_points_ahead" + ("" if score == "knn" else "_linear")
                ahead = [of["ownlatent"][seed][score] - of["lightly"][seed][score] for seed in seeds]
                found[name] = round(100 * mean(ahead), 2)
    return found


@cache
def has_lightly() -> bool:
    try:
        import lightly  # noqa: F401
    except ImportError as error:
        print(f"no lightly here ({error}): it is left out")
        return False
    return True


if __name__ == "__main__":
    main()
