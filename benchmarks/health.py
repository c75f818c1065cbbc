"""Every known way to collapse is tried, and every method as it is: who is caught, and who is accused wrongly?

    python benchmarks/health.py --out benchmarks/results/health.json --runs runs/health

Collapses are runs of 25 epochs on the built-in photographs that are stopped after a fifth, if they were not caught
before. Healthy runs are every method at its defaults, three seeds each, on the photographs and on CIFAR-10 (JPEG q75),
and small changes of batch, width and rate. Two runs go at a time, each on one thread. What lies in --runs already is
not run again.
"""

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import results
import torch

from ownlatent import pretrain
from ownlatent.diagnostics.verdict import HEALTHY, TOO_EARLY, Verdict, judge
from ownlatent.methods import names, usual
from ownlatent.run import Run
from ownlatent.train import module
from ownlatent.train.callbacks import metrics
from ownlatent.train.callbacks.health import Health
from ownlatent.train.callbacks.statistics import Statistics
from ownlatent.train.fit import setting_of

PHOTOS, CIFAR10 = "photos:train", str(results.DATA / "cifar10" / "train.parquet")
FIFTH = 0.2
SEEDS = (0, 1, 2)
SHOWN = ("loss", "std", "rank", "rank_share", "projection_rank", "uniformity", "weight_change")
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
        collapse("lambda 1", "barlow_twins", {"method.redundancy": 1}, f"{few}|stalled", "redundancy"),
        collapse("lambda 0", "barlow_twins", {"method.redundancy": 0}, few, "redundancy"),
        collapse("temperature 100", "simclr", {"method.temperature": 100}, f"{few}|stalled", "temperature"),
        collapse("temperature 0.001", "simclr", {"method.temperature": 0.001}, f"{few}|stalled", "temperature"),
        collapse("the predictor is the identity", "directpred", {"method.eps": 1000}, few, "eps"),
        collapse("tau 0", "moco_v2", {"method.tau": 0}, few, "tau"),
    ]
    for method in ("byol", "simsiam", "simclr", "moco_v2", "moco_v3", "barlow_twins", "vicreg", "directpred", "dino"):
        rate = 100 * usual(method, small=True, processor=True, short=False, long=False)["optim.base_lr"]
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
        rate = usual(method, small=True, processor=True, short=False, long=False)["optim.base_lr"]
        for name, options in (
            ("batch 64", {"batch-size": 64}),
            ("batch 256", {"batch-size": 256}),
            ("half the rate", {"optim.base-lr": rate / 2}),
            ("twice the rate", {"optim.base-lr": rate * 2}),
            ("resnet10_w32", {"backbone": "resnet10_w32"}),
        ):
            found.append(Case(name, method, options, epochs=6))
    return found


def run(case: Case, place: Path, stop_at: float | None) -> Run:
    """Run it by the command line, unless it is there already; stop it at a share of its length, as Ctrl-C would."""
    folder = place / f"{case.method} {case.name}".replace(" ", "-")
    if (folder / "results.json").exists():
        return Run(folder)
    options = {"method": case.method, "seed": case.seed, "epochs": case.epochs, **case.options}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "ownlatent", "pretrain", case.data, "--out", str(folder), "--overwrite", *words]
    place.mkdir(parents=True, exist_ok=True)
    with (place / f"{folder.name}.txt").open("w") as output:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        stopped = False
        while process.poll() is None:
            time.sleep(0.5)
            if stop_at is not None and not stopped and (folder / "metrics.csv").exists():
                rows = Run(folder).metrics
                if rows and (rows[-1]["progress"] or 0) >= stop_at:
                    process.send_signal(signal.SIGINT)
                    stopped = True
    return Run(folder)


