"""BYOL's ablations: each keyword against the formula it stands for, written out slowly and by hand."""

from copy import deepcopy
from itertools import product
from math import nan

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.losses import NORMALIZATIONS, regression_loss, unit
from ownlatent.methods import byol
from ownlatent.methods.byol import BYOL, repulsion
from ownlatent.methods.simclr import nt_xent
from ownlatent.optim.create import NAMES, create
from ownlatent.optim.schedules import warmup_cosine
from ownlatent.types import Views

LAYERS = {"batch": nn.BatchNorm1d, "group": nn.GroupNorm, "layer": nn.LayerNorm, "none": nn.Identity}
TARGETS = {"xi": {"tau": 0.9}, "sg(theta)": {"tau": 0.0}, "theta": {"tau": 0.0, "stop_gradient": False}}
SIMCLR = {"projector_layers": 1, "predictor_layers": 0, "tau": 0.0, "stop_gradient": False, "negatives": 1.0}


def tiny(batchnorm: bool = True, **settings) -> BYOL:
    """One convolution as the backbone, with or without BatchNorm, and narrow heads, in double precision."""
    torch.manual_seed(0)
    norm = [nn.BatchNorm2d(8)] if batchnorm else []
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone = backbones.create(net, channels=3, image_size=8)
    return BYOL(backbone, **{"hidden": 32, "projection": 4, **settings}).double()


def bare(width: int, temperature: float) -> BYOL:
    """No network but one identity matrix, and SimCLR's settings: images (B, width, 1, 1) are their own projections."""
    backbone = backbones.create(nn.Flatten(), channels=width, image_size=1)
    method = BYOL(backbone, projection=width, temperature=temperature, **SIMCLR).double()
    method.projector[0].weight.data = torch.eye(width).double()
    return method


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_views(batch: int = 4) -> Views:
    return [noise(batch, 3, 8, 8, seed=1), 2 * noise(batch, 3, 8, 8, seed=2) + 0.5]


def move(parameters, size: float = 0.3) -> None:
    for seed, p in enumerate(parameters):
        p.data.add_(size * noise(*p.shape, seed=seed))


# --- the formulas ---------------------------------------------------------------------------------


def cos(a: Tensor, b: Tensor) -> Tensor:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (sum(x * x for x in a) * sum(y * y for y in b)).sqrt()


