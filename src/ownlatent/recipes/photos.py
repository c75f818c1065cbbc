"""The built-in photographs."""

from ownlatent.train.recipe import Optim, Recipe


def photos(minutes: float = 1.75) -> Recipe:
    """BYOL on patches of the photographs inside scikit-image; the task is which photograph a patch is from.

    Command: `ownlatent demo`. Expected: see benchmarks/results/first_light.json. Hardware: 2 CPU
    cores, 3 minutes in all.
    """
    return Recipe(data="photos:train", val="photos:test", minutes=minutes, optim=Optim())
