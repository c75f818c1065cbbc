"""Who is compared: baselines in their strongest form, and encoders by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ownlatent import backbones
from ownlatent.backbones import own_network
from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.export.encoder import save_encoder
from ownlatent.proof.subjects import input_subject, named_subject, of_encoder, random_subject, untrained

CPU = torch.device("cpu")


def encoder(seed: int = 0, name: str = "resnet10_w16", size: int = 16) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(backbones.create(name, channels=3, image_size=size), size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).eval()


def labelled(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes that differ in brightness."""
    noise = torch.randint(0, 60, (80, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(2).repeat_interleave(40)
    return (noise + 150 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels


def test_untrained_is_drawn_from_the_seed_and_leaves_the_random_state_alone():
    trained, state = encoder(5), torch.get_rng_state()
    first, again, other = (untrained(trained, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [next(each.backbone.parameters()) for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    torch.manual_seed(1)
    assert torch.equal(weights[0], next(backbones.create("resnet10_w16", channels=3, image_size=16).parameters()))


def test_untrained_of_ones_own_module_needs_a_fresh_one():
    own = Encoder(backbones.create(torch.nn.Conv2d(3, 4, 3), channels=3, image_size=16), 16, (0.5,) * 3, (0.2,) * 3)
    with pytest.raises(OwnlatentError, match="pass a fresh module"):
        untrained(own, 0)
    fresh = torch.nn.Conv2d(3, 4, 3)
    copy = untrained(own, 0, own_network(fresh)).backbone.net
    assert copy is not fresh and torch.equal(copy.weight, fresh.weight)
    with pytest.raises(OwnlatentError, match="has the trained weights"):
        untrained(own, 0, own_network(own.backbone.net))


@pytest.mark.parametrize("better", ["initial", "calibrated"])
def test_random_takes_the_statistics_that_serve_it_better(better: str, monkeypatch: pytest.MonkeyPatch):
    scores = iter([0.6, 0.5] if better == "initial" else [0.5, 0.6])  # first as it was drawn, then calibrated
    monkeypatch.setattr("ownlatent.proof.subjects.knn_accuracy", lambda *_: next(scores))
    subject = random_subject(encoder(), *labelled(), None, CPU)
    assert better in subject.variant
    statistics = [m for m in subject.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert bool((statistics[0].running_mean == 0).all()) == (better == "initial")
    assert subject.weights == of_encoder("x", "", subject.encoder).weights


def test_pixels_are_centred_where_it_helps():
    # Centring is what makes brightness an angle: without it all bright images point the same way as the dark ones.
    images, labels = labelled()
    flat = images // 60 * 60 + 30
    subject = input_subject(encoder(), flat, labels)
    assert subject.variant == "mean image subtracted" and subject.shift is not None
    assert subject.encoder is None


def test_weights_fingerprint_tells_encoders_apart():
    same = of_encoder("a", "", encoder()).weights
    assert same == of_encoder("b", "", encoder()).weights != of_encoder("a", "", encoder(1)).weights
    other = encoder()
    other.mean.add_(0.1)
    assert of_encoder("a", "", other).weights != same


def test_another_run_by_its_folder(tmp_path: Path):
    save_encoder(encoder(3), tmp_path)
    assert named_subject(str(tmp_path), encoder(), None).weights == of_encoder("", "", encoder(3)).weights


def test_a_random_network_by_name():
    subject = named_subject("random:timm:resnet18", encoder(), None)
    assert (subject.variant, subject.image_size, subject.channels) == ("random weights", 16, 3)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_of_a_file(tmp_path: Path, ending: str):
    """With the classifier still in it, as torchvision's files have it; other sizes than the run's."""
    net = backbones.create("torchvision:resnet18", image_size=224).net
    state = {**net.state_dict(), "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    path = tmp_path / f"weights{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save({"state_dict": state}, path)
    subject = named_subject(f"torchvision:resnet18={path}", encoder(), None)
    assert subject.image_size == 224 and subject.encoder is not None
    assert all(torch.equal(value, state[name]) for name, value in subject.encoder.backbone.net.state_dict().items())


def test_a_librarys_weights_have_their_own_size_and_stem():
    """Small images are enlarged: a stem for small images would not have the library's weights."""
    assert backbones.pretrained_input("torchvision:resnet50") == (224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    size, mean, _ = backbones.pretrained_input("timm:vit_base_patch16_clip_224.openai") or (0, [0.0], [])
    assert size == 224 and mean[0] == pytest.approx(0.4815, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", "no backbone 'resnet81': the nearest"),
        ("supervised", r"write a run folder of that name as \./supervised"),
        ("resnet18=nowhere.pth", "there is no file nowhere.pth"),
        ("resnet18=broken.pth", "holds no weights that can be read"),
        ("resnet18=other.pth", "lacks conv1.weight"),
        ("torchvision:resnet18=shapes.pth", "has the shape"),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str):
    monkeypatch.chdir(tmp_path)
    Path("broken.pth").write_bytes(b"no weights")
    torch.save({"layer": torch.zeros(1)}, "other.pth")
    state = backbones.create("torchvision:resnet18", image_size=224).net.state_dict()
    torch.save({**state, "conv1.weight": torch.zeros(1)}, "shapes.pth")
    with pytest.raises(OwnlatentError, match=words):
        named_subject(name, encoder(), None)


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(OwnlatentError, match=r"weights of resnet18 cannot be had \(no route to host\)"):
        named_subject("resnet18", encoder(), None)
