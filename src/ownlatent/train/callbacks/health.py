"""Watches what a network makes of its images, and measures whether it still tells them apart."""

from collections import deque
from collections.abc import Iterator
from math import ceil
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ownlatent.diagnostics.collapse import relative_std
from ownlatent.diagnostics.geometry import alignment, redundancy, relative_distance, uniformity
from ownlatent.diagnostics.predictor import eigen_alignment
from ownlatent.diagnostics.spectrum import effective_rank
from ownlatent.methods._base import Method
from ownlatent.nn.ema import EMA
from ownlatent.train.module import Pretraining

_WINDOW = 1024  # images of the sliding sample
_PAIRS = 512  # of them, for what compares each with each
_PLACES = ("backbone", "projector", "predictor")


class Recent:
    """Features, projections and predictions of views 0 and 1 of the last batches, caught as they pass.

    A method says nothing: its `backbone`, `projector` and `predictor` are listened to, as far as it has them. Chunks of
    a batch are put together; other views and passes without a gradient are let go.
    """

    def __init__(self, method: Method, batch_size: int):
        self.batch_size = batch_size
        self._passing: dict[str, list[Tensor]] = {}
        self._kept: dict[tuple[str, int], deque[Tensor]] = {}
        self._most = max(1, ceil(_WINDOW / batch_size))
        for place in _PLACES:
            part = getattr(method, place, None)
            if isinstance(part, nn.Module) and not isinstance(part, nn.Identity):
                self._passing[place] = []
                part.register_forward_hook(self._catch(place))

    def _catch(self, place: str) -> Any:
        def hook(part: nn.Module, inputs: Any, output: Tensor) -> None:
            if part.training and torch.is_grad_enabled():
                self._passing[place].append(output.detach())

        return hook

    def close_batch(self) -> None:
        """Keep what passed since the last call."""
        for place, chunks in self._passing.items():
            for view, whole in zip((0, 1), _views(chunks, self.batch_size), strict=False):
                self._kept.setdefault((place, view), deque(maxlen=self._most)).append(whole)
            chunks.clear()

    def of(self, place: str, view: int = 0) -> Tensor | None:
        """(N, D) float32 of the last images, or None where there is nothing of the kind."""
        batches = self._kept.get((place, view))
        return torch.cat(list(batches)).float() if batches else None

    def state_dict(self) -> dict[str, list[Tensor]]:
        return {f"{place} {view}": list(batches) for (place, view), batches in self._kept.items()}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        for name, batches in state.items():
            place, view = name.split()
            self._kept[place, int(view)] = deque(batches, maxlen=self._most)


def _views(chunks: list[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Chunks in order, put together to whole batches."""
    rows: list[Tensor] = []
    for chunk in chunks:
        rows.append(chunk)
        if sum(map(len, rows)) >= batch_size:
            yield torch.cat(rows)
            rows = []


class Health(pl.Callback):
    """Statistics of the sliding sample, for whoever writes them down; see `statistics`."""

    def __init__(self, method: Method, batch_size: int):
        self.recent = Recent(method, batch_size)
        self._views_apart = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.recent.close_batch()

    def state_dict(self) -> dict[str, Any]:
        return {"recent": self.recent.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.recent.load_state_dict(state_dict["recent"])

    def statistics(self, module: Pretraining, views: list[Tensor]) -> dict[str, float]:
        """By name, of the last 1024 images or so, in training mode; what the method has nothing for is left out.

        std: relative_std of the projections, features_std of the features. rank: effective_rank of the features,
        projection_rank of the projections. alignment, uniformity: of the projections. redundancy: of the features.
        target_distance: how far the target network is from the online one. predictor_alignment: eigen_alignment.
        views_apart: mean absolute difference of the two views' pixels, in units of the images' std.
        """
        of, method = self.recent.of, module.method
        found: dict[str, Tensor] = {}
        features, projections, predictions = (of(place) for place in _PLACES)
        if features is not None:
            found |= {"features_std": relative_std(features), "rank": effective_rank(features)}
            found["redundancy"] = redundancy(features)
        if projections is not None:
            found |= {"std": relative_std(projections), "projection_rank": effective_rank(projections)}
            found["uniformity"] = uniformity(projections[-_PAIRS:])
            others = of("projector", 1)
            if others is not None:
                found["alignment"] = alignment(projections, others)
            if predictions is not None:
                found["predictor_alignment"] = eigen_alignment(projections, predictions)
        target = getattr(method, "target", None)
        if isinstance(target, EMA):
            online = nn.ModuleList([method.backbone, *(getattr(method, place) for place in ("projector", "prototypes") if hasattr(method, place))])
            found["target_distance"] = relative_distance(online, target)
        if len(views) > 1 and views[0].shape == views[1].shape:
            found["views_apart"] = (views[0] - views[1]).abs().mean()
        names, values = list(found), torch.stack([value.double() for value in found.values()])
        return dict(zip(names, values.tolist(), strict=True))