def slow_repulsion(p: Tensor, same: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The negatives of BYOL's section 5: two temperatures times the mean of a logarithm."""
    total = torch.zeros(()).double()
    for i in range(len(p)):
        choices = [cos(p[i], same[j]) for j in range(len(p)) if j != i] + [cos(p[i], t) for t in other]
        total = total + sum((c / temperature).exp() for c in choices).log()
    return 2 * temperature * total / len(p)


def slow_byol(p: list[Tensor], t: list[Tensor], beta: float, temperature: float) -> Tensor:
    """Both directions: the mean of 2 - 2 cos, and beta times the negatives."""
    total = torch.zeros(()).double()
    for a, b in ((0, 1), (1, 0)):
        total = total + sum(2 - 2 * cos(x, y) for x, y in zip(p[a], t[b], strict=True)) / len(p[a])
        total = total + beta * slow_repulsion(p[a], t[a], t[b], temperature)
    return total


def slow_nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """SimCLR's equation 1: the mean over all 2 N views, each against the other 2 N - 1."""
    views, n, total = [*z1, *z2], len(z1), torch.zeros(()).double()
    for i, view in enumerate(views):
        choices = sum((cos(view, other) / temperature).exp() for k, other in enumerate(views) if k != i)
        total = total - ((cos(view, views[(i + n) % (2 * n)]) / temperature).exp() / choices).log()
    return total / (2 * n)


def standardized(values: Tensor) -> Tensor:
    mean = sum(values) / len(values)
    return (values - mean) / (sum((v - mean) ** 2 for v in values) / len(values) + 1e-5).sqrt()


def slow_distance(p: Tensor, t: Tensor, how: str) -> Tensor:
    """Mean over images of the squared distance; what is standardised is divided by the root of D."""
    root = p.shape[1] ** 0.5
    p, t = {
        "none": lambda: (p, t),
        "l2": lambda: [torch.stack([row / sum(v * v for v in row).sqrt() for row in x]) for x in (p, t)],
        "layer": lambda: [torch.stack([standardized(row) for row in x]) / root for x in (p, t)],
        "batch": lambda: [torch.stack([standardized(column) for column in x.T], dim=1) / root for x in (p, t)],
    }[how]()
    return sum(sum((x - y) ** 2 for x, y in zip(*rows, strict=True)) for rows in zip(p, t, strict=True)) / len(p)


def assert_equal_with_gradients(loss: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    assert loss.item() == pytest.approx(expected.item(), abs=1e-10)
    gradients = [torch.autograd.grad(value, inputs) for value in (loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-10, rtol=0)
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients[0])  # so the comparison says something


# --- depth of the heads, what is refused, and what was published ----------------------------------


@pytest.mark.parametrize(("projector", "predictor"), product((1, 2, 3), (0, 1, 2, 3)))
def test_depth_of_each_head_is_its_number_of_linear_layers(projector: int, predictor: int):
    """Hidden ones with bias, BatchNorm and ReLU, the last one bare; a predictor of no layers has no parameter."""
    method = tiny(projector_layers=projector, predictor_layers=predictor)
    for head, inputs, depth in ((method.projector, 8, projector), (method.predictor, 4, predictor)):
        widths = [inputs, *[32] * (depth - 1), 4]
        layers = list(head) if depth else []
        assert [type(x) for x in layers] == ([nn.Linear, nn.BatchNorm1d, nn.ReLU] * depth)[: max(3 * depth - 2, 0)]
        assert [tuple(x.weight.shape) for x in layers[::3]] == [(widths[i + 1], widths[i]) for i in range(depth)]
        assert [x.bias is not None for x in layers[::3]] == [True] * (depth - 1) + [False] * (depth > 0)
        assert len(list(head.parameters())) == max(4 * depth - 3, 0)
    assert [p.shape for p in method.target.net[1].parameters()] == [p.shape for p in method.projector.parameters()]
    assert all(group["params"] for group in create("sgd", method.param_groups(), lr=1, weight_decay=0).param_groups)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"projector_layers": 0}, "projector has at least 1 layer"),
        ({"predictor_layers": -1}, "the predictor at least 0"),
        *[({name: x}, f"{name} .* at least 0") for name in ("predictor_lr", "negatives") for x in (-0.1, nan)],
        *[({"temperature": x}, "temperature .* greater than 0") for x in (0.0, -0.1, nan)],
        ({"tau_schedule": "consine"}, "'consine' of tau: the nearest .*cosine"),
        ({"normalize": "layr"}, "normalize 'layr': the nearest is layer"),
        ({"norm": "grop"}, "norm 'grop': the nearest is group"),
        ({"norm": "grop", "projector_layers": 1, "predictor_layers": 1}, "norm 'grop': the nearest is group"),
        *[({"stop_gradient": False, "tau": x}, "stop_gradient .*: set tau to 0") for x in (0.01, 0.996, 1.0)],
    ],
)
def test_wrong_value_is_refused_with_what_to_do(wrong: dict, sentence: str):
    with pytest.raises(OwnlatentError, match=sentence):
        tiny(**wrong)
    with pytest.raises(OwnlatentError, match="at least 2 images"):
        tiny().check_batch(1)


