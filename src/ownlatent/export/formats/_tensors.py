"""Tensors in files."""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ownlatent.files import replace_file


def tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """The network's tensors by name, each in memory of its own and in the usual order."""
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in net.state_dict().items()
    }


def write_tensors(net: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """A .safetensors file; "format" among its metadata is what transformers asks for."""
    replace_file(path, save(tensors_of(net), {"format": "pt", **metadata}))
