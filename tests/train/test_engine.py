"""Every method in the engine: real runs of a few steps, from memory and streamed, stopped and resumed."""

import csv
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from ownlatent import OwnlatentError, methods, pretrain
from ownlatent.methods._base import Method
from ownlatent.methods.byol import BYOL
from ownlatent.methods.dino import DINO
from ownlatent.methods.supervised import Supervised
from ownlatent.optim.schedules import cosine, warmup_cosine
from ownlatent.train.callbacks.metrics import COLUMNS
from ownlatent.train.callbacks.together import Together
from ownlatent.train.finite import Guard, Window
from ownlatent.train.module import Pretraining

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"backbone": "resnet10_w16", "image_size": 16, "batch_size": 16, "precision": "32", "accelerator": "cpu"}
NARROW = {"hidden": 16, "projection": 8, "bottleneck": 8, "prototypes": 12, "queue": 32}


def narrow(name: str) -> dict[str, Any]:
    return {f"method.{key}": value for key, value in NARROW.items() if key in methods.settings(name)}


def weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "encoder.safetensors").items()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", methods.names())
def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_is_not(
    name: str, class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: Callable[[int], Any]
):
    """Weights and metrics, with accumulation: queue, centre, correlation and target come back with the checkpoint."""
    fields: dict[str, Any] = {**TINY, **narrow(name), "method": name, "accumulate": 2, "epochs": 2}
    monkeypatch.setattr("ownlatent.train.fit._every", lambda job: 1)
    whole = pretrain(class_folder, out=tmp_path / "whole", **fields)
    with stop_at(2):
        stopped = pretrain(class_folder, out=tmp_path / "stopped", **fields)
    assert stopped.results["training"]["steps"] == 3
    pretrain(out=stopped.folder, resume=True)
    assert weights(stopped.folder) == weights(whole.folder)
    clocks = ("seconds", "images_per_second", "waiting")
    kept = [[{k: v for k, v in row.items() if k not in clocks} for row in rows(run.folder)] for run in (stopped, whole)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", methods.names())
def test_schedules_and_terms_are_columns(name: str, class_folder: Path, tmp_path: Path):
    run = pretrain(class_folder, out=tmp_path / "run", method=name, epochs=1, **TINY, **narrow(name))
    expected = {
        "simclr": {"found"},
        "moco_v2": {"found"},
        "moco_v3": {"found"},
        "barlow_twins": {"invariance", "redundancy"},
        "vicreg": {"invariance", "variance", "covariance"},
        "dino": {"teacher_temperature", "entropy", "single_entropy", "kl"},
        "supervised": {"accuracy"},
    }
    assert not expected.get(name, set()) & set(COLUMNS)  # one would hide the other
    for column in expected.get(name, set()):
        assert all(row[column] is not None for row in run.metrics), column
    assert ("tau" in (methods.settings(name))) <= (run.metrics[-1]["tau"] is not None)
    assert run.results["finished"] and run.recipe.method == name


@pytest.mark.parametrize("loading", ["resident", "streaming"])
def test_labels_belong_to_their_images(
    loading: str, class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The folders are colours, so the label can be read from the pixels, also behind a file that cannot be read."""
    if loading == "streaming":
        broken = tmp_path / "classes"
        for path in sorted(class_folder.rglob("*.*")):
            copy = broken / path.relative_to(class_folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            copy.write_bytes(content[:200] if path.stem in ("003", "008") else content)
        class_folder = broken
    seen = []
    forward = Supervised.forward

    def watch(self: Supervised, views: list[torch.Tensor], labels: torch.Tensor) -> Any:
        seen.extend(zip(views[0].mean((2, 3)).argmax(1).tolist(), labels.tolist(), strict=True))
        return forward(self, views, labels)

    monkeypatch.setattr(Supervised, "forward", watch)
    run = pretrain(
        class_folder, out=tmp_path / "run", method="supervised", epochs=3, loading=loading, workers=1, **TINY
    )
    assert run.recipe.loading == loading and run.recipe.method_settings["classes"] == 3
    strongest = {"red": 0, "green": 1, "blue": 2}  # the channel that is brightest in each class
    names = ["blue", "green", "red"]
    assert len(seen) > 100
    assert all(channel == strongest[names[label]] for channel, label in seen)


def test_supervised_learns_and_says_so(class_folder: Path, tmp_path: Path):
    run = pretrain(class_folder, out=tmp_path / "run", method="supervised", epochs=12, val=str(class_folder), **TINY)
    assert run.metrics[-1]["accuracy"] > 0.9
    assert run.results["evaluations"][0]["top1"] > 0.9


def test_supervised_without_labels_is_refused_before_anything_is_written(image_folder: Path, tmp_path: Path):
    with pytest.raises(OwnlatentError, match=r"label|class"):
        pretrain(image_folder, out=tmp_path / "run", method="supervised", epochs=1, **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [n for n in methods.names() if not methods.get(n).uses_labels])
def test_labels_go_to_no_other_method(name: str, class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    kind = methods.get(name)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *given: (seen.append(given), forward(self, *given))[1])
    pretrain(class_folder, out=tmp_path / "run", method=name, epochs=1, val=str(class_folder), **TINY, **narrow(name))
    assert seen and all(len(given) == 1 for given in seen)


def learning_rates(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **fields: Any) -> tuple[list[list[dict]], Any]:
    """Learning rate and decay of every group at every optimiser step, and the run."""
    seen: list[list[dict]] = []
    step = Pretraining.optimizer_step

    def watch(self: Pretraining, epoch: int, batch: int, optimizer: Any, closure: Any = None) -> None:
        step(self, epoch, batch, optimizer, closure)
        seen.append([{key: group[key] for key in ("lr", "weight_decay")} for group in optimizer.param_groups])

    monkeypatch.setattr(Pretraining, "optimizer_step", watch)
    return seen, pretrain(*arguments, **fields)


def test_the_predictors_rate_of_simsiam_stays_and_the_others_follow_the_schedule(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen, run = learning_rates(
        monkeypatch, class_folder, out=tmp_path / "run", method="simsiam", epochs=4, **TINY, **narrow("simsiam")
    )
    peak, steps = run.recipe.optim.lr, len(seen)
    assert steps == 12 and peak is not None
    for number, groups in enumerate(seen):
        scheduled = warmup_cosine(number / steps, peak, run.recipe.optim.warmup or 0)
        assert [group["lr"] for group in groups] == pytest.approx([scheduled, scheduled, peak, peak])


def test_rates_and_decay_end_where_they_are_told_to(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Barlow Twins' floor and rate of biases, DINO's rising weight decay; biases and norms stay undecayed."""
    optim = {"lr": 0.1, "end_lr": 0.2, "bias_lr": 0.5, "weight_decay": 0.04, "end_weight_decay": 0.4, "warmup": 0}
    seen, _ = learning_rates(
        monkeypatch, class_folder, out=tmp_path / "run", method="barlow_twins", epochs=4, **TINY,
        **narrow("barlow_twins"), **{f"optim.{name}": value for name, value in optim.items()},
    )  # fmt: skip
    for number, (weights, biases) in enumerate(seen):
        progress = number / len(seen)
        assert weights["lr"] == pytest.approx(cosine(progress, 0.1, 0.02))
        assert biases["lr"] == pytest.approx(cosine(progress, 0.05, 0.01))
        assert weights["weight_decay"] == pytest.approx(cosine(progress, 0.04, 0.4))
        assert biases["weight_decay"] == 0


def test_the_step_asks_the_method_before_and_after(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between backward and the optimiser, when all gradients of the accumulated batch are there; then after it."""
    said: list[str] = []
    before, after, forward = DINO.before_step, DINO.after_step, DINO.forward

    def before_step(self: DINO, progress: float) -> None:
        assert all(p.grad is not None for p in self.backbone.parameters())
        said.append("before")
        start = self.prototypes.weight.detach().clone()
        before(self, progress)
        self.start = start

    def after_step(self: DINO, progress: float) -> None:
        frozen = progress < self.freeze
        assert torch.equal(self.prototypes.weight, self.start) == frozen
        said.append("frozen" if frozen else "after")
        after(self, progress)

    monkeypatch.setattr(DINO, "before_step", before_step)
    monkeypatch.setattr(DINO, "after_step", after_step)
    monkeypatch.setattr(DINO, "forward", lambda self, views: (said.append("forward"), forward(self, views))[1])
    settings = {**narrow("dino"), "method.freeze": 0.5, "accumulate": 2}
    run = pretrain(class_folder, out=tmp_path / "run", method="dino", epochs=2, **TINY, **settings)
    step = ["forward", "forward", "before"]
    assert run.results["training"]["steps"] == 7
    assert said == [*step, "frozen"] * 4 + [*step, "after"] * 3


@pytest.mark.parametrize("fused", [True, False])
def test_a_method_sees_gradients_without_the_scale_of_half_precision(fused: bool):
    """Lightning unscales by itself unless the optimiser is fused; twice would be an error."""
    said: list[str] = []
    scaler = SimpleNamespace(unscale_=lambda optimizer: said.append("unscaled"))
    method = SimpleNamespace(before_step=lambda progress: said.append(f"before {progress}"))
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler), global_step=0)
    window = Window({}, 0)
    window.losses.append(torch.ones(()))
    parts = {"method": method, "trained": [], "window": window, "guard": Guard()}
    module = SimpleNamespace(trainer=trainer, step_progress=0.5, **parts)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1, fused=fused)
    Pretraining.on_before_optimizer_step(module, optimizer)  # type: ignore[arg-type]
    assert said == ["unscaled", "before 0.5"] if fused else said == ["before 0.5"]


def test_small_crops_go_through_the_engine(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """DINO's table for small images: two views of the whole side and four of half of it, with a Vision Transformer."""
    forward = DINO.forward
    transformer = {**TINY, "backbone": "vit_tiny_patch16_224", "backbone.patch_size": 4, "backbone.depth": 2}
    sizes = []
    monkeypatch.setattr(
        DINO, "forward", lambda self, views: (sizes.append([v.shape[-1] for v in views]), forward(self, views))[1]
    )
    run = pretrain(class_folder, out=tmp_path / "run", method="dino", epochs=1, **transformer, **narrow("dino"))
    assert sizes and all(size == [16, 16, 8, 8, 8, 8] for size in sizes)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert run.encoder(images).shape == (2, 192)


def test_what_is_kept_of_dino_is_the_teacher(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its BatchNorm statistics are of large views only: those of the student are mostly of small crops."""
    built: list[DINO] = []
    after = DINO.after_step
    monkeypatch.setattr(DINO, "after_step", lambda self, p: (built.append(self), after(self, p))[1])
    run = pretrain(class_folder, out=tmp_path / "run", method="dino", epochs=2, **TINY, **narrow("dino"))
    student, teacher = built[0].backbone.net.state_dict(), built[0].target.net[0].net.state_dict()
    kept = load_file(run.folder / "encoder.safetensors")
    assert set(kept) == set(teacher)
    assert all(torch.equal(kept[name], teacher[name]) for name in kept)
    assert not all(torch.equal(kept[name], student[name]) for name in kept)


def test_a_run_is_resumed_by_the_command_that_began_it(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: Callable[[int], Any]
):
    """With the method's own folder by default, a table of views that the channels change, and a base rate."""
    monkeypatch.chdir(tmp_path)
    gray = tmp_path / "gray"
    for number, path in enumerate(sorted(class_folder.rglob("*.png"))):
        gray.mkdir(exist_ok=True)
        Image.open(path).convert("L").save(gray / f"{number}.png")
    command: dict[str, Any] = {**TINY, **narrow("simclr"), "method": "simclr", "views": "simclr_small", "epochs": 2}
    command |= {"views.1.blur": 0.25, "optim.base_lr": 0.1, "batch_size": 11}
    with stop_at(1):
        stopped = pretrain("gray", **command)
    assert stopped.folder == Path("runs/gray-simclr") and not stopped.results["finished"]
    with pytest.raises(OwnlatentError, match=r"--views\.1\.blur would change it"):
        pretrain("gray", resume=True, **{**command, "views.1.blur": 0.5})
    with pytest.raises(OwnlatentError, match="--views would change it"):
        pretrain("gray", resume=True, method="simclr", views="moco_small")
    assert pretrain("gray", resume=True, **command).results["finished"]


def test_a_queue_that_nobody_gave_suits_the_batch(class_folder: Path, tmp_path: Path):
    fields = {**TINY, "batch_size": 12, "method.hidden": 16, "method.projection": 8}
    run = pretrain(class_folder, out=tmp_path / "run", method="moco_v2", epochs=1, **fields)
    assert run.recipe.method_settings["queue"] == 4096 // 24 * 24


def test_a_crop_that_the_network_does_not_take_is_refused(class_folder: Path, tmp_path: Path):
    fields = {**TINY, "backbone": nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8))}
    with pytest.raises(OwnlatentError, match=r"does not take 3 channels of [68]x[68] px"):
        pretrain(class_folder, out=tmp_path / "run", method="dino", epochs=1, **fields, **{"views.2.size": 0.4})
    assert not (tmp_path / "run").exists()


def test_a_network_without_batchnorm_anywhere(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """GroupNorm with standardised weights in backbone and heads; the exported encoder is built the same way."""
    built: list[Method] = []
    made = BYOL.__init__

    @wraps(made)
    def watch(self: BYOL, *arguments: Any, **keywords: Any) -> None:
        made(self, *arguments, **keywords)
        built.append(self)

    monkeypatch.setattr(BYOL, "__init__", watch)
    settings = {"backbone.norm": "group", "method.norm": "group"}
    run = pretrain(class_folder, out=tmp_path / "run", epochs=1, **TINY, **narrow("byol"), **settings)
    kinds = {type(module).__name__ for module in built[0].modules()}
    assert not [kind for kind in kinds if "BatchNorm" in kind]
    assert {"GroupNorm", "StandardizedConv2d", "StandardizedLinear"} <= kinds
    from ownlatent import load_encoder

    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    loaded = load_encoder(run.folder)
    torch.testing.assert_close(loaded(images), run.encoder(images))
    torch.testing.assert_close(loaded(images[:1]), run.encoder(images)[:1])
    assert {type(module).__name__ for module in loaded.modules()} & {"StandardizedConv2d"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "moco_v2", "method.queue": 50}, r"--method\.queue 50 is no multiple of the 32 keys.*queue 32"),
        ({"method": "byol", "views": "dino"}, "byol takes 2 views of each image, not 10"),
        ({"method": "simclr", "views": "supervised"}, "simclr compares views and takes at least 2.*not 1"),
        ({"method": "vicreg", "batch_size": 2, "accumulate": 2}, "vicreg .*at least 2 images in each pass, not 1"),
        ({"method": "moco_v2", "method.splits": 3}, r"--method\.splits 3"),
        ({"method": "byol", "backbone": "vit_tiny_patch16_224", "backbone.norm": "group"}, "no BatchNorm"),
        ({"method": "byol", "backbone.norm": "grup"}, "no norm 'grup' for a backbone: .*group"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_written(
    fields: dict[str, Any], message: str, class_folder: Path, tmp_path: Path
):
    with pytest.raises(OwnlatentError, match=message):
        pretrain(class_folder, out=tmp_path / "run", **{**TINY, "epochs": 1, **fields})
    assert not (tmp_path / "run").exists()


def test_callbacks_that_are_one_to_lightning_hear_all_and_keep_their_states():
    heard: list[tuple[str, str]] = []

    def listening(name: str) -> pl.Callback:
        class Listening(pl.Callback):
            kept = 0

            def state_dict(self) -> dict[str, int]:
                return {"kept": self.kept}

            def load_state_dict(self, state_dict: dict[str, int]) -> None:
                self.kept = state_dict["kept"]

        Listening.__name__ = name
        for hook in ("setup", "on_train_start", "on_before_optimizer_step", "on_train_batch_end", "on_train_end"):
            setattr(Listening, hook, lambda self, *_, hook=hook: heard.append((name, hook)))
        Listening.on_exception = lambda self, *_: heard.append((name, "on_exception"))  # type: ignore[method-assign]
        return Listening()

    first, second = listening("First"), listening("Second")
    both = Together([first, second])
    trainer: Any = None
    both.setup(trainer, trainer, "fit")
    both.on_train_start(trainer, trainer)
    both.on_before_optimizer_step(trainer, trainer, trainer)
    both.on_train_batch_end(trainer, trainer, None, None, 0)
    both.on_exception(trainer, trainer, ValueError())
    both.on_train_end(trainer, trainer)
    assert heard[::2] == [("First", hook) for _, hook in heard[1::2]] and len({hook for _, hook in heard}) == 6
    first.kept, second.kept = 1, 2  # type: ignore[attr-defined]
    again = Together([listening("Second"), listening("First")])
    again.load_state_dict(both.state_dict())
    assert [each.kept for each in again.callbacks] == [2, 1]  # type: ignore[attr-defined]