def test_named_recipes_are_those_of_the_paper():
    """ResNet-50 at 224 px, LARS, ten epochs of warm-up; and the linear accuracy that was reached."""
    published = {
        "imagenet": (4096, 1000, 0.2, 1.5e-6, 0.996, "74.3"),
        "imagenet_300": (4096, 300, 0.3, 1e-6, 0.99, "72.5"),
        "imagenet_100": (4096, 100, 0.45, 1e-6, 0.99, "66.5 to 69.3"),
        "imagenet_small_batch": (512, 1000, 0.4, 1.5e-6, 0.9995, "73.7"),
    }
    assert set(methods.named_recipes("byol")) == set(published)
    for name, (batch, epochs, base_lr, decay, tau, score) in published.items():
        row = methods.recipes("byol")[name]
        assert (row["epochs"], row["optim.base_lr"], row["optim.weight_decay"]) == (epochs, base_lr, decay)
        assert (row["optim.name"], row["backbone"], row["image_size"]) == ("lars", "resnet50", 224)
        assert (row["batch_size"], row["views"], row["method.tau"]) == (batch, "byol", tau) and score in row["about"]
        assert row["optim.warmup"] * epochs == pytest.approx(10, rel=1e-6)
    assert warmup_cosine(1 / 312_784, 0.2 * 4096 / 256, 10 / 1000) == pytest.approx(0.00102, abs=5e-6)


# --- the predictor's learning rate and the schedule of tau ----------------------------------------


@pytest.mark.parametrize(("name", "multiple"), product(NAMES, (0.0, 10.0)))
def test_predictor_has_its_own_rate_and_everything_else_the_common_one(name: str, multiple: float):
    """Weights, and biases with theirs; biases of the predictor stay undecayed. At 0 not one bit of it moves."""
    method = tiny(predictor_lr=multiple)
    optimizer = create(name, method.param_groups(), lr=0.3, weight_decay=0.02, bias_lr=0.5)
    predictor = {id(p) for p in method.predictor.parameters()}
    before = {id(p): p.detach().clone() for p in method.parameters() if p.requires_grad}
    method(two_views()).loss.backward()
    optimizer.step()
    seen = set()
    for group in optimizer.param_groups:
        for p in group["params"]:
            expected = 0.3 * (multiple if id(p) in predictor else 1) * (1 if p.ndim > 1 else 0.5)
            assert group["lr"] == group["peak_lr"] == pytest.approx(expected)
            assert group["weight_decay"] == (0.02 if p.ndim > 1 else 0)
            assert torch.equal(p, before[id(p)]) == (expected == 0)
            seen.add(id(p))
    assert seen == set(before) and predictor < seen


@pytest.mark.parametrize("tau", [0.0, 0.9, 1.0])
def test_constant_tau_stays_and_moves_the_target_by_it(tau: float):
    """theta constant: xi_n - theta = tau^n (xi_0 - theta), at whatever progress; the cosine would differ at 0.9."""
    method = tiny(tau=tau, tau_schedule="constant")
    assert [method.scheduled(k / 10) for k in range(11)] == [{"tau": tau}] * 11
    online = [*method.backbone.parameters(), *method.projector.parameters()]
    move(online)
    expected = [o + tau**3 * (t - o) for t, o in zip(method.target.parameters(), online, strict=True)]
    for progress in (0.2, 0.6, 1.0):
        method.after_step(progress)
    torch.testing.assert_close(list(method.target.parameters()), [e.detach() for e in expected], atol=1e-12, rtol=0)


# --- what the target is, with and without predictor and negatives (table 5b) ----------------------


