"""What becomes of runs that are killed, crowded, starved of room, fed with dirt, or long; and of two that are one.

    python benchmarks/reliability.py --out benchmarks/results/reliability.json

killing: runs of every method are ended by SIGKILL at random moments and gone on with, and compared to the bit with
runs that were left alone (tests/train/killing.py). faults: the tests of tests/train/test_resume.py, each of which
makes one happen: torn and changed checkpoints, code in the place of weights, a full disk, a read-only one, a folder
that is taken away, a second process, SIGTERM. bad_inputs: every case of tests/test_errors.py and of the damaged files
in tests/data. checkpoints: 10,000 small ones, of which two must stay. dirty: 200 unreadable files among 2,000, with
worker processes; lost are the readable ones that an epoch does not see. crowd: five commands at once in one folder.
processes: two with gloo against one, every method (tests/train/test_processes.py). soak: --minutes of training from
files with two workers; growth of the memory of all processes together from the second to the last quarter, and of the
time of a step.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import results
import torch
from PIL import Image

from ownlatent import methods
from ownlatent.augment.recipes import RECIPES
from ownlatent.data.loader import Batches, StreamingLoader
from ownlatent.data.sources.folder import Folder
from ownlatent.train.checkpoints import Checkpoints

TESTS = Path(__file__).resolve().parents[1] / "tests"
PARTS = ("killing", "faults", "bad_inputs", "checkpoints", "dirty", "crowd", "processes", "soak")
QUICK = ("checkpoints", "dirty", "crowd", "soak")  # the others are tests, which `make test` runs anyway
RUN = (
    "--backbone",
    "resnet10_w16",
    "--image-size",
    32,
    "--batch-size",
    32,
    "--precision",
    "32",
    "--accelerator",
    "cpu",
)


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--parts", metavar="A,B")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30.0, help="of the soak")
    options = parser.parse_args()
    rows = []
    for part in options.parts.split(",") if options.parts else QUICK if options.quick else PARTS:
        with tempfile.TemporaryDirectory() as scratch:
            rows += PART[part](Path(scratch), options)
        print(json.dumps(rows[-1]), flush=True)
    results.write(options.out, "reliability", rows, figures(rows))


def killing(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    labelled, images = scratch / "labelled", scratch / "images"
    make(images, 60)
    for label in "abc":
        make(labelled / label, 20)
    script, runs = TESTS / "train" / "killing.py", len(methods.names())
    command = [sys.executable, script, labelled, images, scratch, options.kills, runs]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    return [{"part": "killing", **json.loads(done.stdout.splitlines()[-1])}]


def tests_of(part: str, *selected: str) -> list[dict[str, Any]]:
    """A row for each test case: {"part", "case", "passed"}; those that this system cannot try are left out."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *selected]
        subprocess.run(command, cwd=TESTS.parent, stdout=subprocess.DEVNULL)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return [
            {"part": part, "case": case.attrib["name"], "passed": not {"failure", "error"} & {e.tag for e in case}}
            for case in cases
            if case.find("skipped") is None
        ]


