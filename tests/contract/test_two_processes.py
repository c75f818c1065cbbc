"""Two real processes with N images each learn what one process learns from the 2 N images, by every method.

"Learn" means: loss, gradients averaged over the processes, weights, and what the method itself keeps (queue, centre,
correlation, target). Run as a script with a rank and a folder, this file is one of the two processes (gloo, on this
machine); both sides use the same functions, and the results come back as files.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ownlatent import backbones, methods
from ownlatent.methods import barlow_twins
from ownlatent.methods._base import Method
from ownlatent.nn import collectives
from ownlatent.optim.create import create

PROCESSES, IMAGES = 2, 8  # images in all processes together
STEPS = 3
PATIENCE = 240.0  # seconds for all methods; about 10 on an idle machine, most of it to import torch
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
SMALL = {"hidden": 16, "projection": 8, "bottleneck": 8, "prototypes": 12, "queue": 16, "classes": 4, "norm": "layer"}
"""Settings given where a method has them; a norm without batch statistics, which would differ between processes."""
TOLERANCE = 1e-9  # in float64: a rounding error of 1e-16 grows up to 1e5-fold in three steps of Barlow Twins

Found = dict[str, Tensor]
all_reduce = dist.all_reduce  # the real one, also where a test replaces it


@dataclass(frozen=True, eq=False)
class Job:
    """A method to train. wrapped: by DistributedDataParallel. mistake: one of MISTAKES, made with two processes."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    wrapped: bool = False
    mistake: str = ""

    def __str__(self) -> str:
        given = [f"{name}={value}" for name, value in self.settings.items()]
        return ", ".join([self.method, *given, *["wrapped"] * self.wrapped, *[self.mistake] * bool(self.mistake)])


PLAIN = [Job(name) for name in methods.names()]
WRAPPED = [Job(name, wrapped=True) for name in methods.names()]
SETTINGS = [  # those that bring another loss, or another order of events
    Job("byol", {"negatives": 1.0}),
    Job("byol", {"stop_gradient": False, "tau": 0.0}),
    Job("byol", {"normalize": "layer"}),
    Job("byol", {"normalize": "batch"}),
    Job("byol", {"normalize": "none"}),
    Job("dino", {"freeze": 0.5, "clip": 0.01}),
    Job("directpred", {"every": 2}),
    Job("moco_v2", {"symmetric": True}),
    Job("moco_v2", {"splits": 2}),
    Job("moco_v3", {"predictor_norm": True}),
    Job("simsiam", {"stop_gradient": False}),
]
BARE_GATHER = [Job(name, mistake="bare gather") for name in ("barlow_twins", "simclr", "vicreg")]
BARE_ALL_REDUCE = Job("barlow_twins", mistake="bare all_reduce")
NO_MEAN = [Job(name, mistake="no mean over the processes") for name in ("dino", "directpred")]
NO_COMMON_ORDER = Job("moco_v2", mistake="no common order")


# --- training, in one process or in two -----------------------------------------------------------


def build(job: Job, norm: nn.Module | None = None) -> Method:
    """The same weights in every process; the backbone is one convolution."""
    torch.manual_seed(0)
    norm = norm or nn.GroupNorm(2, 8)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    known = methods.settings(job.method)
    small = {name: value for name, value in SMALL.items() if name in known}
    backbone = backbones.create(net, channels=3, image_size=8)
    return methods.create(job.method, backbone, **small | job.settings).to(torch.float64)


def batch_of(method: Method, step: int, part: slice) -> tuple[Any, ...]:
    """Some of a step's images as forward takes them: two views, or two and two smaller ones; labels if it uses them."""
    generator = torch.Generator().manual_seed(step)
    draw = partial(torch.randn, generator=generator, dtype=next(method.parameters()).dtype)
    colours = 2 * draw(IMAGES, 3, 1, 1)  # what tells the images apart, in all their views
    sides = (8, 8) if method.max_views else (8, 8, 6, 6)
    views = [(colours + draw(IMAGES, 3, side, side))[part] for side in sides]
    labels = torch.randint(4, (IMAGES,), generator=generator)[part]
    return (views, labels) if method.uses_labels else (views,)


def own_part(processes: int, rank: int) -> slice:
    share = IMAGES // processes
    return slice(rank * share, (rank + 1) * share)


