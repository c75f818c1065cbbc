"""From a recipe to everything that a run needs: data, networks, views, budget."""

import logging
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch

from ownlatent import backbones, methods
from ownlatent.augment.channels import suited_to
from ownlatent.augment.sound_views import SoundViews, make_views
from ownlatent.augment.views import MultiView
from ownlatent.backbones import OwnNetwork
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.weights import load_weights, read_weights
from ownlatent.data.frames import Frames, load_frames
from ownlatent.data.opening import load_labelled
from ownlatent.data.resident import MixedSizes, Resident, check_unreadable, load_resident
from ownlatent.data.source import Source
from ownlatent.data.survey import Survey, survey
from ownlatent.errors import OwnlatentError
from ownlatent.machine import memory
from ownlatent.methods._base import Method
from ownlatent.sound.spectrum import HOP, RATE
from ownlatent.train import processes
from ownlatent.train.budget import Budget
from ownlatent.train.compile import choose_compile
from ownlatent.train.images import choose_device, open_data, say_progress
from ownlatent.train.precision import choose_precision
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Recipe
from ownlatent.train.resolve import Facts, describe, given_settings, resolve
from ownlatent.types import NOUNS, Size, height_and_width

log = logging.getLogger("ownlatent")


@dataclass
class Job:
    """A run, ready to start: nothing here depends on whether it is new or resumed."""

    recipe: Recipe
    data: Resident | Source
    bank: Resident | None
    """Labelled training images, which only the built-in photographs have: a folder's labels are unknown."""
    val: Resident | None
    method: Method
    views: MultiView | SoundViews
    encoder: Encoder
    untrained: Encoder
    """The same with its weights as the seed gives them, also where the run begins with others."""
    changes: list[str]
    """What the views leave out or replace because of the images' channels."""
    budget: Budget
    steps_per_epoch: float
    device: torch.device
    survey: Survey | None = None
    """What a sample of the images told; None where a part of labelled ones is trained on."""


