"""From a recipe to everything that a run needs: data, networks, views, budget."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.augment.views import MultiView
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.decode import fit_square
from ownlatent.data.loader import EXAMPLES, generator, order
from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.resident import MixedSizes, Resident, fits_memory, load_resident
from ownlatent.data.source import Source, Unreadable
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores, memory
from ownlatent.methods._base import Method
from ownlatent.train.budget import Budget
from ownlatent.train.precision import choose_precision
from ownlatent.train.recipe import Recipe, check
from ownlatent.train.resolve import Facts, describe, method_settings, resolve

log = logging.getLogger("ownlatent")
_SAMPLED = 512  # images looked at to learn the sizes and, where needed, mean and std,
_LOOKED = 2 * 10**8  # but no more than some of them once so many bytes were decoded: about two seconds


@dataclass
class Job:
    """A run, ready to start: nothing here depends on whether it is new or resumed."""

    recipe: Recipe
    data: Resident | Source
    bank: Resident | None
    """Labelled training images, which only the built-in photographs have: a folder's labels are unknown."""
    val: Resident | None
    method: Method
    views: MultiView
    encoder: Encoder
    untrained: Encoder
    budget: Budget
    steps_per_epoch: float
    device: torch.device


def prepare(recipe: Recipe, view_changes: dict[str, Any] | None = None, network: nn.Module | None = None) -> Job:
    """Open the data, choose what the recipe leaves open, build the networks; nothing is written.

    view_changes: dotted changes to the views, applied after the views are chosen. network: a module
    of the user's own instead of a named backbone. Raises OwnlatentError before anything slow if the
    recipe is wrong.
    """
    check(recipe)
    device = choose_device(recipe.accelerator)
    if recipe.precision == "16" and device.type == "cpu":
        raise OwnlatentError("--precision 16 needs an accelerator: on a processor choose bf16 or 32")
    method_settings(recipe, device.type)
    if network is not None:
        recipe = replace(recipe, backbone=f"module:{type(network).__name__}")
    elif recipe.backbone and recipe.backbone.startswith("module:"):
        raise OwnlatentError(
            f"the recipe is for a module of your own ({recipe.backbone.removeprefix('module:')}): "
            "pass it in Python, pretrain(..., backbone=module), or give --backbone NAME"
        )
    elif recipe.backbone:
        backbones.check_name(recipe.backbone)

    source = open_source(recipe.data)
    probe = _probe(source)
    facts = Facts(len(source), len(probe.pixels[0]), sorted(probe.sides)[len(probe.sides) // 2], device.type)
    recipe = resolve(recipe, facts, view_changes or {})
    assert recipe.image_size is not None
    val = _load_val(recipe, facts.channels) if recipe.val else None
    labelled = val is not None and source.classes is not None
    bank = load_labelled(recipe.data, facts.channels, recipe.image_size) if labelled else None
    data = _load(source, recipe)
    method = _build(recipe, facts.channels, network)
    why = "as asked"
    if recipe.precision == "auto":
        precision, why = choose_precision(method.backbone, facts.channels, recipe.image_size, device)
        recipe = replace(recipe, precision=precision)
    recipe = replace(recipe, accelerator=device.type, loading="resident" if isinstance(data, Resident) else "streaming")
    assert recipe.views is not None and recipe.image_size is not None
    mean, std = _statistics(probe.pixels)
    encoder = Encoder(method.backbone, recipe.image_size, mean, std)
    steps_per_epoch = _steps_per_epoch(recipe, len(data))
    job = Job(
        recipe=recipe,
        data=data,
        bank=bank,
        val=val,
        method=method,
        views=MultiView(recipe.views, recipe.image_size, mean, std),
        encoder=encoder,
        untrained=deepcopy(encoder),
        budget=Budget(
            steps=None if recipe.epochs is None else max(1, round(recipe.epochs * steps_per_epoch)),
            seconds=None if recipe.minutes is None else recipe.minutes * 60,
        ),
        steps_per_epoch=steps_per_epoch,
        device=device,
    )
    _say(job, why)
    return job


def _build(recipe: Recipe, channels: int, network: nn.Module | None) -> Method:
    """Backbone and method, with weights that depend on the seed alone. Raises OwnlatentError."""
    assert recipe.backbone and recipe.image_size and recipe.batch_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        backbone = backbones.create(
            network if network is not None else recipe.backbone,
            channels=channels,
            image_size=recipe.image_size,
            **backbones.checked_settings(recipe.backbone_settings),
        )
        method = methods.create(recipe.method, backbone, **recipe.method_settings)
    micro_batch = recipe.batch_size // recipe.accumulate
    if micro_batch < method.min_batch:
        raise OwnlatentError(
            f"{recipe.method} normalises over the batch and needs at least {method.min_batch} images in each pass, "
            f"not {micro_batch}: raise --batch-size or lower --accumulate"
        )
    return method


def _steps_per_epoch(recipe: Recipe, num_images: int) -> float:
    assert recipe.batch_size
    passes = num_images // (recipe.batch_size // recipe.accumulate)
    if passes == 0:
        raise OwnlatentError(
            f"only {num_images} images can be read, fewer than a batch of {recipe.batch_size}: "
            f"give --batch-size {num_images}"
        )
    return passes / recipe.accumulate


def _say(job: Job, why: str) -> None:
    """Print what was found and chosen."""
    backbone, recipe = job.method.backbone, job.recipe
    place = "streamed from disk"
    if isinstance(job.data, Resident):
        height, width = job.data.images.shape[2:]
        place = f"{width}x{height} px, in memory ({job.data.images.nbytes / 2**20:.0f} MiB)"
    parameters = sum(p.numel() for p in backbone.parameters()) / 1e6
    for line in [
        f"data       {job.data.name}: {len(job.data)} images, {len(job.views.mean)} channels, {place}",
        *describe(recipe),
        *(f"           changed for these images: {change}" for change in backbone.changes),
        f"network    {parameters:.2f} M parameters, {backbone.num_features} features",
        f"hardware   {recipe.accelerator}, precision {recipe.precision} ({why})",
    ]:
        log.info(line)


def choose_device(accelerator: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `mps` names. Raises OwnlatentError if it is not there."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if present[name]))
    if not present[accelerator]:
        raise OwnlatentError(f"this machine has no {accelerator} device that torch can use: give --accelerator auto")
    return torch.device(accelerator)


def calibration_images(job: Job) -> Tensor:
    """Training images (N, C, S, S) as an evaluator sees them, spread over the data: at most a few thousand."""
    assert job.recipe.image_size is not None
    size = job.recipe.image_size
    most = 5000 if isinstance(job.data, Resident) else 1000  # the others must be decoded again

    def fetch(index: int) -> Tensor | None:
        image = _read_or_none(job.data, index)
        return None if image is None else fit_square(image, size)

    with ThreadPoolExecutor(cores()) as pool:
        images = list(pool.map(fetch, range(0, len(job.data), max(1, len(job.data) // most))))
    return torch.stack([image for image in images if image is not None])


def example_views(job: Job, count: int) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The first images of a fixed shuffle, squared, uint8, and V rows of what augmentation makes of them, in [0, 1]."""
    draws = generator(job.recipe.seed, EXAMPLES)
    size = job.views.size
    shuffled = order(len(job.data), job.recipe.seed, 0).tolist()
    readable = (_read_or_none(job.data, index) for index in shuffled)
    images = [image for _, image in zip(range(count), (i for i in readable if i is not None), strict=False)]
    # One image at a time: they may differ in size.
    rows = [job.views.of_images(image.unsqueeze(0), draws) for image in images]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (job.views.mean, job.views.std))
    views = [[_to_array((row[v][0] * std + mean).clamp(0, 1)) for row in rows] for v in range(len(job.views.views))]
    return [_to_array(fit_square(image, size)) for image in images], views


def _read_or_none(data: Resident | Source, index: int) -> Tensor | None:
    try:
        return data[index].image
    except Unreadable:
        return None


def _to_array(image: Tensor) -> np.ndarray:
    """(C, H, W) to an array that can be drawn: (H, W) for one channel, else (H, W, 3)."""
    array = image.numpy().transpose(1, 2, 0)
    return array[:, :, :3] if array.shape[2] >= 3 else array[:, :, 0]


def _load(source: Source, recipe: Recipe) -> Resident | Source:
    wanted = recipe.loading
    if wanted == "streaming" or (wanted == "auto" and not fits_memory(source, memory() // 4)):
        return source
    try:
        loaded = load_resident(source)
    except MixedSizes as error:
        if wanted == "resident":
            raise OwnlatentError(f"{error}, so they do not fit one tensor: use --loading streaming") from error
        return source
    _say_skipped(loaded)
    return loaded


def _say_skipped(data: Resident) -> None:
    for path, reason in data.skipped:
        log.debug("skipped    %s: %s", path, reason)
    if data.skipped:
        count = len(data.skipped)
        log.warning("skipped %d of %d files that cannot be read; log.txt lists them", count, count + len(data))


def _load_val(recipe: Recipe, channels: int) -> Resident:
    assert recipe.val is not None and recipe.image_size is not None
    val = load_labelled(recipe.val, channels, recipe.image_size)
    _say_skipped(val)
    if len(val) < 2:
        raise OwnlatentError(f"{recipe.val} holds one image: k-NN needs at least two")
    log.info("val        %s: %d images, %d classes", recipe.val, len(val), len(val.classes or ()))
    return val


@dataclass
class _Probe:
    """What a sample of the images tells: shorter sides and up to 4,096 pixels (C, P) of each image."""

    sides: list[int]
    pixels: list[Tensor]


def _probe(source: Source) -> _Probe:
    """Look at images spread over the source. Raises OwnlatentError if none of them can be read."""
    found, reason, looked = _Probe([], []), "", 0
    for index in range(0, len(source), max(1, len(source) // _SAMPLED)):
        try:
            image = source[index].image
        except Unreadable as error:
            reason = str(error)
            continue
        looked += image.numel()
        found.sides.append(min(image.shape[1:]))
        found.pixels.append(image.flatten(1)[:, :: max(1, image[0].numel() // 4096)].clone())
        if looked > _LOOKED and len(found.sides) >= 16:
            break
    if not found.sides:
        raise OwnlatentError(
            f"no image of a sample of {source.name} can be read ({reason}): check that the files are complete"
        )
    return found


def _statistics(pixels: Sequence[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel: ImageNet's for colour images, as in the papers, else measured on the sample."""
    if pixels[0].shape[0] == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    every = torch.cat(list(pixels), dim=1).float() / 255
    mean, std = every.mean(1), every.std(1).clamp(min=1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())
