"""MoCo with a batch in parts: BatchNorm's splits on one device, ShuffleBN, and several processes."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from itertools import combinations
from math import sqrt
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.errors import OwnlatentError
from ownlatent.methods._base import Method
from ownlatent.methods.moco_v2 import MoCoV2
from ownlatent.methods.moco_v3 import MoCoV3
from ownlatent.nn import collectives
from ownlatent.types import Views


def tiny(kind: type[Method] = MoCoV2, batchnorm: bool = True, **settings: Any) -> Any:
    """One convolution and narrow heads; the target is not the online network."""
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(8) if batchnorm else nn.Identity()
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), middle, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    method = kind(backbones.create(net, channels=3, image_size=8), **{"hidden": 16, "projection": 4, **settings})
    for parameter in method.target.parameters():
        parameter.data.add_(0.5 * torch.randn_like(parameter))
    return method


def two_views(batch: int = 6) -> Views:
    """Images of different brightness, so that it matters which of them share their statistics."""
    generator = torch.Generator().manual_seed(1)
    bright = torch.randn((batch, 3, 1, 1), generator=generator)
    first = torch.randn((batch, 3, 8, 8), generator=generator) + bright
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) - bright]


def unit_rows(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def query(method: MoCoV2, view: Tensor) -> Tensor:
    return method.projector(method.backbone(view))


def recorded(network: nn.Module) -> list[Tensor]:
    """Fills with what the network is given from now on."""
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    return seen


def numbers(part: Tensor, images: Tensor) -> list[int]:
    """Which of the images the rows of a part are."""
    return [[torch.equal(row, image) for image in images].index(True) for row in part]


def keys_of(parts: list[Tensor], target: nn.Module, images: Tensor) -> Tensor:
    """Unit keys in the images' order, each from the target's pass of its part."""
    keys = torch.full((len(images), 4), torch.nan)
    for part in parts:
        keys[numbers(part, images)] = unit_rows(target(part))
    return keys


# --- splits on one device -------------------------------------------------------------------------


def test_batchnorm_of_the_queries_sees_one_part_at_a_time():
    method, (view1, view2) = tiny(queue=24, splits=3), two_views()
    copy, whole = deepcopy(method), query(deepcopy(method), view1)
    expected = torch.cat([query(copy, view1[i : i + 2]) for i in (0, 2, 4)])
    assert (expected - whole).abs().max() > 0.05  # so that it matters
    torch.testing.assert_close(method([view1, view2]).embeddings, expected.detach())
    assert method.backbone.net[1].num_batches_tracked == 3
    assert method.target.net[0].net[1].num_batches_tracked == 3


@pytest.mark.parametrize("symmetric", [False, True])
def test_keys_of_shuffled_parts_come_back_in_the_images_order(symmetric: bool):
    """Each key is that of its image among the images of its part, and in the row of its image."""
    method, views = tiny(queue=24, splits=3, symmetric=symmetric, temperature=0.5), two_views()
    copy, waiting, parts = deepcopy(method), method.queue.keys.clone(), recorded(method.target.net[0])
    loss, expected = method(views).loss.item(), 0.0
    directions = [(views[0], views[1]), (views[1], views[0])][: 1 + symmetric]
    assert [len(part) for part in parts] == [2, 2, 2] * len(directions)
    for n, (asked, sought) in enumerate(directions):
        keys = keys_of(parts[3 * n : 3 * n + 3], copy.target, sought)
        unshuffled = unit_rows(torch.cat([copy.target(part) for part in sought.chunk(3)]))
        assert (keys - unshuffled).abs().max() > 0.05  # so that the shuffling matters
        torch.testing.assert_close(method.queue.keys[6 * n : 6 * n + 6], keys)
        q = unit_rows(torch.cat([query(copy, part) for part in asked.chunk(3)]))
        logits = torch.cat([(q * keys).sum(1, keepdim=True), q @ waiting.T], 1) / 0.5
        expected += (logits.logsumexp(1) - logits[:, 0]).mean().item() / len(directions)
    assert loss == pytest.approx(expected, abs=1e-5)


def test_shuffling_mixes_all_images_evenly():
    """Two of six images share a part of three with probability 2 / 5: 80 of 200 times, within five deviations."""
    method, views = tiny(queue=24, splits=2), two_views()
    parts = recorded(method.target.net[0])
    for _ in range(200):
        method(views)
    pairs = Counter(pair for part in parts for pair in combinations(sorted(numbers(part, views[1])), 2))
    assert len(pairs) == 15 and sum(pairs.values()) == 200 * 6
    assert all(abs(times - 80) < 5 * sqrt(200 * 0.4 * 0.6) for times in pairs.values())


def test_only_shuffling_draws_from_the_global_generator():
    """With one part in one process the order cannot matter, and nothing is drawn."""
    for symmetric in (False, True):
        method = tiny(queue=24, symmetric=symmetric)
        seen, before = recorded(method.target.net[0]), torch.get_rng_state()
        views = two_views()
        method(views)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(seen[0], views[1])
    losses = []
    for seed in (1, 1, 2):
        method = tiny(queue=24, splits=2)
        torch.manual_seed(seed)
        losses.append(method(two_views()).loss.item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("splits", "batch", "fits"), [(4, 10, False), (4, 4, False), (8, 8, False), (4, 8, True)])
def test_batch_that_cannot_be_split_evenly_is_refused(splits: int, batch: int, fits: bool):
    """BatchNorm of a part of one image would make a constant of it."""
    method = tiny(splits=splits, queue=80)
    if fits:
        return method.check_batch(batch)
    with pytest.raises(OwnlatentError, match=rf"batch of {batch} .*--method.splits {splits} .*2 images"):
        method.check_batch(batch)


# --- several processes ----------------------------------------------------------------------------


def in_processes(count: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[int], Any]) -> list[Any]:
    """What work(rank) returns in so many threads, which exchange tensors as processes would."""
    here, barrier, box = threading.local(), threading.Barrier(count, timeout=30), [torch.empty(0)] * count

    def exchange(x: Tensor) -> list[Tensor]:
        box[here.rank] = x.detach().clone()
        barrier.wait()
        everyone = list(box)
        barrier.wait()
        return everyone

    def all_gather(parts: list[Tensor], x: Tensor) -> None:
        for part, value in zip(parts, exchange(x), strict=True):
            part.copy_(value)

    def begin(rank: int) -> Any:
        here.rank = rank
        return work(rank)

    exchanging = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda: count,
        get_rank=lambda: here.rank,
        all_gather=all_gather,
        all_reduce=lambda x: x.copy_(torch.stack(exchange(x)).sum(0)),
        broadcast=lambda x, src: x.copy_(exchange(x)[src]),
    )
    with monkeypatch.context() as patch, ThreadPoolExecutor(count) as pool:
        patch.setattr(collectives, "dist", exchanging)
        return list(pool.map(begin, range(count)))


@pytest.mark.parametrize("splits", [1, 3])
def test_processes_shuffle_their_keys_among_each_other(splits: int, monkeypatch: pytest.MonkeyPatch):
    """ShuffleBN: a pass of the target holds a random lot of all images; each process gets its own images' keys."""
    methods, views = [tiny(queue=24, splits=splits) for _ in range(2)], two_views(12)
    copy = deepcopy(methods[0])
    parts = [recorded(method.target.net[0]) for method in methods]

    def work(rank: int) -> Tensor:
        return methods[rank]([view[6 * rank : 6 * rank + 6] for view in views]).loss.detach()

    losses = in_processes(2, monkeypatch, work)
    assert [len(part) for part in (*parts[0], *parts[1])] == [6 // splits] * splits * 2
    members = [numbers(torch.cat(part), views[1]) for part in parts]
    assert sorted(members[0] + members[1]) == list(range(12))
    assert {n // 6 for n in members[0]} == {0, 1} == {n // 6 for n in members[1]}  # of both processes
    keys = keys_of([*parts[0], *parts[1]], copy.target, views[1])
    for method in methods:  # one queue, the same in both
        torch.testing.assert_close(method.queue.keys[:12], keys)
        assert method.queue.place == 12
    for rank, loss in enumerate(losses):
        mine = slice(6 * rank, 6 * rank + 6)
        q = unit_rows(torch.cat([query(copy, part) for part in views[0][mine].chunk(splits)]))
        logits = torch.cat([(q * keys[mine]).sum(1, keepdim=True), q @ copy.queue.keys.T], 1) / 0.2
        assert loss.item() == pytest.approx((logits.logsumexp(1) - logits[:, 0]).mean().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (MoCoV2, {"queue": 24}),
        (MoCoV2, {"queue": 24, "symmetric": True}),
        (MoCoV3, {"norm": "layer", "temperature": 0.2}),
    ],
)
def test_two_processes_are_one_with_all_images(kind: type, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Loss and gradient, averaged over the processes, without BatchNorm, whose statistics are each process's own."""
    whole, views = tiny(kind, batchnorm=False, **settings), two_views(12)
    halves = [deepcopy(whole) for _ in range(2)]
    whole_loss = whole(views).loss
    whole_loss.backward()

    def work(rank: int) -> Tensor:
        loss = halves[rank]([view[6 * rank : 6 * rank + 6] for view in views]).loss
        loss.backward()
        return loss.detach()

    losses = in_processes(2, monkeypatch, work)
    if kind is MoCoV3:  # its negatives are those of both: half the images alone have another loss
        assert abs(deepcopy(whole)([view[:6] for view in views]).loss - losses[0]) > 0.1
    torch.testing.assert_close(sum(losses) / 2, whole_loss.detach(), atol=1e-5, rtol=0)
    for wanted, one, other in zip(whole.parameters(), *(half.parameters() for half in halves), strict=True):
        if wanted.requires_grad:
            torch.testing.assert_close((one.grad + other.grad) / 2, wanted.grad, atol=1e-6, rtol=1e-4)
    for half in halves:  # the queue, where there is one
        torch.testing.assert_close(dict(half.named_buffers()), dict(whole.named_buffers()))


def test_batch_is_split_within_each_process(monkeypatch: pytest.MonkeyPatch):
    """Eight images in two processes are four in each, which four parts make one at a time; twelve are six."""
    method = tiny(queue=24, splits=4)

    def refused(batch: int) -> bool:
        try:
            method.check_batch(batch)
        except OwnlatentError as error:
            return "splits" in str(error)
        return False

    for answers in in_processes(2, monkeypatch, lambda _: {batch: refused(batch) for batch in (8, 12, 24)}):
        assert answers == {8: True, 12: True, 24: False}
