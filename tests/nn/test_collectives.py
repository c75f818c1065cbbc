"""What three real processes (gloo, one machine) get from the collectives, against closed forms.

Run as a script with a rank and a folder, this file is one of the three; the results come back as files.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ownlatent.augment.sound_views import standardised
from ownlatent.nn.collectives import agreed, average, gather, own, rank, world_size

PROCESSES = 3  # more than two, so that a 2 in the place of the number of processes is seen
ROWS, WIDTH = 2, 4
PATIENCE = 240.0  # seconds; a process takes about 5 on an idle machine, nearly all of it to import torch
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"

Found = dict[str, Tensor]


def rows_of(number: int) -> Tensor:
    """The rows (2, 4) of a process, different in each."""
    return torch.randn((ROWS, WIDTH), generator=torch.Generator().manual_seed(number), dtype=torch.float64)


def everyones() -> Tensor:
    return torch.cat([rows_of(number) for number in range(PROCESSES)])


def importance(number: int) -> Tensor:
    """How much each of all rows weighs in the loss of a process: different in each, so that a mix-up is seen."""
    return torch.arange(1.0, PROCESSES * ROWS + 1, dtype=torch.float64).unsqueeze(1) ** (number + 1)


def shared_weight() -> Tensor:
    """A parameter that all processes have."""
    generator = torch.Generator().manual_seed(9)
    return torch.randn((WIDTH, WIDTH), generator=generator, dtype=torch.float64).requires_grad_()


def correlation(z: Tensor) -> Tensor:
    """A loss over all rows at once, which is no mean of losses over parts of them."""
    return (z.T @ z / len(z) - torch.eye(WIDTH)).square().sum()


def attraction(mine: Tensor, everyone: Tensor) -> Tensor:
    """A mean over the own rows, each of which is compared with all rows."""
    return (mine @ everyone.T).logsumexp(1).mean()


def bare_gather(x: Tensor) -> Tensor:
    """What is usually written by hand: all_gather, and the own rows with their gradient put in again."""
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.detach())
    parts[rank()] = x
    return torch.cat(parts)


# --- one of the processes -------------------------------------------------------------------------


def values() -> Found:
    x = rows_of(rank())
    images = torch.arange(ROWS * 3 * 4 * 5.0).view(ROWS, 3, 4, 5) + 1000 * rank()
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(rank()))
    before = x.clone()
    found = {
        "size and rank": torch.tensor([world_size(), rank()]),
        "rows": gather(x),
        "transposed": gather(x.T),
        "channels last": gather(images.contiguous(memory_format=torch.channels_last)),
        "numbers": gather(torch.tensor([rank(), 10 * rank()])),
        "half": gather(x.bfloat16()),
        "own": own(ROWS),
        "own of gathered": gather(x)[own(len(x))],
        "average": average(x),
        "average of one": average(torch.tensor(float(rank()))),
        "agreed": agreed(x),
        "agreed order": agreed(shuffled),
        "standardised": standardised([x.view(ROWS, 1, 1, WIDTH), 2 * x.view(ROWS, 1, 1, WIDTH) + 1])[1],
    }
    return {**found, "unchanged": torch.tensor([torch.equal(x, before)]), "order": shuffled}


def gradients() -> Found:
    x = rows_of(rank()).requires_grad_()
    found = {"needs gradient": torch.tensor([f(x).requires_grad for f in (gather, average, agreed)])}
    with torch.no_grad():
        found["without gradient"] = torch.tensor([gather(x).requires_grad])
    (importance(rank()) * gather(x).square()).sum().backward()
    found["weighted"] = _taken(x)
    gather(x).sum().backward()  # the gradient arrives as one number, expanded
    found["expanded"] = _taken(x)
    (gather(x).T.contiguous() ** 2).sum().backward()  # and here with its strides exchanged
    found["strided"] = _taken(x)
    received = torch.ones(PROCESSES * ROWS, WIDTH, dtype=torch.float64)
    gather(x).backward(received)
    found["given gradient"] = received
    return found


def shared_gradients() -> Found:
    """The gradients of the shared weight, averaged over the processes as DistributedDataParallel does."""
    found, weight = {}, shared_weight()
    for name, collect in (("right", gather), ("bare", bare_gather)):
        correlation(collect(rows_of(rank()) @ weight)).backward()
        found[f"correlation, {name}"] = average(_taken(weight))
        z = rows_of(rank()) @ weight
        attraction(z, collect(z)).backward()
        found[f"attraction, {name}"] = average(_taken(weight))
    return found


def _taken(x: Tensor) -> Tensor:
    gradient, x.grad = x.grad, None
    assert gradient is not None
    return gradient.clone()


def be_one_of_them(number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting, limit = f"file://{folder / 'meeting'}", timedelta(seconds=PATIENCE / 4)
    dist.init_process_group("gloo", init_method=meeting, rank=number, world_size=PROCESSES, timeout=limit)
    torch.save({**values(), **gradients(), **shared_gradients()}, folder / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each process found, by its rank. A process that fails or hangs fails the tests and is ended."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK}
    commands = [[sys.executable, __file__, str(number), str(folder)] for number in range(PROCESSES)]
    running = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        errors = [process.communicate(timeout=PATIENCE)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), "\n".join(errors)
    return [torch.load(folder / f"{number}.pt") for number in range(PROCESSES)]


# --- what they found ------------------------------------------------------------------------------


def test_every_process_knows_how_many_they_are_and_which_it_is(found: list[Found]) -> None:
    assert [f["size and rank"].tolist() for f in found] == [[PROCESSES, number] for number in range(PROCESSES)]


def test_gather_gives_everyones_rows_in_the_order_of_the_processes(found: list[Found]) -> None:
    for f in found:
        assert torch.equal(f["rows"], everyones())
        assert f["numbers"].tolist() == [0, 0, 1, 10, 2, 20]


def test_gather_keeps_the_kind_of_number(found: list[Found]) -> None:
    for f in found:
        assert (f["rows"].dtype, f["numbers"].dtype, f["half"].dtype) == (torch.float64, torch.int64, torch.bfloat16)
        assert torch.equal(f["half"], everyones().bfloat16())


def test_gather_takes_tensors_however_they_lie_in_memory(found: list[Found]) -> None:
    """What is sent is memory; a transposed matrix, or images in channels_last, must not come out mixed up."""
    images = torch.arange(ROWS * 3 * 4 * 5.0).view(ROWS, 3, 4, 5)
    for f in found:
        assert torch.equal(f["transposed"], torch.cat([rows_of(number).T for number in range(PROCESSES)]))
        assert torch.equal(f["channels last"], torch.cat([images + 1000 * number for number in range(PROCESSES)]))


def test_own_finds_the_own_rows_among_the_gathered(found: list[Found]) -> None:
    for number, f in enumerate(found):
        assert f["own"].tolist() == [2 * number, 2 * number + 1] and f["own"].dtype == torch.int64
        assert torch.equal(f["own of gathered"], rows_of(number))


def test_average_is_the_mean_over_the_processes(found: list[Found]) -> None:
    for f in found:
        torch.testing.assert_close(f["average"], everyones().view(PROCESSES, ROWS, WIDTH).mean(0))
        assert f["average of one"].item() == 1.0  # (0 + 1 + 2) / 3
        assert torch.equal(f["average"], found[0]["average"])  # bit for bit, or the processes would drift apart


def test_agreed_is_what_the_first_process_has(found: list[Found]) -> None:
    assert not torch.equal(found[0]["order"], found[1]["order"])  # each had drawn an order of its own
    for f in found:
        assert torch.equal(f["agreed"], rows_of(0))
        assert torch.equal(f["agreed order"], found[0]["order"])


def test_views_of_sounds_are_standardised_over_all_processes(found: list[Found]) -> None:
    every = everyones().view(-1, 1, 1, WIDTH)
    expected = standardised([every, 2 * every + 1])[1]
    torch.testing.assert_close(torch.cat([f["standardised"] for f in found]), expected)


def test_nothing_is_changed_in_place(found: list[Found]) -> None:
    """all_reduce and broadcast write into what they are given."""
    assert all(f["unchanged"].all() for f in found)
    assert all(torch.equal(f["given gradient"], torch.ones(PROCESSES * ROWS, WIDTH)) for f in found)


def test_only_gather_lets_a_gradient_through_and_only_where_one_is_wanted(found: list[Found]) -> None:
    for f in found:
        assert f["needs gradient"].tolist() == [True, False, False]
        assert f["without gradient"].tolist() == [False]


def test_gradient_of_gather_is_the_sum_over_the_processes_losses(found: list[Found]) -> None:
    """Process s has the loss sum_i w_si x_i^2 over all rows: row i gets 2 x_i sum_s w_si, and not 2 x_i w_ri."""
    whole = sum(importance(number) for number in range(PROCESSES))
    for number, f in enumerate(found):
        mine = slice(ROWS * number, ROWS * (number + 1))
        torch.testing.assert_close(f["weighted"], 2 * rows_of(number) * whole[mine])
        torch.testing.assert_close(f["strided"], 2 * rows_of(number) * PROCESSES)
        assert torch.equal(f["expanded"], torch.full((ROWS, WIDTH), float(PROCESSES)))


def one_process_gradients() -> tuple[Tensor, Tensor]:
    """Of `correlation` and `attraction`, in a single process that holds all rows."""
    weight, z_of = shared_weight(), everyones()
    correlation(z_of @ weight).backward()
    first = _taken(weight)
    attraction(z_of @ weight, z_of @ weight).backward()
    return first, _taken(weight)


def test_averaged_gradient_is_that_of_one_process_with_all_rows(found: list[Found]) -> None:
    """Both kinds of loss: the same whole in every process, and the own rows beside everyone's."""
    whole, rows = one_process_gradients()
    for f in found:
        torch.testing.assert_close(f["correlation, right"], whole)
        torch.testing.assert_close(f["attraction, right"], rows)


def test_a_bare_collective_would_shrink_the_gradient(found: list[Found]) -> None:
    """The mistake that `gather` is there to prevent, so that the test before this one is known to be able to fail.

    Each process then knows the gradient of its own rows only, and the mean is a third of the whole gradient.
    """
    whole, rows = one_process_gradients()
    for f in found:
        torch.testing.assert_close(f["correlation, bare"], whole / PROCESSES)
        assert (f["attraction, bare"] - rows).abs().max() > 0.1 * rows.abs().max()


# --- one process ----------------------------------------------------------------------------------


def check_identity() -> None:
    x = rows_of(0).requires_grad_()
    assert (world_size(), rank()) == (1, 0)
    assert gather(x) is x
    assert own(3).tolist() == [0, 1, 2]
    for f in (average, agreed):
        assert torch.equal(f(x), x) and not f(x).requires_grad


def test_without_processes_everything_is_the_identity() -> None:
    assert not dist.is_initialized()
    check_identity()


def test_a_group_of_one_process_is_the_identity_too(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        check_identity()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    be_one_of_them(int(sys.argv[1]), Path(sys.argv[2]))