def learn(job: Job, processes: int, rank: int) -> Found:
    """Loss, terms, embeddings and gradients of each step, and the whole state after STEPS of them."""
    method = build(job)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules())
    torch.manual_seed(100 + rank)  # what a process draws from now on is its own
    wrapped = job.wrapped and processes > 1
    called = DistributedDataParallel(method) if wrapped else method
    optimizer = create("sgd", method.param_groups(), lr=0.05, weight_decay=1e-3)
    found: Found = {}
    for step in range(STEPS + 1):  # the last without the optimiser: what the learned weights give
        with MISTAKES[job.mistake]() if processes > 1 else nullcontext():
            output = called(*batch_of(method, step, own_part(processes, rank)))
            optimizer.zero_grad()
            output.loss.backward()
        if processes > 1 and not wrapped:
            average_gradients(method)
        found |= {f"loss {step}": output.loss.detach(), f"embeddings {step}": output.embeddings}
        found |= {f"term {step} {name}": term for name, term in output.terms.items()}
        gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        found |= {f"gradient {step} {name}": gradient.clone() for name, gradient in gradients.items()}
        if step < STEPS:
            progress = step / STEPS
            method.before_step(progress)
            optimizer.step()
            method.after_step(progress)
    return found | {f"state {name}": value for name, value in method.state_dict().items()}


def average_gradients(method: Method) -> None:
    """The mean over the processes, as DistributedDataParallel makes it."""
    for parameter in method.parameters():
        if parameter.grad is not None:
            all_reduce(parameter.grad)
            parameter.grad /= PROCESSES


def shuffled(splits: int, rank: int) -> Found:
    """What passes MoCo's networks in two steps when the backbone has BatchNorm, and the queue afterwards."""
    method = build(Job("moco_v2", {"splits": splits}), nn.BatchNorm2d(8))
    torch.manual_seed(100 + rank)
    online: list[Tensor] = []
    target: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: online.append(inputs[0].clone()))
    method.get_submodule("target").register_forward_pre_hook(lambda _, inputs: target.append(inputs[0].clone()))
    for step in range(2):
        method(*batch_of(method, step, own_part(PROCESSES, rank)))
    return {"online": torch.stack(online), "target": torch.stack(target), "queue": method.get_buffer("queue.keys")}


# --- mistakes that the comparison must see --------------------------------------------------------


def bare_gather(x: Tensor) -> Tensor:
    """all_gather, and the own rows with their gradient put in again: nobody else's loss reaches them."""
    parts = [torch.empty_like(x) for _ in range(PROCESSES)]
    dist.all_gather(parts, x.detach())
    parts[dist.get_rank()] = x
    return torch.cat(parts)


def reduced_correlation_loss(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """Barlow Twins as published: exact statistics of all images, but each process's products summed by all_reduce."""
    mine = collectives.own(len(z1))
    z1, z2 = (barlow_twins.standardized(collectives.gather(z))[mine] for z in (z1, z2))
    correlations = z1.T @ z2 / IMAGES
    all_reduce(correlations.detach())  # in place, behind autograd's back
    diagonal = correlations.diagonal()
    return (1 - diagonal).square().sum(), (correlations - torch.diag(diagonal)).square().sum()


MISTAKES: dict[str, Callable[[], Any]] = {
    "": nullcontext,
    "bare gather": lambda: patch.object(collectives, "_Gather", SimpleNamespace(apply=bare_gather)),
    "bare all_reduce": lambda: patch.object(barlow_twins, "correlation_loss", reduced_correlation_loss),
    "no mean over the processes": lambda: patch.object(dist, "all_reduce", lambda x: x.mul_(PROCESSES)),
    "no common order": lambda: patch.object(dist, "broadcast", lambda x, src: None),
}


# --- the two processes ----------------------------------------------------------------------------

MISTAKEN = [*BARE_GATHER, BARE_ALL_REDUCE, *NO_MEAN, NO_COMMON_ORDER]
TASKS: dict[str, Callable[[int], Found]] = {f"shuffled {splits}": partial(shuffled, splits) for splits in (1, 2)}
TASKS |= {str(job): partial(learn, job, PROCESSES) for job in (*PLAIN, *WRAPPED, *SETTINGS, *MISTAKEN)}


def result(folder: Path, task: str, rank: int) -> Path:
    return folder / f"{list(TASKS).index(task)}-{rank}.pt"


def be_one_of_them(rank: int, folder: Path) -> None:
    """Each task has a group of its own, so that one that fails, in one process only perhaps, leaves no other behind."""
    torch.set_num_threads(1)
    for task, work in TASKS.items():
        meeting, limit = f"file://{result(folder, task, 0).with_suffix('.meeting')}", timedelta(seconds=PATIENCE / 8)
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES, timeout=limit)
        try:
            found: Found | str = work(rank)
        except Exception:
            found = traceback.format_exc()
        dist.destroy_process_group()
        torch.save(found, result(folder, task, rank))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For networks this small more threads only wait for each other, very long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two processes, which are over by now, left what they found. Processes that hang are ended."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": LOOPBACK}
    commands = [[sys.executable, __file__, str(rank), str(folder)] for rank in range(PROCESSES)]
    running = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        errors = [process.communicate(timeout=PATIENCE)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), "\n".join(errors)
    return folder


