"""The effective rank of embeddings whose spectrum is known."""

import pytest
import torch

from ownlatent.diagnostics.spectrum import effective_rank, singular_values


def gaussian(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed))


def test_equally_strong_directions():
    assert effective_rank(torch.eye(64)).item() == pytest.approx(64.0013, abs=1e-3)


def test_one_direction():
    rank_one = gaussian(1000, 1) * gaussian(1, 256, seed=1)
    assert effective_rank(rank_one).item() == pytest.approx(1.0004, abs=2e-4)


def test_nothing_at_all_is_one_direction_at_most():
    assert effective_rank(torch.zeros(100, 16)).item() <= 1.001


@pytest.mark.parametrize(("n", "d", "rank"), [(1000, 256, 247), (10_000, 256, 255), (2560, 512, 498)])
def test_isotropic_gaussian(n: int, d: int, rank: float):
    assert effective_rank(gaussian(n, d)).item() == pytest.approx(rank, abs=1.5)


def test_a_common_direction_lowers_it():
    assert effective_rank(gaussian(10_000, 256) + 5).item() == pytest.approx(117, abs=1)


def test_fewer_embeddings_than_dimensions():
    x = gaussian(40, 300)
    expected = torch.linalg.svdvals(x.double())
    assert torch.allclose(singular_values(x), expected, rtol=1e-6)
    assert effective_rank(x).item() <= 40


def test_scale_does_not_matter():
    x = gaussian(200, 32)
    assert effective_rank(1000 * x).item() == pytest.approx(effective_rank(x).item(), rel=1e-6)
