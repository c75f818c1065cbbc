"""Weights from files of several kinds, without running code from any of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ownlatent.errors import OwnlatentError

_WRAPPERS = ("state_dict", "model")  # under which others keep a network's tensors
_COUNTER = "num_batches_tracked"  # of BatchNorm, which older files lack


@dataclass(frozen=True)
class Match:
    """How the tensors of a file and those of a network met, by name.

    missing: those of the network that the file lacks; unused: those of the file that the network has no place for;
    misshapen: those of both with another shape.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} of the network's {len(self.loaded + self.missing + self.misshapen)} tensors"]
        for names, what in ((self.missing, "not in the file"), (self.misshapen, "of another shape")):
            parts += [f"{len(names)} {what} ({_some(names)})"] if names else []
        parts += [f"{len(self.unused)} of the file's unused ({_some(self.unused)})"] if self.unused else []
        return ", ".join(parts)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a run folder's encoder, a .safetensors or a torch file, by name. Raises OwnlatentError."""
    if path.is_dir():
        path = path / "encoder.safetensors"
    if not path.exists():
        raise OwnlatentError(f"there is no file {path}: give a run, or a file with the weights of the network")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(str(path))
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
        for wrapper in _WRAPPERS:
            found = found.get(wrapper, found)
        tensors = {str(name).removeprefix("module."): value for name, value in found.items()}
    except Exception as error:  # torch and pickle raise many kinds on a file that is none of theirs
        raise OwnlatentError(f"{path} holds no weights that can be read ({type(error).__name__})") from error
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


def load_weights(net: nn.Module, path: Path, partly: bool = False) -> Match:
    """Put a file's tensors into a network, by name.

    partly: also where the file lacks some or has others of another shape, such as a stem for larger images. Raises
    OwnlatentError if the file cannot be read or does not fit, or, partly, if not one parameter fits.
    """
    tensors, own = read_weights(path), net.state_dict()
    loaded = [name for name in own if name in tensors and tensors[name].shape == own[name].shape]
    match = Match(
        loaded=tuple(loaded),
        missing=tuple(name for name in own if name not in tensors and not name.endswith(_COUNTER)),
        unused=tuple(name for name in tensors if name not in own),
        misshapen=tuple(name for name in own if name in tensors and name not in loaded),
    )
    if match.missing and not partly:
        raise OwnlatentError(f"{path} lacks {match.missing[0]}: it is not of this network")
    if match.misshapen and not partly:
        name = match.misshapen[0]
        raise OwnlatentError(
            f"{name} has the shape {tuple(tensors[name].shape)} in {path} and {tuple(own[name].shape)} in this network"
        )
    if not set(loaded) & {name for name, _ in net.named_parameters()}:
        raise OwnlatentError(
            f"no tensor of {path} fits this network ({match}): give the --backbone that the file was written for"
        )
    net.load_state_dict({name: tensors[name] for name in loaded}, strict=False)
    return match


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