@pytest.mark.parametrize(("predictor", "target", "beta"), product((2, 0), TARGETS, (0.0, 0.7)))
def test_every_kind_of_row_of_table_5b_in_value_and_gradient(predictor: int, target: str, beta: float):
    """xi: another network's projections. sg(theta): the online ones without a gradient. theta: with it."""
    method = tiny(predictor_layers=predictor, negatives=beta, temperature=0.4, **TARGETS[target])
    if target == "xi":
        move(method.target.parameters())
    copy, views = deepcopy(method), two_views()
    z = [copy.projector(copy.backbone(view)) for view in views]
    p = [copy.predictor(x) for x in z]
    candidates = {"xi": [copy.target(view) for view in views], "sg(theta)": [x.detach() for x in z], "theta": z}
    weights = [w for w in copy.parameters() if w.requires_grad]

    calls: list[str] = []
    method.target.register_forward_pre_hook(lambda *_: calls.append("target"))
    method.backbone.register_forward_pre_hook(lambda *_: calls.append("online"))
    output = method(views)
    output.loss.backward()
    found = [w.grad for w in method.parameters() if w.requires_grad]
    for name, targets in candidates.items():
        loss = slow_byol(p, targets, beta, 0.4)
        gradients = torch.autograd.grad(loss, weights, retain_graph=True)
        close = [torch.allclose(a, b, atol=1e-10, rtol=0) for a, b in zip(found, gradients, strict=True)]
        agrees = abs(output.loss.item() - loss.item()) < 1e-10 and all(close)
        copied = target == "sg(theta)" and name == "xi"  # tau 0: the target is a copy of the online network
        assert agrees == (name == target or copied), name
    assert all(w.grad is None for w in method.target.parameters())
    assert sorted(calls) == ["online"] * 2 + ["target"] * 2 * (target != "theta")
    torch.testing.assert_close(output.embeddings, z[0].detach(), atol=1e-12, rtol=0)


# --- between BYOL and SimCLR ----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_with_simclrs_settings_the_loss_is_four_temperatures_times_nt_xent_plus_four(temperature: float):
    """One direction is 2 - 2 mean(s) + 2 a mean(log-sum) = 2 + 2 a A, A = mean(log-sum - s / a) over N views.

    NT-Xent's mean over 2 N views is (A1 + A2) / 2, so both directions make 4 + 2 a (A1 + A2) = 4 + 4 a NT-Xent.
    """
    z = [noise(4, 5, 1, 1, seed=seed).requires_grad_() for seed in (1, 2)]
    rows = [x.flatten(1) for x in z]
    for reference in (slow_nt_xent(*rows, temperature), nt_xent(*rows, temperature)[0]):
        loss = bare(5, temperature)(z).loss
        assert_equal_with_gradients(loss, 4 + 4 * temperature * reference, z)


@pytest.mark.parametrize(
    ("n", "temperature", "equal", "ideal"),
    [(4, 0.5, 1.945910, 0.594438), (256, 0.1, 6.236370, 0.022890)],  # log(2 N - 1), log(1 + (2 N - 2) e^(-1 / a))
)
def test_collapsed_and_perfect_embeddings_have_known_losses(n: int, temperature: float, equal: float, ideal: float):
    method, last_digit = bare(n, temperature), 4 * temperature * 5e-7
    for z, contrast in ((torch.ones(n, n), equal), (3 * torch.eye(n), ideal)):
        views = [z.double().view(n, n, 1, 1)] * 2
        assert method(views).loss.item() == pytest.approx(4 + 4 * temperature * contrast, abs=last_digit)


@pytest.mark.parametrize("temperature", [0.1, 3.0])
def test_own_image_in_the_own_view_is_masked_and_in_the_other_view_is_not(temperature: float):
    """With one image a single choice is left, so that the logarithm undoes the exponential: 2 cos(p, t')."""
    p, same, other = (noise(1, 6, seed=seed).requires_grad_() for seed in range(3))
    value = repulsion(p, same, other, temperature)
    assert_equal_with_gradients(value, 2 * cos(p[0], other[0]), [p, other])
    assert not torch.autograd.grad(repulsion(p, same, other, temperature), same)[0].any()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_repulsion_and_gradient_equal_a_slow_reference(temperature: float):
    """Of vectors of any length: cosines do not see it."""
    inputs = [(0.2 + seed * noise(3, 4, seed=seed)).requires_grad_() for seed in (1, 2, 3)]
    assert_equal_with_gradients(repulsion(*inputs, temperature), slow_repulsion(*inputs, temperature), inputs)


