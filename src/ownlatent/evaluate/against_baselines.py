"""The trained encoder beside what one could have had without training it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.data.resident import Resident
from ownlatent.evaluate.baselines import calibrate_batchnorm, pixel_features
from ownlatent.evaluate.embed import embed
from ownlatent.evaluate.knn import knn_accuracy

NAMES = {"trained": "trained encoder", "random": "random encoder", "pixels": "raw pixels"}


def against_baselines(
    trained: Encoder,
    untrained: Encoder,
    train: Resident,
    test: Resident | None,
    calibration: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> list[dict]:
    """k-NN of the trained encoder, the same encoder untrained, and raw pixels: entries of results.json.

    train, test: labelled images of the encoder's size; without a test set every image of `train` is
    classified by the others. calibration: training images (N, C, S, S) for the untrained encoder's
    BatchNorm. Each baseline appears in its strongest variant, named in the entry.
    """
    assert train.labels is not None

    def measure(subject: str, variant: str, features: Callable[[Tensor], Tensor]) -> dict:
        assert train.labels is not None
        queries = None if test is None else features(test.images)
        truth = None if test is None else test.labels
        accuracy = knn_accuracy(features(train.images), train.labels, queries, truth, k, temperature)
        return {"subject": subject, "variant": variant, "data": train.name if test is None else test.name, **accuracy}

    def embedded(encoder: Encoder) -> Callable[[Tensor], Tensor]:
        device = next(encoder.parameters()).device
        return lambda images: embed(encoder, images, device=device)

    entries = [measure("trained", "last epoch", embedded(trained))]
    randoms = [measure("random", "initial BatchNorm statistics", embedded(untrained))]
    calibrate_batchnorm(untrained, calibration)
    randoms.append(measure("random", "BatchNorm calibrated on the training images", embedded(untrained)))
    mean, std = trained.mean.cpu(), trained.std.cpu()
    peak = 255.0 if train.images.dtype == torch.uint8 else trained.full_scale
    centre = (train.images.float() / peak).mean(0)
    pixels = [
        measure("pixels", "as they are", lambda images: pixel_features(images, peak=peak)),
        measure("pixels", "normalised as for the encoder", lambda images: pixel_features(images, mean, std, peak)),
        measure("pixels", "mean image subtracted", lambda images: pixel_features(images, centre, peak=peak)),
    ]
    for variants in (randoms, pixels):
        entries.append(max(variants, key=lambda entry: entry["top1"]))
    return entries


def table(entries: list[dict]) -> list[str]:
    """The entries as lines for people, with the gain over each baseline and a closing sentence."""
    first = entries[0]
    split = "each by the others" if first["split"] == "leave-one-out" else f"by {first['num_train']} labelled ones"
    settings = f"k {first['k']}, temperature {first['temperature']}, last epoch"
    lines = [f"k-NN accuracy on {first['num_test']} images, {split} ({settings})"]
    for entry in entries:
        gain = "" if entry is first else f"   trained is {100 * (first['top1'] - entry['top1']):+.1f} points"
        lines.append(f"  {NAMES[entry['subject']]:<16} {entry['top1']:6.1%}{gain}")
    gains = [100 * (first["top1"] - entry["top1"]) for entry in entries[1:]]
    least = min(gains)
    # One standard error of a difference of two proportions, taken as independent: a cautious bound.
    error = 100 * (2 * 0.25 / first["num_test"]) ** 0.5
    if least > 2 * error:
        lines.append(f"Training helped: {least:.1f} points above the best baseline.")
    elif least < -2 * error:
        lines.append(f"Training hurt: {-least:.1f} points below the best baseline. Do not use this encoder.")
    else:
        lines.append(
            f"It cannot be told whether training helped: {least:+.1f} points against the best baseline, "
            f"and {first['num_test']} images tell only differences above {2 * error:.1f}."
        )
    return lines
