"""Views for other than three channels: what is left out or replaced, and that it is said."""

from dataclasses import replace

import pytest
import torch

from ownlatent.augment.channels import suited_to
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import MultiView

COLOURED = sorted(set(RECIPES) - {"supervised"})
"""The recipes that change colours, and so lose something where there are none."""
WORDLESS = View(saturation=0, hue=0, grayscale=0)
"""A view that suits any channels."""


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_three_channels_keep_everything(name: str):
    assert suited_to(RECIPES[name], 3) == (RECIPES[name], [])
    assert suited_to(list(RECIPES[name]), 3) == (RECIPES[name], [])


@pytest.mark.parametrize("name", COLOURED)
def test_one_channel_has_no_colour_to_lose(name: str):
    views, changes = suited_to(RECIPES[name], 1)
    assert views == tuple(replace(view, saturation=0, hue=0, grayscale=0) for view in RECIPES[name])
    assert len(changes) == 2
    assert changes[0].startswith("saturation and hue left out") and changes[1].startswith("grayscale left out")


@pytest.mark.parametrize("channels", [2, 4, 13])
@pytest.mark.parametrize("name", COLOURED)
def test_several_channels_have_their_mean_for_gray(name: str, channels: int):
    views, changes = suited_to(RECIPES[name], channels)
    assert views == tuple(replace(view, saturation=0, hue=0) for view in RECIPES[name])
    assert len(changes) == 2
    assert changes[0].startswith("saturation and hue left out") and "mean of the channels" in changes[1]


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_nothing_is_said_where_nothing_is_lost(channels: int):
    assert suited_to([WORDLESS] * 2, channels) == ((WORDLESS,) * 2, [])
    assert suited_to([replace(WORDLESS, saturation=0.4, hue=0.1, jitter=0)], channels)[1] == []
    assert suited_to(RECIPES["supervised"], channels)[1] == []


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_it_is_enough_that_one_view_changes(channels: int):
    _, changes = suited_to([WORDLESS, replace(WORDLESS, hue=0.1)], channels)
    assert len(changes) == 1 and changes[0].startswith("saturation and hue")
    _, changes = suited_to([WORDLESS, replace(WORDLESS, grayscale=0.2)], channels)
    assert len(changes) == 1 and changes[0].startswith("grayscale")


def test_what_was_given_stays_as_it_was():
    given = list(RECIPES["byol"])
    suited_to(given, 1)
    assert tuple(given) == RECIPES["byol"]


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_suited_views_are_those_of_the_recipe_without_colour(channels: int):
    """Leaving something out takes no draw from the others: flips, blurs and the rest stay the same."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (20, channels, 40, 40), generator=generator, dtype=torch.uint8)
    both = []
    for views in (RECIPES["byol"], suited_to(RECIPES["byol"], channels)[0]):
        make = MultiView(views, 32, (0.5,) * channels, (0.25,) * channels)
        both.append(make.of_images(batch, torch.Generator().manual_seed(1)))
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
