"""Trains by every method, is killed at random moments, goes on, and compares with a run that was left alone.

Run as a script with a folder of labelled images, one of others, a folder to work in, and how many kills and runs there
are to be at least. Every run is a process of its own, forked after the imports, which take ten times as long as such a
run; it is ended by SIGKILL, which nothing can catch. Prints one line of JSON: {"kills", "runs" that were killed,
"differing": one entry for each of these that did not end as it should}.
"""

import csv
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ownlatent import Run, methods, pretrain
from ownlatent.train import fit  # noqa: F401  imported once, before the processes part
from ownlatent.train.checkpoints import Checkpoints

CLOCK = ("seconds", "images_per_second", "waiting")
"""Columns of metrics.csv that tell of the clock."""
SMALL = {"hidden": 16, "projection": 8, "bottleneck": 8, "prototypes": 12, "queue": 24}
SECONDS = 60.0  # after which a run hangs


def fields(number: int, name: str, labelled: Path, images: Path) -> dict[str, Any]:
    """A short run in the middle of whose epochs and accumulation windows it can end.

    Every third one has a worker, every fourth measures k-NN as it goes.
    """
    known = methods.settings(name)
    found: dict[str, Any] = {f"method.{key}": value for key, value in SMALL.items() if key in known}
    return found | {
        **{"data": labelled if methods.get(name).uses_labels else images, "method": name, "epochs": 5},
        **{"backbone": "resnet10_w16", "image_size": 16, "batch_size": 24, "accumulate": 2, "precision": "32"},
        **{"accelerator": "cpu", "compile": "off", "checkpoint_seconds": 1e-3, "on_unhealthy": "warn"},
        **({"loading": "streaming", "workers": 1} if number % 3 == 0 else {"loading": "resident", "workers": 0}),
        **({"val": str(labelled)} if number % 4 == 1 else {}),
    }


def start(out: Path, given: dict[str, Any]) -> int:
    """A process that trains until it ends or is killed; its number."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    try:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        torch.set_num_threads(1)
        if (out / "recipe.json").exists():
            pretrain(out=out, resume=True)
        else:
            pretrain(**given, out=out)
    except BaseException as error:
        print(f"{out.name}: {error!r}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def ended(child: int, within: float) -> int | None:
    """The exit status of a process, or None if it still runs after so many seconds."""
    end = time.monotonic() + within
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.002)


def state(folder: Path) -> dict[str, Any]:
    """Everything that a run ended with, but for what the clock says."""
    newest = Checkpoints(folder, 2).newest()
    assert newest is not None
    content = newest[1]
    content["ownlatent"].pop("elapsed")
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key not in CLOCK} for row in csv.DictReader(file)]
    encoder = (folder / "encoder.safetensors").read_bytes()
    kept = {key: content[key] for key in ("state_dict", "optimizer_states", "callbacks", "ownlatent", "global_step")}
    return {"checkpoint": kept, "metrics": rows, "encoder": encoder}


def equal(a: Any, b: Any) -> bool:
    """To the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


def differences(whole: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The parts of two states that are not equal."""
    found = [key for key in whole["checkpoint"] if not equal(whole["checkpoint"][key], other["checkpoint"][key])]
    return found + [name for name in ("metrics", "encoder") if whole[name] != other[name]]


def main(labelled: Path, images: Path, work: Path, kills: int, at_least: int) -> None:
    draw, names = random.Random(0), methods.names()
    whole: dict[str, dict[str, Any]] = {}
    length: dict[str, float] = {}
    done, runs, struck = 0, 0, 0
    differing: list[str] = []
    while done < kills or runs < at_least:
        name = names[runs % len(names)]
        given = fields(names.index(name), name, labelled, images)
        if name not in whole:
            began = time.monotonic()
            assert ended(start(work / f"{name}-whole", given), SECONDS) == 0, f"{name} does not train"
            length[name], whole[name] = time.monotonic() - began, state(work / f"{name}-whole")
        folder, killed = work / f"{name}-{runs}", 0
        while True:
            if (folder / "recipe.json").exists() and Run(folder).results["finished"]:
                break
            child = start(folder, given)
            patience = draw.uniform(0, length[name]) if killed < 3 else SECONDS
            status = ended(child, patience)
            if status is not None:
                assert status == 0, f"{name} ended with {status}"
                break
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert killed < 3, f"{name} hangs"
            killed += 1
        done, runs = done + killed, runs + 1
        struck += killed > 0
        parts = differences(whole[name], state(folder)) if killed else []
        differing += [f"{name} in run {runs}: {', '.join(parts)}"] if parts else []
    print(json.dumps({"kills": done, "runs": struck, "differing": differing}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:6]))