def found_by_each(folder: Path, task: Job | str) -> list[Found]:
    found = [torch.load(result(folder, str(task), rank)) for rank in range(PROCESSES)]
    for rank, what in enumerate(found):
        assert not isinstance(what, str), f"process {rank} failed:\n{what}"
    return found


# --- comparison -----------------------------------------------------------------------------------


def together(found: list[Found]) -> Found:
    """Both processes' results as one: means of losses and terms, all embeddings, and the first one's of the rest."""
    whole = {}
    for name, first in found[0].items():
        if name.startswith(("loss", "term")):
            whole[name] = torch.stack([f[name] for f in found]).mean(0)
        else:
            whole[name] = torch.cat([f[name] for f in found]) if name.startswith("embeddings") else first
    return whole


def differences(job: Job, two: Found) -> set[str]:
    """Names of what one process finds and `two` has not, or not up to rounding, relative to a tensor's largest value.

    Some gradients are zero by symmetry, and what is left of them is rounding: a thousandth of the largest
    gradient of the step is the least that errors are compared with.
    """
    one = of_one_process(job)
    sizes = {name: value.abs().max().item() for name, value in one.items()}
    for step in range(STEPS + 1):
        gradients = [name for name in one if name.startswith(f"gradient {step}")]
        least = 1e-3 * max(sizes[name] for name in gradients)
        sizes |= {name: max(sizes[name], least) for name in gradients}
    differing = set(one.keys() ^ two.keys())
    for name in one.keys() & two.keys():
        off = (one[name].double() - two[name].double()).abs().max().item()
        if not off <= TOLERANCE * sizes[name]:
            differing.add(name)
    return differing


@cache
def of_one_process(job: Job) -> Found:
    return learn(job, processes=1, rank=0)


# --- tests ----------------------------------------------------------------------------------------


