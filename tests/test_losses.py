"""The shared losses against plain loops in double precision, and against angles known by hand."""

from collections.abc import Callable
from itertools import pairwise
from math import exp, log, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.errors import OwnlatentError
from ownlatent.losses import NORMALIZATIONS, in_float32, regression_loss, unit
from ownlatent.methods import moco_v3
from ownlatent.methods.moco_v3 import contrast
from ownlatent.methods.simsiam import cosine_similarity

Rows = list[list[float]]
EPS = 1e-5  # what PyTorch's LayerNorm and BatchNorm add to the variance

every_normalization = pytest.mark.parametrize("how", ["l2", "layer", "batch", "none"])


def vectors(batch: int, width: int, seed: int = 0) -> Tensor:
    """Rows of different length and mean, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((batch, width), generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.5, 3, batch, dtype=torch.float64).unsqueeze(1) + 0.3


def angles(*degrees: float) -> Tensor:
    """Unit vectors in the plane."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def differences(loss: Callable[[Rows], float], rows: Rows, step: float = 1e-6) -> Tensor:
    """The gradient of a plain function of rows, by central differences."""
    gradient = torch.zeros(len(rows), len(rows[0]), dtype=torch.float64)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            row[j] = value + step
            above = loss(rows)
            row[j] = value - step
            gradient[i, j] = (above - loss(rows)) / (2 * step)
            row[j] = value
    return gradient


def slow_cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_mean_cosine(a: Rows, b: Rows) -> float:
    return sum(map(slow_cosine, a, b)) / len(a)


