"""Few labels: which images a user may have labelled, drawn alike from every class."""

import re

import torch
from torch import Tensor

from ownlatent.errors import OwnlatentError


def draw(labels: Tensor, amount: str, seed: int) -> Tensor:
    """Places (n,) int64, in rising order, of a class-balanced draw of the images with labels (N,).

    amount: "1%" of every class (at least one image), or "5" of every class (all, where it has fewer). The draws of
    one seed are nested: fewer labels are a part of more. Raises OwnlatentError for any other amount.
    """
    number, percent = parse(amount)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for label in labels.unique():  # sorted, so the draw depends on the labels and the seed alone
        mine = (labels == label).nonzero().flatten()
        count = max(1, round(len(mine) * number / 100)) if percent else min(len(mine), round(number))
        found.append(mine[torch.randperm(len(mine), generator=generator)[:count]])
    return torch.cat(found).sort().values


def parse(amount: str) -> tuple[float, bool]:
    """("1%") -> (1.0, True): a share of every class; ("5") -> (5.0, False): images of every class."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", amount.strip())
    if match:
        number, percent = float(match[1]), bool(match[2])
        if percent and 0 < number <= 100:
            return number, True
        if not percent and number >= 1 and number == int(number):
            return number, False
    raise OwnlatentError(f"{amount!r} is no number of labels: give a share as 1%, or images of every class as 5")
