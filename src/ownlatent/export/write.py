"""An encoder into a folder that another library loads: written beside its place, tried out, moved in whole."""

import contextlib
import io
import logging
import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.export import card, formats
from ownlatent.export.formats import Written
from ownlatent.export.formats._examples import examples, inputs
from ownlatent.export.formats._sizes import difference
from ownlatent.export.preprocessing import preprocessing
from ownlatent.files import flush_folder, replace_file, write_json

log = logging.getLogger("ownlatent")
_MARK = "preprocessing.json"  # by which a folder is known as an export


@dataclass(frozen=True)
class Exported:
    """folder: where it lies. lines: code that loads it there, from `images` to `features`; see formats.Written.

    difference: the largest one between the features that the other library gives and the encoder's, for photographs,
    as a share of the largest feature.
    """

    folder: Path
    lines: tuple[str, ...]
    difference: float


def export(
    encoder: Encoder,
    format: str,
    out: Path,
    *,
    run: Path | None = None,
    overwrite: bool = False,
    licence: str | None = None,
) -> Exported:
    """Write an encoder for another library, with its preprocessing and a model card, and load it back to compare.

    run: the run's folder, which the card tells of. Raises OwnlatentError, and leaves `out` as it was, for a format
    that there is not or that is not for this network, and where `out` cannot be written or would be lost.
    """
    chosen = formats.load(format)
    beside = out.with_name(f".{out.name}-{os.getpid()}")  # nobody else's, so that it can be removed
    missing = [folder for folder in out.parents if not folder.exists()]
    try:
        check_place(out, overwrite)
        beside.mkdir(parents=True)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _silence():
            still = deepcopy(encoder).cpu().eval()
            written: Written = chosen.write(still, beside)
            found = _compared(written, still, chosen, beside)
        facts = preprocessing(still)
        write_json(beside / _MARK, facts)
        checked = told(chosen.LIBRARY, written, found)
        text = card.card(still, run, chosen.LIBRARY, written, checked, facts, licence)
        replace_file(beside / "README.md", text.encode())
        _move(beside, out)
    except OSError as error:
        raise OwnlatentError(f"cannot write {out} ({error.strerror or error}): give another --out") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with contextlib.suppress(OSError):
            for folder in missing:  # what was made for nothing
                folder.rmdir()
    names = ", ".join(sorted(path.name for path in out.iterdir()))
    log.info("wrote      %s: %s", out, names)
    log.info("checked    %s", checked)
    for fact in written.at(str(out)).facts:
        log.info("           %s", fact)
    return Exported(out, written.at(str(out)).lines, found)


def check_place(out: Path, overwrite: bool) -> None:
    """Raise OwnlatentError if something lies there that would be lost."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise OwnlatentError(f"{out} is there already and no folder: give another --out")
    if not any(out.iterdir()):
        return
    if not (out / _MARK).exists():
        raise OwnlatentError(f"{out} holds something else than an export, which would be lost: give another --out")
    if not overwrite:
        raise OwnlatentError(f"{out} holds an export already: replace it by --overwrite, or give another --out")


def told(library: str, written: Written, found: float) -> str:
    """What the comparison gave, in a few words."""
    if not written.gives_features:
        return f"read back by {library}: the same tensors"
    if not found:
        return f"loaded back by {library}: features of examples are the same to the bit"
    return f"loaded back by {library}: features of examples differ by at most {found:.1g} of the largest"


def _compared(written: Written, encoder: Encoder, chosen: ModuleType, folder: Path) -> float:
    """The difference that the lines of code lead to, run as they are. Raises OwnlatentError if it is too large."""
    whole = encoder.modality == "audio" and written.takes_sounds
    images = inputs(encoder) if whole else examples(encoder)
    word = "sounds" if whole else "images"
    names: dict[str, Any] = {word: images.contiguous().numpy() if written.arrays else images}
    try:
        exec("\n".join(written.at(str(folder)).lines), names)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise OwnlatentError(
            f"{chosen.LIBRARY} cannot load what was written for it ({reason}): export it as safetensors or torchscript"
        ) from error
    if not written.gives_features:
        own = encoder.backbone.net.state_dict()
        same = own.keys() == names["weights"].keys()
        found = 0.0 if same and all(torch.equal(own[name], names["weights"][name]) for name in own) else float("inf")
    else:
        found = difference(torch.as_tensor(names["features"]), encoder(images))
    if not found <= chosen.TOLERANCE:
        raise OwnlatentError(
            f"what {chosen.LIBRARY} loads differs from the encoder by {found:.1g} of its features: export it as "
            "safetensors or torchscript"
        )
    return found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Libraries draw bars and tell of their progress, which nobody needs who waits for two sentences."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _move(beside: Path, out: Path) -> None:
    """Put a folder in the place of one that may be there."""
    for path in beside.rglob("*"):
        if path.is_file():
            _flush(path)
    former = beside.with_name(beside.name + "-former")
    if out.exists():
        os.replace(out, former)
    try:
        os.replace(beside, out)
    except OSError:
        if former.exists():
            os.replace(former, out)
        raise
    shutil.rmtree(former, ignore_errors=True)
    flush_folder(out.parent)


def _flush(path: Path) -> None:
    """Bring what another library wrote to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
