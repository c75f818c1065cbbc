"""Several processes, on one machine or many, that train together as one would with the whole batch.

Before they have met, each knows its place from what its starter set: torchrun, SLURM, or the first process itself,
which starts the others (Lightning).
"""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.train.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from ownlatent.methods._base import Method

log = logging.getLogger("ownlatent")
_PATIENCE = 5.0  # seconds in which a living process answers
_LAST_WORDS = 30.0  # seconds in which the processes end by themselves when one has died
_SET_BY_LIGHTNING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
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


def started_elsewhere() -> bool:
    """Whether torchrun or SLURM has started this process as one of several."""
    return _by_torchrun() or _by_slurm()


def count(recipe: Recipe) -> int:
    """How many processes a run has."""
    return recipe.devices * recipe.nodes


def number(recipe: Recipe) -> int:
    """Which of them this is, from 0; the first one writes and speaks."""
    if count(recipe) == 1:
        return 0
    if _by_torchrun():
        return int(os.environ["RANK"])
    if _by_slurm():
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("NODE_RANK", 0)) * recipe.devices + int(os.environ.get("LOCAL_RANK", 0))


def own_device(device: "torch.device", recipe: Recipe) -> "torch.device":
    """Of several GPUs that of this process."""
    import torch

    if device.type != "cuda" or count(recipe) == 1:
        return device
    own = torch.device("cuda", number(recipe) % recipe.devices % max(1, torch.cuda.device_count()))
    torch.cuda.set_device(own)
    return own


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
    if recipe.nodes > 1 and not started_elsewhere() and not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise OwnlatentError(
            "--nodes without torchrun or SLURM needs MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment of each "
            "machine's process: set them, or use torchrun"
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

    environment: Any = LightningEnvironment()  # also for one process that SLURM has started: it is to do as it is told
    strategy: Any = "auto"
    if count(recipe) > 1:
        if _by_torchrun():
            environment = TorchElasticEnvironment()
        elif _by_slurm():
            os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(recipe.devices))
            environment = SLURMEnvironment(auto_requeue=False)
        # What follows an inner layer has no gradient, and of an own network nobody knows.
        partly = recipe.layer is not None or (recipe.backbone or "").startswith("module:")
        # Buffers need not be sent: those that training reads are the same everywhere, by the methods' collectives.
        strategy = DDPStrategy(broadcast_buffers=False, find_unused_parameters=partly)
    return {"devices": recipe.devices, "num_nodes": recipe.nodes, "strategy": strategy}, environment


@contextmanager
def together(recipe: Recipe) -> Iterator[None]:
    """Within it the processes of a run meet and work; afterwards each is alone, and the first one goes on by itself."""
    if count(recipe) == 1:
        yield
        return
    import torch.distributed as dist
    from lightning.pytorch.strategies.launchers import subprocess_script

    before, over = {name: os.environ.get(name) for name in _SET_BY_LIGHTNING}, Event()

    def watch_others(others: "list[subprocess.Popen]") -> None:
        """In the place of Lightning's own watch, which ends all of them before any can say what happened."""
        Thread(target=_watch_others, args=(others, over), daemon=True).start()

    subprocess_script._launch_process_observer = watch_others  # type: ignore[assignment]
    if number(recipe) and not started_elsewhere():
        Thread(target=_watch_first, args=(os.getppid(), over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():  # else the next run in this process would take itself for one of several
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _watch_others(others: "list[subprocess.Popen]", over: Event) -> None:
    """End this process when one that it has started has died, if it does not notice by itself."""
    while not over.wait(1):
        dead = [place for place, other in enumerate(others, 1) if other.poll() not in (None, 0)]
        if dead and not over.wait(_LAST_WORDS):
            for other in others:
                other.kill()
            _end(f"process {dead[0]} has ended with code {others[dead[0] - 1].returncode}")


def _watch_first(parent: int, over: Event) -> None:
    """End this process when the one that started it has died, if it does not notice by itself."""
    while not over.wait(1):
        if os.getppid() != parent and not over.wait(_LAST_WORDS):
            _end("process 0 has ended")


def _end(why: str) -> None:
    print(f"ownlatent: {why}: its own messages say more; --resume goes on from the last checkpoint", file=sys.stderr)
    os._exit(2)


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
        "BatchNorm here knows the %d images of its own process alone: numbers differ from those of one process, with "
        "64 images by as much as between two seeds (docs/running.md). Norms that do not look across images give "
        "the same: --backbone.norm group, and --method.norm group where the method has it",
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
