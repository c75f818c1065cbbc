"""Several processes, on one machine or many, that train together as one would with the whole batch.

Before they have met, each knows its place from what its starter set: torchrun, SLURM, or the first process itself,
which starts the others (Lightning).
"""

import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from ownlatent.methods._base import Method

log = logging.getLogger("ownlatent")
_PATIENCE = 5.0  # seconds in which a living process answers
_LAST_WORDS = 30.0  # seconds in which the processes end by themselves when one has died
_LOST = ("onnection", "roken pipe", "imed out", "imeout", "NCCL", "peer")  # what torch says when another one is gone


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _by_slurm() -> bool:
    """Whether this is one of several tasks of an `srun`; its variables are set in a plain shell of a job as well."""
    return os.environ.get("SLURM_STEP_ID", "").isdigit() and int(os.environ.get("SLURM_NTASKS", 1)) > 1


def started_with(recipe: Recipe) -> Recipe:
    """The recipe with the processes that torchrun or SLURM started. Raises OwnlatentError if it says otherwise."""
    if _by_torchrun():
        starter, total, each = "torchrun", int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    elif _by_slurm():
        starter, total = "SLURM", int(os.environ["SLURM_NTASKS"])
        each = total // int(os.environ.get("SLURM_NNODES", 1))
    else:
        return recipe
    if count(recipe) not in (1, total):
        raise OwnlatentError(
            f"{starter} started {total} processes, and --devices and --nodes ask for {count(recipe)}: leave those out"
        )
    return replace(recipe, devices=each, nodes=max(1, total // each))


def count(recipe: Recipe) -> int:
    """How many processes a run has."""
    return recipe.devices * recipe.nodes


def number(recipe: Recipe) -> int:
    """Which of them this is, from 0; the first one writes and speaks."""
    if _by_torchrun():
        return int(os.environ["RANK"])
    if _by_slurm():
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("NODE_RANK", 0)) * recipe.devices + int(os.environ.get("LOCAL_RANK", 0))


def check(recipe: Recipe, device: "torch.device") -> None:
    """Refuse more processes than there can be, and batches that they cannot share evenly. Raises OwnlatentError."""
    import torch

    assert recipe.batch_size
    processes, images = count(recipe), recipe.batch_size // recipe.accumulate
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, processes)
    if recipe.devices > there:
        raise OwnlatentError(
            f"--devices {recipe.devices} is more than the {there} of this machine: give at most {there}"
        )
    if processes > 1 and hasattr(sys, "ps1") and not _by_torchrun():
        raise OwnlatentError("a notebook cannot start several processes: use the command `ownlatent pretrain`")
    if images % processes:
        fitting = max(1, round(images / processes)) * processes * recipe.accumulate
        raise OwnlatentError(
            f"{images} images of a pass cannot be shared by {processes} processes: give --batch-size {fitting}, which "
            "is that of all processes together"
        )


def trainer_settings(recipe: Recipe) -> tuple[dict[str, Any], Any]:
    """What Lightning has to know of the processes, as keywords and a plugin."""
    from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
    from lightning.pytorch.strategies import DDPStrategy
    from lightning.pytorch.strategies.launchers import subprocess_script

    environment: Any = LightningEnvironment()  # also where SLURM has started one process: it is to do as it is told
    if _by_torchrun():
        environment = TorchElasticEnvironment()
    elif _by_slurm():
        environment = SLURMEnvironment(auto_requeue=False)
    strategy: Any = "auto"
    if count(recipe) > 1:
        subprocess_script._launch_process_observer = _watch  # type: ignore[assignment]
        # Buffers need not be sent: those that training reads are the same everywhere, by the methods' collectives.
        strategy = DDPStrategy(broadcast_buffers=False)
    return {"devices": recipe.devices, "num_nodes": recipe.nodes, "strategy": strategy}, environment


def _watch(others: list[subprocess.Popen]) -> None:
    """End the run when a process that this one started has died, if it does not notice by itself.

    In the place of Lightning's own watch, which ends all of them at once, before any can say what happened.
    """

    def watch() -> None:
        while all(other.poll() in (None, 0) for other in others):
            sleep(1)
        sleep(_LAST_WORDS)
        for number in (*(other.pid for other in others if other.poll() is None), os.getpid()):
            os.kill(number, signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


def synchronize(method: "Method", recipe: Recipe) -> None:
    """Let BatchNorm see the images of all processes where the device can do that; say so where it cannot."""
    from torch import nn

    from ownlatent.backbones import synchronize_batchnorm

    norms = [part for part in method.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms or not method.synchronizes:
        return
    if recipe.accelerator == "cuda":
        synchronize_batchnorm(method)
        return
    assert recipe.batch_size
    log.warning(
        "BatchNorm here knows the %d images of its own process alone, as in a batch of that size: numbers differ from "
        "those of one process, and the encoder mostly little with 32 and more. The same numbers are given by norms "
        "without the batch: --backbone.norm group, and --method.norm group where the method has it",
        recipe.batch_size // recipe.accumulate // count(recipe),
    )


def explain(error: RuntimeError, recipe: Recipe) -> None:
    """Raise OwnlatentError in its place if another process is gone, and say which."""
    from ownlatent.nn.collectives import missing, world_size

    if world_size() == 1 or not any(word in str(error) for word in _LOST):
        return
    lost = missing(_PATIENCE)
    who = f"process {' or '.join(map(str, lost))}" if lost else "another process"
    raise OwnlatentError(
        f"{who} of {world_size()} has ended, and process {number(recipe)} with it: its own messages say why; --resume "
        "goes on from the last checkpoint"
    ) from error
