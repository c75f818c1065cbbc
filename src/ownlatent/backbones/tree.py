"""The layers of a network, drawn as a tree."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ownlatent.backbones.libraries import REFUSALS, first_line
from ownlatent.backbones.mode import untouched
from ownlatent.backbones.tap import Adapter
from ownlatent.errors import OwnlatentError
from ownlatent.types import Size, height_and_width, in_words


def tree(net: nn.Module, channels: int, image_size: Size, depth: int, adapter: Adapter | None = None) -> list[str]:
    """Lines with each layer's name, its kind, the shape of what it gives for one image, and its parameters.

    depth: of the names, in parts between dots. A layer without a shape is never called by itself: it only holds others.
    Raises OwnlatentError if the network does not take such images.
    """
    shapes: dict[nn.Module, str] = {}
    hooks = [
        module.register_forward_hook(lambda module, _, output: shapes.update({module: shape(output)}))
        for module in net.modules()
    ]
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad(), untouched(net):
            (adapter or nn.Module.__call__)(net, torch.zeros(1, channels, *height_and_width(image_size), device=device))
    except REFUSALS as error:
        raise OwnlatentError(
            f"the network does not take {channels} channels of {in_words(image_size)} ({first_line(error)}): "
            "give another --image-size or --channels"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    rows = [("NAME", "KIND", "GIVES", "PARAMETERS")]
    hidden = 0
    for name, module in net.named_modules():
        if name.count(".") + 1 > depth:
            hidden += 1
            continue
        count = sum(p.numel() for p in module.parameters())
        rows.append((name or "(the network)", type(module).__name__, shapes.get(module, ""), f"{count:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
    return lines + ([f"{hidden} more layers lie deeper: --depth {depth + 1}"] if hidden else [])


def shape(output: Any) -> str:
    """Of a tensor as 512x7x7, without the batch; of the parts of a dictionary or tuple with their keys."""
    if isinstance(output, Tensor):
        return "x".join(map(str, output.shape[1:])) or "one number"
    parts = (
        output.items()
        if isinstance(output, Mapping)
        else enumerate(output)
        if isinstance(output, (tuple, list))
        else ()
    )
    return (
        ", ".join(f"[{key}] {shape(value)}" for key, value in parts if isinstance(value, Tensor))
        or type(output).__name__
    )