def jobs(which: list[Job]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("job", which, ids=str)


@jobs([*PLAIN, *SETTINGS])
def test_two_processes_learn_what_one_does(job: Job, folder: Path) -> None:
    """Losses and gradients of the first step and of later ones, then weights, target, queue, centre, correlation."""
    assert all(value.isfinite().all() for value in of_one_process(job).values())
    assert not differences(job, together(found_by_each(folder, job)))


@jobs(WRAPPED)
def test_distributed_data_parallel_gives_the_same(job: Job, folder: Path) -> None:
    """Its hooks average the gradients while backward still runs, and it sends the buffers before each forward."""
    assert not differences(job, together(found_by_each(folder, job)))


@jobs([*PLAIN, *WRAPPED])
def test_both_processes_have_the_same_state_to_the_bit(job: Job, folder: Path) -> None:
    """Rounding that differs between processes would add up, and nothing would ever bring them together again."""
    first, second = found_by_each(folder, job)
    states = [name for name in first if name.startswith("state")]
    assert states and all(torch.equal(first[name], second[name]) for name in states)


@jobs(PLAIN)
def test_the_example_has_something_to_compare(job: Job, folder: Path) -> None:
    """The processes have different images, the losses move, and so do the weights of every part that is trained."""
    first, second = found_by_each(folder, job)
    assert (first["embeddings 0"] - second["embeddings 0"]).abs().max() > 0.1 * first["embeddings 0"].abs().max()
    start = dict(build(job).named_parameters())
    trained = [name for name, parameter in start.items() if parameter.requires_grad]
    assert trained and not any(torch.equal(first[f"state {name}"], start[name]) for name in trained)
    losses = [of_one_process(job)[f"loss {step}"].item() for step in range(STEPS + 1)]
    assert len(set(losses)) == STEPS + 1


@jobs(BARE_GATHER)
def test_a_bare_all_gather_would_be_seen(job: Job, folder: Path) -> None:
    """Its loss is right, and its gradient is not."""
    two = together(found_by_each(folder, job))
    wrong = {name for name in two if name.startswith(("gradient 0 backbone", "state backbone"))}
    assert wrong <= differences(job, two) and not {"loss 0", "embeddings 0"} & differences(job, two)


def test_a_bare_all_reduce_would_be_seen(folder: Path) -> None:
    """The published Barlow Twins: the right loss, and 1 / W of its gradient."""
    two = together(found_by_each(folder, BARE_ALL_REDUCE))
    first = {name for name in two if name.startswith("gradient 0")}
    assert first <= differences(BARE_ALL_REDUCE, two) and "loss 0" not in differences(BARE_ALL_REDUCE, two)
    corrected = two | {name: PROCESSES * two[name] for name in first}
    assert not first & differences(BARE_ALL_REDUCE, corrected)


@jobs(NO_MEAN)
def test_a_state_of_the_own_images_only_would_be_seen(job: Job, folder: Path) -> None:
    state = {"dino": "state center.value", "directpred": "state correlation"}[job.method]
    first, second = found_by_each(folder, job)
    assert not torch.equal(first[state], second[state])
    assert state in differences(job, together([first, second]))
    assert state in differences(job, together([second, first]))  # which takes the other's state


def test_an_order_that_is_not_agreed_upon_would_be_seen(folder: Path) -> None:
    """Each process would then look for its images' keys at wrong places among the gathered ones."""
    two = together(found_by_each(folder, NO_COMMON_ORDER))
    assert {"loss 0", "state queue.keys"} <= differences(NO_COMMON_ORDER, two)


@pytest.mark.parametrize("splits", [1, 2])
def test_moco_shuffles_the_keys_images_between_the_processes(splits: int, folder: Path) -> None:
    """Each lot that the target's BatchNorm sees is a random part of all images; the online network sees its own.

    The queue must hold the key of each image, made in the lot it was in, at the image's place, in both processes.
    """
    found = found_by_each(folder, f"shuffled {splits}")
    method = build(Job("moco_v2", {"splits": splits}), nn.BatchNorm2d(8))
    target, orders = method.get_submodule("target"), []
    for step in range(2):
        queries, images = batch_of(method, step, slice(None))[0]
        steps_lots = slice(step * splits, (step + 1) * splits)
        assert torch.equal(torch.cat([f["online"][steps_lots].flatten(0, 1) for f in found]), queries)
        lots = [lot for f in found for lot in f["target"][steps_lots]]
        assert {len(lot) for lot in lots} == {IMAGES // PROCESSES // splits}
        places = [[next(n for n, x in enumerate(images) if torch.equal(x, image)) for image in lot] for lot in lots]
        orders.append([place for lot in places for place in lot])
        assert sorted(orders[-1]) == list(range(IMAGES))  # each image passes once
        assert any(place >= IMAGES // PROCESSES for place in orders[-1][: IMAGES // PROCESSES])  # exchanged
        keys = torch.empty(IMAGES, SMALL["projection"], dtype=torch.float64)
        for place, lot in zip(places, lots, strict=True):
            keys[place] = F.normalize(target(lot), dim=1).detach()
        unshuffled = torch.cat([F.normalize(target(lot), dim=1) for lot in images.chunk(PROCESSES * splits)])
        assert (keys - unshuffled).abs().max() > 1e-2  # BatchNorm can tell, so a wrong lot would show
        for f in found:
            torch.testing.assert_close(f["queue"][step * IMAGES : (step + 1) * IMAGES], keys, atol=1e-6, rtol=0)
    assert orders[0] != orders[1]


if __name__ == "__main__":
    be_one_of_them(int(sys.argv[1]), Path(sys.argv[2]))
