"""Weighted k-nearest neighbours against a reference with loops in double precision."""

from math import exp, sqrt

import pytest
import torch
from torch import Tensor

from ownlatent.evaluation import knn
from ownlatent.evaluation.knn import knn_accuracy, knn_predict, knn_predictions


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
    assert knn_accuracy(features, labels, k=1) == 0
    assert knn_accuracy(features, labels, features, labels, k=1) == 1


def test_leave_one_out_keeps_other_copies_of_the_image():
    """Only the image at the same place is left out, not others with the same features."""
    features = torch.randn((10, 8), generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    assert knn_accuracy(features, torch.arange(10).repeat(2), k=1) == 1


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
    largest = knn._largest
    monkeypatch.setattr(knn, "_largest", lambda block, k: rows.append(len(block)) or largest(block, k))
    knn_predict(bank, bank, labels, 5, 0.07)
    assert rows == [8, 8, 8, 8, 8, 8, 2]


@pytest.mark.parametrize("columns", [40, 639, 640, 671, 5000])
@pytest.mark.parametrize("k", [1, 10])
def test_the_largest_are_those_of_a_full_sort(columns: int, k: int):
    similarity = torch.randn((7, columns), generator=torch.Generator().manual_seed(0))
    similarity[0] = similarity[0].sort().values  # the largest side by side, which is across blocks
    values, places = knn._largest(similarity, k)
    expected = similarity.sort(1, descending=True)
    assert torch.equal(values, expected.values[:, :k]) and torch.equal(places, expected.indices[:, :k])


def test_the_largest_among_equal_values_are_as_large_as_they_can_be():
    similarity = torch.randint(0, 4, (5, 2000), generator=torch.Generator().manual_seed(0)).float()
    values, places = knn._largest(similarity, 20)
    assert torch.equal(values, torch.full((5, 20), 3.0)) and torch.equal(similarity.gather(1, places), values)
    assert all(len(set(row)) == 20 for row in places.tolist())


def test_several_k_at_once_are_those_one_by_one():
    bank, labels = clusters(700)
    queries, _ = clusters(30, seed=1)
    together = knn_predictions(queries, bank, labels, (1, 10, 200), 0.1)
    for k, predicted in zip((1, 10, 200), together, strict=True):
        assert torch.equal(predicted, knn_predict(queries, bank, labels, k, 0.1))


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


def test_accuracy_is_the_share_of_right_predictions():
    train, labels = clusters(60, seed=0)
    test, truth = clusters(25, seed=1)
    right = [a == b for a, b in zip(slow_predict(test, train, labels, 5, 0.1), truth.tolist(), strict=True)]
    assert 0.2 < sum(right) / 25 < 1  # a case that can go wrong
    assert knn_accuracy(train, labels, test, truth, k=5, temperature=0.1) == pytest.approx(sum(right) / 25)
    alone = slow_predict(train, train, labels, 5, 0.07, leave_one_out=True)
    right = [a == b for a, b in zip(alone, labels.tolist(), strict=True)]
    assert knn_accuracy(train, labels, k=5) == pytest.approx(sum(right) / 60)


def test_classes_that_the_bank_lacks_count_as_wrong():
    train, labels = clusters(20)
    assert knn_accuracy(train, labels, train, torch.full((20,), 9)) == 0
