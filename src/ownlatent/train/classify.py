"""Training with labels: fine-tuning an encoder, or the same network from scratch."""

import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ownlatent.augment.recipes import RECIPES, SOUND_RECIPES, AnyView, SoundView
from ownlatent.augment.sound_views import make_views
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.stem import SMALL_IMAGE
from ownlatent.data.frames import Frames, load_frames
from ownlatent.data.labelled import Labelled, part_of
from ownlatent.data.reading import with_channels
from ownlatent.data.resident import MixedSizes, Resident, load_resident
from ownlatent.data.source import EncodedSource, Source, is_of_sounds
from ownlatent.diagnostics.verdict import DIVERGING
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.linear import FOLDS, folds_of
from ownlatent.machine import memory
from ownlatent.methods.supervised import Supervised
from ownlatent.train.budget import Budget
from ownlatent.train.fit import fit, silently
from ownlatent.train.prepare import Job
from ownlatent.train.recipe import Optim, Recipe
from ownlatent.train.resolve import Facts, resolve
from ownlatent.types import Size, height_and_width

RATES = {"sgd": (0.02, 0.06, 0.2, 0.6), "adamw": (2e-4, 6e-4, 2e-3, 6e-3)}
"""Learning rates for 256 images, of which held-out images choose."""
DECAYS = {"sgd": (5e-4, 5e-3), "adamw": (0.01, 0.1)}
"""Weight decays, likewise."""
CHOOSING = 1 / 3
"""The time that choosing them takes on top, as a share of the training's."""


@dataclass(frozen=True)
class Choice:
    """Learning rate for 256 images and weight decay."""

    base_lr: float
    weight_decay: float


def training_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides a training with labels, as a run's recipe implies it: the optimiser follows the run's."""
    optimiser = _optimiser(recipe)
    return {
        "optimizer": optimiser,
        "rates": list(RATES[optimiser]),
        "weight_decays": list(DECAYS[optimiser]),
        "batch_size": _batch_size(recipe),
        **cropping(usual_view(recipe.size if recipe.image_size or recipe.duration else 224)),
        "precision": recipe.precision,
    }


def cropping(view: AnyView) -> dict[str, Any]:
    """What a view shows of an image or a sound, as an entry of results.json names it."""
    if isinstance(view, SoundView):
        return {"crop_height": list(view.crop_height), "crop_width": list(view.crop_width)}
    return {"crop_scale": list(view.crop_scale)}


def usual_view(image_size: Size) -> AnyView:
    """The view that training with labels and the SGD probe use: crops as the papers', larger ones of small images."""
    if not isinstance(image_size, int):
        return SOUND_RECIPES["supervised"][0]
    view = RECIPES["supervised"][0]
    return replace(view, crop_scale=(0.25, 1.0)) if image_size <= SMALL_IMAGE else view


def usual_choice(recipe: Recipe) -> Choice:
    """What is taken where nothing can be held out."""
    optimiser = _optimiser(recipe)
    return Choice(RATES[optimiser][1], DECAYS[optimiser][0])


class Classifier(nn.Module):
    """Images (B, C, H, W) to the logits (B, classes) of an encoder with a head."""

    def __init__(self, encoder: Encoder, head: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))


