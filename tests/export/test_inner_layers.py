"""Encoders whose features come from an inner layer: a file with the whole computation has them, one of weights not."""

from pathlib import Path

import pytest
import torch

from ownlatent import OwnlatentError, backbones, export
from ownlatent.backbones.encoder import Encoder


def inner() -> Encoder:
    torch.manual_seed(0)
    backbone = backbones.create("resnet18", image_size=32, layer="layer2")
    return Encoder(backbone, 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)).eval()


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
def test_a_recorded_encoder_gives_the_layer(format: str, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX needs onnx, onnxscript and onnxruntime")
        pytest.importorskip("onnxscript", reason="ONNX needs onnx, onnxscript and onnxruntime")
    done = export(inner(), format=format, out=tmp_path / "out")
    assert done.difference < 1e-4  # measured by the other library
    whole = sum(p.numel() for p in backbones.create("resnet18", image_size=32).parameters())
    weights = next(path for path in done.folder.iterdir() if path.suffix in (".pt", ".onnx"))
    if format == "onnx":
        assert weights.stat().st_size < 4 * whole / 2, "what follows the layer is in the file"


@pytest.mark.parametrize("format", ["timm", "torchvision"])
def test_libraries_that_do_not_know_of_the_layer_are_not_asked(format: str, tmp_path: Path) -> None:
    with pytest.raises(OwnlatentError, match="its features come from its layer layer2"):
        export(inner(), format=format, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
