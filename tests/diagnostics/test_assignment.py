"""Entropies of assignments that are sure, empty, or the same for all."""

from math import log

import pytest
import torch
import torch.nn.functional as F

from ownlatent.diagnostics.assignment import entropy_of_mean, mean_entropy


def test_sure_and_different():
    sure = F.one_hot(torch.arange(8)).float()
    assert mean_entropy(sure).item() == 0 and entropy_of_mean(sure).item() == pytest.approx(log(8), rel=1e-6)


def test_sure_and_the_same():
    same = F.one_hot(torch.zeros(8, dtype=torch.long), 16).float()
    assert mean_entropy(same).item() == 0 and entropy_of_mean(same).item() == 0


def test_saying_nothing():
    uniform = torch.full((5, 32), 1 / 32)
    assert mean_entropy(uniform).item() == pytest.approx(log(32), rel=1e-6)
    assert entropy_of_mean(uniform).item() == pytest.approx(log(32), rel=1e-6)
