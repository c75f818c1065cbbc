"""Which output of a network counts as its features, and how it becomes (B, D)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ownlatent.backbones.mode import untouched
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.types import Size, height_and_width

POOLS = ("mean", "class")
Adapter = Callable[[nn.Module, Tensor], Any]
"""How images (B, C, H, W) are given to a network whose forward takes something else, or what it gives for them."""
_USUAL_KEYS = ("pooler_output", "last_hidden_state", "out")  # transformers' and torchvision's names for features


@dataclass(frozen=True)
class Tap:
    """The output of one layer, pooled to (B, D).

    layer: its name as `named_modules` has it; "" is the network's own output. key: which part of a dictionary (by name)
    or of a tuple (by number). pool: what becomes of tokens (B, T, D): their "mean", or the first one, the "class"
    token; maps are averaged. channels_last: maps are (B, H, W, D) and not (B, D, H, W). calls: how often one pass
    calls the layer; the last call counts. adapter: called instead of the network, with it and the images.

    What follows the layer is not computed.
    """

    layer: str = ""
    key: str | int | None = None
    pool: str = "mean"
    channels_last: bool = False
    calls: int = 1
    adapter: Adapter | None = None

    @property
    def name(self) -> str:
        """As `find` takes it."""
        return self.layer + ("" if self.key is None else f"[{self.key}]")

    def __call__(self, net: nn.Module, x: Tensor) -> Tensor:
        """Features (B, D) of images (B, C, H, W)."""
        return self.pooled(part_of(self.output(net, x), self.key))

    def output(self, net: nn.Module, x: Tensor) -> Any:
        """What the layer gives, not pooled. Raises OwnlatentError if the network never calls it."""
        run = self.adapter or nn.Module.__call__
        if not self.layer:
            return run(net, x)
        outputs: list[Any] = []
        # Whoever records a network needs all of it, and finds by himself what is in vain.
        recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()

        def take(module: nn.Module, given: Any, output: Any) -> None:
            outputs.append(output)
            if len(outputs) == self.calls and not recorded:
                raise _Reached

        hook = net.get_submodule(self.layer).register_forward_hook(take)
        try:
            run(net, x)
        except _Reached:
            pass
        finally:
            hook.remove()
        if not outputs:
            raise OwnlatentError(
                f"the network never calls its layer {self.layer!r}, it only holds others: choose one of those within, "
                "as `ownlatent layers` shows them"
            )
        return outputs[-1]

    def pooled(self, features: Tensor) -> Tensor:
        """Bring features to (B, D): of maps the mean over places, of tokens (B, T, D) the mean or the first."""
        if features.ndim == 3:
            return features[:, 0] if self.pool == "class" else features.mean(1)
        if features.ndim > 3:
            return features.mean(tuple(range(1, features.ndim - 1) if self.channels_last else range(2, features.ndim)))
        return features


class _Reached(BaseException):
    """Not an Exception: a network may catch those."""


def find(
    net: nn.Module, layer: "str | int | Adapter | None", pool: str = "mean", adapter: Adapter | None = None
) -> Tap:
    """The tap of a layer by its name, as in "layer3", "encoder.stages.2" or "backbone[out]", or by its number.

    A number counts the network's own children, from the end if it is negative: -2 is the last but one. None is
    the network's own output. A function is an adapter whose output are the features. Raises OwnlatentError for a name
    that the network does not have, with the nearest ones.
    """
    if pool not in POOLS:
        raise OwnlatentError(f"there is no pool {pool!r}: {nearest(pool, POOLS)}")
    if callable(layer):
        if adapter is not None:
            raise OwnlatentError("a layer that is a function takes the images itself: leave out the adapter")
        return Tap(pool=pool, adapter=layer)
    plain, key = _apart(str(layer if layer is not None else ""))
    names = dict(net.named_modules(remove_duplicate=False))
    if plain not in names and re.fullmatch(r"-?\d+", plain):
        children = [name for name, _ in net.named_children()]
        number = int(plain)
        if not -len(children) <= number < len(children):
            raise OwnlatentError(
                f"the network has no layer {number}: it has {len(children)} children, "
                f"0 to {len(children) - 1} or -{len(children)} to -1"
            )
        plain = children[number]
    if plain not in names:
        names.pop("")
        raise OwnlatentError(f"the network has no layer {plain!r}: {nearest(plain, names)}")
    return Tap(plain, key, pool, adapter=adapter)


def measured(tap: Tap, net: nn.Module, channels: int, image_size: Size) -> tuple[Tap, int]:
    """The tap with what only a pass tells, and the width D of its features; neither network nor random state change.

    Raises OwnlatentError if the layer gives no features for each image, and whatever a network raises that does not
    take such images.
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    images = torch.zeros(2, channels, *height_and_width(image_size), device=device)
    with torch.no_grad(), untouched(net):
        if tap.layer:
            tap = replace(tap, calls=_calls(tap, net, images))
        output = tap.output(net, images)
    features = part_of(output, tap.key)
    where = f"the layer {tap.layer!r}" if tap.layer else "the network"
    if features.ndim < 2 or not features.is_floating_point():
        raise OwnlatentError(
            f"{where} gives no features for each image (its shape is {tuple(features.shape)}): choose another layer"
        )
    if len(features) != 2:
        raise OwnlatentError(
            f"{where} gives {len(features)} rows for 2 images (its shape is {tuple(features.shape)}), such as windows "
            "or proposals: choose a layer that keeps one for each image"
        )
    if tap.pool == "class" and features.ndim != 3:
        raise OwnlatentError(
            f"{where} gives {tuple(features.shape)} for 2 images, and only tokens have a class: leave out --pool"
        )
    if features.ndim == 4:  # the images are square, and so are maps
        _, first, second, third = features.shape
        tap = replace(tap, channels_last=first == second != third)
    return tap, tap.pooled(features).shape[1]


