"""Encoders: taken out of their runs, and used."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def load_encoder(folder: str | Path, network: "nn.Module | None" = None) -> "nn.Module":
    """The encoder of a run folder: an nn.Module, images in, (B, D) features out.

    network: a fresh module of the same kind, if the run trained a module of your own.
    """
    from ownlatent.export import encoder

    return encoder.load_encoder(folder, network)
