"""The images or sounds of a run: opening them, looking at them, drawing what augmentation makes of them."""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownlatent.augment.sound_views import SoundViews
from ownlatent.augment.views import MultiView
from ownlatent.data.decode import Unreadable, fit
from ownlatent.data.loader import EXAMPLES, VIEWS, Batches, cutting, generator, order, seed_of
from ownlatent.data.opening import open_source
from ownlatent.data.resident import Resident
from ownlatent.data.source import Source
from ownlatent.errors import OwnlatentError
from ownlatent.sound.front_end import as_seen
from ownlatent.train.recipe import Recipe

log = logging.getLogger("ownlatent")


def open_data(recipe: Recipe, data: Any, labelled: bool = False) -> Source:
    """The source that `data` names or is, by the recipe's options. Raises OwnlatentError if there is nothing."""
    if isinstance(data, str) and data.startswith("object:"):
        raise OwnlatentError(
            f"the recipe is for a data set that a program gave ({data.removeprefix('object:')}): give it again, as "
            "pretrain(data, ...) or val=data"
        )
    where: dict[str, Any] = {"download": recipe.download, "root": recipe.data_root}
    source = open_source(data, labelled=labelled, modality=recipe.modality, **where)
    passed_over = getattr(source, "skipped", ())  # folders and parts of archives that cannot be opened
    for title, reason in passed_over:
        log.debug("skipped    %s: %s", title, reason)
    if passed_over:
        log.warning("passed over %d parts of %s, such as %s: %s", len(passed_over), source.name, *passed_over[0])
    return source


def choose_device(accelerator: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` names. Raises OwnlatentError if it is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    if not present[accelerator]:
        raise OwnlatentError(f"this machine has no {accelerator} device that torch can use: give --accelerator auto")
    return torch.device(accelerator)


def say_progress(what: str, every: float = 5.0) -> Callable[[float], None]:
    """Says how far something long has come, every few seconds and not before."""
    last = perf_counter()

    def say(share: float) -> None:
        nonlocal last
        if perf_counter() - last > every:
            last = perf_counter()
            log.info("%-10s %3.0f %%", what, 100 * share)

    return say


def example_views(
    data: Resident | Source, views: MultiView | SoundViews, seed: int, count: int
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The first images of a fixed shuffle, squared, and V rows of what augmentation makes of them, all in [0, 1]."""
    draws = generator(seed, EXAMPLES)
    read = ((index, read_or_none(data, index)) for index in order(len(data), seed, 0).tolist())
    found = [(i, image) for _, (i, image) in zip(range(count), (f for f in read if f[1] is not None), strict=False)]
    images = [image for _, image in found if image is not None]
    if isinstance(views, SoundViews):
        cut = cutting(data, views.views, views.size)[0, [index for index, _ in found], seed_of(seed, EXAMPLES)]
        assert cut.crops is not None
        made = views.of_crops(cut.crops, draws)
        rows = [[view[row : row + 1] for view in made] for row in range(len(images))]
    else:
        # One image at a time: they may differ in size.
        rows = [views.of_images(image.unsqueeze(0), draws) for image in images]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (views.mean, views.std))
    to_array = _sound_to_array if isinstance(views, SoundViews) else _image_to_array
    shown = [[to_array((row[v][0] * std + mean).clamp(0, 1)) for row in rows] for v in range(len(views.views))]
    return [to_array((fit(i, views.size).float() / views.peak).clamp(max=1)) for i in images], shown


def first_batch(data: Resident | Source, views: MultiView | SoundViews, seed: int, count: int) -> list[Tensor]:
    """The views of the first `count` images that a run would train on, as V tensors (count, C, S, S).

    Raises OwnlatentError if no image can be read.
    """
    batch = cutting(data, views.views, views.size)[(0, Batches(len(data), count, seed).of(0), seed_of(seed, VIEWS, 0))]
    if batch.crops is None:
        raise OwnlatentError(f"nothing of {data.name} can be read any more: check that the data are still there")
    return views.of_crops(batch.crops, generator(seed, VIEWS, 0))


def read_or_none(data: Resident | Source, index: int) -> Tensor | None:
    """Image `index` (C, H, W), or None if it cannot be read."""
    try:
        return data[index].image
    except Unreadable:
        return None


def _sound_to_array(levels: Tensor) -> np.ndarray:
    return as_seen(levels[0].numpy())


def _image_to_array(image: Tensor) -> np.ndarray:
    """(C, H, W) to an array that can be drawn: (H, W) for one channel, else (H, W, 3)."""
    array = image.numpy().transpose(1, 2, 0)
    return array[:, :, :3] if array.shape[2] >= 3 else array[:, :, 0]