def _calls(tap: Tap, net: nn.Module, images: Tensor) -> int:
    """How often one pass calls the layer, at least 1."""
    found = 0

    def count(module: nn.Module, given: Any, output: Any) -> None:
        nonlocal found
        found += 1

    hook = net.get_submodule(tap.layer).register_forward_hook(count)
    try:
        replace(tap, layer="").output(net, images)
    finally:
        hook.remove()
    return max(1, found)


def part_of(output: Any, key: str | int | None) -> Tensor:
    """The tensor among what a layer gives: by key, or else the usual or the only one. Raises OwnlatentError."""
    if isinstance(output, Tensor):
        if key is not None:
            raise OwnlatentError(f"the layer gives one tensor: leave out [{key}]")
        return output
    if isinstance(output, Mapping):
        parts: dict[str | int, Any] = {name: value for name, value in output.items() if isinstance(value, Tensor)}
        key = str(key) if isinstance(key, int) and key not in parts else key
    elif isinstance(output, (tuple, list)):
        parts = {number: value for number, value in enumerate(output) if isinstance(value, Tensor)}
        key = len(output) + key if isinstance(key, int) and key < 0 else key
    else:
        _refuse(f"the layer gives a {type(output).__name__}")
    if key is not None and key not in parts:
        raise OwnlatentError(f"the layer gives no [{key}]: {nearest(str(key), map(str, parts))}")
    if key is not None:
        return parts[key]
    if not parts:
        _refuse(f"the layer gives a {type(output).__name__} without a tensor in it")
    usual = next((name for name in _USUAL_KEYS if name in parts), next(iter(parts)))
    if len(parts) > 1 and usual not in _USUAL_KEYS:
        raise OwnlatentError(
            f"the layer gives {len(parts)} tensors: choose one in brackets behind its name, as in --layer "
            f"NAME[{usual}], of {', '.join(map(str, parts))}"
        )
    return parts[usual]


def _refuse(what: str) -> NoReturn:
    raise OwnlatentError(f"{what}: choose another layer, or give an adapter that returns a tensor")


def _apart(name: str) -> tuple[str, str | int | None]:
    """A name and the key behind it in brackets."""
    match = re.fullmatch(r"(.*)\[([^\]]+)\]", name)
    if match is None:
        return name, None
    return match[1], int(match[2]) if re.fullmatch(r"-?\d+", match[2]) else match[2]
