"""Optimisers by name: what each parameter group is given."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from ownlatent.errors import OwnlatentError
from ownlatent.optim.create import NAMES, create
from ownlatent.optim.groups import split_decay
from ownlatent.optim.lars import LARS


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


@pytest.mark.parametrize(("name", "kind"), [("adamw", AdamW), ("lars", LARS), ("sgd", SGD)])
def test_name_gives_its_optimiser(name: str, kind: type):
    assert type(create(name, split_decay(layers()), lr=0.1, weight_decay=0.01)) is kind
    assert name in NAMES


@pytest.mark.parametrize(("wrong", "nearest"), [("larss", "lars"), ("adam", "adamw"), ("sdg", "sgd")])
def test_unknown_name_names_the_nearest(wrong: str, nearest: str):
    with pytest.raises(OwnlatentError, match=f"'{wrong}'.*{nearest}"):
        create(wrong, split_decay(layers()), lr=0.1, weight_decay=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_undecayed_groups_get_no_weight_decay(name: str):
    """PyTorch's AdamW would otherwise decay them by its default of 0.01."""
    decayed, plain = create(name, split_decay(layers()), lr=0.1, weight_decay=0.03).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.03, 0.0)
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert [p.ndim for p in plain["params"]] == [1, 1, 1]


@pytest.mark.parametrize("name", NAMES)
def test_undecayed_parameters_stay_under_a_zero_gradient(name: str):
    model = layers()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = create(name, split_decay(model), lr=0.1, weight_decay=0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for p, start in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, start) == (p.ndim == 1)


def test_lars_adapts_decayed_groups_only():
    optimizer = create("lars", split_decay(layers()), lr=0.1, weight_decay=0.0, momentum=0.8, eta=0.02)
    assert [group["adapt"] for group in optimizer.param_groups] == [True, False]
    assert all(group["momentum"] == 0.8 and group["eta"] == 0.02 for group in optimizer.param_groups)


def test_group_without_a_word_on_decay_is_decayed_and_adapted():
    (group,) = create("lars", [{"params": layers().parameters()}], lr=0.1, weight_decay=0.03).param_groups
    assert group["weight_decay"] == 0.03 and group["adapt"]


@pytest.mark.parametrize("name", NAMES)
def test_each_group_remembers_its_own_peak(name: str):
    """A multiplier (a faster predictor, say) scales the group's peak, which the schedule then reads."""
    model = layers()
    groups = [
        {"params": list(model[0].parameters()), "decay": True, "lr_multiplier": 10.0},
        {"params": list(model[1].parameters()), "decay": False},
    ]
    fast, plain = create(name, groups, lr=0.1, weight_decay=0.0).param_groups
    assert fast["lr"] == fast["peak_lr"] == pytest.approx(1.0)
    assert plain["lr"] == plain["peak_lr"] == 0.1


def test_biases_have_a_rate_of_their_own_if_asked():
    """Barlow Twins: 0.0048 for biases and norms beside 0.2 for weights."""
    weights, biases = create("lars", split_decay(layers()), lr=0.2, weight_decay=0.0, bias_lr=0.024).param_groups
    assert (weights["peak_lr"], biases["peak_lr"]) == (0.2, pytest.approx(0.0048))


@pytest.mark.parametrize("name", NAMES)
def test_biases_and_norms_are_decayed_if_asked(name: str):
    """SimSiam and MoCo v2 decay every parameter; LARS still adapts weights only."""
    optimizer = create(name, split_decay(layers()), lr=0.1, weight_decay=0.03, decay_all=True)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.03, 0.03]
    assert [group["decayed"] for group in optimizer.param_groups] == [True, True]
    if name == "lars":
        assert [group["adapt"] for group in optimizer.param_groups] == [True, False]


def test_callers_groups_are_left_as_they_were():
    groups = [{"params": list(layers().parameters()), "decay": True, "lr_multiplier": 2.0}]
    create("sgd", groups, lr=0.1, weight_decay=0.03)
    assert set(groups[0]) == {"params", "decay", "lr_multiplier"}


@pytest.mark.parametrize("name", NAMES)
def test_network_without_biases_and_norms_is_fine(name: str):
    """The undecayed group is then empty."""
    model = nn.Linear(2, 2, bias=False)
    optimizer = create(name, split_decay(model), lr=0.1, weight_decay=0.0)
    before = model.weight.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


def test_frozen_parameters_are_in_no_group():
    model = layers()
    model[2].requires_grad_(False)
    grouped = {id(p) for group in split_decay(model) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}
