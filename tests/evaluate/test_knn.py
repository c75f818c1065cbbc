"""Weighted k-nearest neighbours against a reference with loops in double precision."""

from math import exp, sqrt

import pytest
import torch
from torch import Tensor

from ownlatent.evaluate import knn
from ownlatent.evaluate.knn import knn_accuracy, knn_predict


def clusters(n: int, classes: int = 5, width: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping clusters, so that neighbours disagree."""
    centres = torch.randn((classes, width), generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    return centres[labels] + 1.2 * torch.randn((n, width), generator=generator), labels


def slow_predict(
    queries: Tensor, bank: Tensor, labels: Tensor, k: int, temperature: float, leave_one_out: bool = False
) -> list[int]:
    """Each of the k largest cosines votes exp(cosine / temperature) for its class."""
    answers = []
    rows = bank.double().tolist()
    for i, query in enumerate(queries.double().tolist()):
        length = sqrt(sum(a * a for a in query))
        cosines = []
        for j, row in enumerate(rows):
            if leave_one_out and i == j:
                continue
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            cosines.append((dot / (length * sqrt(sum(b * b for b in row))), int(labels[j])))
        votes = [0.0] * (int(labels.max()) + 1)
        for cosine, label in sorted(cosines, reverse=True)[:k]:
            votes[label] += exp(cosine / temperature)
        answers.append(votes.index(max(votes)))
    return answers


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.1), (20, 10.0)])
def test_predictions_equal_a_slow_reference(k: int, temperature: float):
    bank, labels = clusters(60, seed=0)
    queries, _ = clusters(25, seed=1)
    predicted = knn_predict(queries, bank, labels, k, temperature)
    assert predicted.dtype == torch.int64
    assert predicted.tolist() == slow_predict(queries, bank, labels, k, temperature)


@pytest.mark.parametrize("k", [1, 7])
def test_leave_one_out_equals_a_slow_reference(k: int):
    bank, labels = clusters(50)
    predicted = knn_predict(bank, bank, labels, k, 0.07, leave_one_out=True)
    assert predicted.tolist() == slow_predict(bank, bank, labels, k, 0.07, leave_one_out=True)


def test_leave_one_out_excludes_the_image_itself():
    """With a class of its own for every image, only seeing oneself could ever be right."""
    features = torch.randn((30, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30)
    assert knn_accuracy(features, labels, k=1)["top1"] == 0
    assert knn_accuracy(features, labels, features, labels, k=1)["top1"] == 1


def test_leave_one_out_keeps_other_copies_of_the_image():
    """Only the image at the same place is left out, not others with the same features."""
    features = torch.randn((10, 8), generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    assert knn_accuracy(features, torch.arange(10).repeat(2), k=1)["top1"] == 1


@pytest.mark.parametrize("rows", [0, 1, 7, 64])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_size_of_the_chunks_does_not_matter(rows: int, leave_one_out: bool, monkeypatch: pytest.MonkeyPatch):
    """Memory is bounded by handling a few queries at a time; each must still skip itself."""
    bank, labels = clusters(50)
    expected = knn_predict(bank, bank, labels, 5, 0.07, leave_one_out)
    monkeypatch.setattr(knn, "_CHUNK_BYTES", 4 * len(bank) * rows)
    assert torch.equal(knn_predict(bank, bank, labels, 5, 0.07, leave_one_out), expected)


def test_chunks_hold_the_promised_memory(monkeypatch: pytest.MonkeyPatch):
    """No block of similarities is larger than the bound."""
    bank, labels = clusters(50)
    monkeypatch.setattr(knn, "_CHUNK_BYTES", 4 * 50 * 8)
    rows: list[int] = []
    topk = Tensor.topk
    monkeypatch.setattr(Tensor, "topk", lambda self, k: rows.append(len(self)) or topk(self, k))
    knn_predict(bank, bank, labels, 5, 0.07)
    assert rows == [8, 8, 8, 8, 8, 8, 2]


def test_k_larger_than_the_bank_uses_all_of_it():
    bank, labels = clusters(12)
    queries, _ = clusters(20, seed=1)
    assert knn_predict(queries, bank, labels, 500).tolist() == slow_predict(queries, bank, labels, 12, 0.07)
    alone = knn_predict(bank, bank, labels, 12, leave_one_out=True)
    assert alone.tolist() == slow_predict(bank, bank, labels, 11, 0.07, leave_one_out=True)


def test_near_neighbour_outvotes_two_far_ones_at_low_temperature_only():
    """exp(1 / T) against 2 exp(0.5 / T): the one wins below T = 0.5 / ln 2 = 0.72."""
    bank = torch.tensor([[1.0, 0.0], [0.5, sqrt(0.75)], [0.5, -sqrt(0.75)]])
    labels, query = torch.tensor([1, 0, 0]), torch.tensor([[1.0, 0.0]])
    assert knn_predict(query, bank, labels, 3, 0.71).tolist() == [1]
    assert knn_predict(query, bank, labels, 3, 0.74).tolist() == [0]


def test_low_temperature_does_not_overflow():
    """exp(1 / 0.001) is no float; votes must still be numbers."""
    bank, labels = clusters(40)
    assert torch.equal(knn_predict(bank, bank, labels, 20, 0.001), labels)


def test_length_of_the_features_does_not_matter():
    bank, labels = clusters(40)
    queries, _ = clusters(20, seed=1)
    lengths = torch.logspace(-2, 2, 40).unsqueeze(1)
    assert torch.equal(knn_predict(17 * queries, lengths * bank, labels), knn_predict(queries, bank, labels))


def test_accuracy_carries_its_protocol():
    train, labels = clusters(60, seed=0)
    test, truth = clusters(25, seed=1)
    result = knn_accuracy(train, labels, test, truth, k=5, temperature=0.1)
    right = [a == b for a, b in zip(slow_predict(test, train, labels, 5, 0.1), truth.tolist(), strict=True)]
    assert 0.2 < result["top1"] < 1  # a case that can go wrong
    assert result == {
        "protocol": "knn",
        "k": 5,
        "temperature": 0.1,
        "split": "train-test",
        "num_train": 60,
        "num_test": 25,
        "top1": pytest.approx(sum(right) / 25),
    }
    alone = knn_accuracy(train, labels, k=5)
    assert (alone["split"], alone["num_train"], alone["num_test"]) == ("leave-one-out", 59, 60)


def test_classes_that_the_bank_lacks_count_as_wrong():
    train, labels = clusters(20)
    assert knn_accuracy(train, labels, train, torch.full((20,), 9))["top1"] == 0