def faults(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    others = "not random and not begins and not extended"
    return tests_of("faults", str(TESTS / "train" / "test_resume.py"), "-k", others)


def bad_inputs(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    places = ["test_errors.py", "data/test_dirty.py", "data/test_fuzz.py"]
    return tests_of("bad_inputs", *(str(TESTS / place) for place in places))


def processes(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    return tests_of("processes", str(TESTS / "train" / "test_processes.py"), "-k", "two_processes_train")


def checkpoints(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    store, count = Checkpoints(scratch, 2), 100 if options.quick else 10_000
    began = time.perf_counter()
    for step in range(count):
        store.save_checkpoint({"step": step, "weights": torch.zeros(16)}, store.at(step))
    seconds = round(time.perf_counter() - began, 2)
    left = [path.name for path in store.folder.iterdir()]
    return [{"part": "checkpoints", "written": count, "left": len(left), "seconds": seconds}]


def dirty(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every image has a colour of its own, by which its crop is known."""
    count, bad = (200, 20) if options.quick else (2000, 200)
    rng = np.random.default_rng(0)
    damaged = sorted(rng.choice(count, bad, replace=False).tolist())
    for number in range(count):
        path = scratch / f"{number:05d}.png"
        Image.new("RGB", (40, 40), (number // 256, number % 256, 128)).save(path)
        if number in damaged:
            content = path.read_bytes()
            kinds = [b"", content[: len(content) // 2], b"\0" * 500, b"<html>not found</html>"]
            path.write_bytes(kinds[damaged.index(number) % 4])
    batches = Batches(count, 40, seed=0)
    loader = StreamingLoader(Folder(scratch), RECIPES["simclr_small"], 32, batches, workers=2)
    seen: set[int] = set()
    for number, batch in enumerate(loader, 1):
        colours = batch["crops"][0][:, :2, 0, 0].long()
        seen |= set((256 * colours[:, 0] + colours[:, 1]).tolist())
        if number == batches.per_epoch:
            break
    lost = set(range(count)) - set(damaged) - seen
    return [{"part": "dirty", "files": count, "damaged": bad, "named": len(loader.skipped), "lost": len(lost)}]


def crowd(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    make(scratch / "images", 64)
    command = ["pretrain", scratch / "images", "--out", scratch / "run", "--epochs", 200, *RUN]
    count = 2 if options.quick else 5
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "ownlatent", *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    errors = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    said = [error for error, code in zip(errors, codes, strict=True) if code]
    clear = sum(code == 2 and error.count("\n") == 1 for error, code in zip(errors, codes, strict=True))
    return [{"part": "crowd", "started": count, "trained": codes.count(0), "clearly_refused": clear, "said": said[:1]}]


def soak(scratch: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    make(scratch / "images", 200 if options.quick else 5000, side=96)
    minutes = 0.1 if options.quick else options.minutes
    command = ["pretrain", scratch / "images", "--out", scratch / "run", "--minutes", minutes, *RUN]
    command += ["--method", "byol", "--loading", "streaming", "--workers", 2, "--checkpoint-seconds", 10]
    process = subprocess.Popen([sys.executable, "-m", "ownlatent", *map(str, command)], stdout=subprocess.DEVNULL)
    memory: list[tuple[float, float]] = []
    began = time.monotonic()
    while process.poll() is None:
        if (scratch / "run" / "metrics.csv").exists():
            memory.append((time.monotonic() - began, proportional_set(process.pid)))
        time.sleep(0.2 if options.quick else 5)
    assert process.returncode == 0
    lines = (scratch / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("images_per_second")
    speed = [float(line.split(",")[column]) for line in lines[2:]]
    quarters = np.array_split(np.array([mib for _, mib in memory]), 4), np.array_split(np.array(speed), 4)
    second, last = (float(np.median(quarters[0][k])) for k in (1, 3))
    slower = float(np.median(quarters[1][1]) / np.median(quarters[1][3])) - 1
    row = {"part": "soak", "minutes": minutes, "memory_mib": [round(second), round(last)], "steps": len(speed)}
    return [{**row, "memory_growth": round(last / second - 1, 5), "step_time_growth": round(slower, 4)}]


def proportional_set(pid: int) -> float:
    """MiB of a process and its children, what they share counted once."""
    total = 0.0
    for number in (pid, *children(pid)):
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:  # ended meanwhile
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def children(pid: int) -> list[int]:
    """Of a process, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(number) for number in task.read_text().split()]
        except OSError:
            continue
    return found + [further for child in found for further in children(child)]


def make(folder: Path, count: int, side: int = 40) -> None:
    """JPEG files of noise over a colour."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        image = rng.integers(0, 256, 3)[None, None] + rng.normal(0, 30, (side, side, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg")


PART = {name: globals()[name] for name in PARTS}


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    of = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    found: dict[str, float] = {}
    for row in of["killing"]:
        identical = row["runs"] - len(row["differing"])
        found |= {"kills": row["kills"], "runs_killed": row["runs"], "resumed_identical": identical}
    counted = (("faults", "faults_injected", "faults_survived"), ("processes", "ddp_methods", "ddp_equal"))
    for part, tried, good in counted:
        if of[part]:
            found |= {tried: len(of[part]), good: sum(row["passed"] for row in of[part])}
    if of["bad_inputs"]:
        wrong = sum(not row["passed"] for row in of["bad_inputs"])
        found |= {"bad_inputs": len(of["bad_inputs"]), "bad_inputs_mishandled": wrong}
    for row in of["dirty"]:
        found["records_lost"] = row["lost"]
    for row in of["soak"]:
        found["soak_memory_growth_fraction"] = row["memory_growth"]
        found["soak_step_time_growth_fraction"] = row["step_time_growth"]
    return found


if __name__ == "__main__":
    main()
