"""Weights from files of several kinds, without running code from any of them."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ownlatent.errors import OwnlatentError

_LIBRARIES = ("timm", "torchvision", "hf")
_WRAPPERS = ("state_dict", "model")  # under which others keep a network's tensors
_COUNTER = "num_batches_tracked"  # of BatchNorm, which older files lack


@dataclass(frozen=True)
class Match:
    """How the tensors of a file and those of a network met, by name.

    missing: those of the network that the file lacks; unused: those of the file that the network has no place for;
    misshapen: those of both with another shape. prefix: what stands before the network's names in the file.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    misshapen: tuple[str, ...]
    prefix: str = ""

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} of the network's {len(self.loaded + self.missing + self.misshapen)} tensors"]
        for names, what in ((self.missing, "not in the file"), (self.misshapen, "of another shape")):
            parts += [f"{len(names)} {what} ({_some(names)})"] if names else []
        parts += [f"{len(self.unused)} of the file's unused ({_some(self.unused)})"] if self.unused else []
        return ", ".join(parts) + (f"; the file's names begin with {self.prefix}" if self.prefix else "")

    def lists(self) -> list[str]:
        """Every tensor by name, a line for each kind of match."""
        kinds = ("loaded", "missing", "unused", "misshapen")
        return [f"{kind}: {', '.join(names)}" for kind in kinds if (names := getattr(self, kind))]


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """Tensors by name: of a run folder's encoder, a .safetensors or a torch file, or a library's own weights.

    The last are named timm:NAME, torchvision:NAME or hf:NAME, and may need a network connection. Raises OwnlatentError.
    """
    if isinstance(source, str) and source.partition(":")[0] in _LIBRARIES and not Path(source).exists():
        from ownlatent.backbones.libraries import build, pretrained_input

        size = pretrained_input(source)
        return build(source, 3, 224 if size is None else size[0], True, {}).state_dict()
    path = Path(source)
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


def load_weights(net: nn.Module, tensors: Mapping[str, Tensor], source: str | Path, partly: bool = False) -> Match:
    """Put tensors into a network, by name, or by what follows a prefix that all of the network's have in common.

    source: where they are from, for what is said. partly: also where some are missing or have another shape, such as a
    stem for larger images. Raises OwnlatentError if they do not fit, or, partly, if not one parameter fits.
    """
    own = net.state_dict()
    prefix = _prefix(own, tensors)
    tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    loaded = [name for name in own if name in tensors and tensors[name].shape == own[name].shape]
    match = Match(
        loaded=tuple(loaded),
        missing=tuple(name for name in own if name not in tensors and not name.endswith(_COUNTER)),
        unused=tuple(name for name in tensors if name not in own),
        misshapen=tuple(name for name in own if name in tensors and name not in loaded),
        prefix=prefix,
    )
    if match.missing and not partly:
        raise OwnlatentError(f"{source} lacks {match.missing[0]}: it is not of this network")
    if match.misshapen and not partly:
        name = match.misshapen[0]
        there, here = tuple(tensors[name].shape), tuple(own[name].shape)
        raise OwnlatentError(f"{name} has the shape {there} in {source} and {here} in this network")
    if not set(loaded) & {name for name, _ in net.named_parameters()}:
        raise OwnlatentError(
            f"no tensor of {source} fits this network ({match}): give the --backbone that the file was written for"
        )
    put(net, {name: tensors[name] for name in loaded})
    return match


def put(net: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Load tensors by name; the names that are missing, but for those that share memory with a loaded one, and the
    names that the network does not have. Raises RuntimeError for a tensor of another shape.
    """
    own = net.state_dict()
    given = OrderedDict(tensors)
    given._metadata = own._metadata  # type: ignore[attr-defined]  # versions, without which some networks refuse
    missing, unexpected = net.load_state_dict(given, strict=False)
    places = {(own[name].data_ptr(), own[name].shape) for name in given if name in own}
    return [name for name in missing if (own[name].data_ptr(), own[name].shape) not in places], unexpected


def _prefix(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What stands before the network's names in the file: training code keeps a backbone within something larger.

    "" where any name fits as it is. Of several, such as a target network's beside the online one's, that under which
    most tensors fit, and of equals the first.
    """
    if set(own) & set(tensors):
        return ""
    first = next(iter(own), "")
    found = [name.removesuffix(first) for name in tensors if first and name.endswith("." + first)]
    return max(found, key=lambda prefix: sum(prefix + name in tensors for name in own), default="")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
