"""Weighted k-nearest-neighbour classification on cosine similarity (Wu et al. 2018, as in DINO)."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_BYTES = 64 * 2**20  # of similarities held at a time


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
    queries are the bank, in the same order, and none is its own neighbour. Exact, on the tensors' device; memory
    is bounded whatever the number of queries.
    """
    return knn_predictions(queries, bank, bank_labels, (k,), temperature, leave_one_out)[0]


def knn_predictions(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    ks: Sequence[int],
    temperature: float = 0.07,
    leave_one_out: bool = False,
) -> list[Tensor]:
    """The same for each k of several: the neighbours are looked for once."""
    num_classes = int(bank_labels.max()) + 1
    found: list[list[Tensor]] = [[] for _ in ks]
    for cosines, index in neighbours(queries, bank, max(ks), leave_one_out):
        # Only differences matter to the vote; the largest exponent is zero, so nothing overflows.
        weights = ((cosines - cosines[:, :1]) / temperature).exp()
        classes = bank_labels[index]
        for k, predictions in zip(ks, found, strict=True):
            votes = torch.zeros(len(index), num_classes, device=index.device)
            predictions.append(votes.scatter_add_(1, classes[:, :k], weights[:, :k]).argmax(1))
    return [torch.cat(predictions) for predictions in found]


def neighbours(queries: Tensor, bank: Tensor, k: int, leave_one_out: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """(cosines, places in the bank) of the k nearest, from the nearest, for a chunk of queries at a time."""
    queries, bank = F.normalize(queries.float(), dim=1), F.normalize(bank.float(), dim=1).T
    k = min(k, bank.shape[1] - leave_one_out)
    rows = max(1, _CHUNK_BYTES // (4 * bank.shape[1]))
    room = queries.new_empty(min(rows, len(queries)), bank.shape[1])  # new memory for each chunk costs page faults
    for start in range(0, len(queries), rows):
        chunk = queries[start : start + rows]
        similarity = torch.mm(chunk, bank, out=room[: len(chunk)])
        if leave_one_out:
            here = torch.arange(len(chunk), device=chunk.device)
            similarity[here, here + start] = -torch.inf
        yield _largest(similarity, k)


def _largest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their places, like topk and exact, but most values are looked at only once.

    A row is cut into blocks. Its k largest values lie in the k blocks with the largest maxima, for any other block
    has k values elsewhere that are at least as large as all of its own.
    """
    n = similarity.shape[1]
    size = 2 ** round(math.log2(max(1.0, n / max(1, k))) / 2)  # as many maxima to choose from as values in the k blocks
    blocks = n // size
    if blocks < 2 * k:
        return similarity.topk(k)
    # Block b holds places b, b + blocks, b + 2 blocks, ...: maxima over the outer of two axes are fast.
    whole = similarity[:, : blocks * size].unflatten(1, (size, blocks))
    best = whole.amax(1).topk(k, sorted=False).indices
    inside = whole.gather(2, best.unsqueeze(1).expand(-1, size, -1)).flatten(1)
    values, chosen = torch.cat([inside, similarity[:, blocks * size :]], 1).topk(k)  # the rest fills no block
    layer, column = chosen // k, chosen % k
    places = best.gather(1, column) + blocks * layer
    return values, torch.where(layer < size, places, blocks * size + chosen - size * k)


def knn_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor | None = None,
    test_labels: Tensor | None = None,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Top-1 accuracy in [0, 1] on features (N, D). Without a test set every image is classified by all the others."""
    alone = test is None or test_labels is None
    queries, truth = (train, train_labels) if test is None or test_labels is None else (test, test_labels)
    predicted = knn_predict(queries, train, train_labels, k, temperature, leave_one_out=alone)
    return (predicted == truth).double().mean().item()
