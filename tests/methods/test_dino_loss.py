"""DINO's loss and centring against the paper's equations; the method around them is in test_dino.py."""

from math import exp, log

import pytest
import torch
from torch import nn

from ownlatent.methods.dino import cross_view_loss
from ownlatent.nn.center import Center

Rows = list[list[float]]


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(row: list[float]) -> list[float]:
    largest = max(row)
    powers = [exp(x - largest) for x in row]
    return [power / sum(powers) for power in powers]


def slow_loss(student: list[Rows], teacher: list[Rows], center: list[float], s: float = 0.1, t: float = 0.04) -> float:
    """Equations 1 to 3 word by word, in double precision: cross-entropies of all pairs of different views."""
    total, pairs = 0.0, 0
    for number, taught in enumerate(teacher):
        for other, learned in enumerate(student):
            if other == number:
                continue
            pairs += 1
            for g, h in zip(taught, learned, strict=True):
                wanted = softmax([(x - c) / t for x, c in zip(g, center, strict=True)])
                given = softmax([x / s for x in h])
                total -= sum(p * log(q) for p, q in zip(wanted, given, strict=True)) / len(taught)
    return total / pairs


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prototypes", "expected"), [(65536, 11.0904), (4096, 8.3178)])
def test_uniform_student_costs_ln_k_whatever_the_teacher(prototypes: int, expected: float):
    """-sum P_t ln(1 / K) = ln K for a uniform teacher and for one that is sure of a single prototype."""
    student, center = torch.full((3, 2, prototypes), 0.7), torch.zeros(prototypes)
    uniform, certain = torch.zeros(2, 2, prototypes), torch.zeros(2, 2, prototypes)
    certain[..., 5] = 100.0
    for teacher, entropy in ((uniform, log(prototypes)), (certain, 0.0)):
        loss, of_mean, _, kl = cross_view_loss(student, teacher, center, 0.04)
        assert loss.item() == pytest.approx(expected, abs=5e-5)
        assert loss.item() == pytest.approx(log(prototypes), rel=1e-5)
        assert of_mean.item() == pytest.approx(entropy, abs=1e-4)
        assert kl.item() == pytest.approx(log(prototypes) - entropy, abs=1e-4)


def test_loss_is_the_teachers_entropy_plus_the_divergence():
    """H(P_t, P_s) = H(P_t) + KL(P_t || P_s), so never below H(P_t), and equal to it when the student agrees."""
    student, teacher, center = logits(4, 5, 6), logits(2, 5, 6, seed=1), logits(6, seed=2)
    loss, _, found_single, kl = cross_view_loss(student, teacher, center, 0.5)
    wanted = ((teacher - center) / 0.5).softmax(-1)
    pairs = [(t, s) for t in range(2) for s in range(4) if s != t]
    divergences = [(wanted[t] * (wanted[t].log() - student[s].log_softmax(-1))).sum(-1).mean() for t, s in pairs]
    single = -(wanted * wanted.log()).sum(-1).mean()
    assert kl.item() == pytest.approx(sum(d.item() for d in divergences) / 6, abs=1e-12)
    assert found_single.item() == pytest.approx(single.item(), abs=1e-12)
    assert loss.item() == pytest.approx((single + kl).item(), abs=1e-12)
    assert kl.item() > 0.1
    agreed = ((teacher[:1] - center) / 0.5).expand(4, 5, 6)
    loss, _, _, kl = cross_view_loss(agreed, teacher[:1].expand(2, 5, 6), center, 0.5)
    single = -(wanted[0] * wanted[0].log()).sum(-1).mean()
    assert (loss.item(), kl.item()) == (pytest.approx(single.item(), abs=1e-12), pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_a_large_view_is_in_one_pair_of_each_2_v_minus_1_and_a_small_one_in_two(count: int):
    """Each view alone costs something: its share of the mean says in how many of the 2 (V - 1) pairs it stands.

    A pair of a view with itself would give the large views two shares of 2 V.
    """
    teacher = torch.tensor([100.0, 0.0]).double().expand(2, 4, 2)  # sure of prototype 0
    for view in range(count):
        student = torch.tensor([100.0, 0.0]).double().repeat(count, 4, 1)  # agrees: costs nothing
        student[view, :, 0] = -log(exp(5.0) - 1)  # then -ln softmax is 5
        loss, _, _, _ = cross_view_loss(student, teacher, torch.zeros(2).double(), 1.0)
        pairs = 1 if view < 2 else 2
        assert loss.item() == pytest.approx(5 * pairs / (2 * (count - 1)), abs=1e-9)


def test_loss_and_gradient_equal_a_slow_reference():
    """Value in double precision with loops; gradient by central differences of that value."""
    student, teacher, center = logits(3, 2, 4).requires_grad_(), logits(2, 2, 4, seed=1), logits(4, seed=2)
    loss, _, _, _ = cross_view_loss(student / 0.3, teacher, center, 0.2)
    loss.backward()
    assert student.grad is not None
    rest = (teacher.tolist(), center.tolist(), 0.3, 0.2)
    assert loss.item() == pytest.approx(slow_loss(student.tolist(), *rest), abs=1e-12)
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4)).tolist():
        sides = []
        for sign in (1, -1):
            moved = student.detach().clone()
            moved[tuple(place)] += sign * 1e-5
            sides.append(slow_loss(moved.tolist(), *rest))
        assert student.grad[tuple(place)].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-8)


