"""The main job, as a user would run it: the demo on photographs, and 30 minutes on CIFAR-10 (JPEG q75).

    python benchmarks/first_light.py --out benchmarks/results/first_light.json

Everything goes through the command line in a process of its own. CIFAR-10 is read from two Parquet
files (`train.parquet`, `test.parquet`; column `image` with encoded bytes and path) in the folder
`--cifar10`, by default `$OWNLATENT_DATA/cifar10` or `../shared/data/cifar10`; without them that part is
left out. The train folder is given to `pretrain` without its labels; k-NN then classifies all test
images by all train images, with the encoder of the last epoch. `--cifar10-run` evaluates a run that is there already.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import results

from ownlatent import Run, evaluate


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--cifar10", type=Path, default=results.DATA / "cifar10", metavar="FOLDER")
    parser.add_argument("--cifar10-run", type=Path, metavar="RUN")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the run folders here")
    parser.add_argument("--minutes", type=float, default=30, help="of training on CIFAR-10")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        start_up(figures, repeats=2 if options.quick else 7)
        runs = options.keep or Path(scratch)
        photos(runs, options, rows, figures)
        if (options.cifar10 / "train.parquet").exists():
            cifar10(Path(scratch), runs, options, rows, figures)
        else:
            print(f"no CIFAR-10 in {options.cifar10}: that part is left out")
    results.write(options.out, "first_light", rows, figures)


def start_up(figures: dict[str, float], repeats: int) -> None:
    """Median seconds of whole processes: the help, and a bare import."""
    commands = {"help_seconds": ["-m", "ownlatent", "--help"], "import_seconds": ["-c", "import ownlatent"]}
    for name, command in commands.items():
        times = []
        for _ in range(repeats):
            began = perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            times.append(perf_counter() - began)
        figures[name] = round(statistics.median(times), 4)


def photos(runs: Path, options: argparse.Namespace, rows: list[dict[str, Any]], figures: dict[str, float]) -> None:
    """`ownlatent demo`, the whole process timed."""
    out = runs / "photos"
    began = perf_counter()
    results.ownlatent("demo", "--out", out, *(["--minutes", 0.05] if options.quick else []))
    figures["photos_seconds"] = round(perf_counter() - began, 1)
    record("photos", Run(out).results["evaluations"], Run(out), rows, figures)


def cifar10(
    scratch: Path, runs: Path, options: argparse.Namespace, rows: list[dict[str, Any]], figures: dict[str, float]
) -> None:
    """`ownlatent pretrain` on the train folder, then k-NN of test against train."""
    every = 100 if options.quick else 1
    unpack(options.cifar10, scratch / "images", every)
    out = options.cifar10_run or runs / "cifar10"
    if options.cifar10_run is None:
        minutes = 0.05 if options.quick else options.minutes
        results.ownlatent("pretrain", scratch / "images" / "train", "--minutes", minutes, "--out", out)
    run = Run(out)
    parts = [scratch / "images" / split for split in ("train", "test")]
    entries = evaluate(run, train=parts[0], test=parts[1], protocols="knn", k="20", without="supervised")
    figures["cifar10_minutes"] = round(run.results["training"]["seconds"] / 60, 2)
    record("cifar10", entries, run, rows, figures)


def record(name: str, entries: list[dict], run: Run, rows: list[dict[str, Any]], figures: dict[str, float]) -> None:
    for entry in entries:
        suffix = "" if entry["subject"] == "trained" else f"_{entry['subject']}"
        figures[f"{name}_knn{suffix}"] = round(entry["top1"], 4)
        rows.append(
            {"benchmark": name, **{k: v for k, v in entry.items() if k not in ("data", "per_class", "predictions")}}
        )
    recipe, environment = (json.loads((run.folder / f"{part}.json").read_text()) for part in ("recipe", "env"))
    recipe.update(data=name, val=None)  # not the path of a temporary folder, which the command holds too
    del environment["command"]
    training = run.results["training"]
    rows.append({"benchmark": name, "training": training, "recipe": recipe, "environment": environment})


def unpack(source: Path, target: Path, every: int) -> None:
    """CIFAR-10 as folders of files, as a user would have it: {train,test}/{class}/{number}.jpg."""
    import pyarrow.parquet

    for split in ("train", "test"):
        images = pyarrow.parquet.read_table(source / f"{split}.parquet", columns=["image"])["image"]
        for image in images.to_pylist()[::every]:
            path = target / split / image["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image["bytes"])


if __name__ == "__main__":
    main()
