"""The tables of views against the papers', written down a second time from the papers and their code."""

import pytest

from ownlatent.augment.recipes import RECIPES, View

# Strengths of brightness, contrast, saturation and hue.
BYOL, HALF, STRONG = (0.4, 0.4, 0.2, 0.1), (0.4, 0.4, 0.4, 0.1), (0.8, 0.8, 0.8, 0.2)

# Of each view: side, smallest and largest area of the crop, jitter, probability of blur and of solarise. The rest is
# the same everywhere: aspects of 3/4 to 4/3, flip 0.5, jitter 0.8, grayscale 0.2, sigma of 0.1 to 2.
EXPECTED: dict[str, list[tuple[float, float, float, tuple[float, ...], float, float]]] = {
    "byol": [(1, 0.08, 1, BYOL, 1.0, 0.0), (1, 0.08, 1, BYOL, 0.1, 0.2)],
    "simclr": [(1, 0.08, 1, STRONG, 0.5, 0.0)] * 2,
    "moco_v2": [(1, 0.2, 1, HALF, 0.5, 0.0)] * 2,
    "moco_v3": [(1, 0.2, 1, BYOL, 1.0, 0.0), (1, 0.2, 1, BYOL, 0.1, 0.2)],
    "simsiam": [(1, 0.2, 1, HALF, 0.5, 0.0)] * 2,
    "barlow_twins": [(1, 0.08, 1, BYOL, 1.0, 0.0), (1, 0.08, 1, BYOL, 0.1, 0.2)],
    "vicreg": [(1, 0.08, 1, BYOL, 0.5, 0.1)] * 2,
    "dino": [
        (1, 0.4, 1, BYOL, 1.0, 0.0),
        (1, 0.4, 1, BYOL, 0.1, 0.2),
        *[(96 / 224, 0.05, 0.4, BYOL, 0.5, 0.0)] * 8,
    ],
    "dino_resnet": [
        (1, 0.14, 1, BYOL, 1.0, 0.0),
        (1, 0.14, 1, BYOL, 0.1, 0.2),
        *[(96 / 224, 0.05, 0.14, BYOL, 0.5, 0.0)] * 8,
    ],
    "byol_small": [(1, 0.08, 1, BYOL, 0.0, 0.0), (1, 0.08, 1, BYOL, 0.0, 0.2)],
    "simclr_small": [(1, 0.08, 1, STRONG, 0.5, 0.0)] * 2,
    "moco_small": [(1, 0.08, 1, HALF, 0.5, 0.0)] * 2,
    "simsiam_small": [(1, 0.2, 1, HALF, 0.0, 0.0)] * 2,
    "vicreg_small": [(1, 0.2, 1, BYOL, 0.0, 0.1)] * 2,
    "gentle": [(1, 0.3, 1, (0.2, 0.2, 0.2, 0.1), 0.0, 0.0)] * 2,
    "dino_small": [
        (1, 0.25, 1, BYOL, 0.0, 0.0),
        (1, 0.25, 1, BYOL, 0.0, 0.2),
        *[(1 / 2, 0.05, 0.25, BYOL, 0.0, 0.0)] * 4,
    ],
}


def test_every_recipe_is_checked():
    assert set(RECIPES) == {*EXPECTED, "supervised"}


def test_the_supervised_view_is_crop_and_flip_alone():
    (view,) = RECIPES["supervised"]
    assert (view.crop_scale, view.crop_ratio, view.flip, view.size) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5, 1.0)
    assert view.jitter == view.grayscale == view.blur == view.solarize == 0


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_recipe_is_the_papers(name: str):
    assert len(RECIPES[name]) == len(EXPECTED[name])
    for view, (side, smallest, largest, jitter, blur, solarize) in zip(RECIPES[name], EXPECTED[name], strict=True):
        assert view.size == side
        assert view.crop_scale == (smallest, largest)
        assert (view.brightness, view.contrast, view.saturation, view.hue) == jitter
        assert (view.blur, view.solarize) == (blur, solarize)
        assert view.crop_ratio == (3 / 4, 4 / 3)
        assert (view.flip, view.jitter, view.grayscale) == (0.5, 0.8, 0.2)
        assert view.blur_sigma == (0.1, 2.0)


def test_dino_has_two_large_and_eight_small_views():
    assert [view.pixels(224) for view in RECIPES["dino"]] == [224] * 2 + [96] * 8


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"dino", "dino_resnet", "dino_small", "supervised"}))
def test_all_others_have_two_views_of_the_whole_size(name: str):
    assert [view.pixels(224) for view in RECIPES[name]] == [224, 224]


def test_side_of_a_view_is_a_share_of_at_least_a_pixel():
    assert [View(size=96 / 224).pixels(size) for size in (224, 96, 32, 2, 1)] == [96, 41, 14, 1, 1]
    assert [View().pixels(size) for size in (224, 33, 1)] == [224, 33, 1]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_probability_is_one(name: str):
    for view in RECIPES[name]:
        assert all(0 <= p <= 1 for p in (view.flip, view.jitter, view.grayscale, view.blur, view.solarize))
        assert 0 < view.crop_scale[0] <= view.crop_scale[1] <= 1