def test_no_gradient_reaches_the_teacher_of_the_loss():
    student, teacher, center = (logits(*shape).requires_grad_() for shape in ((3, 2, 4), (2, 2, 4), (4,)))
    loss, entropy, _, kl = cross_view_loss(student, teacher, center.detach(), 0.04)
    assert not entropy.requires_grad and not kl.requires_grad
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().sum() > 0


def test_softmax_and_products_are_in_float32_under_autocast():
    """Rounding the probabilities or their logarithms to bfloat16 would err by about 1e-2; float32 errs by 1e-6."""
    student, teacher = (5 * logits(3, 4, 32)).bfloat16(), logits(2, 4, 32, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, entropy, _, kl = cross_view_loss(student, teacher, torch.zeros(32), 0.5)
    assert {x.dtype for x in (loss, entropy, kl)} == {torch.float32}
    expected = slow_loss(student.double().tolist(), teacher.double().tolist(), [0.0] * 32, 1.0, 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert loss.item() != loss.bfloat16().item()  # so the example could have shown a rounding


def test_entropy_is_that_of_the_mean_over_both_large_views_and_the_batch():
    """Sure of another prototype for each image is healthy, ln 4 or ln 2; sure of one for all images is collapse, 0."""
    images = torch.arange(2)
    for second_view, expected in ((images + 2, log(4)), (images, log(2)), (None, 0.0)):
        rows = [torch.zeros(2).long()] * 2 if second_view is None else [images, second_view]
        teacher = 100 * torch.stack([nn.functional.one_hot(r, 8).double() for r in rows])
        _, entropy, _, _ = cross_view_loss(logits(2, 2, 8), teacher, torch.zeros(8).double(), 0.04)
        assert entropy.item() == pytest.approx(expected, abs=1e-9)


# --- centring -------------------------------------------------------------------------------------


def test_teacher_logits_equal_to_the_center_are_uniform():
    center = logits(6)
    student = logits(2, 3, 6, seed=1)
    loss, entropy, _, _ = cross_view_loss(student, center.expand(2, 3, 6), center, 0.04)
    assert entropy.item() == pytest.approx(log(6), abs=1e-12)
    assert loss.item() == pytest.approx(-student.log_softmax(-1).mean().item(), abs=1e-12)


def test_center_and_softmax_absorb_a_constant_vector():
    """Without the centre the softmax is blind to a common number alone. After n batches 0.9^n of v is left."""
    offset = logits(6, seed=9)
    plain, shifted = Center(6, 0.9), Center(6, 0.9)
    for step in range(200):  # 0.9^200 is 7e-10
        outputs = logits(16, 6, seed=step).float()
        plain.observe(outputs)
        shifted.observe(outputs + offset.float())
    torch.testing.assert_close(shifted.value - plain.value, offset.float(), atol=1e-5, rtol=0)
    student, teacher = logits(3, 4, 6, seed=1), logits(2, 4, 6, seed=2)
    loss = cross_view_loss(student, teacher, plain.value, 0.5)[0].item()
    assert cross_view_loss(student, teacher + offset, shifted.value, 0.5)[0].item() == pytest.approx(loss, abs=1e-4)
    assert abs(cross_view_loss(student, teacher + offset, plain.value, 0.5)[0].item() - loss) > 0.1
    assert cross_view_loss(student, teacher + 3, plain.value, 0.5)[0].item() == pytest.approx(loss, abs=1e-9)
