"""A whole training step beside the bare computation, lightly and byol-pytorch; and the way to the first step.

    pip install '.[bench]'
    python benchmarks/step.py --out benchmarks/results/step.json

One process, pinned to --cores cores with as many threads; images from memory; rounds in turn, so that a busy moment
meets all; medians of the rounds, with the fastest and the slowest. Everyone trains the same network with heads of
1024 and 256 on two views.

bare: online forward and backward on two fixed views, target forward on two views, fused SGD; channels-last, in the
precision that ownlatent chooses for the network, and in float32. ownlatent: `fit` as `ownlatent pretrain` calls it,
with data, views, Lightning, statistics, metrics, moving average. lightly, byol-pytorch: see peers.py; float32, as
documented. Bare and ownlatent keep freed memory (`machine.keep_freed_memory`), which the peers then have too, though
their users do not; the row `bare_as_is` is a process of its own that does not.

first_step_over_imports: seconds from the command `ownlatent pretrain` on an array of images to the end of the first
training step, over those of a process that imports torch, torchvision, timm and Lightning.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np
import peers
import results
import torch

from ownlatent import backbones, methods
from ownlatent.data.loader import ResidentLoader
from ownlatent.machine import keep_freed_memory
from ownlatent.train import fit as training
from ownlatent.train.environment import environment
from ownlatent.train.fit import fit, silently
from ownlatent.train.prepare import Job, prepare
from ownlatent.train.recipe import Recipe, edit


class Setting(NamedTuple):
    """A network, the side of its views and the images of a batch; `key` is its name in the figures.

    `warm` is the number of steps before a measurement.
    """

    key: str
    backbone: str
    size: int
    batch_size: int
    warm: int = 1


SETTINGS = (
    Setting("w16", "resnet10_w16", 32, 64, 3),
    Setting("w16", "resnet10_w16", 32, 256, 3),
    Setting("w64", "resnet18", 32, 64),
    Setting("w64", "resnet18", 32, 256),
    Setting("224", "resnet18", 224, 32),
)
PARTS = ("start", "w16", "w64", "224")
PEERS = ("lightly", "byol_pytorch")
IMPORTS = "import torch, torchvision, timm, lightning.pytorch"
FIRST_STEP = ("--epochs", 1000, "--backbone", "resnet10_w16")


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a measurement, at least")
    parser.add_argument("--settings", metavar="A,B", help="only these parts; those that --out has stay")
    parser.add_argument("--workers", type=int, default=2, help="of lightly's loader")
    parser.add_argument("--bare", nargs=4, metavar=("BACKBONE", "SIZE", "BATCH", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    torch.set_num_threads(options.cores)
    if options.bare:
        backbone, size, batch_size, precision = options.bare
        bare_as_is(Setting("", backbone, int(size), int(batch_size)), precision, options)
        return
    if options.quick:
        options.rounds, options.seconds = 1, 0.0
    keep_freed_memory()
    parts = options.settings.split(",") if options.settings else ["start", "w16"] if options.quick else PARTS
    found, rows = kept(options.out, parts)
    if "start" in parts:
        rows += start_up(options.rounds, 0 if options.quick else 1, found)
    for setting in SETTINGS[:1] if options.quick else SETTINGS:
        if setting.key in parts:
            rows += measure(setting, options)
    results.write(options.out, "step", rows, found | figures(rows))


def kept(out: Path | None, parts: Sequence[str]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Figures and rows of the parts that are not measured now, where the file has them; each row names its commit."""
    if out is None or not out.exists() or set(parts) == set(PARTS):
        return {}, []
    before = json.loads(out.read_text())
    return before["figures"], [row for row in before["rows"] if row.get("key", "start") not in parts]