def test_beta_weighs_the_negatives_and_nothing_else():
    outputs = {beta: tiny(negatives=beta, temperature=0.3)(two_views()) for beta in (0.0, 0.5, 1.0, 3.0)}
    repelled = outputs[1.0].terms["repulsion"]
    assert not outputs[0.0].terms and not repelled.requires_grad and abs(repelled) > 0.1
    for beta, output in outputs.items():
        assert output.loss.item() == pytest.approx((outputs[0.0].loss + beta * repelled).item(), abs=1e-12)
        assert not beta or torch.equal(output.terms["repulsion"], repelled)


def test_repulsion_is_computed_in_float32_under_autocast():
    """Cosines rounded to bfloat16 err by up to 2^-9 each; float32 by 1e-7, in the logits ten times that."""
    inputs = [noise(8, 16, seed=seed).bfloat16() for seed in range(3)]
    expected = slow_repulsion(*(x.double() for x in inputs), 0.1).item()
    for dtype in (torch.bfloat16, torch.float32):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = repulsion(*(x.to(dtype) for x in inputs), 0.1)
        assert value.dtype == torch.float32 and value.item() == pytest.approx(expected, abs=2e-6)
    assert abs(value.bfloat16().item() - expected) > 1e-5  # so the example could have shown a rounding


def test_two_processes_repel_from_the_images_of_both(monkeypatch: pytest.MonkeyPatch):
    """Half of the images each, targets of all: the mean of the two is the loss of one process with all of them.

    What processes do together is played here by one: a whole for each part, and the place of the part in it.
    """
    p, same, other = inputs = [noise(6, 4, seed=seed).requires_grad_() for seed in range(3)]
    whole, wholes, halves = repulsion(*inputs, 0.3), [unit(same), unit(other)], []
    for rows in (torch.arange(3), torch.arange(3, 6)):
        monkeypatch.setattr(byol, "own", lambda n, device=None, rows=rows: rows)
        monkeypatch.setattr(byol, "gather", lambda x, r=rows: next(w for w in wholes if torch.equal(w[r], x)))
        halves.append(repulsion(p[rows], same[rows], other[rows], 0.3))
    assert_equal_with_gradients(sum(halves) / 2, whole, inputs)


# --- normalisation, in the loss and in the heads --------------------------------------------------


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_each_normalisation_equals_its_formula_in_value_and_gradient(how: str):
    inputs = [(2 * noise(3, 4, seed=1) + 0.5).requires_grad_(), (noise(3, 4, seed=2) - 1).requires_grad_()]
    assert_equal_with_gradients(regression_loss(*inputs, how), slow_distance(*inputs, how), inputs)


@pytest.mark.parametrize("how", NORMALIZATIONS)
def test_method_compares_what_normalize_says(how: str):
    """Each prediction with the target of the other view, in both directions."""
    method, views = tiny(normalize=how), two_views()
    move(method.target.parameters())
    copy = deepcopy(method)
    p, t = [copy.predictor(copy.projector(copy.backbone(x))) for x in views], [copy.target(x) for x in views]
    losses = {h: (slow_distance(p[0], t[1], h) + slow_distance(p[1], t[0], h)).item() for h in NORMALIZATIONS}
    assert method(views).loss.item() == pytest.approx(losses[how], abs=1e-10)
    assert all(abs(losses[how] - loss) > 1e-2 for h, loss in losses.items() if h != how)  # the example can tell


@pytest.mark.parametrize(("how", "opposite"), [("l2", 4), ("layer", 4), ("batch", 4), ("none", 4 * 25)])
def test_equal_and_opposite_vectors_have_known_distances(how: str, opposite: float):
    """Over the root of D a standardised row, or a batch's mean row, has length 1; (3, 4) as it is has length 5."""
    p = torch.tensor([[3.0, -4.0], [-3.0, 4.0]])
    assert regression_loss(p, p.clone(), how).item() == 0
    assert regression_loss(p, -p, how).item() == pytest.approx(opposite, rel=1e-5)  # eps is 1e-5 of variances above 9


