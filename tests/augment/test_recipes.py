"""The tables of views against the papers'."""

import pytest

from ownlatent.augment.recipes import RECIPES


def test_byol_is_table_six_of_the_paper():
    first, second = RECIPES["byol"]
    for view in (first, second):
        assert view.crop_scale == (0.08, 1.0)
        assert view.crop_ratio == (3 / 4, 4 / 3)
        assert view.flip == 0.5
        assert view.jitter == 0.8
        assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.4, 0.4, 0.2, 0.1)
        assert view.grayscale == 0.2
        assert view.blur_sigma == (0.1, 2.0)
    assert (first.blur, second.blur) == (1.0, 0.1)
    assert (first.solarize, second.solarize) == (0.0, 0.2)


def test_small_byol_differs_from_byol_in_blur_only():
    for small, full in zip(RECIPES["byol_small"], RECIPES["byol"], strict=True):
        assert small.blur == 0
        assert {**vars(small), "blur": None} == {**vars(full), "blur": None}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_probability_is_one(name: str):
    for view in RECIPES[name]:
        assert all(0 <= p <= 1 for p in (view.flip, view.jitter, view.grayscale, view.blur, view.solarize))
        assert 0 < view.crop_scale[0] <= view.crop_scale[1] <= 1
