"""Defaults that follow the images or sounds, their number and the hardware, each with its reason in words."""

from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from ownlatent.augment.recipes import RECIPES, SOUND_RECIPES, AnyView, SoundView, View
from ownlatent.backbones.stem import SMALL_IMAGE
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.machine import cores
from ownlatent.methods import get, settings, usual
from ownlatent.sound.spectrum import HOP, RATE
from ownlatent.train.ranges import check
from ownlatent.train.recipe import SHORT_MINUTES, Optim, Recipe, coerce, edit
from ownlatent.types import NOUNS, height_and_width


@dataclass(frozen=True)
class Facts:
    """What is known before anything is chosen.

    side: the images' shorter side in pixels, at the median. classes: of their labels, where they are wanted. frames:
    that nine of ten sounds do not exceed.
    """

    num_images: int
    channels: int
    side: int
    device: str
    classes: int | None = None
    frames: int = 0


def resolve(recipe: Recipe, facts: Facts, view_changes: dict[str, Any]) -> Recipe:
    """The recipe with every None filled in and the changes to views applied. Raises OwnlatentError."""
    small_machine = facts.device == "cpu"
    recipe = sized(recipe, facts)
    most = _batch_size(facts.num_images, recipe.accumulate, _most_in_a_batch(recipe, small_machine))
    batch = recipe.batch_size or most
    if facts.num_images < batch:
        raise OwnlatentError(
            f"there are {facts.num_images} {NOUNS[recipe.modality]}, fewer than a batch of {batch}: "
            f"give --batch-size {most} or more {NOUNS[recipe.modality]}"
        )
    backbone = recipe.backbone or _backbone(recipe, small_machine)
    epochs = recipe.epochs
    if epochs is None and recipe.minutes is None:
        epochs = min(800, max(20, round(2_000_000 / facts.num_images)))
    workers = recipe.workers if recipe.workers is not None else min(8, cores())
    recipe = replace(recipe, epochs=epochs)
    resolved = replace(
        recipe,
        batch_size=batch,
        backbone=backbone,
        workers=workers,
        views=views_for(recipe, facts.device),
        optim=_optim(recipe.optim, batch, _usual(recipe, facts.device)),
        method_settings=method_settings(replace(recipe, batch_size=batch), facts.device, facts.classes),
    )
    resolved = edit(resolved, view_changes)
    get(recipe.method).check_views(len(resolved.views or ()))
    check(resolved)
    return resolved


def _usual(recipe: Recipe, device: str) -> dict[str, Any]:
    """What the method's own recipes make usual for this run."""
    long = recipe.epochs is not None and recipe.epochs > 300
    short = is_short(recipe, device)
    return usual(recipe.method, small=_small(recipe), processor=device == "cpu", short=short, long=long)


def is_short(recipe: Recipe, device: str) -> bool:
    """Whether a run has so little time that the number of its steps is what it is short of."""
    return recipe.minutes is not None and recipe.minutes <= SHORT_MINUTES and device == "cpu"


def _small(recipe: Recipe) -> bool:
    return min(height_and_width(recipe.size)) <= SMALL_IMAGE


def _backbone(recipe: Recipe, small_machine: bool) -> str:
    if recipe.modality == "audio":
        return "byol_a_512" if small_machine else "byol_a_v2"
    if small_machine:
        return "resnet8_w64" if _small(recipe) else "resnet18"
    return "resnet18" if _small(recipe) else "resnet50"


