"""The methods, their recipes and the tables of views, as lines for a terminal; no torch is loaded."""

from collections.abc import Iterator
from dataclasses import asdict
from textwrap import wrap
from typing import TypeVar

from ownlatent import methods
from ownlatent.augment.recipes import RECIPES, SOUND_RECIPES, SoundView, View
from ownlatent.errors import option
from ownlatent.methods._card import Card, card
from ownlatent.recipes import sounds

Each = TypeVar("Each", View, SoundView)
LISTS = ("methods", "recipes", "views")
_LABEL = 11  # the width of the first column
_TOGETHER = "\u00a0"


def catalogue(what: str, width: int = 100) -> list[str]:
    """The lines of one of LISTS, wrapped at `width` characters."""
    width = max(60, min(width, 120))
    make = {"methods": _methods, "recipes": _recipes, "views": _views}[what]
    return list(make(width))


def _methods(width: int) -> Iterator[str]:
    for name in methods.names():
        about = card(name)
        yield name
        yield from _wrapped("", about.summary, width)
        yield from _wrapped("paper", _paper(about), width)
        yield from _wrapped("needs", "; ".join(f"{what} {how}" for what, how in about.needs.items()), width)
        yield from _wrapped("pick it", about.pick, width)
        yield ""
    yield from wrap("Take one with --method NAME. `ownlatent list recipes` shows its settings.", width)


def _paper(about: Card) -> str:
    return f"{about.title} ({about.paper})"


def _recipes(width: int) -> Iterator[str]:
    for name in methods.names():
        named = {row: values for row, values in card(name).recipes.items() if row not in methods.UNASKED}
        for row, values in named.items():
            yield f"--method {name} --recipe {row}"
            yield from _wrapped("", values.get("about", ""), width)
            settings = {option(key): value for key, value in values.items() if key != "about"}
            yield from _wrapped("", _pairs(settings), width)
            yield ""
    for row, values in sounds.RECIPES.items():
        yield f"--modality audio --recipe {row}"
        yield from _wrapped("", values["about"], width)
        settings = {option(key): value for key, value in values.items() if key not in ("about", "modality")}
        yield from _wrapped("", _pairs(settings), width)
        yield ""
    last = (
        "Settings given beside --recipe win. Without it they are chosen by the images, their number and the hardware."
    )
    yield from wrap(last, width)


def _views(width: int) -> Iterator[str]:
    for name, views in RECIPES.items():
        yield name
        for view, numbers in _alike(views):
            yield from _wrapped(f"view {numbers}", _view(view), width)
        yield ""
    for name, sound_views in SOUND_RECIPES.items():
        yield f"{name} (of sounds)"
        for sound_view, numbers in _alike(sound_views):
            yield from _wrapped(f"view {numbers}", _pairs(asdict(sound_view)), width)
        yield ""
    yield from wrap("Take one with --views NAME; change it by --views.FIELD, or of one view by --views.0.FIELD.", width)


def _alike(views: tuple[Each, ...]) -> Iterator[tuple[Each, str]]:
    """Views that stand next to each other and are the same, with their numbers, such as 2-9."""
    first = 0
    for number in range(1, len(views) + 1):
        if number == len(views) or views[number] != views[first]:
            yield views[first], f"{first}" if number == first + 1 else f"{first}-{number - 1}"
            first = number


def _view(view: View) -> str:
    plain = asdict(View())
    always = {"crop_scale", "jitter", "blur", "solarize"}
    return _pairs({k: v for k, v in asdict(view).items() if k in always or v != plain[k]})


def _pairs(settings: dict[str, object]) -> str:
    """Names with their values, joined so that no line ends between the two."""
    return "  ".join(f"{name}{_TOGETHER}{shown(value)}" for name, value in settings.items())


def shown(value: object) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(shown, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    """A label and a text beside it; the further lines are indented as the text is."""
    first = f"  {label:<{_LABEL}}" if label else "  "
    rest = " " * (2 + _LABEL) if label else "  "
    lines = wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) if text else []
    return [line.replace(_TOGETHER, " ") for line in lines]
