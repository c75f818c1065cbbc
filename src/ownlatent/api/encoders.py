"""Encoders: taken out of their runs, and used."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.backbones import OwnNetwork


def load_encoder(folder: str | Path, network: "str | nn.Module | OwnNetwork | None" = None) -> "nn.Module":
    """The encoder of a run folder: an nn.Module, images in, (B, D) features out.

    network: if the run trained one of your own, a fresh module of the same kind, or FILE.py:NAME.
    """
    from ownlatent.export import encoder

    return encoder.load_encoder(folder, network)
