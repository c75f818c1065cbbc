"""The only LightningModule: one method, its views and its schedule."""

from math import isfinite
from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from ownlatent.augment.views import MultiView
from ownlatent.data.loader import NETWORK, VIEWS, generator, seed_of
from ownlatent.methods._base import Method
from ownlatent.optim.create import create
from ownlatent.optim.schedules import cosine, warmup_cosine
from ownlatent.train.budget import Budget
from ownlatent.train.recipe import Recipe
from ownlatent.types import Output


class NotFinite(Exception):
    """A loss or gradient that is not finite, raised before the weights are touched."""

    def __init__(self, what: str, value: float):
        super().__init__(f"the {what} is {value}")
        self.what, self.value = what, value


class Window:
    """What the optimiser step under way was made of: its passes, and what the method remembered before the first.

    passes: each pass's arguments of the method, views first. number: of the first of them. memory: buffers that a
    forward pass reads and changes, such as a queue, by name.
    """

    def __init__(self, method: Method, number: int):
        self.number, self.passes, self.losses = number, list[tuple[Any, ...]](), list[Tensor]()
        # BatchNorm's running statistics are written and not read while training.
        self.memory = {
            f"{name}.{key}".removeprefix("."): buffer.clone()
            for name, part in method.named_modules()
            if not isinstance(part, nn.modules.batchnorm._NormBase)
            for key, buffer in part.named_buffers(recurse=False)
        }


class Pretraining(pl.LightningModule):
    """Trains a method on endless batches until the budget is spent.

    One step count drives the learning rate and the method's own schedules. `output` is what the
    method last returned, for the callbacks, and `gradient_norm` that of the last step.
    """

    def __init__(self, method: Method, views: MultiView, recipe: Recipe, budget: Budget):
        super().__init__()
        self.method, self.views, self.recipe, self.budget = method, views, recipe, budget
        self.output: Output | None = None
        self.batches_seen = 0
        self.stop_requested = False
        self.gradient_norm: Tensor | None = None
        self.window = Window(method, 0)
        self.step_progress = 0.0
        self._elapsed_before = 0.0
        self._began: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, those before a resume included."""
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

    def on_train_end(self) -> None:
        self._elapsed_before, self._began = self.elapsed, None

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> tuple[Any, ...]:
        # Here and not in training_step: there autocast would round the images to bfloat16.
        draws = generator(self.recipe.seed, VIEWS, batch["number"])
        if "crops" in batch:
            views = self.views.of_crops(batch["crops"], draws)
        else:
            views = self.views.of_images(batch["images"], draws, batch.get("rows"))
        return (views, batch["labels"]) if self.method.uses_labels else (views,)

    def training_step(self, batch: tuple[Any, ...], batch_idx: int) -> Tensor:
        if self.batches_seen % self.recipe.accumulate == 0:
            self.window = Window(self.method, self.batches_seen)
        # For networks with dropout: a resumed run draws what an uninterrupted one would have drawn.
        torch.manual_seed(seed_of(self.recipe.seed, NETWORK, self.batches_seen))
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
        # Lightning counts the step only after this hook.
        done = self.budget.progress(self.trainer.global_step + 1, self.elapsed) >= 1
        if done or self.stop_requested:
            self.trainer.should_stop = True

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # fused optimisers do it themselves, but only after the method saw the gradients
        self.gradient_norm = gradient_norm(self.method)
        loss, norm = torch.stack([torch.stack(self.window.losses).float().mean(), self.gradient_norm.float()]).tolist()
        if not isfinite(loss):
            raise NotFinite("loss", loss)
        if not isfinite(norm) and scaler is None:  # a scaler skips such steps by itself
            raise NotFinite("gradient", norm)
        self.method.before_step(self.step_progress)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["ownlatent"] = {"batches_seen": self.batches_seen, "elapsed": self.elapsed}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.batches_seen = checkpoint["ownlatent"]["batches_seen"]
        self._elapsed_before = checkpoint["ownlatent"]["elapsed"]


def gradient_norm(method: Method) -> Tensor:
    """Euclidean norm of all gradients together."""
    return _norm([p.grad for p in method.parameters() if p.grad is not None])


def weight_norm(method: Method) -> Tensor:
    """Euclidean norm of all trained parameters together."""
    return _norm([p.detach() for p in method.parameters() if p.requires_grad])


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors)).norm() if tensors else torch.zeros(())
