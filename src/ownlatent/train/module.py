"""The only LightningModule: one method, its views and its schedule."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ownlatent.augment.sound_views import SoundViews
from ownlatent.augment.views import MultiView
from ownlatent.data.loader import NETWORK, VIEWS, generator, seed_of
from ownlatent.methods._base import Method
from ownlatent.nn.collectives import rank, told, world_size
from ownlatent.optim.create import create
from ownlatent.optim.schedules import cosine, warmup_cosine
from ownlatent.train.budget import Budget
from ownlatent.train.checkpoints import FORMAT
from ownlatent.train.finite import Guard, Window, memory_of
from ownlatent.train.recipe import Recipe
from ownlatent.types import Output


class Pretraining(pl.LightningModule):
    """Trains a method on endless batches until the budget is spent.

    One step count drives the learning rate and the method's own schedules. `output` is what the
    method last returned, for the callbacks, and `gradient_norm` that of the last step.
    """

    def __init__(self, method: Method, views: MultiView | SoundViews, recipe: Recipe, budget: Budget):
        super().__init__()
        self.method, self.views, self.recipe, self.budget = method, views, recipe, budget
        self.output: Output | None = None
        self.batches_seen = 0
        self.asked_to_stop = False  # this process, by a signal
        self.stop_requested = False  # all of them, after this step
        self.gradient_norm: Tensor | None = None
        self.trained = trained(method)
        self.window, self.guard, self._memory = Window({}, 0), Guard(), memory_of(method)
        self.step_progress = 0.0
        self._elapsed_before = 0.0
        self._told_elapsed: float | None = None
        self._began: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, those before a resume included; of several processes the first one's clock."""
        if self._told_elapsed is not None:
            return self._told_elapsed
        return self._elapsed_before + (perf_counter() - self._began if self._began is not None else 0.0)

    @property
    def progress(self) -> float:
        return self.budget.progress(self.trainer.global_step, self.elapsed)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optim = self.recipe.optim
        assert optim.name and optim.lr is not None and optim.weight_decay is not None
        assert optim.eta is not None and optim.bias_lr is not None and optim.decay_all is not None
        return create(
            *(optim.name, self.method.param_groups(), optim.lr, optim.weight_decay),
            *(optim.momentum, optim.eta, optim.bias_lr, optim.decay_all),
        )

    def on_train_start(self) -> None:
        self._began = perf_counter()
        self._agree()

    def _agree(self) -> None:
        """Let several processes have one clock, and stop together: what a process finds out by itself is not enough."""
        if world_size() > 1:
            assert self._began is not None
            now = self._elapsed_before + perf_counter() - self._began
            self._told_elapsed, stop = told([now, self.asked_to_stop or self.stop_requested])
            self.stop_requested = bool(stop)
        else:
            self.stop_requested = self.stop_requested or self.asked_to_stop

    def on_train_end(self) -> None:
        self._elapsed_before, self._began, self._told_elapsed = self.elapsed, None, None

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> tuple[Any, ...]:
        # Here and not in training_step: there autocast would round the images to bfloat16.
        draws = generator(self.recipe.seed, VIEWS, batch["number"])
        if "crops" in batch:
            views = self.views.of_crops(batch["crops"], draws, batch["within"])
        else:
            views = self.views.of_images(batch["images"], draws, batch.get("rows"), batch["within"])
        return (views, batch["labels"]) if self.method.uses_labels else (views,)

    def training_step(self, batch: tuple[Any, ...], batch_idx: int) -> Tensor:
        if self.batches_seen % self.recipe.accumulate == 0:
            self.window = Window(self._memory, self.batches_seen)
        # For networks with dropout: a resumed run draws what an uninterrupted one would have drawn.
        others = (rank(),) if rank() else ()  # each process drops something else
        seed_networks(seed_of(self.recipe.seed, NETWORK, self.batches_seen, *others))
        # Lightning's autocast rounds the weights anew for every view, torch's own once for all. What makes that wrong,
        # weights that are used without a gradient first, no method does: a target has weights of its own.
        torch.set_autocast_cache_enabled(True)
        self.output = self.method(*batch)
        self.window.passes.append(batch)
        self.window.losses.append(self.output.loss.detach())
        self.batches_seen += 1
        return self.output.loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        self.step_progress = progress = self.progress
        optim = self.recipe.optim
        assert optim.warmup is not None and optim.end_lr is not None
        assert optim.weight_decay is not None and optim.end_weight_decay is not None
        for group in optimizer.param_groups:
            if not group.get("constant_lr"):
                peak = group["peak_lr"]
                group["lr"] = warmup_cosine(progress, peak, optim.warmup, end=peak * optim.end_lr)
            if group["decayed"]:
                group["weight_decay"] = cosine(progress, optim.weight_decay, optim.end_weight_decay)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.method.after_step(progress)
        self._agree()
        # Lightning counts the step only after this hook.
        done = self.budget.progress(self.trainer.global_step + 1, self.elapsed) >= 1
        if done or self.stop_requested:
            self.guard.settle()
            self.trainer.should_stop = True

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # fused optimisers do it themselves, but only after the method saw the gradients
        self.gradient_norm = gradient_norm(self.trained)
        window = self.window
        window.step, window.progress = self.trainer.global_step + 1, self.step_progress
        window.lr = optimizer.param_groups[0]["lr"]
        self.guard.check(optimizer, window, self.gradient_norm, scaler is not None)
        self.method.before_step(self.step_progress)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["ownlatent"] = {"format": FORMAT, "batches_seen": self.batches_seen, "elapsed": self.elapsed}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.batches_seen = checkpoint["ownlatent"]["batches_seen"]
        self._elapsed_before = checkpoint["ownlatent"]["elapsed"]


def seed_networks(seed: int) -> None:
    """Seed what networks draw from, on every device that is in use.

    torch.manual_seed would do, but where there is CUDA and nothing uses it every call is noted for later, with its
    traceback: a millisecond and some memory at every step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def trained(method: nn.Module) -> list[nn.Parameter]:
    return [p for p in method.parameters() if p.requires_grad]


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together."""
    return _norm([p.grad for p in parameters if p.grad is not None])


def weight_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all the parameters together."""
    return _norm([p.detach() for p in parameters])


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).norm() if tensors else torch.zeros(())
