"""The head that BYOL's projector and predictor share."""

import torch
from torch import nn

from ownlatent.nn.mlp import mlp


def test_layers_and_their_biases():
    """Bias before the BatchNorm, none at the end, as in BYOL's released code."""
    head = mlp(6, 10, 4)
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters()}
    assert shapes == {"0.weight": (10, 6), "0.bias": (10,), "1.weight": (10,), "1.bias": (10,), "3.weight": (4, 10)}


def test_output_in_training_is_normalised_by_the_batch():
    """Written out: hidden units with mean 0 and variance 1 over the batch (biased), clipped at 0, mixed."""
    torch.manual_seed(0)
    head = mlp(6, 10, 4)
    x = torch.randn(32, 6)
    hidden = x @ head[0].weight.T + head[0].bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(x), hidden.clamp(min=0) @ head[3].weight.T)


def test_input_is_left_alone():
    """The in-place ReLU may only touch what the head made itself."""
    x = torch.randn(8, 6)
    before = x.clone()
    mlp(6, 10, 4)(x)
    assert torch.equal(x, before)
