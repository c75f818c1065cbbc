"""The loss of MoCo v2 against equation 1, by hand, in loops and at its limits."""

from copy import deepcopy
from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor

from ownlatent.methods.moco_v2 import info_nce


def vectors(batch: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn((batch, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_rows(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def slow_loss(queries: list, keys: list, queue: list, temperature: float) -> float:
    """Equation 1 word by word, in Python's double precision; keys and queue are unit vectors."""
    total = 0.0
    for q, k in zip(queries, keys, strict=True):
        length = sqrt(sum(x * x for x in q))
        right, *wrong = [
            exp(sum(x * y for x, y in zip(q, other, strict=True)) / length / temperature) for other in (k, *queue)
        ]
        total -= log(right / (right + sum(wrong)))
    return total / len(queries)


@pytest.mark.parametrize(("length", "expected"), [(65_536, 11.0904), (4096, 8.3180), (1, log(2))])
@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_loss_is_log_of_all_candidates_when_all_are_equal(length: int, expected: float, temperature: float):
    """q = k = every waiting key: log(1 + K), whatever the temperature and the length of q."""
    key = torch.tensor([[0.6, 0.8]])
    loss, _ = info_nce(5 * key.expand(3, 2), key.expand(3, 2), key.expand(length, 2), temperature)
    assert loss.item() == pytest.approx(expected, abs=5e-5)
    assert loss.item() == pytest.approx(log(1 + length), rel=1e-6)


@pytest.mark.parametrize(
    ("positive", "negative", "found"),
    [(1.0, 0.0, 1), (0.0, 1.0, 0), (-1.0, 1.0, 0), (1.0, -1.0, 1), (0.0, -1.0, 1)],
)
def test_loss_of_known_angles(positive: float, negative: float, found: int):
    """log(1 + K e^{(negative - positive) / t}) with the cosines of the right key and of all K others."""
    east, other = torch.tensor([[1.0, 0.0]]), {1.0: [1.0, 0.0], 0.0: [0.0, 1.0], -1.0: [-1.0, 0.0]}
    keys, queue = torch.tensor([other[positive]]).expand(4, 2), torch.tensor([other[negative]]).expand(9, 2)
    loss, nearest = info_nce(east.expand(4, 2), keys, queue, 0.5)
    assert loss.item() == pytest.approx(log(1 + 9 * exp((negative - positive) / 0.5)), abs=1e-6)
    assert nearest.item() == found


def test_found_is_the_share_of_queries_nearest_to_their_own_key():
    """Angles in degrees: two of three queries lie nearer to their own key than to any that waits."""
    queries, keys, queue = (
        torch.tensor([[torch.pi * a / 180] for a in angles]) for angles in ([0, 90, 180], [10, 140, 175], [60, 330])
    )
    loss, found = info_nce(*(torch.cat([a.cos(), a.sin()], 1) for a in (queries, keys, queue)), 0.2)
    assert found.item() == pytest.approx(2 / 3) and not found.requires_grad and loss.shape == ()


def test_loss_and_gradient_equal_a_slow_reference():
    """Value in double precision with loops; gradient by central differences of that value."""
    queries, keys, queue = vectors(4, 5, 0).requires_grad_(), unit_rows(vectors(4, 5, 1)), unit_rows(vectors(7, 5, 2))
    loss, _ = info_nce(queries, keys, queue, 0.2)
    loss.backward()
    assert queries.grad is not None
    rows, rest, step = queries.detach().tolist(), (keys.tolist(), queue.tolist(), 0.2), 1e-6
    assert loss.item() == pytest.approx(slow_loss(rows, *rest), abs=1e-10)
    for i, j in ((i, j) for i in range(4) for j in range(5)):
        sides = []
        for sign in (1, -1):
            moved = deepcopy(rows)
            moved[i][j] += sign * step
            sides.append(slow_loss(moved, *rest))
        assert queries.grad[i, j].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


def test_scale_and_order_do_not_matter_but_the_pairing_does():
    queries, keys, queue = vectors(6, 5, 0), unit_rows(vectors(6, 5, 1)), unit_rows(vectors(9, 5, 2))
    expected = info_nce(queries, keys, queue, 0.2)[0].item()
    scales = torch.tensor([1e-3, 0.1, 1.0, 7.0, 1e3, 1e5]).double().unsqueeze(1)
    assert info_nce(scales * queries, keys, queue, 0.2)[0].item() == pytest.approx(expected, abs=1e-9)
    assert info_nce(queries.flip(0), keys.flip(0), queue.roll(4, 0), 0.2)[0].item() == pytest.approx(expected, abs=1e-9)
    assert abs(info_nce(queries, keys.flip(0), queue, 0.2)[0].item() - expected) > 0.1


def test_large_temperature_forgets_the_embeddings():
    """log(1 + K) up to the largest difference of two cosines over the temperature."""
    loss, _ = info_nce(vectors(6, 5, 0), unit_rows(vectors(6, 5, 1)), unit_rows(vectors(9, 5, 2)), 1e4)
    assert loss.item() == pytest.approx(log(10), abs=2e-4)


def test_a_query_of_zeros_has_a_finite_loss_and_gradient():
    """Its cosines are all 0: log(1 + K)."""
    queries = torch.zeros(2, 3, requires_grad=True)
    loss, _ = info_nce(queries, unit_rows(vectors(2, 3, 1)).float(), unit_rows(vectors(7, 3, 2)).float(), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(log(8), abs=1e-6)
    assert queries.grad is not None and queries.grad.isfinite().all()


def test_loss_is_computed_in_float32_under_autocast():
    """bfloat16 products of unit vectors err by about 1e-2, which the temperature makes five times as much."""
    queries = vectors(16, 32, 0).bfloat16()
    keys, queue = unit_rows(vectors(16, 32, 1)).float(), unit_rows(vectors(40, 32, 2)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = info_nce(queries, keys, queue, 0.2)
    assert loss.dtype == torch.float32
    rows = (x.double().tolist() for x in (queries, keys, queue))
    assert loss.item() == pytest.approx(slow_loss(*rows, 0.2), abs=2e-6)
    assert loss.item() != loss.bfloat16().item()  # so the example could have shown a rounding
