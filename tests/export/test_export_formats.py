"""What an export tells to load it is enough: other libraries give the encoder's features of real photographs."""

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from skimage import data
from torch import nn

from ownlatent import OwnlatentError, backbones, export
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.tap import Tap
from ownlatent.data.decode import fit_square
from ownlatent.export.preprocessing import crop_share

PHOTOGRAPHS = ("astronaut", "coffee", "cat")
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "hf": ("transformers",)}


class Own(nn.Module):
    """A network of a user's, that only its own code can build; it takes any size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(images)).relu())


class OneSize(nn.Module):
    """A network that takes 32x32 pixels and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(256, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(images).relu().flatten(1))


# network, channels, pixels
NETWORKS: dict[str, tuple[str | Callable[[], nn.Module], int, int]] = {
    "resnet18 as it is": ("resnet18", 3, 96),
    "resnet18 for small images": ("resnet18", 3, 32),
    "resnet18 for one channel": ("resnet18", 1, 96),
    "vit": ("vit_tiny_patch16_224", 3, 48),
    "torchvision's mobilenet": ("torchvision:mobilenet_v3_small", 3, 64),
    "torchvision's squeezenet": ("torchvision:squeezenet1_1", 3, 64),
    "ownlatent's": ("resnet10_w16", 3, 32),
    "ownlatent's for two channels": ("resnet8_w64", 2, 32),
    "a user's": (Own, 3, 32),
    "a user's for one size": (OneSize, 3, 32),
    "without BatchNorm": ("resnet18", 3, 64),
}
EXACT = [
    ("timm", "resnet18 as it is"),
    ("timm", "resnet18 for small images"),
    ("timm", "resnet18 for one channel"),
    ("timm", "vit"),
    ("torchvision", "resnet18 for small images"),
    ("torchvision", "torchvision's mobilenet"),
    ("torchvision", "torchvision's squeezenet"),
    ("safetensors", "ownlatent's"),
    ("safetensors", "ownlatent's for two channels"),
    ("torchscript", "ownlatent's"),
    ("torchscript", "vit"),
    ("torchscript", "ownlatent's for two channels"),
    ("torchscript", "a user's"),
    ("torchscript", "a user's for one size"),
    ("hf", "resnet18 as it is"),
    ("hf", "vit"),
]
CLOSE = [("onnx", "ownlatent's"), ("onnx", "a user's"), ("onnx", "a user's for one size")]
ANY_SIZE = {
    ("torchscript", "ownlatent's"): True,
    ("torchscript", "ownlatent's for two channels"): True,
    ("torchscript", "a user's"): True,
    ("torchscript", "a user's for one size"): False,
    ("torchscript", "vit"): False,
    ("onnx", "ownlatent's"): True,
    ("onnx", "a user's"): True,
    ("onnx", "a user's for one size"): False,
}


def needs(format: str) -> None:
    for library in NEEDED.get(format, ()):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")