def train_classifier(
    encoder: Encoder,
    source: Source,
    labels: Tensor,
    rows: Tensor,
    recipe: Recipe,
    budget: Budget,
    head: str,
    choice: Choice,
    device: torch.device,
) -> Classifier:
    """A classifier trained on the images `rows` of a source, all its weights, with crop and flip.

    encoder: what it starts from; it is copied. labels: (N,) of the whole source. recipe: of the run, for its batch, its
    precision, its optimiser and its seed. head: "linear", or "mlp" with a hidden layer.
    """
    part = _open(source, rows.tolist(), encoder.mean.numel())
    classes = int(labels.max()) + 1
    size, channels = encoder.image_size, encoder.mean.numel()
    wanted = replace(
        recipe,
        data="",
        val=None,
        method="supervised",
        epochs=None,
        minutes=None,
        accumulate=1,
        batch_size=min(_batch_size(recipe), _power_of_two(len(rows) / 4), len(rows)),
        image_size=size if isinstance(size, int) else None,
        optim=Optim(_optimiser(recipe), base_lr=choice.base_lr, weight_decay=choice.weight_decay, warmup=0.05),
        views=(usual_view(size),),
        method_settings={"hidden": encoder.num_features if head == "mlp" else 0},
        accelerator=device.type,
        devices=1,
        nodes=1,
        precision="32" if device.type == "cpu" and recipe.precision == "16" else recipe.precision,
        checkpoint_seconds=1e9,
        on_unhealthy="warn",
    )
    resolved = resolve(wanted, Facts(len(rows), channels, min(height_and_width(size)), device.type, classes), {})
    assert resolved.batch_size is not None and resolved.views is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        method = Supervised(deepcopy(encoder.backbone).cpu(), **resolved.method_settings).train()
    mean, std = encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()
    trained = Encoder(method.result, size, mean, std, encoder.peak)
    job = Job(
        recipe=resolved,
        data=part,
        bank=None,
        val=None,
        method=method,
        views=make_views(resolved.views, size, mean, std, encoder.scale_of(part[0].image.dtype)),
        encoder=trained,
        untrained=trained,
        changes=[],
        budget=budget,
        steps_per_epoch=len(part) // resolved.batch_size,
        device=device,
    )
    with tempfile.TemporaryDirectory() as folder, silently():
        outcome = fit(job, Path(folder))
    if outcome.health["word"] == DIVERGING:
        raise OwnlatentError(f"training with labels diverged ({outcome.health['reason']}): lower --optim.lr")
    if not outcome.finished:
        raise KeyboardInterrupt
    return Classifier(trained, method.classifier).eval()


def choose(
    encoder: Encoder,
    data: Labelled,
    labels: Tensor,
    rows: Tensor,
    recipe: Recipe,
    budget: Budget,
    head: str,
    device: torch.device,
) -> Choice:
    """The rate and decay that classify a held-out fifth of the images `rows` best, in short runs on the others.

    All of them together take a third of the budget on top. The usual ones where some class lacks the images for that.
    One whose loss does not stay finite is out.
    """
    held = folds_of(labels[rows]) == FOLDS - 1
    if len(rows) - held.sum() < 8 or len(labels[rows][~held].unique()) < len(labels[rows].unique()):
        return usual_choice(recipe)
    optimiser = _optimiser(recipe)
    candidates = [Choice(rate, decay) for rate in RATES[optimiser] for decay in DECAYS[optimiser]]
    short = budget.part(CHOOSING / len(candidates))
    scores = []
    for candidate in candidates:
        args = (encoder, data.source, labels, rows[~held], recipe, short, head, candidate, device)
        try:
            classifier = train_classifier(*args)
        except OwnlatentError:
            scores.append(-1.0)
            continue
        predicted = predict(classifier, Labelled(part_of(data.source, rows[held].tolist())), device)
        scores.append((predicted == labels[rows[held]]).double().mean().item())
    return candidates[scores.index(max(scores))]


def predict(classifier: Classifier, data: Labelled, device: torch.device) -> Tensor:
    """Classes (N,) int64 of the images that can be read."""
    encoder = classifier.encoder
    images = (batch for batch, _, _ in data.batches(encoder.mean.numel(), encoder.image_size))
    return embed(classifier.to(device), images, device=device).argmax(1)


def _open(source: Source, rows: list[int], channels: int) -> Resident | Frames | Source:
    """The images with the channels wanted: in memory where they have one size and fit, else read as they are needed."""
    part = part_of(source, rows)
    if isinstance(part, EncodedSource):
        part.format = part.format._replace(channels=channels)
    if is_of_sounds(part):
        return load_frames(part, memory() // 4) or part
    if part[0].image.nbytes * len(part) > memory() // 4:
        return part
    try:
        return load_resident(part, lambda image: with_channels(image, channels, source.name))
    except MixedSizes:
        return part


def _optimiser(recipe: Recipe) -> str:
    return "adamw" if recipe.optim.name == "adamw" else "sgd"


def _batch_size(recipe: Recipe) -> int:
    return (recipe.batch_size or 128) // recipe.accumulate


def _power_of_two(most: float) -> int:
    size = 4
    while 2 * size <= most:
        size *= 2
    return size