def start_up(rounds: int, warm: int, found: dict[str, float]) -> list[dict[str, Any]]:
    """Bare imports and the first training step, in turn; the first `warm` rounds fill caches."""
    times: dict[str, list[float]] = {"imports": [], "first_step": []}
    with tempfile.TemporaryDirectory() as scratch:
        array, run = Path(scratch) / "images.npy", Path(scratch) / "run"
        np.save(array, np.random.default_rng(0).integers(0, 256, (5000, 32, 32, 3), np.uint8))
        for _ in range(warm + rounds):
            began = perf_counter()
            subprocess.run([sys.executable, "-c", IMPORTS], check=True)
            times["imports"].append(perf_counter() - began)
            began = perf_counter()
            command = ["pretrain", array, "--out", run, "--overwrite", *FIRST_STEP]
            process = subprocess.Popen(
                [sys.executable, "-m", "ownlatent", *map(str, command)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while not (run / "metrics.csv").exists():  # its first row is that of step 1
                if process.poll() is not None:
                    raise SystemExit("ownlatent pretrain ended before its first step")
                sleep(0.005)
            times["first_step"].append(perf_counter() - began)
            process.kill()
            process.wait()
            (run / "metrics.csv").unlink()
    ratios = [
        a / b for a, b in zip(times["first_step"][warm:], times["imports"][warm:], strict=True)
    ]  # the first fills caches
    found["first_step_over_imports"] = round(median(ratios), 3)
    commit = environment()["commit"]
    return [{"what": name, "commit": commit, **spread(values[warm:], 1.0, "seconds")} for name, values in times.items()]


def measure(setting: Setting, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Images per second of everyone in one setting."""
    images = torch.from_numpy(pictures(setting))
    jobs = {precision: job_of(setting, precision, images) for precision in ("auto", "32")}
    chosen = jobs["auto"].recipe.precision
    if chosen == "32":
        del jobs["32"]
    takes: dict[str, Callable[[int], float]] = {}  # name: seconds of so many steps
    for job in jobs.values():
        precision = job.recipe.precision
        takes[f"bare {precision}"] = stepping(bare_steps(deepcopy(job.method), setting, precision), setting.warm)
        takes[f"ownlatent {precision}"] = lambda count, job=job: sum(times_of_fit(job, count, setting.warm))  # type: ignore[misc]
    net = jobs["auto"].method.backbone.net
    try:
        learner = peers.Lightly(deepcopy(net), images, setting.size, setting.batch_size, options.workers)
        takes["lightly 32"] = stepping(learner.steps(), setting.warm)
    except ImportError as error:
        print(f"no lightly here ({error}): it is left out")
    try:
        takes["byol_pytorch 32"] = stepping(
            peers.byol_pytorch_steps(deepcopy(net), images, setting.size, setting.batch_size), setting.warm
        )
    except ImportError as error:
        print(f"no byol_pytorch here ({error}): it is left out")
    counts = {}
    for name, take in takes.items():
        counts[name] = max(2, round(options.seconds / (take(2) / 2)))
    times: dict[str, list[float]] = {name: [] for name in takes}
    for _ in range(options.rounds):
        for name, take in takes.items():
            times[name].append(take(counts[name]) / counts[name])
    for name in [name for name in takes if name.startswith("bare")]:
        command = [__file__, "--cores", options.cores, "--rounds", options.rounds, "--seconds", options.seconds]
        given = [*setting[1:4], name.removeprefix("bare ")]
        done = subprocess.run(
            [sys.executable, *map(str, [*command, "--bare", *given])], check=True, capture_output=True, text=True
        )
        times[name.replace("bare", "bare_as_is")] = json.loads(done.stdout.splitlines()[-1])
    rows = []
    for name, seconds in times.items():
        what, precision = name.split()
        about = {"what": what, **setting._asdict(), "precision": precision, "cores": options.cores}
        about |= {"auto": precision == chosen, "commit": environment()["commit"]}
        rows.append({**about, "images_per_second": round(setting.batch_size / median(seconds), 1)})
        rows[-1] |= spread(seconds, 1000.0, "ms_per_step")
        bare = times.get(f"bare {precision}")
        if what == "ownlatent" and bare:
            rows[-1]["over_bare"] = round(median(o / b for o, b in zip(seconds, bare, strict=True)), 4)
        print(json.dumps(rows[-1]), flush=True)
    return rows


def pictures(setting: Setting) -> np.ndarray:
    """(N, C, H, W) uint8, a little larger than the views where these are large."""
    side, count = (32, 20_000) if setting.size == 32 else (256, 512)
    return np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)


def job_of(setting: Setting, precision: str, images: torch.Tensor) -> Job:
    """A run as `ownlatent pretrain` prepares it, long enough for its statistics to be as rare as they are."""
    recipe = edit(
        Recipe(),
        {
            **{"data": "object:array", "backbone": setting.backbone, "image_size": setting.size, "epochs": 1000},
            **{"batch_size": setting.batch_size, "precision": precision, "loading": "resident"},
            **{"method.hidden": peers.LIGHTLY_HIDDEN, "method.projection": peers.LIGHTLY_PROJECTION},
        },
    )
    with silently():
        return prepare(recipe, objects={"data": images.permute(0, 2, 3, 1).numpy()})


def bare_steps(method: torch.nn.Module, setting: Setting, precision: str) -> Iterator[None]:
    """The computation alone."""
    method = method.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        [p for p in method.parameters() if p.requires_grad], lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True
    )
    shape = (setting.batch_size, 3, setting.size, setting.size)
    views = [torch.randn(shape).contiguous(memory_format=torch.channels_last) for _ in range(2)]
    while True:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = method(views).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield


def bare_as_is(setting: Setting, precision: str, options: argparse.Namespace) -> None:
    """Print the seconds of a bare step, in a process whose memory is managed as usual."""
    heads = {"hidden": peers.LIGHTLY_HIDDEN, "projection": peers.LIGHTLY_PROJECTION}
    method = methods.create("byol", backbones.create(setting.backbone, image_size=setting.size), **heads)
    take = stepping(bare_steps(method, setting, precision), 3)
    count = max(2, round(options.seconds / (take(2) / 2)))
    print(json.dumps([take(count) / count for _ in range(options.rounds)]))


def stepping(steps: Iterator[None], warm: int) -> Callable[[int], float]:
    """Seconds of so many steps, after `warm` others."""

    def take(count: int) -> float:
        for _ in range(warm):
            next(steps)
        began = perf_counter()
        for _ in range(count):
            next(steps)
        return perf_counter() - began

    return take


class _Clocked(ResidentLoader):
    """Notes when each batch is asked for, and asks to stop as Ctrl-C does."""

    first = count = 0
    times: list[float] = []  # noqa: RUF012

    def __iter__(self) -> Iterator[dict]:
        for number, batch in enumerate(super().__iter__()):
            self.times.append(perf_counter())
            if number == self.first + self.count:
                signal.raise_signal(signal.SIGINT)
            yield batch


def times_of_fit(job: Job, count: int, warm: int) -> list[float]:
    """Seconds of each of `count` steps in a run, after its first `warm` steps."""
    _Clocked.first, _Clocked.count, _Clocked.times = warm, count, []
    training.ResidentLoader = _Clocked  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder, silently():
        fit(job, Path(folder))
    return [after - before for before, after in pairwise(_Clocked.times[warm : warm + count + 1])]


def spread(values: list[float], scale: float, unit: str) -> dict[str, Any]:
    return {
        unit: round(scale * median(values), 3),
        "min": round(scale * min(values), 3),
        "max": round(scale * max(values), 3),
        "n": len(values),
    }


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of each key the worst of its batch sizes; ownlatent in the precision that it chooses."""
    found: dict[str, float] = {}
    speed = {(r["key"], r["batch_size"], r["what"]): r["images_per_second"] for r in rows if r.get("auto")}
    speed |= {(r["key"], r["batch_size"], r["what"]): r["images_per_second"] for r in rows if r["what"] in PEERS}
    for key in dict.fromkeys(setting.key for setting in SETTINGS):
        ours = [r for r in rows if r.get("key") == key and r["what"] == "ownlatent" and r["auto"]]
        if not ours:
            continue
        found[f"loop_over_bare_{key}"] = max(r["over_bare"] for r in ours)
        for peer in PEERS:
            ratios = [
                r["images_per_second"] / speed[key, r["batch_size"], peer]
                for r in ours
                if (key, r["batch_size"], peer) in speed
            ]
            if ratios:
                found[f"end_to_end_vs_{peer}_{key}"] = round(min(ratios), 3)
    return found


if __name__ == "__main__":
    main()
