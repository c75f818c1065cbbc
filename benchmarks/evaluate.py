"""How fast evaluation is, against the bare arithmetic and against others: one core.

    OMP_NUM_THREADS=1 python benchmarks/evaluate.py --out benchmarks/results/evaluate.json

knn: 10,000 queries among 50,000 features of width 512, k 200, beside the bare product of the two and lightly's k-NN, in
turns. probe: logistic regression with the penalty chosen among nine, beside the usual 100 epochs of SGD on the same
features (batches of 256, momentum, cosine), whose rate is the best of five on the test images, which flatters it; on
features of a trained and of an untrained ResNet-18 of all of CIFAR-10 (`--cifar10`, a folder with train.parquet and
test.parquet). The trained one is `--run`, or is trained with SimCLR for `--minutes`. embed: a ResNet-18 at 32 px over
uint8 images in memory, beside a bare loop of its forward passes.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import results
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent import Run, backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.labelled import Labelled
from ownlatent.data.opening import open_source
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.knn import knn_predict
from ownlatent.evaluation.linear import linear_predict
from ownlatent.proof.subjects import untrained

RATES = (0.01, 0.1, 1.0, 10.0, 30.0)


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--cifar10", type=Path, default=results.DATA / "cifar10", metavar="FOLDER")
    parser.add_argument("--run", type=Path, metavar="RUN", help="a run with a ResNet-18, instead of training one")
    parser.add_argument("--minutes", type=float, default=8, help="of training one")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    knn(rows, figures, rounds, options.quick)
    embedding(rows, figures, rounds, options.quick)
    probe(rows, figures, options)
    results.write(options.out, "evaluate", rows, figures)


def race(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in turns, so that a slow moment of the machine falls on all of them."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = perf_counter()
            run()
            times[name].append(perf_counter() - began)
    return times


def report(rows: list[dict[str, Any]], part: str, times: dict[str, list[float]]) -> dict[str, float]:
    for name, seconds in times.items():
        rows.append({"part": part, "name": name, "seconds": [round(value, 3) for value in seconds]})
        print(f"{part:<8} {name:<24} {median(seconds):8.3f} s ({min(seconds):.3f} to {max(seconds):.3f})", flush=True)
    return {name: median(seconds) for name, seconds in times.items()}


def knn(rows: list[dict[str, Any]], figures: dict[str, float], rounds: int, quick: bool) -> None:
    n, q, width = (5_000, 1_000, 64) if quick else (50_000, 10_000, 512)
    draws = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn((n, width), generator=draws), dim=1)
    queries = F.normalize(torch.randn((q, width), generator=draws), dim=1)
    labels = torch.randint(0, 10, (n,), generator=draws)
    room = torch.empty(500, n)

    def product() -> None:
        for rows_ in queries.split(500):  # into the same memory: the fastest way there is
            torch.mm(rows_, bank.T, out=room[: len(rows_)])

    contestants: dict[str, Callable[[], Any]] = {
        "product": product,
        "ownlatent": lambda: knn_predict(queries, bank, labels, 200, 0.1),
    }
    theirs = lightly_knn(queries, bank, labels)
    if theirs is not None:
        assert (theirs() == knn_predict(queries, bank, labels, 200, 0.1)).float().mean() > 0.999
        contestants["lightly"] = theirs
    took = report(rows, "knn", race(contestants, rounds))
    figures["knn_over_matmul"] = round(took["ownlatent"] / took["product"], 3)
    if "lightly" in took:
        figures["knn_vs_lightly"] = round(took["lightly"] / took["ownlatent"], 3)


def lightly_knn(queries: Tensor, bank: Tensor, labels: Tensor) -> Callable[[], Tensor] | None:
    try:
        from lightly.utils.benchmarking.knn import knn_predict as predict
    except ImportError:
        print("no lightly here: pip install '.[bench]'")
        return None
    theirs = bank.T.contiguous()

    def run() -> Tensor:
        parts = [predict(rows, theirs, labels, num_classes=10, knn_k=200, knn_t=0.1) for rows in queries.split(500)]
        return torch.cat(parts)[:, 0]

    return run


def embedding(rows: list[dict[str, Any]], figures: dict[str, float], rounds: int, quick: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(backbones.create("resnet18", image_size=32), 32, (0.5,) * 3, (0.25,) * 3).eval()
    encoder.backbone.to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (64 if quick else 1024, 3, 32, 32)).to(torch.uint8)
    ready = ((images / 255 - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def bare() -> None:
        for batch in ready.split(512):
            encoder.backbone.net(batch)

    took = report(rows, "embed", race({"forward": bare, "ownlatent": lambda: embed(encoder, images)}, rounds))
    figures["embed_over_bare_forward"] = round(took["forward"] / took["ownlatent"], 3)


def probe(rows: list[dict[str, Any]], figures: dict[str, float], options: argparse.Namespace) -> None:
    if not (options.cifar10 / "train.parquet").exists():
        print(f"no CIFAR-10 in {options.cifar10}: that part is left out")
        return
    sgd(torch.zeros(256, 2), torch.zeros(256, dtype=torch.long), 0.1, 1)  # what torch loads with the first optimiser
    with tempfile.TemporaryDirectory() as scratch:
        if options.quick:
            options.cifar10 = results.thinned(options.cifar10, Path(scratch) / "part")
        folder = options.run or Path(scratch) / "run"
        if options.run is None:
            network = "resnet10_w16" if options.quick else "resnet18"
            minutes = 0.05 if options.quick else options.minutes
            command = ("--method", "simclr", "--backbone", network, "--minutes", minutes, "--out", folder)
            results.ownlatent("pretrain", options.cifar10 / "train.parquet", *command)
        run = Run(folder)
        encoders = {"trained": run.encoder, "random": untrained(run.encoder, run.recipe.seed)}
        speedups, differences = [], []
        for name, encoder in encoders.items():
            parts = [features(encoder, options.cifar10 / f"{s}.parquet") for s in ("train", "test")]
            (x, y), (test, truth) = parts
            began = perf_counter()
            predicted, penalty = linear_predict(x, y, test)
            ours = perf_counter() - began
            accuracy = (predicted == truth).double().mean().item()
            best, seconds = 0.0, []
            for rate in RATES:
                began = perf_counter()
                weights = sgd(x, y, rate, 2 if options.quick else 100)
                seconds.append(perf_counter() - began)
                best = max(best, (weights(test).argmax(1) == truth).double().mean().item())
            theirs = median(seconds)  # of one training; the choice of its rate is a gift
            row = {"part": "probe", "features": name, "images": len(y), "width": x.shape[1], "penalty": penalty}
            row |= {"seconds": round(ours, 3), "top1": round(accuracy, 4)}
            rows.append(row | {"sgd_seconds": round(theirs, 3), "sgd_top1": round(best, 4)})
            print(f"probe    {name:<24} {ours:8.3f} s {accuracy:.2%}   SGD {theirs:8.3f} s {best:.2%}", flush=True)
            speedups.append(theirs / ours)
            differences.append(accuracy - best)
    figures["probe_speedup_vs_sgd100"] = round(min(speedups), 2)
    figures["probe_accuracy_minus_sgd100"] = round(min(differences), 4)


@torch.no_grad()
def features(encoder: nn.Module, path: Path) -> tuple[Tensor, Tensor]:
    data = Labelled(open_source(path, labelled=True))
    labels = []

    def images() -> Any:
        for batch, of, _ in data.batches(3, 32):
            labels.append(of)
            yield batch

    torch.set_num_threads(len(os.sched_getaffinity(0)))  # embedding is not what is measured
    encoder.to(memory_format=torch.channels_last)
    values = embed(encoder, images(), dtype=torch.bfloat16)
    torch.set_num_threads(1)
    return values, torch.cat(labels)


def sgd(x: Tensor, labels: Tensor, rate: float, epochs: int, batch: int = 256) -> nn.Linear:
    """The obvious loop."""
    layer = nn.Linear(x.shape[1], 10)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    per_epoch = len(x) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * per_epoch)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for position in range(per_epoch):
            rows = order[position * batch : (position + 1) * batch]
            loss = F.cross_entropy(layer(x[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return layer


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