@pytest.mark.parametrize(
    ("how", "blind"),
    [("l2", [1, 0, 0, 0]), ("layer", [1, 1, 0, 0]), ("batch", [0, 0, 1, 1]), ("none", [0, 0, 0, 0])],
)
def test_each_normalisation_is_blind_to_its_own_changes_only(how: str, blind: list[int]):
    """Lengths of rows, offsets of rows, lengths of columns, offsets of columns."""
    p, t, a = 1000 * noise(5, 5, seed=1), noise(5, 5, seed=2), torch.arange(1.0, 6).double()  # eps matters little to p
    changes = [p * a[:, None], p + 500 * a[:, None], p * a, p + 500 * a]
    before = regression_loss(p, t, how).item()
    assert [abs(regression_loss(x, t, how).item() / before - 1) < 1e-5 for x in changes] == [bool(b) for b in blind]


@pytest.mark.parametrize("kind", LAYERS)
def test_norm_is_in_every_hidden_layer_and_no_batchnorm_beside_it(kind: str):
    method = tiny(batchnorm=False, norm=kind, projector_layers=3)
    for head, depth in ((method.projector, 3), (method.target.net[1], 3), (method.predictor, 2)):
        assert [type(layer) for layer in list(head)[1::3]] == [LAYERS[kind]] * (depth - 1)
    batch_norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(batch_norms) == (5 if kind == "batch" else 0)  # two projectors' two, and the predictor's
    undecayed = [p for group in method.param_groups() if not group["decay"] for p in group["params"]]
    assert len(undecayed) == 1 + 3 * (1 if kind == "none" else 3)  # biases, and the norms' scales and offsets


@pytest.mark.parametrize("kind", ["group", "layer", "none"])
def test_hidden_layer_written_out(kind: str):
    """Group: standardised weights, and 16 groups of neighbours. Biased variances, eps 1e-5, learnt scale and offset."""
    head, x = tiny(batchnorm=False, norm=kind).projector, noise(5, 8)
    move(head.parameters(), size=1)
    weight, groups = head[0].weight, {"group": 16, "layer": 1}
    if kind == "group":
        centred = weight - weight.mean(1, keepdim=True)
        weight = centred / (centred.square().mean(1, keepdim=True) + 1e-10).sqrt()
    hidden = x @ weight.T + head[0].bias
    if kind != "none":
        parts = [torch.cat([standardized(part) for part in row.chunk(groups[kind])]) for row in hidden]
        hidden = torch.stack(parts) * head[1].weight + head[1].bias
    torch.testing.assert_close(head(x), hidden.clamp(min=0) @ head[-1].weight.T)


def test_scale_and_offset_of_hidden_weights_do_not_matter_to_group():
    """Of each unit by itself, beside a bias that keeps its scale: normalising the image alone would not do."""
    x, a = noise(5, 8), 1 + noise(32, 1, seed=1).abs()
    for kind in ("group", "layer"):
        head = tiny(batchnorm=False, norm=kind).projector
        head[0].bias.data.add_(1)
        before = head(x)
        head[0].weight.data = a * head[0].weight.data + a
        # 1e-5 is added to standard deviations of about 0.2: a relative error of 5e-5 in each unit
        assert torch.allclose(head(x), before, atol=1e-3, rtol=0) == (kind == "group")


@pytest.mark.parametrize("kind", LAYERS)
def test_only_batchnorm_makes_an_embedding_depend_on_the_other_images(kind: str):
    method, views = tiny(batchnorm=False, norm=kind), two_views()
    others = [torch.cat([view[:1], 3 * view[1:] + 1]) for view in views]
    before, after = (deepcopy(method)(v).embeddings[0] for v in (views, others))
    assert torch.allclose(before, after, atol=1e-12, rtol=0) == (kind != "batch")