def said_of(case: Case, run: Run) -> dict[str, Any]:
    """What was said of it, at every measurement, and whether that is right."""
    rows, setting = run.metrics, setting_of(run.recipe)
    verdicts = [judge(rows[: number + 1], setting) for number, row in enumerate(rows) if row["rank"] is not None]
    health = run.results["health"]
    if health["stopped"]:  # by a loss that is not finite there is no row
        verdicts.append(Verdict(**{name: health[name] for name in Verdict.__dataclass_fields__}))
    bad = [verdict for verdict in verdicts if verdict.word not in (HEALTHY, TOO_EARLY)]
    steps = (run.recipe.epochs or 0) * run.results["training"]["images"] / (rows[-1]["epoch"] or 1) if rows else 0
    found = next((verdict for verdict in bad if verdict.word in case.words), None)
    row: dict[str, Any] = {"method": case.method, "run": case.name, "options": case.options, "seed": case.seed}
    row |= {"words": list(dict.fromkeys(verdict.word for verdict in bad)), "expected": list(case.words)}
    if case.cause is None:
        last = next((r for r in reversed(rows) if r["rank"] is not None), rows[-1])
        not_finite = (run.folder / "failed-step").exists()
        return row | {"accused": bool(bad), "not_finite": not_finite, **{name: last[name] for name in SHOWN}}
    at = None if found is None else round(found.step * (run.recipe.batch_size or 0) / max(1, steps), 3)
    caught = at is not None and at <= FIFTH
    row |= {"caught": caught, "at": at, "cause": found.cause if found else "", "expected_cause": case.cause}
    return row | {"cause_right": caught and row["cause"] == case.cause, "reason": found.reason if found else ""}


def share_of_step(epochs: float) -> float:
    """The share of the training time that statistics and verdicts take, each call timed, on one thread."""
    spent = 0.0

    def timed(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal spent
            began = time.perf_counter()
            try:
                return plain(*arguments, **keywords)
            finally:
                spent += time.perf_counter() - began

        setattr(owner, name, call)

    torch.set_num_threads(1)
    for owner, name in (
        *((Statistics, name) for name in ("on_before_optimizer_step", "on_train_batch_end", "measure")),
        *(
            (Health, "on_train_batch_end"),
            (module, "gradient_norm"),
            (metrics, "weight_norm"),
            (module.Window, "__init__"),
        ),
    ):
        timed(owner, name)
    with tempfile.TemporaryDirectory() as scratch:
        seconds = pretrain(PHOTOS, out=Path(scratch) / "run", epochs=epochs).results["training"]["seconds"]
    return spent / seconds


def check_seconds(quick: bool) -> float:
    """Of `ownlatent check` on 50,000 images, from the command to its end."""
    data = CIFAR10 if Path(CIFAR10).exists() and not quick else PHOTOS
    began = time.perf_counter()
    results.ownlatent("check", data)
    return time.perf_counter() - began


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--runs", type=Path, help="folder for the runs; those that lie there are not run again")
    options = parser.parse_args()
    tried, fine = collapses(), healthy()
    if not Path(CIFAR10).exists():
        print("no CIFAR-10 here: the photographs alone")
        fine = [case for case in fine if case.data == PHOTOS]
    if options.quick:
        tried, fine = [replace(tried[2], epochs=1)], [replace(fine[1], epochs=0.2)]
    figures = {
        "diagnostics_share_of_step": share_of_step(0.1 if options.quick else 6),
        "check_seconds": check_seconds(options.quick),
    }
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        place = options.runs or Path(scratch)

        def one(case: Case) -> dict[str, Any]:
            row = said_of(case, run(case, place, None if case.cause is None else FIFTH))
            print(f"{case.method}: {case.name}: {', '.join(row['words']) or HEALTHY}", flush=True)
            return row

        rows = list(pool.map(one, [*tried, *fine]))
    bad = rows[: len(tried)]
    # Nobody is accused wrongly of a loss that is not a number: such a run was not healthy.
    good = [row for row in rows[len(tried) :] if not row["not_finite"]]
    figures |= {
        "collapses_tried": len(bad),
        "collapses_caught": sum(row["caught"] for row in bad),
        "causes_right": sum(row["cause_right"] for row in bad),
        "healthy_tried": len(good),
        "healthy_accused": sum(row["accused"] for row in good),
    }
    for row in [row for row in bad if not row["cause_right"]] + [row for row in good if row["accused"]]:
        print("wrong:", row)
    results.write(options.out, "health", rows, figures)


if __name__ == "__main__":
    main()
