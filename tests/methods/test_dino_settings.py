"""DINO's head, settings and recipes against the paper and its released code."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods.dino import DINO, Prototypes
from ownlatent.train.recipe import Recipe, edit


def tiny_dino(**settings: Any) -> DINO:
    torch.manual_seed(0)
    backbone = backbones.create(nn.Flatten(), channels=8, image_size=1)
    return DINO(backbone, **{"hidden": 16, "bottleneck": 4, "prototypes": 6, **settings})


def test_projector_is_three_linear_layers_without_any_normalisation():
    """Linear - GELU - Linear - GELU - Linear with biases; weights of standard deviation 0.02, biases 0."""
    method = tiny_dino(hidden=256, bottleneck=64)
    assert [type(layer) for layer in method.projector] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    linears = [method.projector[n] for n in (0, 2, 4)]
    assert [tuple(linear.weight.shape) for linear in linears] == [(256, 8), (256, 256), (64, 256)]
    assert all(
        linear.bias is not None and torch.equal(linear.bias, torch.zeros_like(linear.bias)) for linear in linears
    )
    for weight in (linear.weight for linear in linears):
        error = 1 / sqrt(2 * weight.numel())  # of a standard deviation, as a share of it
        assert weight.std().item() == pytest.approx(0.02, rel=5 * error)
        assert weight.mean().item() == pytest.approx(0, abs=5 * 0.02 / sqrt(weight.numel()))


def test_prototypes_begin_as_torchs_linear_layers_do():
    """The released head makes its last layer after it has set the others' weights: uniform within 1 / sqrt(64)."""
    weight = tiny_dino(bottleneck=64, prototypes=64).prototypes.weight
    error = 1 / sqrt(2 * weight.numel())
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(1 / 8 / sqrt(3), rel=5 * error)


def test_prototypes_give_cosines_whatever_the_lengths():
    """A weight-normalised layer without bias whose gain is fixed at 1, after a bottleneck of unit length."""
    layer = Prototypes(3, 5)
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    x = torch.randn((4, 3), generator=torch.Generator().manual_seed(0))
    cosines = layer(x)
    for i, row in enumerate(x.tolist()):
        for j, direction in enumerate(layer.weight.tolist()):
            product = sum(a * b for a, b in zip(row, direction, strict=True))
            lengths = sqrt(sum(a * a for a in row)) * sqrt(sum(b * b for b in direction))
            assert cosines[i, j].item() == pytest.approx(product / lengths, abs=1e-6)
    layer.weight.data.mul_(torch.tensor([[0.01], [0.1], [1.0], [10.0], [100.0]]))
    torch.testing.assert_close(layer(1000 * x), cosines)


def test_defaults_are_the_papers():
    """The released code's defaults; its teacher stays at 0.04, its last layer rests for one epoch of 100."""
    assert methods.settings("dino") == {
        **{"hidden": 2048, "bottleneck": 256, "prototypes": 65536, "student_temperature": 0.1},
        **{"teacher_temperature": 0.04, "warmup_temperature": 0.04, "warmup": 0.3, "center_momentum": 0.9},
        **{"tau": 0.996, "freeze": 0.01, "clip": 3.0},
    }
    assert len(tiny_dino(prototypes=10).center.value) == 10


NAN = float("nan")


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        *[
            ("temperatures", {f"{who}_temperature": v})
            for who in ("student", "teacher", "warmup")
            for v in (0, -1, NAN)
        ],
        *[(name, {name: v}) for name in ("warmup", "center_momentum", "tau", "freeze") for v in (-0.01, 1.01, NAN)],
        *[("clip", {"clip": v}) for v in (-0.1, NAN)],
        *[(name, {name: 0}) for name in ("hidden", "bottleneck", "prototypes")],
    ],
)
def test_settings_out_of_range_are_refused(word: str, settings: dict[str, float]):
    with pytest.raises(OwnlatentError, match=word):
        tiny_dino(**settings)


def test_imagenet_row_is_the_papers():
    """ViT-S/16, 100 epochs on 8 GPUs with 64 images each: AdamW of 5e-4 for 256 images to 1e-6, decay 0.04 to 0.4."""
    recipe = edit(Recipe(method="dino"), methods.named_recipes("dino")["imagenet"])
    optim = recipe.optim
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == (
        *("vit_small_patch16_224", 224, 8 * 64),
        100,
    )
    assert (optim.name, optim.base_lr, optim.weight_decay, optim.end_weight_decay) == ("adamw", 5e-4, 0.04, 0.4)
    assert optim.base_lr * 512 / 256 * optim.end_lr == pytest.approx(1e-6)
    assert optim.warmup * recipe.epochs == pytest.approx(10)
    settings = {**methods.settings("dino"), **recipe.method_settings}
    assert settings["freeze"] * recipe.epochs == pytest.approx(1)
    assert (settings["tau"], settings["prototypes"], settings["clip"]) == (0.996, 65536, 3.0)
    assert recipe.backbone_settings["drop_path_rate"] == 0.1
    assert [view.crop_scale for view in recipe.views] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8
    with torch.device("meta"):  # shapes without numbers: does the network take both sizes of views?
        backbone = backbones.create(recipe.backbone, image_size=224, **recipe.backbone_settings)
        sides = [view.pixels(224) for view in recipe.views]
        assert sides == [224] * 2 + [96] * 8
        assert all(backbone(torch.zeros(2, 3, side, side)).shape == (2, 384) for side in set(sides))


def test_imagenet_row_of_a_resnet_is_the_papers():
    """SGD of 0.03 for 256 images, constant decay, crops that meet at 0.14: (0.14, 1) large and (0.05, 0.14) small."""
    recipe = edit(Recipe(method="dino"), methods.named_recipes("dino")["imagenet_resnet"])
    optim = recipe.optim
    assert (recipe.backbone, recipe.image_size, recipe.batch_size) == ("resnet50", 224, 1024)
    assert (optim.name, optim.base_lr, optim.weight_decay, optim.momentum) == ("sgd", 0.03, 1e-4, 0.9)
    assert optim.end_weight_decay in (None, 1e-4)
    assert optim.warmup * recipe.epochs == pytest.approx(10)
    assert [view.crop_scale for view in recipe.views] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 8
