"""Every method on a GPU: the numbers of the processor, and half precision with a scaler."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from ownlatent import backbones, methods, pretrain
from ownlatent.methods._base import Method
from ownlatent.optim.create import create

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
NARROW = {"hidden": 32, "projection": 16, "bottleneck": 8, "prototypes": 24, "queue": 32, "classes": 4}


def build(name: str) -> Method:
    torch.manual_seed(0)
    settings = {key: value for key, value in NARROW.items() if key in methods.settings(name)}
    return methods.create(name, backbones.create("resnet10_w16", channels=3, image_size=8), **settings)


def inputs(method: Method, device: str, seed: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn((16, 3, 8, 8), generator=generator).to(device) for _ in range(method.max_views or 4)]
    labels = torch.randint(4, (16,), generator=generator).to(device)
    return (views, labels) if method.uses_labels else (views,)


@pytest.mark.parametrize("name", methods.names())
def test_three_steps_on_the_gpu_are_those_on_the_processor(name: str):
    """Convolutions differ by float32's rounding, which the first steps of a network with BatchNorm enlarge."""
    first = build(name)
    losses = {}
    for device in ("cpu", "cuda"):
        method = deepcopy(first).to(device)
        optimizer = create("sgd", method.param_groups(), lr=0.01, weight_decay=1e-4)
        losses[device] = []
        for step in range(3):
            loss = method(*inputs(method, device, step)).loss
            optimizer.zero_grad()
            loss.backward()
            method.before_step(step / 3)
            optimizer.step()
            method.after_step(step / 3)
            losses[device].append(loss.item())
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_a_run_in_half_precision_is_finite(name: str, precision: str, class_folder: Path, tmp_path: Path):
    settings = {f"method.{key}": value for key, value in NARROW.items() if key in methods.settings(name)}
    settings.pop("method.classes", None)
    run = pretrain(
        class_folder, out=tmp_path / "run", method=name, epochs=3, accelerator="cuda", precision=precision,
        backbone="resnet10_w16", image_size=16, batch_size=16, **settings,
    )  # fmt: skip
    assert run.results["finished"] and all(row["loss"] is not None for row in run.metrics)


def test_clipping_sees_gradients_without_the_scale(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A scaler multiplies the loss by 65,536 at first: norms of that size would all be clipped."""
    from ownlatent.methods.dino import DINO

    norms = []
    before = DINO.before_step

    def watch(self: DINO, progress: float) -> None:
        norms.append(max(p.grad.norm().item() for p in self.parameters() if p.grad is not None))
        before(self, progress)

    monkeypatch.setattr(DINO, "before_step", watch)
    settings = {f"method.{key}": value for key, value in NARROW.items() if key in methods.settings("dino")}
    pretrain(
        class_folder, out=tmp_path / "run", method="dino", epochs=3, accelerator="cuda", precision="16",
        backbone="resnet10_w16", image_size=16, batch_size=16, **settings,
    )  # fmt: skip
    assert norms and max(norm for norm in norms if norm == norm and norm != float("inf")) < 100
