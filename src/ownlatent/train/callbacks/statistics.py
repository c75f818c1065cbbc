"""Watches what a network makes of its images, and measures whether it still tells them apart."""

from collections import deque
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ownlatent.diagnostics.collapse import relative_std
from ownlatent.diagnostics.geometry import alignment, mean_correlation, relative_distance, uniformity
from ownlatent.diagnostics.predictor import eigen_alignment
from ownlatent.diagnostics.spectrum import effective_rank
from ownlatent.methods._base import Method
from ownlatent.nn.collectives import average, gather, rank, world_size
from ownlatent.nn.ema import EMA
from ownlatent.train.module import Pretraining

NAMES = (
    "features_std",
    "rank",
    "rank_share",
    "correlation",
    "projection_rank",
    "uniformity",
    "alignment",
    "predictor_alignment",
    "target_distance",
    "weight_change",
    "views_apart",
)
_WINDOW = 1024  # images of the sliding sample
_PAIRS = 512  # of them, for what compares each with each
_TIMES = 100  # measured in a run, or in a short one
_STEPS = 25  # after so many steps: either way under a hundredth of the time
_PLACES = {"backbone": 1, "projector": 2, "predictor": 1}  # of how many views the output is kept
_AVERAGED = ("projector", "prototypes")  # what beside the backbone a target network follows


class Recent:
    """Features, projections and predictions of the last batches, caught as they pass.

    A method says nothing: its `backbone`, `projector` and `predictor` are listened to, as far as it has them. Chunks of
    a batch are put together; other views and passes without a gradient are let go. batch_size: of this process; each
    keeps its own, and what is handed out is of all.
    """

    def __init__(self, method: Method, batch_size: int):
        self.batch_size = batch_size
        self._passing: dict[str, list[Tensor]] = {}
        self._kept: dict[tuple[str, int], deque[Tensor]] = {}
        self._hooks = []
        for place in _PLACES:
            part = getattr(method, place, None)
            if isinstance(part, nn.Module) and not isinstance(part, nn.Identity):
                self._passing[place] = []
                self._hooks.append(part.register_forward_hook(self._catch(place)))

    def _catch(self, place: str) -> Any:
        def hook(part: nn.Module, inputs: Any, output: Tensor) -> None:
            if part.training and torch.is_grad_enabled():
                self._passing[place].append(output.detach())

        return hook

    def let_go(self) -> None:
        """Listen no more: a network is handed on as it came, and can then be pickled too."""
        for hook in self._hooks:
            hook.remove()

    def close_batch(self) -> None:
        """Keep what passed since the last call."""
        most = max(1, ceil(_WINDOW / (self.batch_size * world_size())))
        for place, chunks in self._passing.items():
            for view, whole in zip(range(_PLACES[place]), _views(chunks, self.batch_size), strict=False):
                kept = self._kept.setdefault((place, view), deque())
                kept.append(whole)
                while len(kept) > most:
                    kept.popleft()
            chunks.clear()

    def of(self, place: str, view: int = 0) -> Tensor | None:
        """(N, D) float32 of the last images, or None where there is nothing of the kind."""
        batches = self._kept.get((place, view))
        return torch.cat([gather(batch) for batch in batches]).float() if batches else None

    def state_dict(self) -> dict[str, list[Tensor]]:
        return {f"{place} {view}": [gather(b) for b in batches] for (place, view), batches in self._kept.items()}

    def load_state_dict(self, state: dict[str, list[Tensor]], device: torch.device) -> None:
        for name, batches in state.items():
            place, view = name.split()
            mine = [batch.chunk(world_size())[rank()].to(device) for batch in batches]
            self._kept[place, int(view)] = deque(mine)


def _views(chunks: list[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Chunks in order, put together to whole batches."""
    rows: list[Tensor] = []
    for chunk in chunks:
        rows.append(chunk)
        if sum(map(len, rows)) >= batch_size:
            yield torch.cat(rows)
            rows = []


class Statistics(pl.Callback):
    """Measures the sliding sample, for whoever writes it down; see `measure`. Comes before the other callbacks."""

    def __init__(self, method: Method, batch_size: int):
        self.recent, self._stored = Recent(method, batch_size), dict[str, Any]()
        self._before: list[Tensor] = []  # weights before a step after which a measurement is due
        self._last, self._next = 0, 0.0  # the step of the last measurement, the progress before which none is due

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        step = trainer.global_step + 1
        if self.due(step, pl_module.budget.progress(step, pl_module.elapsed)):
            self._before = [p.detach().clone() for p in pl_module.trained]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.recent.close_batch()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.recent.let_go()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.recent.let_go()

    def state_dict(self) -> dict[str, Any]:
        return {"recent": self.recent.state_dict(), "last": self._last, "next": self._next}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.recent.load_state_dict(self._stored, pl_module.device)  # only now the processes have met

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._stored = state_dict["recent"]
        self._last, self._next = state_dict["last"], state_dict["next"]

    def due(self, step: int, progress: float) -> bool:
        """Whether to measure after this step: by the run and not by the clock, so that resuming changes nothing."""
        return (step - self._last >= _STEPS and progress >= self._next) or progress >= 1

    def measure(self, module: Pretraining, views: Sequence[Tensor], step: int) -> dict[str, float]:
        """By NAMES, of the last 1024 images or so, in training mode; what the method has nothing for is left out.

        features_std, rank, correlation: relative_std, effective_rank and mean_correlation of the features; rank_share:
        the rank as a share of their number. projection_rank, alignment, uniformity: of the projections.
        predictor_alignment: eigen_alignment. target_distance: relative_distance of the target network to the online
        one. weight_change: that of all trained weights to what they were before the last step. views_apart: mean
        absolute difference of the pixels of two views, in units of the images' std.
        """
        self._last = step
        self._next = (int(module.progress * _TIMES + 1e-9) + 1) / _TIMES
        of, method = self.recent.of, module.method
        features, projections, predictions = (of(place) for place in _PLACES)
        assert features is not None
        rank = effective_rank(features)
        found = {
            "features_std": relative_std(features),
            "rank": rank,
            "rank_share": rank / min(features.shape),
            "correlation": mean_correlation(features),
        }
        if projections is not None:
            found["projection_rank"] = effective_rank(projections)
            found["uniformity"] = uniformity(projections[-_PAIRS:])
            others = of("projector", 1)
            if others is not None:
                found["alignment"] = alignment(projections, others)
            if predictions is not None:
                found["predictor_alignment"] = eigen_alignment(projections, predictions)
        target = getattr(method, "target", None)
        if isinstance(target, EMA):
            online = [method.backbone, *(getattr(method, part) for part in _AVERAGED if hasattr(method, part))]
            found["target_distance"] = relative_distance(
                list(nn.ModuleList(online).parameters()), list(target.parameters())
            )
        if self._before:
            found["weight_change"] = relative_distance(self._before, [p.detach() for p in module.trained])
            self._before = []
        if len(views) > 1 and views[0].shape == views[1].shape:
            found["views_apart"] = average((views[0] - views[1]).abs().mean())
        values = torch.stack([value.double() for value in found.values()]).tolist()
        return dict(zip(found, values, strict=True))
