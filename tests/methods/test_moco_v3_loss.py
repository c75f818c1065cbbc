"""The loss of MoCo v3 against its algorithm 1, by hand, in loops and at its limits."""

from copy import deepcopy
from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.methods.moco_v3 import MoCoV3, contrast
from ownlatent.types import Output


def vectors(batch: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn((batch, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_ctr(queries: list, keys: list, temperature: float) -> float:
    """Algorithm 1's ctr in Python's double precision: cross-entropy over all keys, the own one included, times 2 t."""

    def length(x: list) -> float:
        return sqrt(sum(value * value for value in x))

    total = 0.0
    for i, q in enumerate(queries):
        cosines = [sum(x * y for x, y in zip(q, k, strict=True)) / length(q) / length(k) for k in keys]
        total -= log(exp(cosines[i] / temperature) / sum(exp(c / temperature) for c in cosines))
    return 2 * temperature * total / len(queries)


class Constant(nn.Module):
    """A target network that has the same answer to everything."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer


def bare(queries: Tensor, keys: Tensor, temperature: float) -> Output:
    """What the method returns if both views' predictions are the queries and the target makes the keys of both."""
    n, width = queries.shape
    backbone = backbones.create(nn.Flatten(), channels=width, image_size=1)
    method = MoCoV3(backbone, hidden=2, projection=2, temperature=temperature)
    method.projector, method.predictor = nn.Identity(), nn.Identity()
    method.target = Constant(keys)
    return method([queries.view(n, width, 1, 1), queries.view(n, width, 1, 1)])


@pytest.mark.parametrize(
    ("temperature", "n", "expected"),
    [(1.0, 4096, 33.2711), (0.2, 4096, 6.6542), (0.5, 4, 2 * log(4)), (1.0, 2, 4 * log(2))],
)
def test_collapsed_loss_is_four_t_times_the_log_of_the_batch(temperature: float, n: int, expected: float):
    """All embeddings equal: each of two terms is 2 t ln N. A mean of both, or a missing 2 t, would show."""
    x = torch.tensor([[0.6, 0.8]])
    output = bare(2 * x.expand(n, 2), 5 * x.expand(n, 2), temperature)
    assert output.loss.item() == pytest.approx(4 * temperature * log(n), rel=1e-5)
    assert output.loss.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_loss_of_known_angles(temperature: float):
    """With orthogonal images: own key found, 4 t ln(1 + (N - 1) e^{-1/t}); opposite, the same with +1/t."""
    x = torch.eye(5)
    for sign in (1, -1):
        wanted = 4 * temperature * log(1 + 4 * exp(-sign / temperature))
        output = bare(3 * x, sign * x, temperature)
        assert output.loss.item() == pytest.approx(wanted, abs=1e-5)
        assert output.terms["found"].item() == (sign == 1)


def test_found_is_the_share_of_queries_nearest_to_their_own_key():
    """The first two keys are exchanged: three of five are found."""
    output = bare(torch.eye(5), torch.eye(5)[[1, 0, 2, 3, 4]], 0.2)
    assert output.terms["found"].item() == pytest.approx(3 / 5) and not output.terms["found"].requires_grad


def test_loss_and_gradient_equal_a_slow_reference():
    """Value in double precision with loops; gradient by central differences of that value."""
    queries, keys, temperature, step = vectors(5, 4, 0).requires_grad_(), vectors(5, 4, 1), 0.3, 1e-6
    loss = 2 * temperature * contrast(queries, keys, temperature)[0]
    loss.backward()
    assert queries.grad is not None
    rows = queries.detach().tolist()
    assert loss.item() == pytest.approx(slow_ctr(rows, keys.tolist(), temperature), abs=1e-10)
    for i, j in ((i, j) for i in range(5) for j in range(4)):
        sides = []
        for sign in (1, -1):
            moved = deepcopy(rows)
            moved[i][j] += sign * step
            sides.append(slow_ctr(moved, keys.tolist(), temperature))
        assert queries.grad[i, j].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-7)


def test_scale_and_order_do_not_matter_but_the_pairing_does():
    queries, keys = vectors(6, 5, 0), vectors(6, 5, 1)
    expected = contrast(queries, keys, 0.2)[0].item()
    scales = torch.tensor([1e-3, 0.1, 1.0, 7.0, 1e3, 1e5]).double().unsqueeze(1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert contrast(scales * queries, keys / scales, 0.2)[0].item() == pytest.approx(expected, abs=1e-9)
    assert contrast(queries[order], keys[order], 0.2)[0].item() == pytest.approx(expected, abs=1e-9)
    assert abs(contrast(queries, keys[order], 0.2)[0].item() - expected) > 0.1
    assert contrast(queries, keys, 1e4)[0].item() == pytest.approx(log(6), abs=2e-4)  # forgets the embeddings


def test_loss_is_computed_in_float32_under_autocast():
    """bfloat16 products of unit vectors err by about 1e-2."""
    queries, keys = vectors(16, 32, 0).bfloat16(), vectors(16, 32, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = contrast(queries, keys, 0.2)
    assert loss.dtype == torch.float32
    exact = slow_ctr(queries.double().tolist(), keys.double().tolist(), 0.2) / 0.4
    assert loss.item() == pytest.approx(exact, abs=2e-6)
    assert loss.item() != loss.bfloat16().item()  # so the example could have shown a rounding
