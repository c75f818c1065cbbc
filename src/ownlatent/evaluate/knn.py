"""Weighted k-nearest-neighbour classification on cosine similarity (Wu et al. 2018, as in DINO)."""

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_BYTES = 256 * 2**20  # of similarities held at a time


def knn_predict(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> Tensor:
    """Class (Q,) int64 of each query (Q, D) by its k nearest bank features (N, D) with labels (N,).

    Each neighbour votes exp(cosine / temperature). k is cut to the bank's size. leave_one_out: the
    queries are the bank, in the same order, and none is its own neighbour. Exact; memory is bounded
    whatever the number of queries.
    """
    queries, bank = F.normalize(queries.float(), dim=1), F.normalize(bank.float(), dim=1)
    k = min(k, len(bank) - leave_one_out)
    num_classes = int(bank_labels.max()) + 1
    rows = max(1, _CHUNK_BYTES // (4 * len(bank)))
    predictions = []
    for start in range(0, len(queries), rows):
        similarity = queries[start : start + rows] @ bank.T
        if leave_one_out:
            here = torch.arange(len(similarity))
            similarity[here, here + start] = -torch.inf
        nearest, index = similarity.topk(k)
        # Only differences matter to the vote; the largest exponent is zero, so nothing overflows.
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
        votes = torch.zeros(len(similarity), num_classes).scatter_add_(1, bank_labels[index], weights)
        predictions.append(votes.argmax(1))
    return torch.cat(predictions)


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor | None = None,
    test_labels: Tensor | None = None,
    k: int = 20,
    temperature: float = 0.07,
) -> dict:
    """Top-1 accuracy in [0, 1] with its whole protocol, as one entry of results.json.

    train, test: features (N, D). Without a test set every image is classified by all the others.
    """
    alone = test is None or test_labels is None
    queries, truth = (train, train_labels) if test is None or test_labels is None else (test, test_labels)
    predicted = knn_predict(queries, train, train_labels, k, temperature, leave_one_out=alone)
    return {
        "protocol": "knn",
        "k": k,
        "temperature": temperature,
        "split": "leave-one-out" if alone else "train-test",
        "num_train": len(train) - alone,
        "num_test": len(queries),
        "top1": (predicted == truth).double().mean().item(),
    }
