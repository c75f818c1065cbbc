"""What several processes do together; in one process all of it is the identity.

Every process holds the same number of images. A loss over the whole batch is written once, over what
`gather` returns; with the gradients averaged over the processes, as DistributedDataParallel does, its gradient
is then that of one process with all images. A bare `all_reduce` or `all_gather` inside a loss lets no
gradient through, so that it silently shrinks by the number of processes.
"""

from collections.abc import Sequence
from functools import cache
from time import monotonic, sleep
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(x: Tensor) -> Tensor:
    """Every process's x (B, ...), one after the other: (W * B, ...), with a gradient to each of them."""
    return x if world_size() == 1 else _Gather.apply(x)


def own(n: int, device: torch.device | None = None) -> Tensor:
    """Where this process's n rows lie among those that `gather` returns: (n,) int64."""
    return torch.arange(rank() * n, (rank() + 1) * n, device=device)


def average(x: Tensor) -> Tensor:
    """The mean of x over the processes, without a gradient."""
    x = x.detach()
    if world_size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / world_size()


def agreed(x: Tensor) -> Tensor:
    """What the first process has as x, in all of them, without a gradient."""
    x = x.detach()
    if world_size() == 1:
        return x
    first = x.clone()
    dist.broadcast(first, src=0)
    return first


def told(numbers: Sequence[float]) -> list[float]:
    """What the first process says, in all of them: float64 numbers that never pass an accelerator.

    They go through a gloo group of their own where the processes train on GPUs: reading a number from a GPU waits for
    all that was queued there. A process that has died is met here, and raises RuntimeError in the others.
    """
    if world_size() == 1:
        return list(numbers)
    said = torch.tensor(numbers, dtype=torch.float64)
    dist.broadcast(said, src=0, group=_on_processors())
    return said.tolist()


def missing(seconds: float) -> list[int]:
    """After a failure, the processes that do not say within so many seconds that they are still there.

    By the store through which they met: what sends tensors is of no use any more. If it is gone, so is the first
    process, which holds it; that one waits a little longer, so as not to be taken for lost.
    """
    store, number, others = dist.distributed_c10d._get_default_store(), rank(), set(range(world_size()))
    end = monotonic() + seconds + (number == 0)
    try:
        store.set(f"alive {number}", "yes")
        while others and monotonic() < end:
            others -= {other for other in others if store.check([f"alive {other}"])}
            sleep(0.1)
    except RuntimeError:
        return [0]
    return sorted(others)


def _on_processors() -> Any:
    return _group_of(dist.group.WORLD) if dist.get_backend() != "gloo" else dist.group.WORLD


@cache
def _group_of(world: Any) -> Any:
    return dist.new_group(backend="gloo")


class _Gather(torch.autograd.Function):
    """all_gather, whose transpose is: sum over the processes, and keep the own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[own(ctx.rows, total.device)]