@cache
def build(name: str) -> Encoder:
    """An encoder with random weights, whose BatchNorm has seen images, so that it matters in which mode it is."""
    network, channels, size = NETWORKS[name]
    torch.manual_seed(0)
    settings = {"norm": "group"} if name == "without BatchNorm" else {}
    backbone = backbones.create(
        network if isinstance(network, str) else network(), channels=channels, image_size=size, **settings
    )
    encoder = Encoder(backbone, size, [0.485, 0.456, 0.406, 0.5][:channels], [0.229, 0.224, 0.225, 0.3][:channels])
    norms = [part for part in encoder.modules() if isinstance(part, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # as after a long training, features are neither huge nor tiny
    encoder.train()(torch.from_numpy(photographs(channels, size, size)))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return encoder.eval()


def photographs(channels: int, height: int, width: int) -> np.ndarray:
    """Real photographs, float32 in [0, 1] (3, channels, height, width)."""
    found = [np.asarray(Image.fromarray(getattr(data, name)()).resize((width, height))) for name in PHOTOGRAPHS]
    return (np.stack(found).transpose(0, 3, 1, 2)[:, [0, 1, 2, 0][:channels]] / 255).astype(np.float32)


def features(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return encoder(torch.from_numpy(images)).numpy()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Of each export its encoder, its folder and what a process without ownlatent gets by its lines of code.

    All of them in one process, because starting one takes longer than loading.
    """
    root, jobs, found = tmp_path_factory.mktemp("exports"), [], {}
    for number, (format, name) in enumerate([*EXACT, *CLOSE]):
        if any(importlib.util.find_spec(library) is None for library in NEEDED.get(format, ())):
            continue
        encoder = build(name)
        done = export(encoder, format=format, out=root / f'{number} of "{format}"')  # a name that has to be quoted
        sizes = [(encoder.image_size,) * 2]
        if ANY_SIZE.get((format, name)):
            sizes += [(encoder.image_size + 8, encoder.image_size + 24), (encoder.image_size - 7, encoder.image_size)]
        given = []
        for height, width in sizes:
            images = photographs(len(encoder.mean), height, width)
            files = [str(root / f"{number}-{height}-{width}-{what}.npy") for what in ("images", "features")]
            np.save(files[0], images)
            jobs.append({"lines": done.lines, "images": files[0], "features": files[1]})
            given.append((images, files[1]))
        found[format, name] = encoder, done, given
    (root / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("loading.py")
    ended = subprocess.run([sys.executable, script, root / "jobs.json"], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return found


@pytest.mark.parametrize(("format", "name"), EXACT)
def test_the_lines_alone_give_exactly_the_encoders_features(format: str, name: str, loaded: dict):
    needs(format)
    encoder, done, given = loaded[format, name]
    for images, file in given:
        expected = features(encoder, images)
        assert expected.std(0).max() > 0.01
        np.testing.assert_array_equal(np.load(file), expected)
    assert done.difference == 0


@pytest.mark.parametrize(("format", "name"), CLOSE)
def test_onnx_runtime_gives_the_encoders_features(format: str, name: str, loaded: dict):
    needs(format)
    encoder, _, given = loaded[format, name]
    for images, file in given:
        np.testing.assert_allclose(np.load(file), features(encoder, images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("format", "name"), list(ANY_SIZE))
def test_whether_it_takes_any_size_is_said(format: str, name: str, loaded: dict):
    needs(format)
    encoder, done, _ = loaded[format, name]
    told = "of any size" if ANY_SIZE[format, name] else f"of {encoder.image_size}x{encoder.image_size} pixels, and no"
    assert told in (done.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["ownlatent's", "vit"])
def test_torchscript_takes_bytes_alike_and_refuses_what_it_would_get_wrong(name: str, loaded: dict):
    encoder, done, _ = loaded["torchscript", name]
    net = torch.jit.load(str(done.folder / "encoder.pt"))
    images = torch.from_numpy(photographs(3, encoder.image_size, encoder.image_size) * 255).byte()
    with torch.no_grad():
        torch.testing.assert_close(net(images), encoder(images), atol=0, rtol=0)
        with pytest.raises(torch.jit.Error, match="uint8"):
            net(images.int())
        if name == "vit":
            with pytest.raises(torch.jit.Error, match="trained at"):
                net(torch.rand(1, 3, 64, 64))


def test_onnx_says_its_preprocessing(loaded: dict):
    needs("onnx")
    import onnxruntime

    _, done, _ = loaded["onnx", "ownlatent's"]
    session = onnxruntime.InferenceSession(str(done.folder / "model.onnx"))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["mean"]) == [0.485, 0.456, 0.406] and json.loads(about["image_size"]) == 32
    assert [axis for axis in session.get_inputs()[0].shape if not isinstance(axis, int)] == ["batch", "height", "width"]
    assert {path.name for path in done.folder.iterdir()} == {"model.onnx", "preprocessing.json", "README.md"}


@pytest.mark.parametrize("name", ["resnet18 for small images", "without BatchNorm", "a user's"])
def test_safetensors_holds_all_tensors_and_says_what_they_are(name: str, tmp_path: Path):
    encoder = build(name)
    done = export(encoder, format="safetensors", out=tmp_path / "out")
    names: dict = {}
    exec("\n".join(done.lines), names)
    own = encoder.backbone.net.state_dict()
    assert names["weights"].keys() == own.keys()
    assert all(torch.equal(own[key], names["weights"][key]) for key in own)
    with safe_open(str(done.folder / "model.safetensors"), "pt") as file:
        about = file.metadata()
    assert json.loads(about["std"]) == [0.229, 0.224, 0.225] and about["interpolation"] == "bilinear"
    assert about["network"] == ("a module of the author's own" if name == "a user's" else "resnet18")


@pytest.mark.parametrize(
    ("format", "name"), [("timm", "resnet18 as it is"), ("hf", "resnet18 as it is"), ("hf", "vit")]
)
def test_the_other_library_prepares_photographs_alike(format: str, name: str, loaded: dict):
    """By the files alone: resizing, cutting out, mean and std."""
    needs(format)
    encoder, done, _ = loaded[format, name]
    image = data.astronaut()
    if format == "hf":
        import transformers

        processor = transformers.AutoImageProcessor.from_pretrained(done.folder)
        prepared = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    else:
        import timm

        net = timm.create_model(f"local-dir:{done.folder}", pretrained=True)
        prepared = timm.data.create_transform(**timm.data.resolve_model_data_config(net))(Image.fromarray(image))
    fitted = fit_square(torch.from_numpy(image).permute(2, 0, 1), encoder.image_size)
    expected = (fitted.float() / 255 - encoder.mean) / encoder.std
    assert prepared.shape == expected.shape
    assert (prepared - expected).abs().max() <= 1.01 / 255 / 0.224, "one gray level: Pillow rounds otherwise"


@pytest.mark.parametrize("size", [16, 32, 64, 65, 96, 100, 127, 160, 224, 288, 299, 384, 448, 518])
def test_timms_share_of_the_crop_leads_to_the_same_size(size: int):
    shorter = size if size <= 64 else round(size / 0.875)
    assert math.floor(size / crop_share(size)) == shorter
    assert json.loads(json.dumps(crop_share(size))) == crop_share(size)


REFUSED = [
    ("hf", "resnet18 for small images", "conv1: 3 input channels, 3x3 with stride 1"),
    ("hf", "ownlatent's", "no network that transformers has"),
    ("timm", "ownlatent's", "no network that timm has"),
    ("timm", "torchvision's mobilenet", "no network that timm has"),
    ("timm", "a user's", "does not know how to build it"),
    ("timm", "without BatchNorm", "BatchNorm was replaced"),
    ("torchvision", "without BatchNorm", "other tensors"),
    ("torchvision", "ownlatent's", "no network of this name"),
    ("torchvision", "vit", "no network of this name"),
    ("torchvision", "a user's", "does not know how to build it"),
]


@pytest.mark.parametrize(("format", "name", "why"), REFUSED)
def test_what_a_format_is_not_for_is_refused_with_those_that_work(format: str, name: str, why: str, tmp_path: Path):
    needs(format)
    with pytest.raises(OwnlatentError, match=f"(?s){why}.*: export it as safetensors, torchscript or onnx"):
        export(build(name), format=format, out=tmp_path / "deep" / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["timm", "torchvision", "hf"])
def test_an_inner_layer_is_no_librarys_network(format: str, tmp_path: Path):
    needs(format)
    encoder = deepcopy(build("resnet18 as it is"))
    encoder.backbone.tap = Tap("layer3")
    with pytest.raises(OwnlatentError, match=r"come from its layer layer3 .* export it as safetensors"):
        export(encoder, format=format, out=tmp_path / "out")


def test_a_network_of_transformers_own_is_written_by_it(tmp_path: Path):
    transformers = pytest.importorskip("transformers")

    class Tokens(transformers.ViTModel):
        def forward(self, pixel_values: torch.Tensor, **rest: object) -> torch.Tensor:
            return super().forward(pixel_values, **rest).last_hidden_state

    torch.manual_seed(0)
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    net = Tokens(transformers.ViTConfig(**settings, image_size=32, patch_size=8))
    encoder = Encoder(backbones.create(net, image_size=32), 32, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]).eval()
    done = export(encoder, format="hf", out=tmp_path / "out")
    assert done.difference == 0 and ".last_hidden_state.mean(1)" in done.lines[-1]
    processor = transformers.AutoImageProcessor.from_pretrained(done.folder)
    prepared = processor(Image.fromarray(data.astronaut()), return_tensors="pt")["pixel_values"]
    fitted = fit_square(torch.from_numpy(data.astronaut()).permute(2, 0, 1), 32)
    torch.testing.assert_close(prepared[0], (fitted / 255 - encoder.mean) / encoder.std, atol=1.01 / 255 / 0.2, rtol=0)
