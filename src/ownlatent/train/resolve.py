"""Defaults that follow the images, their number and the hardware, each with its reason in words."""

from dataclasses import dataclass, replace
from typing import Any, get_type_hints

from ownlatent.augment.recipes import RECIPES, View
from ownlatent.backbones.stem import SMALL_IMAGE
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.machine import cores
from ownlatent.methods import get, settings
from ownlatent.train.recipe import Recipe, check, coerce, edit


@dataclass(frozen=True)
class Facts:
    """What is known before anything is chosen. side: the images' shorter side in pixels, at the median."""

    num_images: int
    channels: int
    side: int
    device: str


def resolve(recipe: Recipe, facts: Facts, view_changes: dict[str, Any]) -> Recipe:
    """The recipe with every None filled in and the changes to views applied. Raises OwnlatentError."""
    small_machine = facts.device == "cpu"
    size = image_size(recipe, facts)
    usual = _batch_size(facts.num_images, recipe.accumulate, 128 if small_machine else 256)
    batch = recipe.batch_size or usual
    if facts.num_images < batch:
        raise OwnlatentError(
            f"there are {facts.num_images} images, fewer than a batch of {batch}: "
            f"give --batch-size {usual} or more images"
        )
    small = size <= SMALL_IMAGE
    backbone = recipe.backbone
    if backbone is None and small_machine:
        backbone = "resnet8_w64" if small else "resnet18"
    elif backbone is None:
        backbone = "resnet18" if small else "resnet50"
    epochs = recipe.epochs
    if epochs is None and recipe.minutes is None:
        epochs = min(800, max(20, round(2_000_000 / facts.num_images)))
    workers = recipe.workers if recipe.workers is not None else min(8, cores())
    resolved = replace(
        recipe,
        image_size=size,
        batch_size=batch,
        backbone=backbone,
        epochs=epochs,
        workers=workers,
        views=views_for(recipe, size),
        optim=_optim(recipe, batch),
        method_settings=method_settings(replace(recipe, epochs=epochs), facts.device),
    )
    resolved = edit(resolved, view_changes)
    wanted = get(recipe.method).num_views
    if len(resolved.views or ()) != wanted:
        raise OwnlatentError(f"{recipe.method} takes {wanted} views, and the recipe has {len(resolved.views or ())}")
    check(resolved)
    return resolved


def image_size(recipe: Recipe, facts: Facts) -> int:
    """As given, or the largest usual size that does not enlarge the images, at most 96 px without an accelerator."""
    if recipe.image_size is not None:
        return recipe.image_size
    most = 96 if facts.device == "cpu" else 224
    usual = [size for size in (32, 48, 64, 96, 128, 160, 192, 224) if size <= min(facts.side, most)]
    return max(usual, default=max(8, facts.side))


def views_for(recipe: Recipe, size: int) -> tuple[View, ...]:
    """As given, or BYOL's for views of this size."""
    return recipe.views or RECIPES["byol_small" if size <= SMALL_IMAGE else "byol"]


def _batch_size(num_images: int, accumulate: int, most: int) -> int:
    """The largest power of two up to `most` that leaves eight steps an epoch, but at least 32 if there are as many."""
    size = most
    while size > 32 and size * 8 > num_images:
        size //= 2
    size = min(size, num_images)
    return max(1, size // accumulate) * accumulate


def _optim(recipe: Recipe, batch: int) -> Any:
    given = recipe.optim
    name = given.name or "sgd"
    per_256, decay = {"sgd": (0.12, 5e-4), "lars": (0.45, 1e-6), "adamw": (2e-3, 0.05)}.get(name, (0.12, 5e-4))
    return replace(
        given,
        name=name,
        lr=per_256 * batch / 256 if given.lr is None else given.lr,
        weight_decay=decay if given.weight_decay is None else given.weight_decay,
        warmup=0.05 if given.warmup is None else given.warmup,
    )


def method_settings(recipe: Recipe, device: str) -> dict[str, Any]:
    """Every keyword of the method's constructor: what was given, over our defaults, over its own.

    Raises OwnlatentError for an unknown method or keyword or a value of the wrong type.
    """
    known = settings(recipe.method)
    hints = get_type_hints(get(recipe.method).__init__)
    # Short runs want a target that moves faster, as in BYOL's presets of up to 300 epochs; processors narrower heads.
    long = recipe.epochs is not None and recipe.epochs > 300
    ours = {"tau": 0.996 if long else 0.99, **({"hidden": 512, "projection": 128} if device == "cpu" else {})}
    given = {}
    for name, value in recipe.method_settings.items():
        if name not in known:
            flag = nearest(f"--method.{name}", [f"--method.{k}" for k in known])
            raise OwnlatentError(f"{recipe.method} takes no setting --method.{name}: {flag}")
        given[name] = coerce(value, hints[name], f"method.{name}")
    return {**known, **{k: v for k, v in ours.items() if k in known}, **given}


def describe(recipe: Recipe) -> list[str]:
    """The resolved recipe in a few lines for people."""
    length = f"{recipe.minutes:g} minutes" if recipe.minutes else f"{recipe.epochs:g} epochs"
    optim = recipe.optim
    heads = ", ".join(f"{k} {v}" for k, v in recipe.method_settings.items())
    low, high = recipe.views[0].crop_scale if recipe.views else (0, 0)
    return [
        f"method     {recipe.method} ({heads})",
        f"backbone   {recipe.backbone} at {recipe.image_size} px",
        f"length     {length}, batches of {recipe.batch_size}",
        f"optimiser  {optim.name}, lr {optim.lr:g}, weight decay {optim.weight_decay:g}, warm-up {optim.warmup:.0%}",
        f"views      {len(recipe.views or ())}, crops of {low:g} to {high:g} of the image",
    ]