def slow_standardized(values: list[float]) -> list[float]:
    """Mean 0 and variance 1, the variance over n and not n - 1."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / sqrt(variance + EPS) for v in values]


def slow_normalized(rows: Rows, how: str) -> Rows:
    if how == "none":
        return rows
    if how == "l2":
        return [[v / sqrt(sum(w * w for w in row)) for v in row] for row in rows]
    if how == "layer":
        standard = [slow_standardized(row) for row in rows]
    else:
        columns = [slow_standardized(list(column)) for column in zip(*rows, strict=True)]
        standard = [list(row) for row in zip(*columns, strict=True)]
    return [[v / sqrt(len(row)) for v in row] for row in standard]


def slow_regression(prediction: Rows, target: Rows, how: str) -> float:
    pairs = zip(slow_normalized(prediction, how), slow_normalized(target, how), strict=True)
    return sum(sum((x - y) ** 2 for x, y in zip(p, t, strict=True)) for p, t in pairs) / len(prediction)


def slow_contrast(queries: Rows, keys: Rows, temperature: float) -> float:
    """-log of the share of the own key among all keys, the own one included in the sum."""
    total = 0.0
    for i, query in enumerate(queries):
        weights = [exp(slow_cosine(query, key) / temperature) for key in keys]
        total -= log(weights[i] / sum(weights))
    return total / len(queries)


# --- unit vectors and cosines ---------------------------------------------------------------------


def test_unit_rows_have_length_one_and_keep_their_direction():
    x = torch.tensor([[3.0, 4.0], [-0.03, 0.04], [300.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(unit(x), torch.tensor([[0.6, 0.8], [-0.6, 0.8], [1.0, 0.0], [0.0, 0.0]]))


def test_unit_clips_the_length_at_a_millionth():
    """BYOL's released code clips the squared norm at 1e-12: shorter vectors are not made longer than x / 1e-6."""
    x = torch.tensor([[2e-6, 0.0], [5e-7, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(unit(x)[:, 0], torch.tensor([1.0, 0.5], dtype=torch.float64))


@pytest.mark.parametrize(("angle", "cosine"), [(0, 1.0), (60, 0.5), (90, 0.0), (120, -0.5), (180, -1.0)])
def test_cosine_of_known_angles_at_any_scale(angle: float, cosine: float):
    a, b = angles(0, 30, 200), angles(angle, 30 + angle, 200 + angle)
    scale = torch.tensor([[1e-3], [1.0], [1e3]], dtype=torch.float64)
    assert cosine_similarity(scale * a, b / scale**2).item() == pytest.approx(cosine, abs=1e-12)


def test_cosine_is_averaged_over_the_batch():
    """Cosines of 1, 0, 0 and -1/2: neither their sum nor the cosine of all rows laid end to end."""
    a, b = angles(0, 0, 0, 0), angles(0, 90, -90, 120) * torch.tensor([[100.0], [1.0], [1.0], [1.0]])
    assert cosine_similarity(a, b).item() == pytest.approx(0.125, abs=1e-12)


def test_cosine_and_both_gradients_equal_a_slow_reference():
    a, b = vectors(4, 5, 0).requires_grad_(), vectors(4, 5, 1).requires_grad_()
    value = cosine_similarity(a, b)
    value.backward()
    rows, others = a.tolist(), b.tolist()
    assert value.item() == pytest.approx(slow_mean_cosine(rows, others), abs=1e-12)
    torch.testing.assert_close(a.grad, differences(lambda r: slow_mean_cosine(r, others), rows), atol=1e-8, rtol=0)
    torch.testing.assert_close(b.grad, differences(lambda r: slow_mean_cosine(rows, r), others), atol=1e-8, rtol=0)


def test_gradient_of_a_zero_row_is_finite():
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    value = cosine_similarity(zero, vectors(2, 3))
    value.backward()
    assert value.item() == 0
    assert zero.grad is not None and zero.grad.isfinite().all()


# --- regression -----------------------------------------------------------------------------------


def test_names_of_the_normalizations():
    assert set(NORMALIZATIONS) == {"l2", "layer", "batch", "none"}


@every_normalization
def test_regression_and_both_gradients_equal_a_slow_reference(how: str):
    p, t = vectors(4, 5, 2).requires_grad_(), vectors(4, 5, 3).requires_grad_()
    loss = regression_loss(p, t, how)
    loss.backward()
    rows, target = p.tolist(), t.tolist()
    assert loss.item() == pytest.approx(slow_regression(rows, target, how), rel=1e-12)
    for found, expected in (
        (p.grad, differences(lambda r: slow_regression(r, target, how), rows)),
        (t.grad, differences(lambda r: slow_regression(rows, r, how), target)),
    ):
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)


def test_the_four_normalizations_differ():
    p, t = vectors(4, 5, 2), vectors(4, 5, 3)
    values = sorted(regression_loss(p, t, how).item() for how in NORMALIZATIONS)
    assert all(after - before > 0.01 for before, after in pairwise(values))
    assert regression_loss(p, t).item() == regression_loss(p, t, "l2").item()


@every_normalization
def test_regression_is_zero_where_prediction_is_target(how: str):
    p = vectors(4, 5).requires_grad_()
    loss = regression_loss(p, p.detach().clone(), how)
    loss.backward()
    assert loss.item() == 0
    assert p.grad is not None and p.grad.abs().max() == 0


@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("how", ["l2", "layer", "batch"])
def test_opposite_is_four_and_orthogonal_two_at_any_width(how: str, width: int):
    """Rows and columns of +-1 with mean 0. Without the division by sqrt(D) it would grow with the width."""
    n = torch.arange(width)
    parity = torch.stack([(n >> bit) & 1 for bit in range(6)])
    checks = 1 - 2.0 * ((parity[0] + parity[0].unsqueeze(1)) % 2)  # (width, width): + - + - / - + - + / ...
    stripes = 1 - 2.0 * ((parity[1] + parity[0].unsqueeze(1)) % 2)  # + + - - / - - + + / ...
    shrunk = 1 if how == "l2" else 1 / (1 + EPS)  # what the variance of 1 loses to PyTorch's eps
    checks, stripes = checks.double(), stripes.double()
    assert regression_loss(checks, -checks, how).item() == pytest.approx(4 * shrunk, rel=1e-12)
    assert regression_loss(checks, stripes, how).item() == pytest.approx(2 * shrunk, rel=1e-12)


def test_unnormalised_regression_sums_over_features_and_averages_over_the_batch():
    p, t = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert regression_loss(p, t, "none").item() == (25 + 1) / 2
    assert regression_loss(10 * p, 10 * t, "none").item() == 100 * (25 + 1) / 2


def test_what_each_normalization_does_not_see():
    """l2: the length of a row. layer: length and mean of a row. batch: scale and mean of a feature."""
    p, t = 100 * vectors(6, 5, 4), vectors(6, 5, 5)  # large against eps, so that it does not tell scales apart
    length = torch.linspace(0.5, 2, 6, dtype=torch.float64).unsqueeze(1)
    mean = torch.linspace(-3, 3, 6, dtype=torch.float64).unsqueeze(1)
    scale, shift = length[:5].T, 100 * mean[:5].T
    changes = {"length": length * p, "length and mean": length * p + mean, "feature": scale * p + shift}
    unseen = {"l2": ["length"], "layer": ["length", "length and mean"], "batch": ["feature"], "none": []}
    for how, blind_to in unseen.items():
        expected = regression_loss(p, t, how).item()
        for change, moved in changes.items():
            difference = abs(regression_loss(moved, t, how).item() - expected)
            assert difference < 1e-5 if change in blind_to else difference > 1e-3, (how, change)


@pytest.mark.parametrize(("wrong", "told"), [("l3", "l2"), ("layers", "layer"), ("Batch", "batch"), ("", "none")])
def test_unknown_normalization_names_the_nearest(wrong: str, told: str):
    with pytest.raises(OwnlatentError, match=rf"normalisation '{wrong}'.*: .*\b{told}\b"):
        regression_loss(vectors(2, 3), vectors(2, 3), wrong)


# --- contrast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 64, 4096])
def test_collapsed_contrast_is_the_log_of_the_batch(batch: int, temperature: float):
    """The own key is among those compared: log N, not log(N - 1). Four thousand: 8.3178."""
    same = torch.tensor([[3.0, -4.0]])
    loss, _ = contrast(same.expand(batch, 2), 2 * same.expand(batch, 2), temperature)
    assert loss.item() == pytest.approx(log(batch), abs=1e-5)
    if batch == 4096:
        assert loss.item() == pytest.approx(8.3178, abs=5e-5)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("batch", "temperature"), [(4, 0.5), (256, 0.1), (256, 1.0)])
def test_contrast_of_orthogonal_keys(batch: int, temperature: float, sign: int):
    """The own key at a cosine of 1 or -1, all others at 0: log(1 + (N - 1) exp(-+ 1 / t))."""
    queries = torch.eye(batch, dtype=torch.float64)
    loss, found = contrast(7 * queries, sign * queries, temperature)
    assert loss.item() == pytest.approx(log(1 + (batch - 1) * exp(-sign / temperature)), rel=1e-12)
    assert found.item() == (1 if sign == 1 else 0)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_contrast_and_both_gradients_equal_a_slow_reference(temperature: float):
    """Softmax over the keys of a query, not over the queries of a key: the example is not symmetric."""
    q, k = vectors(5, 4, 6).requires_grad_(), vectors(5, 4, 7).requires_grad_()
    loss, _ = contrast(q, k, temperature)
    loss.backward()
    queries, keys = q.tolist(), k.tolist()
    expected = slow_contrast(queries, keys, temperature)
    assert abs(expected - slow_contrast(keys, queries, temperature)) > 1e-3
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    for found, slow in (
        (q.grad, differences(lambda rows: slow_contrast(rows, keys, temperature), queries)),
        (k.grad, differences(lambda rows: slow_contrast(queries, rows, temperature), keys)),
    ):
        torch.testing.assert_close(found, slow, atol=1e-7, rtol=0)


def test_contrast_sees_neither_length_nor_the_order_of_images():
    q, k, order = vectors(6, 4, 8), vectors(6, 4, 9), torch.tensor([3, 0, 5, 1, 4, 2])
    expected, found = contrast(q, k, 0.3)
    length = torch.linspace(0.1, 10, 6, dtype=torch.float64).unsqueeze(1)
    for loss, share in (contrast(length * q, k / length, 0.3), contrast(q[order], k[order], 0.3)):
        assert (loss.item(), share.item()) == (pytest.approx(expected.item(), rel=1e-12), found.item())
    assert abs(contrast(q, k[order], 0.3)[0].item() - expected.item()) > 0.1


def test_contrast_at_infinite_temperature_forgets_the_vectors():
    assert contrast(vectors(6, 4, 8), vectors(6, 4, 9), 1e9)[0].item() == pytest.approx(log(6), abs=1e-8)


def test_share_of_queries_that_find_their_own_key():
    keys = angles(0, 90, 180, 270)
    near = angles(10, 80, 190, 300)
    assert contrast(near, keys, 0.1)[1].item() == 1
    assert contrast(near, keys.roll(1, 0), 0.1)[1].item() == 0
    loss, found = contrast(angles(10, 80, 190, 359).requires_grad_(), keys, 0.1)
    assert found.item() == 0.75
    assert loss.requires_grad and not found.requires_grad


def test_contrast_of_two_processes_is_that_of_one(monkeypatch: pytest.MonkeyPatch):
    """Each process compares its own queries with everybody's keys, and its own keys lie at its own place."""
    q, k = vectors(6, 4, 8), vectors(6, 4, 9)
    expected = [value.item() for value in contrast(q, k, 0.3)]
    shares: list[list[float]] = []

    def gather(own_keys: Tensor) -> Tensor:
        torch.testing.assert_close(own_keys, unit(k)[mine])
        return unit(k)

    monkeypatch.setattr(moco_v3, "gather", gather)
    for rank in (0, 1):
        mine = torch.arange(3 * rank, 3 * rank + 3)
        monkeypatch.setattr(moco_v3, "own", lambda n, device=None, mine=mine: mine)
        shares.append([value.item() for value in contrast(q[mine], k[mine], 0.3)])
    assert abs(shares[0][0] - shares[1][0]) > 1e-3
    assert [sum(values) / 2 for values in zip(*shares, strict=True)] == pytest.approx(expected, rel=1e-6)


# --- precision ------------------------------------------------------------------------------------


@in_float32
def product(a: Tensor, b: Tensor) -> Tensor:
    """A matrix product."""
    return a @ b.T


def test_products_are_not_rounded_under_autocast_which_is_on_again_afterwards():
    a, b = vectors(8, 16, 0).float(), vectors(8, 16, 1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16  # so the example could have shown a rounding
        found = product(a, b)
        assert (a @ b.T).dtype == torch.bfloat16
        with pytest.raises(RuntimeError, match="mat1"):
            product(a, b[:, 1:])
        assert (a @ b.T).dtype == torch.bfloat16
    assert torch.equal(found, a @ b.T)


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_with_and_without_autocast(dtype: torch.dtype, autocast: bool):
    """The gradient goes back in the dtype that the tensor came in."""
    a, b = vectors(8, 16, 0).to(dtype).requires_grad_(), vectors(8, 16, 1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = product(a, b)
    found.sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (a.double() @ b.double().T).float(), atol=1e-4, rtol=1e-5)
    assert a.grad is not None and a.grad.dtype == dtype


@pytest.mark.parametrize("autocast", [True, False])
def test_double_precision_passes_through(autocast: bool):
    a, b = vectors(8, 16, 0), vectors(8, 16, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = [product(a, b), cosine_similarity(a, b), *contrast(a, b, 0.2)[:1]]
        found += [regression_loss(a, b, how) for how in NORMALIZATIONS]
    assert {value.dtype for value in found} == {torch.float64}
    assert torch.equal(found[0], a @ b.T)


def test_arguments_that_are_no_half_precision_tensors_are_left_alone():
    passed = in_float32(lambda *arguments, **keywords: (arguments, keywords))
    x, labels, words = torch.zeros(2), torch.tensor([1, 2]), ["as", "it", "is"]
    (first, second, third, fourth), keywords = passed(x, labels, words, 0.5, normalize="l2")
    assert (first is x, second is labels, third is words, fourth) == (True, True, True, 0.5)
    assert keywords == {"normalize": "l2"}


def test_tensors_may_be_given_by_name():
    """As every argument of the shared losses, which have names and are documented by them."""
    p, t = vectors(3, 4, 0), vectors(3, 4, 1)
    assert regression_loss(p, target=t, normalize="none").item() == regression_loss(p, t, "none").item()
    rounded = t.bfloat16()
    assert regression_loss(p.float(), target=rounded) == regression_loss(p.float(), rounded)  # widened as well
    assert contrast(queries=p, keys=t, temperature=0.2)[0].item() == contrast(p, t, 0.2)[0].item()
    assert cosine_similarity(a=p.bfloat16(), b=t.bfloat16()).dtype == torch.float32


def test_decorated_loss_keeps_its_name_and_docstring():
    assert (product.__name__, product.__doc__) == ("product", "A matrix product.")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine_similarity,
    "contrast": lambda a, b: contrast(a, b, 0.1)[0],
    **{how: lambda a, b, how=how: regression_loss(a, b, how) for how in ("l2", "layer", "batch", "none")},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_and_of_half_precision_it_is_what_it_is_in_float32(dtype: torch.dtype, name: str):
    """Value and gradient, bit for bit but for the rounding of a bfloat16 gradient; less would move the third digit."""
    results = []
    for autocast in (False, True):
        leaves = [vectors(16, 32, seed).to(dtype).requires_grad_() for seed in (0, 1)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = LOSSES[name](*(leaves if autocast else [leaf.float() for leaf in leaves]))
        loss.backward()
        assert loss.dtype == torch.float32 and loss.item() != loss.bfloat16().item()
        results.append((loss, *(leaf.grad for leaf in leaves)))
    for plain, cast in zip(*results, strict=True):
        assert cast is not None and torch.equal(plain, cast)


def test_contrast_in_bfloat16_would_have_been_seen():
    """What the decorator prevents: without it, the loss moves in its third digit."""
    a, b = vectors(16, 32, 0).float(), vectors(16, 32, 1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = F.cross_entropy(unit(a) @ unit(b).T / 0.1, torch.arange(16))
        assert abs(rounded.item() - contrast(a, b, 0.1)[0].item()) > 1e-4
