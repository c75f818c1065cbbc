"""The values that a recipe may have."""

from dataclasses import asdict

from ownlatent.augment.recipes import SoundView, View
from ownlatent.errors import OwnlatentError, option
from ownlatent.train.recipe import CHOICES, Recipe
from ownlatent.types import NOUNS


def check(recipe: Recipe) -> None:
    """Refuse values out of range. Raises OwnlatentError."""
    values = {**asdict(recipe), **{f"optim.{k}": v for k, v in asdict(recipe.optim).items()}}
    for name, choices in CHOICES.items():
        if values[name] is not None and values[name] not in choices:
            raise OwnlatentError(f"{option(name)} is one of {', '.join(choices)}, not {values[name]!r}")
    positive = ("epochs", "minutes", "image_size", "duration", "batch_size", "accumulate", "checkpoint_seconds")
    for name in (*positive, "optim.base_lr", "optim.lr", "optim.eta"):
        if values[name] is not None and not values[name] > 0:
            raise OwnlatentError(f"{option(name)} must be greater than 0, not {values[name]}")
    if recipe.seed >= 2**63:
        raise OwnlatentError(f"--seed must be below 2**63, not {recipe.seed}")
    for name in ("keep_checkpoints", "devices", "nodes"):
        if values[name] < 1:
            raise OwnlatentError(f"{option(name)} must be at least 1, not {values[name]}")
    for name in ("workers", "seed", *(f"optim.{n}" for n in ("weight_decay", "end_weight_decay", "end_lr", "bias_lr"))):
        if values[name] is not None and not values[name] >= 0:
            raise OwnlatentError(f"{option(name)} must be at least 0, not {values[name]}")
    if not 0 <= recipe.max_unreadable <= 1:
        raise OwnlatentError(f"--max-unreadable is a share from 0 to 1, not {recipe.max_unreadable}")
    for name in ("optim.momentum", "optim.warmup"):
        if values[name] is not None and not 0 <= values[name] < 1:
            raise OwnlatentError(f"{option(name)} must be at least 0 and below 1, not {values[name]}")
    if recipe.image_size is not None and recipe.image_size < 8:
        raise OwnlatentError(f"--image-size must be at least 8 pixels, not {recipe.image_size}")
    if recipe.duration is not None and not 0.08 <= recipe.duration <= 60:
        raise OwnlatentError(f"--duration must be from 0.08 to 60 seconds, not {recipe.duration:g}")
    for name, meant, asked in (("image_size", "image", "--image-size"), ("duration", "audio", "--duration")):
        if values[name] is not None and recipe.modality != meant:
            raise OwnlatentError(f"{asked} has no meaning with --modality {recipe.modality}: leave it out")
    if recipe.epochs is not None and recipe.minutes is not None:
        raise OwnlatentError("--epochs and --minutes exclude each other: give the one that should decide")
    if recipe.batch_size is not None and recipe.batch_size % recipe.accumulate:
        raise OwnlatentError(
            f"--batch-size {recipe.batch_size} is not a multiple of --accumulate {recipe.accumulate}: make it one"
        )
    if len({view.standardise for view in recipe.views or () if isinstance(view, SoundView)}) > 1:
        raise OwnlatentError("--views.standardise is of all views together: give it without a number")
    for number, view in enumerate(recipe.views or ()):
        if isinstance(view, View) != (recipe.modality == "image"):
            raise OwnlatentError(f"the views are not those of {NOUNS[recipe.modality]}: leave them out, or change them")
        if isinstance(view, SoundView):
            _check_sound_view(number, view)
        else:
            _check_view(number, view)


def _check_view(number: int, view: View) -> None:
    for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
        if not 0 <= getattr(view, name) <= 1:
            raise OwnlatentError(f"--views.{number}.{name} is a probability from 0 to 1, not {getattr(view, name)}")
    for name in ("brightness", "contrast", "saturation"):
        if getattr(view, name) < 0:
            raise OwnlatentError(f"--views.{number}.{name} is a strength of at least 0, not {getattr(view, name)}")
    if not 0 <= view.hue <= 0.5:
        raise OwnlatentError(f"--views.{number}.hue is a share of the colour circle from 0 to 0.5, not {view.hue}")
    if not 0 < view.size <= 1:
        raise OwnlatentError(f"--views.{number}.size is a share of the image size in (0, 1], not {view.size}")
    low, high = view.crop_scale
    if not 0 < low <= high <= 1:
        raise OwnlatentError(f"--views.{number}.crop-scale is two rising fractions in (0, 1], not {low}, {high}")
    if not 0 < view.crop_ratio[0] <= view.crop_ratio[1]:
        raise OwnlatentError(f"--views.{number}.crop-ratio is two rising positive numbers")
    if not 0 < view.blur_sigma[0] <= view.blur_sigma[1]:
        raise OwnlatentError(f"--views.{number}.blur-sigma is two rising positive numbers of pixels")


def _check_sound_view(number: int, view: SoundView) -> None:
    if not 0 < view.size <= 1:
        raise OwnlatentError(f"--views.{number}.size is a share of the duration in (0, 1], not {view.size}")
    if not 0 <= view.mixup <= 1:
        raise OwnlatentError(f"--views.{number}.mixup is a share from 0 to 1, not {view.mixup}")
    if not 1 <= view.canvas <= 4:
        raise OwnlatentError(f"--views.{number}.canvas is a length from 1 to 4 times the view's, not {view.canvas}")
    if not 0 <= view.noise <= 1:
        raise OwnlatentError(f"--views.{number}.noise is a probability from 0 to 1, not {view.noise}")
    if not view.snr[0] <= view.snr[1]:
        raise OwnlatentError(f"--views.{number}.snr is two rising numbers of dB, not {view.snr[0]}, {view.snr[1]}")
    for name in ("gain", "fader", "tilt"):
        if getattr(view, name) < 0:
            raise OwnlatentError(f"--views.{number}.{name} is a strength of at least 0, not {getattr(view, name)}")
    for name in ("crop_height", "crop_width"):
        low, high = getattr(view, name)
        if not 0 < low <= high:
            raise OwnlatentError(f"{option(f'views.{number}.{name}')} is two rising positive shares, not {low}, {high}")
