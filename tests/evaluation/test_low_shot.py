"""Draws of few labels: balanced, nested, repeatable."""

import pytest
import torch

from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.low_shot import draw, parse

LABELS = torch.arange(4).repeat_interleave(torch.tensor([200, 100, 40, 3]))[
    torch.randperm(343, generator=torch.Generator().manual_seed(0))
]


def counts(rows: torch.Tensor) -> list[int]:
    return LABELS[rows].bincount(minlength=4).tolist()


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("1%", [2, 1, 1, 1]), ("10%", [20, 10, 4, 1]), ("100%", [200, 100, 40, 3]), ("1", [1] * 4), ("5", [5, 5, 5, 3])],
)
def test_every_class_has_its_share(amount: str, expected: list[int]):
    rows = draw(LABELS, amount, seed=0)
    assert counts(rows) == expected
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_the_seed_decides():
    assert torch.equal(draw(LABELS, "10%", 3), draw(LABELS, "10%", 3))
    assert not torch.equal(draw(LABELS, "10%", 3), draw(LABELS, "10%", 4))


def test_fewer_labels_are_a_part_of_more():
    few, more = (set(draw(LABELS, amount, 0).tolist()) for amount in ("1%", "10%"))
    assert few < more


def test_draws_are_uniform_over_the_images_of_a_class():
    chosen = torch.cat([draw(LABELS, "10", seed) for seed in range(400)]).bincount(minlength=343)
    often = chosen[LABELS == 1].float()  # 10 of 100, 400 times: 40 each
    assert often.mean() == 40 and 4.5 < often.std() < 7.5


@pytest.mark.parametrize("amount", ["", "0", "0%", "101%", "1.5", "-1", "one", "5 %x", "1%%"])
def test_other_amounts_are_refused(amount: str):
    with pytest.raises(OwnlatentError, match="is no number of labels"):
        parse(amount)


def test_amounts():
    assert parse("0.5%") == (0.5, True) and parse(" 5 ") == (5.0, False)
