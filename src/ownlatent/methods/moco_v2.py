"""Momentum Contrast, version 2 (MoCo v2; Chen et al. 2020, arXiv 2003.04297, on He et al. 2019, arXiv 1911.05722)."""

from collections.abc import Iterator, Mapping
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32, unit, widened
from ownlatent.methods._base import Method, Suspect, stuck, unusual_temperature
from ownlatent.nn.collectives import agreed, gather, own, rank, world_size
from ownlatent.nn.ema import EMA
from ownlatent.nn.mlp import mlp
from ownlatent.nn.queue import Queue
from ownlatent.types import Output, Views


class MoCoV2(Method):
    """Tell an image's other view, seen by a slow network, from a long queue of earlier images.

    Idea: A query network learns to find the key of the same image among thousands of keys of others. The keys come
    from a slowly moving copy of the query network, so that those of earlier batches still fit and can wait in a
    queue. The number of negatives is then free of the batch size.

    Equation: loss = -log( exp(q.k / t) / (exp(q.k / t) + sum_queue exp(q.k_i / t)) ) with q, k unit vectors
    (eq. 1 of MoCo); target <- tau target + (1 - tau) online, tau constant.

    Needs: batch 64 or more; memory two networks and the queue; negatives a queue; momentum yes; predictor no.

    Pick it: when memory allows only small batches but negatives are wanted.

    Goes wrong: a queue that turns over in few steps while tau is small holds keys that no longer fit: the loss
    stays near log(1 + K). With one BatchNorm over the whole batch query and key can recognise each other by its
    statistics: the loss is very small and k-NN poor; `splits` is against that. tau 0 fails.

    hidden, projection: widths of the projector, which has no normalisation, as in the paper. queue: K, the keys that
    wait, a multiple of the batch (of twice the batch if symmetric). tau: of the moving average. temperature: 0.2.
    symmetric: both views are a query once and the loss is the mean, where the authors' demo has the sum; it costs
    twice as much a step and learns more. splits: BatchNorm sees the
    batch in so many parts, and the keys are shuffled between them (ShuffleBN on one device). Several processes shuffle
    among each other. The keys' order is drawn from torch's global generator.
    """

    least_std = 0.2  # nothing normalises in its projector, so that its outputs begin close together

    synchronizes = False
    """Each process normalises a random lot of the images by itself: keys cannot be found by their common statistics."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 2048,
        projection: int = 128,
        queue: int = 65536,
        tau: float = 0.999,
        temperature: float = 0.2,
        symmetric: bool = False,
        splits: int = 1,
    ):
        super().__init__()
        if not 0 <= tau <= 1:
            raise OwnlatentError(f"tau must lie in [0, 1], not {tau}: 0.99 for short runs, 0.999 for long ones")
        if not temperature > 0 or queue < 1 or splits < 1:
            raise OwnlatentError("temperature must be greater than 0, and queue and splits at least 1")
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, hidden, projection, kind="none", last_bias=True)
        self.target = EMA(self.backbone, self.projector)
        self.queue = Queue(queue, projection)
        self.tau, self.temperature, self.symmetric, self.splits = tau, temperature, symmetric, splits

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        pairs = [(view1, view2), (view2, view1)] if self.symmetric else [(view1, view2)]
        queries, keys = zip(*((self._queries(a), self._keys(b)) for a, b in pairs), strict=True)
        waiting = self.queue.keys.clone()  # backward needs them as they are now
        contrasts = [info_nce(q, k, waiting, self.temperature) for q, k in zip(queries, keys, strict=True)]
        losses, found = zip(*contrasts, strict=True)
        self.queue.put(torch.cat([gather(k) for k in keys]))  # only now: an image is no negative of itself
        return Output(sum(losses) / len(losses), queries[0].detach(), {"found": sum(found) / len(found)})

    def _queries(self, view: Tensor) -> Tensor:
        return self.projector(torch.cat([self.backbone(part) for part in view.chunk(self.splits)]))

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Tensor:
        """Unit keys (B, D) of the own images, of which each passes the target among a random lot of all images."""
        if self.splits == world_size() == 1:
            return unit(widened(self.target(view)))
        everyone = gather(view)
        order = agreed(torch.randperm(len(everyone)).to(view.device))
        mine = everyone[order.chunk(world_size())[rank()]]
        keys = gather(unit(widened(torch.cat([self.target(part) for part in mine.chunk(self.splits)]))))
        return keys[order.argsort()][own(len(view), view.device)]

    def after_step(self, progress: float) -> None:
        self.target.update(self.backbone, self.projector, tau=self.tau)

    def scheduled(self, progress: float) -> dict[str, float]:
        return {"tau": float(self.tau)}

    @classmethod
    def suited(cls, settings: dict[str, Any], batch_size: int) -> dict[str, Any]:
        added = batch_size * (2 if settings["symmetric"] else 1)
        return {**settings, "queue": max(1, settings["queue"] // added) * added}

    def check_batch(self, batch_size: int) -> None:
        super().check_batch(batch_size)
        added = batch_size * (2 if self.symmetric else 1)
        if len(self.queue.keys) % added:
            fitting = max(1, len(self.queue.keys) // added) * added
            raise OwnlatentError(
                f"--method.queue {len(self.queue.keys)} is no multiple of the {added} keys that each batch adds: "
                f"give --method.queue {fitting}, or another --batch-size"
            )
        parts = self.splits * world_size()
        if batch_size % parts or batch_size < 2 * parts:
            raise OwnlatentError(
                f"a batch of {batch_size} cannot be seen in --method.splits {self.splits} equal parts of at least 2 "
                "images in each process: change either"
            )

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        if settings["tau"] < 0.9:
            why = f"the waiting keys come from networks that have changed since (tau {settings['tau']:g};"
            why += " MoCo, section 4.1)"
            yield Suspect("tau", why, "raise --method.tau to 0.99 or 0.999")
        yield from unusual_temperature(settings["temperature"])

    @classmethod
    def symptom(cls, settings: dict[str, Any], row: Mapping[str, float], batch_size: int) -> tuple[str, str] | None:
        return stuck(row["loss"], log(1 + settings["queue"]), "log(1 + K)")


@in_float32
def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of finding each query's key among itself and the queue (MoCo, eq. 1), and how often it is nearest.

    queries: (B, D) of any scale. keys: unit vectors (B, D), row i of the same image. queue: unit vectors
    (K, D). log(1 + K) when all are equal.
    """
    q = unit(queries)
    logits = torch.cat([(q * keys).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature
    right = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return F.cross_entropy(logits, right), (logits.argmax(1) == right).float().mean()


RECIPES = {
    "default": {
        "views": "moco_v2",
        "optim.name": "sgd",
        "optim.base_lr": 0.12,
        "optim.weight_decay": 5e-4,
        "method.queue": 4096,
        "method.tau": 0.99,
        "method.symmetric": True,
    },
    "small": {"views": "moco_small"},
    "processor": {"method.hidden": 512},
    "imagenet": {
        "about": "200 epochs on 8 GPUs, which splits stands for: 67.5 % linear",
        "views": "moco_v2",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 256,
        "epochs": 200,
        "optim.name": "sgd",
        "optim.base_lr": 0.03,
        "optim.weight_decay": 1e-4,
        "optim.decay_all": True,
        "optim.warmup": 0.0,
        "method.queue": 65536,
        "method.tau": 0.999,
        "method.symmetric": False,
        "method.splits": 8,
    },
}
