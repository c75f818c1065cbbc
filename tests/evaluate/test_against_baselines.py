"""The comparison and the words it ends with."""

import pytest
import torch
from torch import Tensor

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.resident import Resident
from ownlatent.evaluate.against_baselines import against_baselines, table

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def encoder(seed: int) -> Encoder:
    torch.manual_seed(seed)
    backbone = backbones.create("resnet10_w16", channels=3, image_size=16)
    return Encoder(backbone, 16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def labelled(seed: int, per_class: int = 20) -> Resident:
    """Two classes that differ in brightness, which pixels and random features can tell."""
    draws = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 60, (2 * per_class, 3, 16, 16), generator=draws)
    labels = torch.arange(2).repeat_interleave(per_class)
    return Resident((noise + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels, ("dark", "bright"))


@pytest.mark.parametrize("device", DEVICES)
def test_each_subject_appears_once_with_its_protocol(device: str):
    train, test = labelled(0), labelled(1)
    entries = against_baselines(encoder(0).to(device), encoder(1).to(device), train, test, train.images, k=5)
    assert [entry["subject"] for entry in entries] == ["trained", "random", "pixels"]
    for entry in entries:
        assert (entry["k"], entry["num_train"], entry["num_test"], entry["split"]) == (5, 40, 40, "train-test")
    assert entries[2]["top1"] == 1.0


def test_baselines_appear_in_their_strongest_form():
    # Centring is what makes brightness an angle: without it all bright images point the same way as the dark ones.
    train = labelled(0)
    flat = Resident((train.images // 60 * 60 + 30), train.labels, train.classes)
    pixels = against_baselines(encoder(0), encoder(1), flat, None, flat.images, k=5)[2]
    assert pixels["top1"] == 1.0 and pixels["variant"] != "as they are"


@pytest.mark.parametrize(
    ("trained", "best", "words"),
    [(0.60, 0.40, "Training helped: 20.0 points"), (0.30, 0.50, "Training hurt: 20.0"), (0.41, 0.40, "cannot be told")],
)
def test_the_closing_sentence_says_what_the_numbers_say(trained: float, best: float, words: str):
    protocol = {"split": "train-test", "num_train": 100, "num_test": 1000, "k": 20, "temperature": 0.07}
    scores = {"trained": trained, "random": 0.1, "pixels": best}
    entries = [{"subject": subject, "top1": top1, **protocol} for subject, top1 in scores.items()]
    lines = table(entries)
    assert words in lines[-1]
    assert f"{100 * (trained - best):+.1f} points" in lines[3]


def test_trained_and_untrained_are_measured_by_the_same_rule():
    train: Resident = labelled(0)
    same: Tensor = train.images
    first, second, _ = against_baselines(encoder(0), encoder(0), train, None, same, k=5)
    assert second["top1"] >= first["top1"]  # the untrained one may choose its BatchNorm statistics, the trained may not
