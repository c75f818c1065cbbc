"""The queue against a plain list from which the oldest keys drop out."""

from collections import deque
from copy import deepcopy
from math import sqrt

import pytest
import torch

from ownlatent.errors import OwnlatentError
from ownlatent.nn.queue import Queue


def queue_of(length: int, width: int = 3, seed: int = 0) -> Queue:
    torch.manual_seed(seed)
    return Queue(length, width)


def unit_keys(n: int, width: int = 3, seed: int = 1) -> torch.Tensor:
    keys = torch.randn((n, width), generator=torch.Generator().manual_seed(seed))
    return keys / keys.norm(dim=1, keepdim=True)


def rows(queue: Queue) -> list[tuple[float, ...]]:
    """The keys in an order of their own: the loss sums over them, so theirs does not matter."""
    return sorted(map(tuple, queue.keys.tolist()))


def test_starts_with_normalised_gaussian_noise():
    """Uniform on the circle: E x = 0, E x^2 = 1/2, E x^4 = 3/8; a normalised uniform square would have 0.357.

    Each tolerance is five standard deviations of the mean over n keys.
    """
    n = 20_000
    x = queue_of(n, width=2).keys.double()
    torch.testing.assert_close(x.norm(dim=1), torch.ones(n).double(), atol=1e-6, rtol=0)
    error = 5 / sqrt(n)
    assert x.mean(0).abs().max().item() < error * sqrt(1 / 2)
    assert x[:, 0].square().mean().item() == pytest.approx(1 / 2, abs=error * sqrt(1 / 8))
    assert x.pow(4).mean().item() == pytest.approx(3 / 8, abs=error * sqrt(1 / 128))  # (x^4 + y^4) / 2
    assert len(queue_of(100, width=8).keys.unique(dim=0)) == 100


def test_one_seed_gives_one_queue_and_another_another():
    assert torch.equal(queue_of(8, seed=3).keys, queue_of(8, seed=3).keys)
    assert not torch.equal(queue_of(8, seed=3).keys, queue_of(8, seed=4).keys)


def test_oldest_keys_are_replaced_first_again_and_again():
    """Three rounds of a queue of twelve, of which every state is compared."""
    queue = queue_of(12)
    expected = deque(map(tuple, queue.keys.tolist()), maxlen=12)
    for seed in range(9):
        keys = unit_keys(4, seed=seed)
        queue.put(keys)
        expected.extend(map(tuple, keys.tolist()))
        assert rows(queue) == sorted(expected)
        assert queue.place.item() == 4 * (seed + 1) % 12


def test_keys_put_over_the_end_go_on_at_the_beginning():
    """Batches of different sizes, each a divisor of the length: 4 and 3 and 3 and then 6 around the end of 12."""
    queue = queue_of(12)
    expected = deque(map(tuple, queue.keys.tolist()), maxlen=12)
    for seed, n in enumerate([4, 3, 3, 6, 1, 12, 2, 12, 6]):
        keys = unit_keys(n, seed=seed)
        queue.put(keys)
        expected.extend(map(tuple, keys.tolist()))
        assert rows(queue) == sorted(expected)


def test_a_batch_as_long_as_the_queue_replaces_all_of_it():
    queue = queue_of(5)
    keys = unit_keys(5)
    queue.put(keys)
    assert torch.equal(queue.keys, keys)
    assert queue.place.item() == 0


@pytest.mark.parametrize(("length", "n"), [(10, 4), (4, 8), (7, 2), (1, 3)])
def test_a_batch_that_does_not_divide_the_length_is_refused(length: int, n: int):
    """The sentence names both numbers and a length that would do, and nothing has changed."""
    queue = queue_of(length)
    before = deepcopy(queue.state_dict())
    with pytest.raises(OwnlatentError, match=rf"\b{length}\b.*\b{n}\b.* make it (\d+)$") as refusal:
        queue.put(unit_keys(n))
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())
    queue_of(int(str(refusal.value).rsplit(" ", 1)[1])).put(unit_keys(n))


def test_keys_are_kept_without_their_gradient():
    queue = queue_of(4)
    keys = unit_keys(2).requires_grad_()
    queue.put(2 * keys)
    assert not queue.keys.requires_grad and queue.keys.grad_fn is None
    assert list(queue.parameters()) == []


def test_keys_are_copied():
    """What later happens to the tensor that was put in, the queue does not see."""
    queue, keys = queue_of(4), unit_keys(4)
    queue.put(keys)
    before = queue.keys.clone()
    keys.zero_()
    assert torch.equal(queue.keys, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_keys_of_another_precision_are_kept_in_the_queues(dtype: torch.dtype):
    queue, keys = queue_of(4), unit_keys(2).to(dtype)
    queue.put(keys)
    assert queue.keys.dtype == torch.float32
    assert torch.equal(queue.keys[:2], keys.float())


def test_putting_draws_nothing():
    queue = queue_of(4)
    before = torch.get_rng_state()
    queue.put(unit_keys(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_state_dict_in_the_middle_of_a_round_continues_identically():
    """The place is as much a part of the state as the keys: without it the wrong keys would be replaced."""
    first, second = queue_of(6, seed=0), queue_of(6, seed=1)
    first.put(unit_keys(2, seed=5))
    assert set(first.state_dict()) == {"keys", "place"}
    second.load_state_dict(deepcopy(first.state_dict()))
    for seed in range(4):
        for queue in (first, second):
            queue.put(unit_keys(2, seed=seed))
        assert torch.equal(first.keys, second.keys) and torch.equal(first.place, second.place)
