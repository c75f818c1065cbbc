"""Encoders: taken out of their runs, and used."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ownlatent.errors import OwnlatentError
from ownlatent.log import to_console
from ownlatent.run import Run, claimed

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.backbones import OwnNetwork
    from ownlatent.backbones.encoder import Encoder
    from ownlatent.export.write import Exported


def load_encoder(folder: str | Path, network: "str | nn.Module | OwnNetwork | None" = None) -> "nn.Module":
    """The encoder of a run folder: an nn.Module, images in, (B, D) features out.

    network: if the run trained one of your own, a fresh module of the same kind, or FILE.py:NAME.
    """
    from ownlatent.export import encoder

    return encoder.load_encoder(folder, network)


def export(
    run: "str | Path | Run | Encoder",
    *,
    format: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    licence: str | None = None,
    network: "str | nn.Module | OwnNetwork | None" = None,
) -> "Exported":
    """Write an encoder as files that another library loads by itself, with a model card; they are tried at once.

    run: a run or its folder, any folder with encoder.json and encoder.safetensors, or an Encoder. format: "timm",
    "torchvision", "safetensors", "onnx", "hf" or "torchscript". out: the new folder, by default RUN/exported/FORMAT.
    overwrite: replace an export that is there. licence: of the weights, for the model card. network: where the
    run trained one of your own, a fresh module, or FILE.py:NAME.

    Returns the folder and the lines of code that load it. Raises OwnlatentError for anything wrong with the input.
    """
    from ownlatent.export import formats

    if format is None:
        raise OwnlatentError(f"name a format: --format {' or '.join(formats.names())}")
    formats.load(format)  # before anything slow
    with to_console(), ExitStack() as held:
        from ownlatent.backbones.encoder import Encoder
        from ownlatent.export.write import export as write

        folder = None if isinstance(run, Encoder) else run.folder if isinstance(run, Run) else Path(run)
        if folder is None and out is None:
            raise OwnlatentError("name the folder for an encoder without a run: export(encoder, format=..., out=...)")
        place = Path(out) if out is not None else folder / "exported" / format  # type: ignore[operator]
        encoder = encoder_of(run, network)
        is_run = folder is not None and (folder / "recipe.json").exists()
        if folder is not None and is_run and place.resolve().is_relative_to(folder.resolve()):
            held.enter_context(claimed(folder))
        return write(encoder, format, place, run=folder if is_run else None, overwrite=overwrite, licence=licence)


def encoder_of(given: "str | Path | Run | Encoder", network: "str | nn.Module | OwnNetwork | None" = None) -> "Encoder":
    """An encoder by what a user calls it: itself, a run, or a folder. Raises OwnlatentError."""
    from ownlatent.backbones import own_network
    from ownlatent.backbones.encoder import Encoder
    from ownlatent.export.encoder import load_encoder as load

    if isinstance(given, Encoder):
        return given
    if isinstance(given, Run) and network is None:
        return given.encoder
    if not isinstance(given, (str, Path, Run)):
        raise OwnlatentError(
            f"a {type(given).__name__} is no encoder: give a run, its folder or what load_encoder returns"
        )
    folder = given.folder if isinstance(given, Run) else given
    return load(folder, None if network is None else own_network(network))
