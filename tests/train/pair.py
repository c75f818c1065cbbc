"""One of two processes that train by every method in turn, as torchrun would start them.

Run as a script with a rank, the folder of labelled images, that of unlabelled ones, a folder for the runs, and a port
of which as many follow as there are methods.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from ownlatent import methods, pretrain

STEPS = 10
SMALL = {"hidden": 16, "projection": 8, "bottleneck": 8, "prototypes": 12, "queue": 24, "norm": "layer"}


def fields(name: str, labelled: Path, images: Path) -> dict[str, Any]:
    """A run of ten steps of twelve images without batch statistics; every other one is streamed by a worker."""
    known, number = methods.settings(name), methods.names().index(name)
    return {
        **{f"method.{key}": value for key, value in SMALL.items() if key in known},
        **{"data": str(labelled if methods.get(name).uses_labels else images), "method": name, "epochs": STEPS / 5},
        **{"backbone": "resnet10_w16", "backbone.norm": "group", "image_size": 16, "batch_size": 12, "workers": 1},
        **{"precision": "32", "accelerator": "cpu", "on_unhealthy": "warn", "checkpoint_seconds": 0.2},
        **{"loading": "streaming" if number % 2 else "resident", "accumulate": 2 if number % 3 == 0 else 1},
    }


def main(rank: int, labelled: Path, images: Path, work: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"TORCHELASTIC_RUN_ID": "pair", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    for number, name in enumerate(methods.names()):
        os.environ["MASTER_PORT"] = str(port + number)
        pretrain(**fields(name, labelled, images), out=work / name)


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(Path, sys.argv[2:5]), int(sys.argv[5]))