def prepare(
    recipe: Recipe,
    view_changes: dict[str, Any] | None = None,
    network: OwnNetwork | None = None,
    objects: dict[str, Any] | None = None,
) -> Job:
    """Open the data, choose what the recipe leaves open, build the networks; nothing is written.

    view_changes: dotted changes to the views, applied after the views are chosen. network: one
    of the user's own instead of a named backbone. objects: `data` and `val` where they are no names.
    Raises OwnlatentError before anything slow if the recipe is wrong.
    """
    check(recipe)
    device = processes.own_device(choose_device(recipe.accelerator), recipe)
    if recipe.precision == "16" and device.type == "cpu":
        raise OwnlatentError("--precision 16 needs an accelerator: on a processor choose bf16 or 32")
    given_settings(recipe)
    if network is not None:
        recipe = replace(recipe, backbone=f"module:{network.name}")
    elif recipe.backbone and recipe.backbone.startswith("module:"):
        raise OwnlatentError(
            f"the recipe is for a network of your own ({recipe.backbone.removeprefix('module:')}): give it again as "
            "--backbone FILE.py:NAME, or in Python as pretrain(..., backbone=module)"
        )
    elif recipe.backbone:
        backbones.check_name(recipe.backbone)

    given = {"data": recipe.data, "val": recipe.val, **(objects or {})}
    labelled = methods.get(recipe.method).uses_labels
    source = open_data(recipe, given["data"], labelled)
    if labelled and source.classes is None:
        raise OwnlatentError(f"{source.name} has no labels, and {recipe.method} learns from them: give data that have")
    seen = survey(source)
    check_unreadable(seen.skipped, seen.count, f"a sample of {source.name}", recipe.max_unreadable)
    classes = None if source.classes is None else len(source.classes)
    facts = Facts(len(source), seen.channels, seen.side, device.type, classes, seen.frames)
    recipe = resolve(recipe, facts, view_changes or {})
    assert recipe.views is not None
    suited, changes = suited_to(recipe.views, facts.channels)
    recipe = replace(recipe, views=suited)
    size = recipe.size
    val = _load_val(recipe, given["val"], facts.channels, size) if recipe.val else None
    bank = None
    if val is not None and recipe.data.startswith(("photos:", "sounds:")):
        bank = load_labelled(recipe.data, facts.channels, size, modality=recipe.modality)
    data = _load(source, recipe, seen)
    method = build(recipe, facts.channels, network)
    why = "as asked"
    alone = processes.count(recipe) == 1
    processes.check(recipe, device)
    if recipe.precision == "auto" and device.type == "cpu" and not alone:
        recipe, why = replace(recipe, precision="32"), "processes that try it might choose differently"
    if recipe.precision == "auto":
        precision, why = choose_precision(method.backbone, facts.channels, size, device)
        recipe = replace(recipe, precision=precision)
    steps_per_epoch = _steps_per_epoch(recipe, len(data))
    budget = Budget(
        steps=None if recipe.epochs is None else max(1, round(recipe.epochs * steps_per_epoch)),
        seconds=None if recipe.minutes is None else recipe.minutes * 60,
    )
    assert recipe.batch_size
    shape = (recipe.batch_size // recipe.accumulate, facts.channels, *height_and_width(size))
    asked = "off" if recipe.compile == "auto" and not alone else recipe.compile
    compiles, why_compiled = choose_compile(asked, method.backbone, shape, device, recipe.precision, budget)
    recipe = replace(
        recipe,
        accelerator=device.type,
        loading="resident" if isinstance(data, (Resident, Frames)) else "streaming",
        compile="on" if compiles else "off",
    )
    assert recipe.views is not None
    encoder = Encoder(method.result, size, seen.mean, seen.std, seen.peak)
    job = Job(
        recipe=recipe,
        data=data,
        bank=bank,
        val=val,
        method=method,
        views=make_views(recipe.views, size, seen.mean, seen.std, seen.peak),
        encoder=encoder,
        untrained=deepcopy(encoder),
        survey=seen,
        changes=changes,
        budget=budget,
        steps_per_epoch=steps_per_epoch,
        device=device,
    )
    _say(job, why, why_compiled)
    if recipe.init_from:
        begin_from(recipe.init_from, method)
    return job


def begin_from(source: str, method: Method) -> None:
    """Give a method's backbone, and its copies, the weights of a run, a file or a library. Raises OwnlatentError."""
    backbones_of = [part for part in method.modules() if isinstance(part, backbones.Backbone)]
    tensors = read_weights(source)
    matches = [load_weights(part.net, tensors, source, partly=True) for part in backbones_of]
    log.info("weights    of %s: %s", source, matches[0])
    for line in matches[0].lists():
        log.debug("           %s", line)


def build(recipe: Recipe, channels: int, network: OwnNetwork | None) -> Method:
    """Backbone and method, with weights that depend on the seed alone. Raises OwnlatentError."""
    assert recipe.backbone and recipe.batch_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        backbone = backbones.create(
            network if network is not None else recipe.backbone,
            layer=recipe.layer,
            pool=recipe.pool,
            channels=channels,
            image_size=recipe.size,
            **backbones.checked_settings(recipe.backbone_settings),
        )
        method = methods.create(recipe.method, backbone, **recipe.method_settings)
    for size in {view.pixels(recipe.size) for view in recipe.views or ()} - {recipe.size}:
        backbones.measure(backbone.net, backbone.tap, channels, size)  # small crops beside the large ones
    method.check_batch(recipe.batch_size // recipe.accumulate)
    return method


def _steps_per_epoch(recipe: Recipe, num_images: int) -> float:
    assert recipe.batch_size
    passes = num_images // (recipe.batch_size // recipe.accumulate)
    if passes == 0:
        raise OwnlatentError(
            f"only {num_images} {NOUNS[recipe.modality]} can be read, fewer than a batch of {recipe.batch_size}: "
            f"give --batch-size {num_images}"
        )
    return passes / recipe.accumulate


def _say(job: Job, why: str, why_compiled: str) -> None:
    """Print what was found and chosen."""
    backbone, recipe = job.method.backbone, job.recipe
    place = "streamed from disk" if job.survey and job.survey.bytes else "of several sizes, streamed from disk"
    if isinstance(job.data, Resident):
        height, width = job.data.images.shape[2:]
        place = f"{width}x{height} px, in memory ({job.data.images.nbytes / 2**20:.0f} MiB)"
    elif isinstance(job.data, Frames):
        seconds = len(job.data.frames) * HOP / RATE
        place = f"{seconds / 60:.3g} minutes, in memory ({job.data.frames.nbytes / 2**20:.0f} MiB)"
    elif recipe.modality == "audio":
        place = "streamed from disk"
    parameters = sum(p.numel() for p in backbone.parameters()) / 1e6
    depth = "" if job.views.peak == 255 else f" of 16 bits (largest value taken as {job.views.peak:g})"
    kind = f"{len(job.views.mean)} channels{depth}"
    if recipe.modality == "audio":
        kind = "as log-mel spectrograms of 16 kHz and 64 bands"
    for line in [
        f"data       {job.data.name}: {len(job.data)} {NOUNS[recipe.modality]}, {kind}, {place}",
        *describe(recipe),
        *(f"           changed for these channels: {change}" for change in job.changes),
        *(f"           changed for these {NOUNS[recipe.modality]}: {change}" for change in backbone.changes),
        f"network    {parameters:.2f} M parameters, {backbone.num_features} features{_of_layer(backbone)}",
        f"hardware   {_hardware(recipe)}, precision {recipe.precision} ({why})",
        f"           compile {recipe.compile} ({why_compiled})",
    ]:
        log.info(line)


def _of_layer(backbone: backbones.Backbone) -> str:
    if backbone.tap.adapter is not None:
        return " through an adapter"
    return f" from {backbone.layer}" if backbone.layer else ""


def _hardware(recipe: Recipe) -> str:
    if processes.count(recipe) == 1:
        return recipe.accelerator
    machines = f" on each of {recipe.nodes} machines" if recipe.nodes > 1 else ""
    return f"{recipe.accelerator}, {recipe.devices} processes{machines}"


def _load(source: Source, recipe: Recipe, seen: Survey) -> Resident | Source:
    """All images in memory where they have one size and take at most a quarter of it, unless asked otherwise."""
    wanted = recipe.loading
    if recipe.modality == "audio":
        return source if wanted == "streaming" else _load_sounds(source, recipe)
    size = None if seen.bytes is None else seen.bytes * recipe.devices  # each process of this machine holds them
    if wanted == "resident" and size is not None and size > 0.8 * memory():
        raise OwnlatentError(
            f"the images take {size / 2**30:.0f} GiB and the machine has {memory() / 2**30:.0f}: "
            "use --loading streaming"
        )
    if wanted == "streaming" or (wanted == "auto" and (size is None or size > memory() // 4)):
        return source
    try:
        loaded = load_resident(source, progress=say_progress("loading"))
    except MixedSizes as error:
        if wanted == "resident":
            raise OwnlatentError(f"{error}, so they do not fit one tensor: use --loading streaming") from error
        return source
    check_unreadable(dict(loaded.skipped), len(source), source.name, recipe.max_unreadable)
    _say_skipped(loaded)
    return loaded


def _load_sounds(source: Source, recipe: Recipe) -> Frames | Source:
    """All sounds in memory where they take at most a quarter of it, or most of it if asked for."""
    share = 0.8 if recipe.loading == "resident" else 0.25
    loaded = load_frames(source, int(share * memory()) // recipe.devices, say_progress("loading"))
    if loaded is None and recipe.loading == "resident":
        raise OwnlatentError(f"the sounds of {source.name} do not fit the memory: use --loading streaming")
    if loaded is None:
        return source
    check_unreadable(dict(loaded.skipped), len(source), source.name, recipe.max_unreadable)
    _say_skipped(loaded)
    return loaded


def _say_skipped(data: Resident | Frames) -> None:
    for path, reason in data.skipped:
        log.debug("skipped    %s: %s", path, reason)
    if data.skipped:
        count = len(data.skipped)
        log.warning("skipped %d of %d files that cannot be read; log.txt lists them", count, count + len(data))


def _load_val(recipe: Recipe, data: Any, channels: int, size: Size) -> Resident:
    val = load_labelled(open_data(recipe, data, labelled=True), channels, size, modality=recipe.modality)
    _say_skipped(val)
    if len(val) < 2:
        raise OwnlatentError(f"{recipe.val} holds one {NOUNS[recipe.modality][:-1]}: k-NN needs at least two")
    log.info("val        %s: %d %s, %d classes", recipe.val, len(val), NOUNS[recipe.modality], len(val.classes or ()))
    return val
