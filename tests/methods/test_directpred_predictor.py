"""DirectPred's predictor: W = F^(1/2) + eps max(s) 1 of the correlation F, and when it is set."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.methods.directpred import DirectPred, predictor_of
from ownlatent.types import Views


def tiny_directpred(seed: int = 0, **settings) -> DirectPred:
    """One convolution with BatchNorm as the backbone, and a narrow projector."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return DirectPred(backbones.create(net, channels=3, image_size=8), **{"hidden": 16, "projection": 4, **settings})


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlation_like(width: int, seed: int = 0) -> Tensor:
    """Symmetric, with eigenvalues well above 0."""
    x = random(3 * width, width, seed=seed)
    return x.T @ x / len(x)


def train(method: DirectPred, steps: int, first: int = 0, each: Callable[[int], None] = lambda step: None) -> None:
    """Plain gradient steps, each followed by the method's own; `each` looks on between the two."""
    optimizer = torch.optim.SGD([p for group in method.param_groups() for p in group["params"]], lr=0.5)
    for step in range(first, first + steps):
        optimizer.zero_grad()
        method(two_views(seed=step)).loss.backward()
        optimizer.step()
        each(step)
        method.after_step(step / 10)


def slow_predictor(correlation: Tensor, eps: float) -> Tensor:
    """F^(1/2) + eps max(s) 1, without eigenvectors: the root by Newton's iteration, max(s) by repeated products."""
    y, z = correlation.double(), torch.eye(len(correlation), dtype=torch.float64)
    for _ in range(40):  # Denman and Beavers
        y, z = (y + z.inverse()) / 2, (z + y.inverse()) / 2
    v = torch.ones(len(correlation), dtype=torch.float64)
    for _ in range(2000):
        v = correlation.double() @ v
        largest = v.norm()
        v = v / largest
    return y + eps * largest * torch.eye(len(correlation), dtype=torch.float64)


# --- the predictor of a correlation ---------------------------------------------------------------


def test_eigenvalues_are_roots_lifted_by_a_share_of_the_largest():
    """sqrt(4, 1, 0) + 0.1 * 4, as in the paper; (1.1, 0.6, 0.1) in the released code. A lost direction comes back."""
    correlation = torch.diag(torch.tensor([4.0, 1.0, 0.0]))
    torch.testing.assert_close(predictor_of(correlation, 0.1), torch.diag(torch.tensor([2.4, 1.4, 0.4])))
    torch.testing.assert_close(predictor_of(correlation, 0.0), torch.diag(torch.tensor([2.0, 1.0, 0.0])))


def test_predictor_of_the_identity_is_the_identity():
    eye = torch.eye(5)
    torch.testing.assert_close(predictor_of(eye, 0.0), eye)
    torch.testing.assert_close(predictor_of(eye, 0.5), 1.5 * eye)


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1, 0.5])
def test_predictor_equals_a_slow_reference(eps: float):
    correlation = correlation_like(5)
    torch.testing.assert_close(predictor_of(correlation, eps), slow_predictor(correlation, eps))


def test_predictor_is_symmetric_positive_and_commutes_with_the_correlation():
    """Theory (iii): the same eigenvectors, so that the order of W and F does not matter."""
    correlation = correlation_like(6)
    w = predictor_of(correlation, 0.1)
    torch.testing.assert_close(w, w.T)
    torch.testing.assert_close(w @ correlation, correlation @ w)
    s, u = torch.linalg.eigh(correlation)
    torch.testing.assert_close(torch.linalg.eigvalsh(w), s.sqrt() + 0.1 * s[-1])
    for j in range(6):
        torch.testing.assert_close(w @ u[:, j], (s[j].sqrt() + 0.1 * s[-1]) * u[:, j])


def test_predictor_turns_with_the_correlation():
    """W(Q F Q^T) = Q W(F) Q^T: no axis of the projection is special."""
    correlation, q = correlation_like(6), torch.linalg.qr(random(6, 6, seed=3))[0]
    w = predictor_of(correlation, 0.1)
    turned = q @ w @ q.T
    assert (turned - w).abs().max() > 0.1
    torch.testing.assert_close(predictor_of(q @ correlation @ q.T, 0.1), turned)


def test_scaling_the_correlation_scales_the_roots_by_the_root():
    """And the lift by the whole factor, where the released code's predictor would not change at all."""
    correlation = correlation_like(4)
    root, lift = predictor_of(correlation, 0.0), predictor_of(correlation, 0.1) - predictor_of(correlation, 0.0)
    torch.testing.assert_close(predictor_of(9 * correlation, 0.1), 3 * root + 9 * lift)


def test_a_zero_that_rounding_made_negative_counts_as_zero():
    """The root of -1e-7 would be undefined, and would then be everywhere."""
    w = predictor_of(torch.diag(torch.tensor([1.0, -1e-7])), 0.1)
    torch.testing.assert_close(w, torch.diag(torch.tensor([1.1, 0.1])))
    few = random(2, 8).float()  # rank 2 of 8: six zeros, of either sign
    w = predictor_of(few.T @ few / 2, 0.1)
    assert w.isfinite().all() and torch.linalg.eigvalsh(w).min() > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_correlation_that_is_not_finite_does_not_raise(value: float):
    """A run that diverged is told by its loss; a decomposition would end it with a message about matrices."""
    correlation = correlation_like(3)
    correlation[1, 2] = correlation[2, 1] = value
    assert not predictor_of(correlation, 0.1).isfinite().all()


