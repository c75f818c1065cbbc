"""Alignment of a predictor whose axes are known."""

import pytest
import torch

from ownlatent.diagnostics.predictor import eigen_alignment


def spread(n: int = 4000, d: int = 8) -> torch.Tensor:
    """Projections whose principal axes are those of the space, with distinct variances."""
    draws = torch.randn((n, d), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orthonormal, _ = torch.linalg.qr(draws)
    return orthonormal * torch.linspace(1, 3, d, dtype=torch.float64)


def test_a_predictor_along_the_axes():
    z = spread()
    assert eigen_alignment(z, z * torch.linspace(0.2, 5, 8)).item() == pytest.approx(1, rel=1e-6)
    assert eigen_alignment(z, -z).item() == pytest.approx(1, rel=1e-6)


def test_a_predictor_across_the_axes():
    assert eigen_alignment(spread(), spread().roll(1, 1)).item() == pytest.approx(0, abs=1e-6)


def test_a_turn_by_sixty_degrees():
    z = spread(d=2)
    turn = torch.tensor([[0.5, 3**0.5 / 2], [-(3**0.5) / 2, 0.5]], dtype=torch.float64)
    assert eigen_alignment(z, z @ turn).item() == pytest.approx(0.5, rel=1e-6)


def test_axes_without_variance_do_not_count():
    z = spread(d=4)
    z[:, 2:] = 0
    assert eigen_alignment(z, z).item() == pytest.approx(1, rel=1e-6)
