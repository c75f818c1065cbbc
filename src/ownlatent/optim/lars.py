"""LARS in the reference form of BYOL's released code."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class LARS(Optimizer):
    """Momentum SGD whose step per tensor is a fixed fraction of the tensor's own norm (You et al. 2017).

    For a weight w with gradient g: u = g + weight_decay * w; q = eta * |w| / |u|, or 1 if a norm is
    zero; m <- momentum * m + q * u; w <- w - lr * m. Groups with `adapt=False` (biases and norms)
    take plain momentum SGD: q = 1. Decay stands inside the norm, adaptation comes before momentum
    and lr stays outside the buffer. Other published forms add the two norms instead
    (eta * |w| / (|g| + weight_decay * |w|)), which differs unless g and w are parallel.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
    ):
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta, "adapt": True}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                update = w.grad.add(w, alpha=group["weight_decay"])
                if group["adapt"]:
                    norm, update_norm = torch.linalg.vector_norm(w), torch.linalg.vector_norm(update)
                    ratio = group["eta"] * norm / update_norm
                    # Chosen on the device: reading the norms here would make an accelerator wait.
                    update.mul_(torch.where((norm > 0) & (update_norm > 0), ratio, 1.0))
                state = self.state[w]
                if not state:
                    state["momentum"] = torch.zeros_like(w)
                state["momentum"].mul_(group["momentum"]).add_(update)
                w.add_(state["momentum"], alpha=-group["lr"])
        return loss
