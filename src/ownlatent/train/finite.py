"""No step is made with a loss or gradient that is not finite."""

from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ownlatent.methods._base import Method
from ownlatent.nn.collectives import average


class Window:
    """What the optimiser step under way was made of: its passes, and what the method remembered before the first.

    passes: each pass's arguments of the method, views first. number: of the first of them. memory: buffers that a
    forward pass reads and changes, such as a queue, by name. step, progress, lr: of the step, once it is due.
    """

    def __init__(self, memory: dict[str, tuple[nn.Module, str]], number: int):
        self.number, self.passes, self.losses = number, list[tuple[Any, ...]](), list[Tensor]()
        self.memory = {name: getattr(part, key).clone() for name, (part, key) in memory.items()}
        self.step, self.progress, self.lr = 0, 0.0, 0.0


def memory_of(method: Method) -> dict[str, tuple[nn.Module, str]]:
    """Where a method's buffers are, by name, without BatchNorm's statistics, which training writes and does not read.

    Not the buffers themselves: moving the method to a device puts others in their place.
    """
    return {
        f"{name}.{key}".removeprefix("."): (part, key)
        for name, part in method.named_modules()
        if not isinstance(part, nn.modules.batchnorm._NormBase)
        for key, _ in part.named_buffers(recurse=False)
    }


class NotFinite(Exception):
    """A loss or gradient that is not finite. The weights were not touched by the step, which is that of `window`."""

    def __init__(self, what: str, value: float, window: Window):
        super().__init__(f"the {what} is {value}")
        self.what, self.value, self.window = what, value, window


class Guard:
    """Looks at every step's loss and gradient before the optimiser does.

    Reading a number from CUDA means waiting until all that was queued is done, and then the device waits for the
    next. So there the fused optimisers are told on the device, by the flag that gradient scaling uses too, to leave a
    bad step out, and the number is read when the following step is queued.
    """

    def __init__(self) -> None:
        self._waiting: tuple[Tensor, Window, bool] | None = None

    def check(self, optimizer: Optimizer, window: Window, norm: Tensor, scaled: bool) -> None:
        """Call between backward and the optimiser's step; norm: () of all gradients. Raises NotFinite.

        scaled: a gradient scaler leaves steps with bad gradients out by itself, and they are no failure.
        """
        # Over all processes: where one has found something the others must not wait for it.
        numbers = average(torch.stack([torch.stack(window.losses).float().mean(), norm.float()]))
        if not self._can_wait(optimizer, norm.device):
            self._look(numbers, window, scaled)
            return
        self.settle()
        if not scaled:
            optimizer.found_inf = (~numbers.isfinite().all()).float()  # type: ignore[attr-defined]
        self._waiting = numbers, window, scaled

    @staticmethod
    def _can_wait(optimizer: Optimizer, device: torch.device) -> bool:
        return device.type == "cuda" and bool(optimizer.defaults.get("fused"))

    def settle(self) -> None:
        """Look at what was not looked at yet. Raises NotFinite."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._look(*waiting)

    def _look(self, numbers: Tensor, window: Window, scaled: bool) -> None:
        loss, norm = numbers.tolist()
        if not isfinite(loss):
            raise NotFinite("loss", loss, window)
        if not isfinite(norm) and not scaled:
            raise NotFinite("gradient", norm, window)
