"""Encoders of sounds in other libraries' files, loaded by these alone."""

from pathlib import Path

import pytest
import torch

import ownlatent
from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.export.formats._examples import waveforms


def encoder(name: str = "byol_a_512", frames: int = 64) -> Encoder:
    torch.manual_seed(0)
    backbone = backbones.create(name, channels=1, image_size=(64, frames))
    made = Encoder(backbone, (64, frames), (0.4,), (0.2,), 65535.0)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 0.1  # type: ignore[operator]
    return made.eval()


def test_torchscript_takes_waveforms_of_any_length(tmp_path: Path) -> None:
    made = encoder()
    done = ownlatent.export(made, format="torchscript", out=tmp_path / "out")
    net = torch.jit.load(str(tmp_path / "out" / "encoder.pt"))
    for samples in (10_080, 23_000):
        sounds = waveforms(3, samples)
        assert torch.allclose(net(sounds), made(sounds), atol=1e-5)
    with pytest.raises(Exception, match="give waveforms of 16 kHz"):
        net(torch.zeros(1, 1, 64, 64))
    assert done.difference < 1e-5


def test_onnx_takes_waveforms(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = encoder()
    ownlatent.export(made, format="onnx", out=tmp_path / "out")
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    for count in (1, 5):
        sounds = waveforms(count, 10_080)
        found = torch.from_numpy(session.run(None, {"sounds": sounds.numpy()})[0])
        assert (found - made(sounds)).abs().max() / made(sounds).abs().max() < 1e-4


@pytest.mark.parametrize(("format", "name"), [("safetensors", "byol_a_512"), ("timm", "timm:resnet18")])
def test_weights_come_with_how_spectrograms_are_made(format: str, name: str, tmp_path: Path) -> None:
    done = ownlatent.export(encoder(name), format=format, out=tmp_path / "out")
    assert done.difference < 1e-5
    text = (tmp_path / "out" / "README.md").read_text()
    for fact in ("16000 Hz", "1024 samples every 160", "64 bands", "60 to 7800 Hz", "0.4", "audio"):
        assert fact in text
    assert '"hop": 160' in (tmp_path / "out" / "preprocessing.json").read_text()


def test_formats_that_know_no_sounds_say_so(tmp_path: Path) -> None:
    for format, match in (("hf", "do not know spectrograms"), ("torchvision", "torchvision")):
        with pytest.raises(OwnlatentError, match=match):
            ownlatent.export(encoder(), format=format, out=tmp_path / format)
