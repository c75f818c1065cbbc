"""The collapse statistic on embeddings whose value is known."""

from math import sqrt

import pytest
import torch
from torch import Tensor

from ownlatent.diagnostics.collapse import relative_std


def gaussian(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed))


def test_collapsed_embeddings_give_zero():
    assert relative_std(gaussian(1, 64).repeat(100, 1)).item() == pytest.approx(0, abs=1e-6)


def test_one_direction_with_different_lengths_is_collapsed():
    """The loss sees directions only, and so must the statistic."""
    lengths = torch.linspace(0.1, 10, 100).unsqueeze(1)
    assert relative_std(lengths * gaussian(1, 64)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("d", "per_dimension"), [(128, 0.0884), (256, 0.0625), (512, 0.0442)])
def test_isotropic_gaussian_gives_one(d: int, per_dimension: float):
    """Per dimension 1 / sqrt(d), times sqrt(d)."""
    value = relative_std(gaussian(5_000, d)).item()
    assert value == pytest.approx(1, abs=2e-3)
    assert value / sqrt(d) == pytest.approx(per_dimension, abs=2e-4)


def test_axes_of_the_space():
    """d unit vectors along the axes: each dimension is 1 once, with unbiased variance 1 / d."""
    assert relative_std(torch.eye(16)).item() == pytest.approx(1, rel=1e-5)


def test_a_line_in_a_wide_space():
    """Two opposite points: all of the spread in one dimension, 1 / sqrt(d) of the whole."""
    line = torch.zeros(1000, 64)
    line[:500, 7], line[500:, 7] = 1, -1
    assert relative_std(line).item() == pytest.approx(1 / 8, rel=1e-3)


def test_scale_of_the_embeddings_does_not_matter():
    x = gaussian(200, 32)
    lengths = torch.logspace(-3, 3, 200).unsqueeze(1)
    assert relative_std(lengths * x).item() == pytest.approx(relative_std(x).item(), rel=1e-5)


def test_common_direction_lowers_it():
    """Embeddings that drift to one point pass through every value between one and zero."""
    values = [relative_std(gaussian(2_000, 64) + shift).item() for shift in (0.0, 0.5, 1.0, 4.0, 100.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.02


def test_half_precision_is_measured_in_float32():
    x = gaussian(500, 64).bfloat16()
    assert relative_std(x).dtype == torch.float32
    assert relative_std(x).item() == relative_std(x.float()).item()