def sized(recipe: Recipe, facts: Facts) -> Recipe:
    """The recipe with the size of its views.

    Of images as given, or the largest usual one that does not enlarge them, at most 96 px without an accelerator. Of
    sounds as given, or BYOL-A's 96 frames, 0.95 seconds, or fewer that hold nine of ten of them.
    """
    if recipe.modality == "audio":
        frames = min(96, max(32, 16 * -(-facts.frames // 16)))
        return replace(recipe, duration=recipe.duration or (frames - 1) * HOP / RATE)
    return replace(recipe, image_size=recipe.image_size or _image_size(facts))


def _image_size(facts: Facts) -> int:
    most = 96 if facts.device == "cpu" else 224
    sizes = [size for size in (32, 48, 64, 96, 128, 160, 192, 224) if size <= min(facts.side, most)]
    return max(sizes, default=max(8, facts.side))


def views_for(recipe: Recipe, device: str) -> tuple[AnyView, ...]:
    """As given, or the method's for views of this size. Raises OwnlatentError for an unknown method."""
    usual = _usual(recipe, device).get("views", "byol")
    if recipe.modality == "audio":
        return recipe.views or SOUND_RECIPES.get(usual, SOUND_RECIPES["microphones"])
    return recipe.views or RECIPES[usual]


def _most_in_a_batch(recipe: Recipe, small_machine: bool) -> int:
    """On a processor the number of steps is what a run is short of, of sounds more than of images (docs/audio.md)."""
    if small_machine:
        return 64 if recipe.modality == "audio" else 128
    return 256


def _batch_size(num_images: int, accumulate: int, most: int) -> int:
    """The largest power of two up to `most` that leaves eight steps an epoch, but at least 32 if there are as many."""
    size = most
    while size > 32 and size * 8 > num_images:
        size //= 2
    size = min(size, num_images)
    return max(1, size // accumulate) * accumulate


# What suits small batches and short runs, where a method's recipes say nothing of this optimiser.
_OPTIM = {
    "sgd": {"base_lr": 0.12, "weight_decay": 5e-4},
    "lars": {"base_lr": 0.45, "weight_decay": 1e-6},
    "adamw": {"base_lr": 2e-3, "weight_decay": 0.05},
}


def usual_lr(recipe: Recipe, device: str) -> float:
    """The learning rate for 256 images that is usual for the method, or for the optimiser where it is another one."""
    name = recipe.optim.name or "sgd"
    of_method = _usual(recipe, device)
    if of_method.get("optim.name") == name and "optim.base_lr" in of_method:
        return of_method["optim.base_lr"]
    return _OPTIM[name]["base_lr"]


def _optim(given: Optim, batch: int, usual: dict[str, Any]) -> Optim:
    """What was given, over what is usual for the method, over what is usual for the optimiser."""
    of_method = {n.removeprefix("optim."): v for n, v in usual.items() if n.startswith("optim.")}
    name = given.name or of_method.get("name", "sgd")
    if of_method.get("name", name) != name:
        of_method = {}
    values: dict[str, Any] = {"end_lr": 0.0, "bias_lr": 1.0, "decay_all": False, "warmup": 0.05, "eta": 1e-3}
    values |= {**_OPTIM.get(name, _OPTIM["sgd"]), **of_method}
    values |= {f.name: getattr(given, f.name) for f in fields(Optim) if getattr(given, f.name) is not None}
    if given.lr is None:
        values["lr"] = values["base_lr"] * batch / 256
    elif given.base_lr is None:
        values["base_lr"] = given.lr * 256 / batch
    values.setdefault("end_weight_decay", values["weight_decay"])
    return replace(given, **{**values, "name": name})


def method_settings(recipe: Recipe, device: str, classes: int | None = None) -> dict[str, Any]:
    """Every keyword of the method's constructor: what was given, over what is usual, over its own.

    classes: how many the labels have, for a method that uses them.
    """
    known = settings(recipe.method)
    ours = {n.removeprefix("method."): v for n, v in _usual(recipe, device).items() if n.startswith("method.")}
    if classes is not None and "classes" in known:
        ours["classes"] = classes
    given = given_settings(recipe)
    if classes is not None and given.get("classes", classes) != classes:
        raise OwnlatentError(
            f"the labels have {classes} classes, and --method.classes is {given['classes']}: leave that out"
        )
    assert recipe.batch_size is not None
    suited = get(recipe.method).suited({**known, **ours, **given}, recipe.batch_size // recipe.accumulate)
    return {**suited, **given}


def given_settings(recipe: Recipe) -> dict[str, Any]:
    """The method's settings that were given, as the types that its constructor takes. Raises OwnlatentError."""
    known = settings(recipe.method)
    hints = get_type_hints(get(recipe.method).__init__)
    given = {}
    for name, value in recipe.method_settings.items():
        if name not in known:
            flag = nearest(f"--method.{name}", [f"--method.{k}" for k in known])
            raise OwnlatentError(f"{recipe.method} takes no setting --method.{name}: {flag}")
        given[name] = coerce(value, hints[name], f"method.{name}")
    return given


def length_of_views(recipe: Recipe) -> str:
    """How large or long a resolved recipe's views are, in words."""
    return f"{recipe.duration:g} s" if recipe.modality == "audio" else f"{recipe.image_size} px"


def describe(recipe: Recipe) -> list[str]:
    """The resolved recipe in a few lines for people."""
    length = f"{recipe.minutes:g} minutes" if recipe.minutes else f"{recipe.epochs:g} epochs"
    optim = recipe.optim
    plain = settings(recipe.method)
    other = ", ".join(f"{k} {v}" for k, v in recipe.method_settings.items() if v != plain[k])
    if recipe.modality == "audio":
        first = recipe.views[0] if recipe.views else SoundView()
        assert isinstance(first, SoundView)
        low, high = first.crop_width
        about = f"up to {first.mixup:.0%} of another sound, crops of {low:g} to {high:g} of the length"
        about = f"louder or softer by up to {first.gain:g} dB, {about}" if first.gain else about
    else:
        view = recipe.views[0] if recipe.views else View()
        assert isinstance(view, View)
        low, high = view.crop_scale
        about = f"crops of {low:g} to {high:g} of the image"
    return [
        f"method     {recipe.method}" + (f" ({other})" if other else ""),
        f"backbone   {recipe.backbone} at {length_of_views(recipe)}",
        f"length     {length}, batches of {recipe.batch_size}",
        f"optimiser  {optim.name}, lr {optim.lr:g}, weight decay {optim.weight_decay:g}, warm-up {optim.warmup:.0%}",
        f"views      {len(recipe.views or ())}, {about}",
    ]
