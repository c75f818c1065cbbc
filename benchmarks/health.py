"""Every known way to collapse is tried, and every method as it is: who is caught, and who is accused wrongly?

    python benchmarks/health.py --out benchmarks/results/health.json --runs runs/health

Collapses are runs of 25 epochs on the built-in photographs that are stopped after a fifth, if they were not caught
before. Healthy runs are every method at its defaults, three seeds each, on the photographs and on CIFAR-10 (JPEG q75),
and small changes of batch, width and rate. Two runs go at a time, each on one thread. What lies in --runs already is
not run again.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import results

from ownlatent.methods import names, usual
from ownlatent.run import Run

PHOTOS, CIFAR10 = "photos:train", str(results.DATA / "cifar10" / "train.parquet")
FIFTH = 0.2
SEEDS = (0, 1, 2)
IDENTICAL = {  # a view that is the image, twice
    **{"views.crop-scale": "1,1", "views.crop-ratio": "1,1"},
    **{f"views.{name}": 0 for name in ("flip", "jitter", "grayscale", "blur", "solarize")},
}


@dataclass(frozen=True)
class Case:
    """A run, and what should be said of it: one of `words`, with a `cause` by the name of what is wrong."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ("healthy",)
    cause: str | None = None
    data: str = PHOTOS
    seed: int = 0
    epochs: float = 25


def collapse(name: str, method: str, options: dict[str, Any], words: str, cause: str) -> Case:
    return Case(name, method, options, tuple(words.split("|")), cause)


def collapses() -> list[Case]:
    few = "dimensionally collapsed|collapsed"
    found = [
        collapse("without predictor", "byol", {"method.predictor-layers": 0}, few, "predictor_layers"),
        collapse("tau 0, equal rates", "byol", {"method.tau": 0}, few, "tau"),
        collapse(
            "no stopped gradient", "byol", {"method.tau": 0, "method.stop-gradient": "false"}, few, "stop_gradient"
        ),
        collapse("no normalisation", "byol", {"method.norm": "none", "backbone.norm": "group"}, few, "norm"),
        collapse("no norm in the heads", "byol", {"method.norm": "none"}, few, "norm"),
        collapse("no stopped gradient", "simsiam", {"method.stop-gradient": "false"}, few, "stop_gradient"),
        collapse("without centring", "dino", {"method.center-momentum": 1}, few, "center_momentum"),
        collapse(
            "without sharpening",
            "dino",
            {"method.teacher-temperature": 1, "method.warmup-temperature": 1},
            few,
            "teacher_temperature",
        ),
        collapse("centre momentum 0.999", "dino", {"method.center-momentum": 0.999}, few, "center_momentum"),
        collapse("without variance", "vicreg", {"method.variance": 0}, few, "variance"),
        collapse("lambda 1", "barlow_twins", {"method.redundancy": 1}, few, "redundancy"),
        collapse("lambda 0", "barlow_twins", {"method.redundancy": 0}, few, "redundancy"),
        collapse("temperature 100", "simclr", {"method.temperature": 100}, f"{few}|stalled", "temperature"),
        collapse("temperature 0.001", "simclr", {"method.temperature": 0.001}, f"{few}|stalled", "temperature"),
        collapse("the predictor is the identity", "directpred", {"method.eps": 1000}, few, "eps"),
        collapse("tau 0", "moco_v2", {"method.tau": 0}, few, "tau"),
    ]
    for method in ("byol", "simsiam", "simclr", "moco_v2", "moco_v3", "barlow_twins", "vicreg", "directpred", "dino"):
        rate = 100 * usual(method, small=True, processor=True, long=False)["optim.base_lr"]
        words = f"{few}|diverging|stalled"
        found.append(collapse("rate x 100", method, {"optim.base-lr": rate}, words, "lr"))
        found.append(collapse("identical views", method, IDENTICAL, f"{few}|stalled", "views"))
    return found


def healthy() -> list[Case]:
    found = [
        Case(f"{place} seed {seed}", method, data=data, seed=seed, epochs=epochs)
        for seed in SEEDS
        for place, data, epochs in (("photographs", PHOTOS, 6), ("CIFAR-10", CIFAR10, 0.5))
        for method in names()
        if method != "supervised"
    ]
    for method in ("byol", "simsiam", "simclr", "vicreg"):
        rate = usual(method, small=True, processor=True, long=False)["optim.base_lr"]
        for name, options in (
            ("batch 64", {"batch-size": 64}),
            ("batch 256", {"batch-size": 256}),
            ("half the rate", {"optim.base-lr": rate / 2}),
            ("twice the rate", {"optim.base-lr": rate * 2}),
            ("resnet10_w32", {"backbone": "resnet10_w32"}),
        ):
            found.append(Case(name, method, options, epochs=6))
    return found


def run(case: Case, place: Path, stop_at: float | None) -> None:
    """Run it by the command line; stop it at a share of its length, as Ctrl-C would."""
    folder = place / f"{case.method} {case.name}".replace(" ", "-")
    if (folder / "results.json").exists():
        return
    options = {"method": case.method, "seed": case.seed, "epochs": case.epochs, **case.options}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "ownlatent", "pretrain", case.data, "--out", str(folder), "--overwrite", *words]
    began = time.monotonic()
    with (place / f"{folder.name}.txt").open("w") as output:
        process = subprocess.Popen(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=subprocess.STDOUT
        )
        stopped = False
        while process.poll() is None:
            time.sleep(1)
            if stop_at is not None and not stopped and (folder / "metrics.csv").exists():
                rows = Run(folder).metrics
                if rows and (rows[-1]["progress"] or 0) >= stop_at:
                    process.send_signal(signal.SIGINT)
                    stopped = True
    print(f"{case.method}: {case.name}: {process.returncode}, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    kind = sys.argv[2]
    with ThreadPoolExecutor(2) as pool:
        if kind == "bad":
            list(pool.map(lambda case: run(case, place, FIFTH), collapses()))
        else:
            list(pool.map(lambda case: run(case, place, None), healthy()))
