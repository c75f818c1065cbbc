"""A recipe: everything that decides what a run does, typed, frozen, and editable by dotted names."""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from ownlatent.augment.recipes import RECIPES, SOUND_RECIPES, AnyView, SoundView, View
from ownlatent.errors import OwnlatentError, nearest, option
from ownlatent.files import write_json
from ownlatent.sound.spectrum import MELS, RATE, frames_in
from ownlatent.types import NOUNS, Size

FORMAT = 1
"""Of a recipe.json, and with it of the run folder that holds it."""
SHORT_MINUTES = 60.0
"""Runs of so many minutes are short: what learns fastest is then worth more than what gets furthest."""
_IMAGES = "images: give --modality image"
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
        "folder of images or sounds, Parquet files, tar shards, arrays, torchvision:NAME, hf:NAME or photos:train", ""
    )
    modality: Literal["image", "audio"] = _option("image or audio: what the data are", "image")
    val: str | None = _option("folder with class subfolders: k-NN accuracy is measured on it, never trained on")
    method: str = _option(
        "the method, of those in `ownlatent list methods`; unless given byol, and with --minutes up to 60 vicreg "
        "of images and simclr of sounds",
        "byol",
    )
    backbone: str | None = _option(
        "any timm or torchvision name, hf:NAME, one of ownlatent's small networks, or your own as FILE.py:NAME"
    )
    layer: str | None = _option("features from this layer of the network, as `ownlatent layers` names them, or -2")
    pool: str = _option("mean or class: what becomes of tokens, of Vision Transformers, that a layer gives", "mean")
    epochs: float | None = _option("length of the run in passes over the data")
    minutes: float | None = _option("length of the run in minutes of training, instead of --epochs")
    image_size: int | None = _option("side of the views of images in pixels")
    duration: float | None = _option("length of the views of sounds in seconds; longer ones are cut, shorter padded")
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
    views: tuple[AnyView, ...] | None = _option("table of views by name, of those in `ownlatent list views`")
    method_settings: dict[str, Any] = field(default_factory=dict)
    backbone_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> Size:
        """Of the views, once it is decided: the side in pixels; of sounds (bands, frames)."""
        if self.modality == "audio":
            assert self.duration is not None
            return MELS, frames_in(round(self.duration * RATE))
        assert self.image_size is not None
        return self.image_size

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
    # What the views' settings are depends on it, in whatever order they are given.
    for name, value in sorted(changes.items(), key=lambda change: change[0] != "modality"):
        recipe = _set(recipe, name.replace("-", "_").split("."), value, name)
    return recipe


def option_names() -> list[str]:
    """Every dotted name that `edit` knows by itself."""
    plain = [f.name for f in fields(Recipe) if f.name not in ("optim", "method_settings", "backbone_settings")]
    return (
        plain
        + [f"optim.{f.name}" for f in fields(Optim)]
        + list(dict.fromkeys(f"views.{f.name}" for kind in (View, SoundView) for f in fields(kind)))
    )


def _set(target: Any, path: list[str], value: Any, name: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(target, Recipe):
        if rest and head in ("method", "backbone"):
            field_name = f"{head}_settings"
            settings: Any = {**getattr(target, field_name), ".".join(rest): _guess(value)}
            return replace(target, **{field_name: settings})
        if head == "views":
            return replace(target, views=_set_views(target, rest, value, name))
    hints = typing.get_type_hints(type(target))
    if isinstance(target, (View, SoundView)) and head not in hints:
        other, word = (SoundView, "sounds: give --modality audio") if type(target) is View else (View, _IMAGES)
        if head in typing.get_type_hints(other):
            raise OwnlatentError(f"{option(name)} is for {word}")
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


def _set_views(recipe: Recipe, path: list[str], value: Any, name: str) -> Any:
    views: tuple[Any, ...] = recipe.views or ()
    tables: Mapping[str, Any] = RECIPES if recipe.modality == "image" else SOUND_RECIPES
    if not path:  # a whole list, as a recipe.json holds it, or the name of one
        if value in (None, "none", "auto"):
            return None
        if isinstance(value, str):
            if value not in tables:
                raise OwnlatentError(
                    f"there is no table of views of {NOUNS[recipe.modality]} {value!r}: {nearest(value, tables)}"
                )
            return tables[value]
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(row, (View, SoundView, Mapping)) for row in value
        ):
            raise OwnlatentError(f"views takes a list of views, each a table of its settings, not {value!r}")
        rows = []
        for number, row in enumerate(value):
            view: Any = View() if recipe.modality == "image" else SoundView()
            for key, item in (dict(row) if isinstance(row, Mapping) else asdict(row)).items():
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
    if typing.get_origin(hint) is typing.Literal:
        if value not in typing.get_args(hint):
            raise OwnlatentError(f"{option(name)} is one of {', '.join(typing.get_args(hint))}, not {value!r}")
        return value
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
