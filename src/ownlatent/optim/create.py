"""Build an optimiser from its name and a method's parameter groups."""

import torch
from torch.optim import SGD, AdamW, Optimizer

from ownlatent.errors import OwnlatentError, nearest
from ownlatent.optim.lars import LARS

NAMES = ("adamw", "lars", "sgd")


def create(
    name: str,
    groups: list[dict],
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    eta: float = 1e-3,
    bias_lr: float = 1.0,
    decay_all: bool = False,
) -> Optimizer:
    """An optimiser over `groups` ({"params", "decay"}): undecayed groups get neither decay nor LARS's adaptation.

    A group may also have an "lr_multiplier", and "constant_lr" if its rate is not to follow the schedule.
    name: one of NAMES. lr: the peak. momentum is SGD's and LARS's, eta LARS's trust coefficient. bias_lr
    multiplies the rate of undecayed groups, decay_all decays them after all. For schedules each group of the
    optimiser has "peak_lr" and "decayed". Raises OwnlatentError for another name.
    """
    prepared = []
    for group in groups:
        if not group["params"]:
            continue
        decay = group.get("decay", True)
        rest = {k: v for k, v in group.items() if k not in ("decay", "lr_multiplier")}
        peak = lr * group.get("lr_multiplier", 1.0) * (1.0 if decay else bias_lr)
        decayed = decay or decay_all
        rates = {"lr": peak, "peak_lr": peak, "weight_decay": weight_decay if decayed else 0.0, "decayed": decayed}
        prepared.append({**rest, **rates})
        if name == "lars":
            prepared[-1]["adapt"] = decay
    if name == "lars":
        return LARS(prepared, momentum=momentum, eta=eta)
    if name == "sgd":
        return SGD(prepared, momentum=momentum, fused=_can_fuse(groups))
    if name == "adamw":
        return AdamW(prepared, fused=_can_fuse(groups))
    raise OwnlatentError(f"there is no optimiser {name!r}: {nearest(name, NAMES)}")


def _can_fuse(groups: list[dict]) -> bool:
    devices = {p.device.type for group in groups for p in group["params"]}
    return devices <= {"cpu", "cuda"} and all(torch.is_floating_point(p) for g in groups for p in g["params"])
