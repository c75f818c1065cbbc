"""Features that were computed before, kept in the user's cache folder and checked before they are used again."""

import hashlib
import logging
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ownlatent import __version__
from ownlatent.data.index.cache import cache_folder, replacing

log = logging.getLogger("ownlatent")
_MOST_BYTES = 8 * 2**30  # of all kept features; the longest unused go first


def weights_fingerprint(network: nn.Module, *more: object) -> str:
    """Sixteen hexadecimal digits that change with any weight or buffer, with their names and with what is given."""
    digest = hashlib.blake2b(repr(more).encode(), digest_size=8)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Features(NamedTuple):
    """Of the images of a source that can be read: values (N, D), labels (N,), and their places (N,) in the source."""

    values: Tensor
    labels: Tensor
    places: Tensor


def load(weights: str, data: str, layer: str | None) -> Features | None:
    """What was kept for these fingerprints, or None if there is nothing that is whole."""
    path = _path(weights, data, layer)
    if path is None or not path.exists():
        return None
    try:
        with safe_open(str(path), "pt") as file:
            found = Features(*(file.get_tensor(name) for name in Features._fields))
            whole = (file.metadata() or {}).get("digest") == _digest(found)
        with suppress(OSError):
            path.touch()  # used now, so that others go first
    except (SafetensorError, OSError):
        whole = False
    if not whole:
        log.warning("features   kept in %s are damaged and are made again", path)
        return None
    return found


def keep(weights: str, data: str, layer: str | None, features: Features) -> None:
    """Keep features for the next time, if there is a folder that can be written to."""
    path = _path(weights, data, layer)
    if path is None:
        return
    try:
        with replacing(path) as file:
            file.write(save(features._asdict(), {"digest": _digest(features)}))
        _make_room(path.parent)
    except OSError as error:
        log.debug("features   cannot be kept: %s", error)


def _path(weights: str, data: str, layer: str | None) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(repr((weights, data, layer, __version__)).encode()).hexdigest()[:32]
    return folder and folder / "features" / f"{name}.safetensors"


def _digest(features: Features) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in features:
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _make_room(folder: Path) -> None:
    found = sorted(((p.stat().st_mtime_ns, p.stat().st_size, p) for p in folder.glob("*.safetensors")), reverse=True)
    total = 0
    for _, size, path in found:
        total += size
        if total > _MOST_BYTES:
            path.unlink(missing_ok=True)