# --- when the predictor is set --------------------------------------------------------------------


def test_with_every_one_the_predictor_is_set_after_each_step_and_has_no_gradient():
    """Its gradient steps would be overwritten: it is not in the optimiser either. It starts as the identity."""
    method = tiny_directpred()
    optimised = {id(p) for group in method.param_groups() for p in group["params"]}
    assert optimised == {id(p) for net in (method.backbone, method.projector) for p in net.parameters()}
    assert torch.equal(method.predictor.weight, torch.eye(4))
    before = [method.predictor.weight.clone()]

    def each(step: int) -> None:
        assert method.predictor.weight.grad is None and not method.predictor.weight.requires_grad
        assert torch.equal(method.predictor.weight, before[-1])  # neither the forward pass nor the optimiser moved it

    for step in range(3):
        train(method, steps=1, first=step, each=each)
        expected = predictor_of(method.correlation, 0.1)
        assert torch.equal(method.predictor.weight, expected)
        assert (expected - before[-1]).abs().max() > 1e-3
        before.append(method.predictor.weight.clone())


def test_with_every_three_it_is_trained_in_between_and_set_at_every_third_step():
    """Steps 3 and 6 of the optimiser; the parameter that the optimiser holds stays the same one."""
    method = tiny_directpred(every=3)
    weight = method.predictor.weight
    assert any(p is weight for p in method.param_groups()[0]["params"])  # with the decayed ones
    trained = [weight.detach().clone()]

    def each(step: int) -> None:
        assert weight.grad is not None and weight.grad.abs().max() > 0
        assert not torch.equal(weight, trained[-1])
        trained.append(weight.detach().clone())

    for step in range(1, 7):
        train(method, steps=1, first=step, each=each)
        assert method.predictor.weight is weight
        if step % 3:
            assert torch.equal(weight, trained[-1])
        else:
            expected = predictor_of(method.correlation, 0.1)
            assert torch.equal(weight, expected)
            assert (expected - trained[-1]).abs().max() > 1e-3
            trained.append(weight.detach().clone())


def test_steps_of_the_optimiser_count_and_not_batches():
    """Three passes per step, as with accumulation: with `every` 2 the first step leaves the predictor alone."""
    method = tiny_directpred(every=2)
    for step in (1, 2):
        for seed in range(3):
            method(two_views(seed=seed))
        method.after_step(0.0)
        assert torch.equal(method.predictor.weight, torch.eye(4)) == (step == 1)
    assert (int(method.batches), int(method.steps)) == (6, 2)


@pytest.mark.parametrize("every", [1, 3])
def test_a_batch_that_is_not_finite_does_not_raise(every: int):
    """A run that diverged is told by its loss; a decomposition would end it with a message about matrices."""
    method = tiny_directpred(every=every)
    view1, view2 = two_views()
    assert not method([view1 * torch.inf, view2]).loss.isfinite()
    for _ in range(3):
        method.after_step(0.0)
    assert not method.correlation.isfinite().all() and not method.predictor.weight.isfinite().all()


def test_trained_method_keeps_predictor_and_correlation_aligned():
    """Theory (iii), after steps of training: W F = F W when it was just set, and not when it was trained since."""
    method = tiny_directpred(every=3)

    def commutator() -> float:
        w, f = method.predictor.weight.detach(), method.correlation
        return ((w @ f - f @ w).norm() / (w.norm() * f.norm())).item()

    found = []
    for step in range(6):
        train(method, steps=1, first=step)
        found.append(commutator())
    assert max(found[2], found[5]) < 1e-6
    assert min(found[1], found[4]) > 1e-4


def test_state_dict_holds_the_correlation_and_both_counts():
    """Loaded, the next batch is no first one, and the next setting comes when it would have come."""
    first, second = tiny_directpred(every=3), tiny_directpred(every=3, seed=1)
    train(first, steps=2)
    state = deepcopy(first.state_dict())
    assert (state["batches"], state["steps"]) == (2, 2)
    assert not torch.equal(second.correlation, state["correlation"])
    second.load_state_dict(state)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in state.items())
    trained: list[Tensor] = []
    for method in (first, second):
        train(method, 1, first=2, each=lambda _, m=method: trained.append(m.predictor.weight.detach().clone()))
    assert torch.equal(first.correlation, second.correlation)
    assert torch.equal(first.predictor.weight, second.predictor.weight)
    assert torch.equal(trained[0], trained[1]) and not torch.equal(second.predictor.weight, trained[1])


def test_eps_is_that_of_the_predictor():
    for eps in (0.0, 0.5):
        method = tiny_directpred(eps=eps)
        train(method, steps=1)
        assert torch.equal(method.predictor.weight, predictor_of(method.correlation, eps))
