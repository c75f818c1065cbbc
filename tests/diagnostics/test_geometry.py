"""Statistics of the sphere and of correlation on embeddings whose values are known."""

from math import log, sqrt

import pytest
import torch

from ownlatent.diagnostics.geometry import alignment, mean_correlation, relative_distance, uniformity


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed))


def test_alignment_of_equal_opposite_and_orthogonal_views():
    x = gaussian(50, 8)
    lengths = torch.linspace(0.1, 9, 50).unsqueeze(1)
    assert alignment(x, lengths * x).item() == pytest.approx(0, abs=1e-6)
    assert alignment(x, -x).item() == pytest.approx(4, rel=1e-6)
    assert alignment(torch.eye(4), torch.eye(4).roll(1, 0)).item() == pytest.approx(2, rel=1e-6)


def test_uniformity_of_two_orthogonal_points_and_of_one():
    assert uniformity(torch.eye(2)).item() == pytest.approx(-4, rel=1e-6)
    assert uniformity(gaussian(1, 32).repeat(40, 1)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("d", "limit"), [(2, -1.575), (3, -2.080), (16, -3.513), (128, -3.938), (256, -3.969)])
def test_uniformity_of_a_sphere(d: int, limit: float):
    assert uniformity(gaussian(3000, d)).item() == pytest.approx(limit, abs=0.02)


def test_mean_correlation_of_independent_equal_and_constant_dimensions():
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    assert mean_correlation(signs).item() == pytest.approx(0, abs=1e-6)
    column = gaussian(100, 1)
    assert mean_correlation(torch.cat([column, 3 - 2 * column, 5 * column], 1)).item() == pytest.approx(1, rel=1e-5)
    assert mean_correlation(torch.ones(100, 4)).item() == 0


def test_mean_correlation_of_chance():
    assert mean_correlation(gaussian(1000, 64)).item() == pytest.approx(sqrt(2 / torch.pi / 1000), rel=0.05)


def test_distance_of_two_lists_of_weights():
    one = [gaussian(3, 2), gaussian(1, 5, seed=1)]
    assert relative_distance(one, one).item() == 0
    assert relative_distance(one, [1.5 * weight for weight in one]).item() == pytest.approx(0.5, rel=1e-5)
    three, four = [torch.full((1,), 3.0), torch.zeros(1)], [torch.full((1,), 3.0), torch.full((1,), 4.0)]
    assert relative_distance(three, four).item() == pytest.approx(4 / 3, rel=1e-6)


def test_uniformity_is_a_mean_over_pairs():
    """Three points: two equal, one opposite to both."""
    points = torch.tensor([[1.0, 0], [1, 0], [-1, 0]])
    expected = log((1 + 2 * 2.718281828**-8) / 3)
    assert uniformity(points).item() == pytest.approx(expected, rel=1e-5)
