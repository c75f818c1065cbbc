"""A recipe: everything that decides what a run does, typed, frozen, and editable by dotted names."""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from ownlatent.augment.recipes import RECIPES, View
from ownlatent.errors import OwnlatentError, nearest, option
from ownlatent.files import write_json

FORMAT = 1
"""Of a recipe.json, and with it of the run folder that holds it."""
SHORT_MINUTES = 60.0
"""Runs of so many minutes are short: what learns fastest is then worth more than what gets furthest."""
CHOICES = {
    "accelerator": ("auto", "cpu", "cuda", "mps"),
    "precision": ("auto", "32", "bf16", "16"),
    "compile": ("auto", "on", "off"),
    "loading": ("auto", "resident", "streaming"),
    "on_unhealthy": ("stop", "warn"),
    "pool": ("mean", "class"),
    "optim.name": ("adamw", "lars", "sgd"),
}


def _option(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Optim:
    """The optimiser and its schedule. The learning rate is the peak, for the whole batch."""

    name: str | None = _option("sgd, adamw or lars")
    base_lr: float | None = _option("peak learning rate for 256 images; that used is this times the batch over 256")
    lr: float | None = _option("peak learning rate as used, instead of --optim.base-lr")
    end_lr: float | None = _option("learning rate at the end, as a share of its peak")
    bias_lr: float | None = _option("learning rate of biases and norms, as a multiple of the weights'")
    weight_decay: float | None = _option("decay of weights; biases and norms are not decayed")
    end_weight_decay: float | None = _option("decay at the end, to which it goes by half a cosine")
    decay_all: bool | None = _option("true: decay biases and norms as well")
    momentum: float = _option("momentum of sgd and lars", 0.9)
    eta: float | None = _option("trust coefficient of lars")
    warmup: float | None = _option("share of the run over which the rate rises from 0 to its peak")


@dataclass(frozen=True)
class Recipe:
    """What a run does. None means: choose by the images, their number and the hardware.

    `resolve` fills in every None; the resolved recipe is kept in the run folder and repeats the run.
    """

    data: str = _option(
        "folder of images, Parquet files, tar shards, arrays, torchvision:NAME, hf:NAME or photos:train", ""
    )
    val: str | None = _option("folder with class subfolders: k-NN accuracy is measured on it, never trained on")
    method: str = _option(
        "the method, of those in `ownlatent list methods`; unless given byol, and vicreg with --minutes up to 60",
        "byol",
    )
    backbone: str | None = _option(
        "any timm or torchvision name, hf:NAME, one of ownlatent's small networks, or your own as FILE.py:NAME"
    )
    layer: str | None = _option("features from this layer of the network, as `ownlatent layers` names them, or -2")
    pool: str = _option("mean or class: what becomes of tokens, of Vision Transformers, that a layer gives", "mean")
    epochs: float | None = _option("length of the run in passes over the data")
    minutes: float | None = _option("length of the run in minutes of training, instead of --epochs")
    image_size: int | None = _option("side of the views in pixels")
    batch_size: int | None = _option("images per optimiser step, of all processes together")
    accumulate: int = _option("split each batch into this many passes, to save memory", 1)
    seed: int = _option("seed of weights, order and views", 0)
    accelerator: str = _option("auto, cpu, cuda or mps", "auto")
    devices: int = _option("GPUs of this machine, or processes on its processor, that train together", 1)
    nodes: int = _option("machines that train together, each started with its NODE_RANK, by torchrun or by SLURM", 1)
    precision: str = _option("auto (measured), 32, bf16 or 16", "auto")
    compile: str = _option("auto (measured where it may pay), on or off: torch.compile the networks", "auto")
    loading: str = _option("auto, resident (all images in memory) or streaming (worker processes)", "auto")
    workers: int | None = _option("worker processes that decode images, when streaming")
    max_unreadable: float = _option("share of the images that may be unreadable before the run ends", 0.2)
    data_root: str = _option("folder in which torchvision: data sets are kept", "data")
    download: bool = _option("let torchvision: data sets be downloaded", False)
    on_unhealthy: str = _option("stop or warn: what to do when a run has collapsed or diverges", "stop")
    checkpoint_seconds: float = _option("time between two checkpoints", 60.0)
    keep_checkpoints: int = _option("how many checkpoints stay, the newest; older ones are deleted", 2)
    deterministic: bool = _option("repeat to the bit on a GPU too, for some of its speed", False)
    init_from: str | None = _option(
        "begin with the weights of a run, a file, or of a library, as timm:NAME or torchvision:NAME"
    )
    optim: Optim = field(default_factory=Optim)
    views: tuple[View, ...] | None = _option("table of views by name, of those in `ownlatent list views`")
    method_settings: dict[str, Any] = field(default_factory=dict)
    backbone_settings: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write a recipe.json."""
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a recipe.json. Raises OwnlatentError for a missing or broken file or an unknown field."""
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            raise OwnlatentError(f"there is no recipe {path}: name a recipe.json of a run folder") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise OwnlatentError(f"{path} is not a recipe ({error}): name a recipe.json of a run folder") from error
        if not isinstance(stored, dict):
            raise OwnlatentError(f"{path} is not a recipe: name a recipe.json of a run folder")
        written = stored.pop("format", FORMAT)  # one written by hand need not say it
        if written != FORMAT:
            raise OwnlatentError(
                f"{path} has format {written}, and this version of ownlatent reads {FORMAT}: use the version that "
                "wrote it (env.json beside it names it), or start again"
            )
        return edit(cls(), stored)


def edit(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A copy with fields changed by dotted name, such as {"optim.lr": 0.2, "views.0.blur": 0.5}.

    Values may be typed or text as on the command line. `method.X` and `backbone.X` set keywords of
    the method's and the backbone's constructor; `views.X` without a number changes every view.
    Raises OwnlatentError for an unknown name, with the nearest ones, or a value of the wrong type.
    """
    for name, value in changes.items():
        recipe = _set(recipe, name.replace("-", "_").split("."), value, name)
    return recipe


def check(recipe: Recipe) -> None:
    """Refuse values out of range. Raises OwnlatentError."""
    values = {**asdict(recipe), **{f"optim.{k}": v for k, v in asdict(recipe.optim).items()}}
    for name, choices in CHOICES.items():
        if values[name] is not None and values[name] not in choices:
            raise OwnlatentError(f"{option(name)} is one of {', '.join(choices)}, not {values[name]!r}")
    positive = ("epochs", "minutes", "image_size", "batch_size", "accumulate", "checkpoint_seconds")
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
    if recipe.epochs is not None and recipe.minutes is not None:
        raise OwnlatentError("--epochs and --minutes exclude each other: give the one that should decide")
    if recipe.batch_size is not None and recipe.batch_size % recipe.accumulate:
        raise OwnlatentError(
            f"--batch-size {recipe.batch_size} is not a multiple of --accumulate {recipe.accumulate}: make it one"
        )
    for number, view in enumerate(recipe.views or ()):
        _check_view(number, view)


def option_names() -> list[str]:
    """Every dotted name that `edit` knows by itself."""
    plain = [f.name for f in fields(Recipe) if f.name not in ("optim", "method_settings", "backbone_settings")]
    return plain + [f"optim.{f.name}" for f in fields(Optim)] + [f"views.{f.name}" for f in fields(View)]


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


def _set(target: Any, path: list[str], value: Any, name: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(target, Recipe):
        if rest and head in ("method", "backbone"):
            field_name = f"{head}_settings"
            settings: Any = {**getattr(target, field_name), ".".join(rest): _guess(value)}
            return replace(target, **{field_name: settings})
        if head == "views":
            return replace(target, views=_set_views(target.views or (), rest, value, name))
    hints = typing.get_type_hints(type(target))
    if head not in hints:
        raise OwnlatentError(f"there is no option {option(name)}: {nearest(name, map(option, option_names()))}")
    if rest:
        if not is_dataclass(getattr(target, head)):
            raise OwnlatentError(f"there is no option {option(name)}: {nearest(name, map(option, option_names()))}")
        return replace(target, **{head: _set(getattr(target, head), rest, value, name)})
    if is_dataclass(hints[head]) and isinstance(value, Mapping):
        inner = getattr(target, head)
        for key, item in value.items():
            inner = _set(inner, [key], item, f"{name}.{key}")
        return replace(target, **{head: inner})
    return replace(target, **{head: coerce(value, hints[head], name)})


def _set_views(views: tuple[View, ...], path: list[str], value: Any, name: str) -> tuple[View, ...] | None:
    if not path:  # a whole list, as a recipe.json holds it, or the name of one
        if value in (None, "none", "auto"):
            return None
        if isinstance(value, str):
            if value not in RECIPES:
                raise OwnlatentError(f"there is no table of views {value!r}: {nearest(value, RECIPES)}")
            return RECIPES[value]
        if not isinstance(value, (list, tuple)) or not all(isinstance(row, (View, Mapping)) for row in value):
            raise OwnlatentError(f"views takes a list of views, each a table of its settings, not {value!r}")
        rows = []
        for number, row in enumerate(value):
            view = View()
            for key, item in (asdict(row) if isinstance(row, View) else row).items():
                view = _set(view, [key], item, f"views.{number}.{key}")
            rows.append(view)
        return tuple(rows)
    if not views:
        raise OwnlatentError(f"{option(name)} changes views that are not chosen yet: give the whole list of views")
    if path[0].isdigit():
        number = int(path[0])
        if number >= len(views) or len(path) != 2:
            last = len(views) - 1
            raise OwnlatentError(
                f"there is no option {option(name)}: views are numbered 0 to {last}, as in --views.0.blur"
            )
        changed = _set(views[number], path[1:], value, name)
        return (*views[:number], changed, *views[number + 1 :])
    return tuple(_set(view, path, value, name) for view in views)


def coerce(value: Any, hint: Any, name: str) -> Any:
    """A value as the annotated type; text is read as the command line gives it. Raises OwnlatentError."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None or (value in ("none", "auto") and type(None) in options):
        if type(None) in options:
            return None
        raise OwnlatentError(f"{option(name)} needs a value")
    wanted = next(o for o in options if o is not type(None))
    origin = typing.get_origin(wanted)
    try:
        if origin is tuple:
            items = value.split(",") if isinstance(value, str) else list(value)
            kinds = typing.get_args(wanted)
            if len(items) != len(kinds):
                raise ValueError
            return tuple(coerce(item, kind, name) for item, kind in zip(items, kinds, strict=True))
        if origin is dict:
            return dict(value)
        if wanted is str:
            return str(value)
        if wanted is bool:
            return {True: True, False: False, "true": True, "false": False, "1": True, "0": False}[value]
        number = float(value)
        if not isfinite(number) or isinstance(value, bool) or (wanted is int and number != int(number)):
            raise ValueError
        return (
            int(value) if wanted is int and isinstance(value, (int, str)) and str(value).isdigit() else wanted(number)
        )
    except (TypeError, ValueError, KeyError):
        expected = {int: "a whole number", float: "a number", bool: "true or false"}.get(
            wanted, "numbers with a comma between them, as in 0.2,1.0"
        )
        raise OwnlatentError(f"{option(name)} takes {expected}, not {value!r}") from None


def _guess(value: Any) -> Any:
    """A setting of a constructor has no annotation here: read text as JSON where it is JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(value, value)
