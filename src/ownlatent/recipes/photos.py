"""The built-in photographs."""

from dataclasses import replace
from typing import Any

from ownlatent.augment.recipes import RECIPES, View
from ownlatent.methods import usual
from ownlatent.train.recipe import Optim, Recipe

MINUTES = 2.25


def photos(method: str, minutes: float = MINUTES) -> Recipe:
    """A method on patches of the photographs inside scikit-image; the task is which photograph a patch is from.

    Command: `ownlatent demo --method METHOD`. Hardware: 2 CPU cores, 3 minutes in all. Expected scores: those
    in benchmarks/results/first_light.json and methods.json.

    Weaker views than the method's own: how bright and how coarse a patch is tells photographs apart, and strong
    jitter, solarising and small crops would teach the encoder to ignore just that. The strengths were chosen
    among a few by BYOL's score on these same patches, so it flatters a little; with the usual views for
    small images (`byol_small`) its gain over the random encoder is about 5 points smaller.
    """

    def weaker(view: View) -> View:
        scale = view.crop_scale if view.size < 1 else (0.3, 1.0)
        return replace(view, crop_scale=scale, brightness=0.2, contrast=0.2, solarize=0.0, blur=0.0)

    own = usual(method, small=True, processor=True, short=True, long=False)
    views = RECIPES[own.get("views", "byol")]
    return Recipe(
        data="photos:train",
        val="photos:test",
        method=method,
        minutes=minutes,
        backbone="resnet10_w32",
        batch_size=64,
        optim=_larger_steps(own),
        views=tuple(weaker(view) for view in views),
    )


def _larger_steps(own: dict[str, Any]) -> Optim:
    """Twice the usual rate of SGD and LARS, from which so short a run gains; AdamW's is large as it is."""
    name = own.get("optim.name", "sgd")
    rate = own.get("optim.base_lr", 0.12) * (1 if name == "adamw" else 2)
    return Optim(name=name, base_lr=rate, weight_decay=own.get("optim.weight_decay"))
