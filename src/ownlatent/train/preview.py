"""The views that a run would train on, without the run."""

from dataclasses import replace
from typing import Any

import numpy as np

from ownlatent.augment.channels import suited_to
from ownlatent.augment.sound_views import make_views
from ownlatent.data.survey import survey
from ownlatent.train.images import choose_device, example_views, open_data
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Recipe, edit
from ownlatent.train.resolve import Facts, length_of_views, sized, views_for
from ownlatent.types import NOUNS


def preview(
    recipe: Recipe, view_changes: dict[str, Any], count: int
) -> tuple[list[np.ndarray], list[list[np.ndarray]], list[str]]:
    """Images, their views, and what is to be said about them. Raises OwnlatentError if the recipe is wrong."""
    check(recipe)
    source = open_data(recipe, recipe.data)
    seen = survey(source)
    facts = Facts(len(source), seen.channels, seen.side, choose_device(recipe.accelerator).type, frames=seen.frames)
    recipe = sized(recipe, facts)
    recipe = edit(replace(recipe, views=views_for(recipe, facts.device)), view_changes)
    check(recipe)
    assert recipe.views is not None
    views, changes = suited_to(recipe.views, seen.channels)
    make = make_views(views, recipe.size, seen.mean, seen.std, seen.peak)
    originals, shown = example_views(source, make, recipe.seed, count)
    lines = [
        f"data       {source.name}: {len(source)} {NOUNS[recipe.modality]}, {seen.channels} channels",
        f"views      {len(views)} at {length_of_views(recipe)}",
        *(f"           changed for these channels: {change}" for change in changes),
    ]
    return originals, shown, lines
