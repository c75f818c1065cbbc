"""Embeds images, is killed again and again, goes on, and embeds them once more without a break.

Run as a script with an encoder's folder, images and a folder to write killed.npz and straight.npz into. Every embedding
is a process of its own, forked after the imports, which take much longer; it is ended by SIGKILL, which nothing can
catch. Prints a list of how many images were done at each kill.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from ownlatent import embed, load_encoder
from ownlatent.features import embedding  # noqa: F401  imported once, before the processes part
from ownlatent.train import images as likewise  # noqa: F401

KILLS = 3
SECONDS = 60.0  # after which one hangs


def start(encoder: str, images: str, out: Path) -> int:
    """A process that embeds; its number."""
    child = os.fork()
    if child:
        return child
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    code = 1
    try:
        embed(encoder, images, out=out, batch_size=4, accelerator="cpu")
        code = 0
    finally:
        os._exit(code)


def batches_done(out: Path) -> int:
    lines = out.with_name(out.name + ".partial") / "batches.jsonl"
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


def main(encoder: str, images: str, folder: Path) -> None:
    out = folder / "killed.npz"
    load_encoder(encoder)  # imports the networks
    stops = []
    for _ in range(KILLS):
        before, until = batches_done(out), time.monotonic() + SECONDS
        child = start(encoder, images, out)
        while batches_done(out) < before + 20 and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and not out.exists(), "it was faster than the kill, or failed"
        stops.append(4 * batches_done(out))
    for path in (out, folder / "straight.npz"):
        _, status = os.waitpid(start(encoder, images, path), 0)
        assert status == 0, f"{path} failed"
    print(json.dumps(stops))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
