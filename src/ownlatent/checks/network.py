"""What a network does with one batch: shapes, and the memory that it takes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ownlatent.methods._base import Method

_PARTS = ("backbone", "projector", "predictor", "prototypes", "classifier")
_STATES = {"sgd": 1, "lars": 1, "adamw": 2}  # numbers that an optimiser keeps for each weight


def shapes(method: Method, arguments: tuple[Any, ...]) -> list[tuple[str, str]]:
    """(part, "3x32x32 to 256") of the backbone's stages and of the heads, for one image, in the order they run in."""
    found: dict[str, str] = {}

    def note(name: str) -> None:
        def hook(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
                kind = "" if "." not in name else type(part).__name__
                found.setdefault(f"{name} {kind}".strip(), f"{_shape(inputs[0])} to {_shape(output)}")

        handles.append(named[name].register_forward_hook(hook))

    stages = {f"backbone.{name}": part for name, part in method.backbone.net.named_children()}
    heads = {name: part for name in _PARTS if isinstance(part := getattr(method, name, None), nn.Module)}
    named: dict[str, nn.Module] = {**stages, **heads}
    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name in named:
        note(name)
    try:
        with torch.no_grad():
            method(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    return list(found.items())


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape[1:]))


def fixed_bytes(method: Method, optimizer: str) -> int:
    """Bytes that training takes whatever the batch: weights, gradients, what the optimiser keeps, buffers."""
    weights = sum(p.nbytes for p in method.parameters())
    trained = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    return weights + trained * (1 + _STATES[optimizer]) + sum(b.nbytes for b in method.buffers())


@contextmanager
def counting_saved(already: Sequence[Tensor]) -> Iterator[list[int]]:
    """Within it, one number: bytes that a forward pass keeps for its backward pass, `already` not counted again."""
    total, seen = [0], {tensor.untyped_storage().data_ptr() for tensor in already}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
