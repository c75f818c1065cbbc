"""Runs with networks of the user's own and inner layers, by the command line and in Python."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ownlatent import OwnlatentError, cli, evaluate, load_encoder, pretrain
from ownlatent.api import layers
from ownlatent.run import Run

TINY = {"image_size": 16, "batch_size": 16, "precision": "32", "accelerator": "cpu", "epochs": 1}
TINY |= {"method": "byol", "method.hidden": 16, "method.projection": 8}
OPTIONS = [text for name, value in TINY.items() for text in ("--" + name.replace("_", "-"), str(value))]
NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, width=8):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
"""

Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The exit code of a command, given in an empty folder with nets.py in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)

    def run(*arguments: str | Path) -> int:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        return int(stopped.value.code or 0)

    return run


def test_a_network_in_a_file_from_training_to_its_verdict(
    command: Command, image_folder: Path, class_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = ("--backbone", "nets.py:Net", "--backbone.width", "12", "--layer", "body")
    assert command("pretrain", image_folder, "--out", "run", *own, *OPTIONS) == 0
    run = Run("run")
    assert (run.recipe.backbone, run.recipe.layer) == ("module:Net", "body")
    assert "12 features from body" in (run.folder / "log.txt").read_text()
    stored = json.loads((run.folder / "encoder.json").read_text())
    assert stored["format"] == 2 and stored["features"]["layer"] == "body" and stored["settings"] == {"width": 12}

    judge = ("evaluate", "run", "--test", class_folder, "--accelerator", "cpu", "--without", "supervised")
    assert command(*judge) == 2, "no code is run that a file of the folder names"
    assert "--network FILE.py:NAME" in capfd.readouterr().err
    assert command(*judge, "--network", "nets.py:Net") == 0
    subjects = {entry["subject"] for entry in Run("run").results["evaluations"]}
    assert {"trained", "random", "pixels"} <= subjects

    encoder = load_encoder("run", "nets.py:Net")
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected = encoder.backbone.net.body(encoder.normalized(images)).mean((2, 3))
    torch.testing.assert_close(encoder(images), expected)


def test_a_run_that_goes_on_is_given_its_network_again(
    command: Command, image_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = ("--backbone", "nets.py:Net")
    assert command("pretrain", image_folder, "--out", "run", *own, *OPTIONS) == 0
    assert command("pretrain", "--out", "run", "--extend", "1ep") == 2
    assert "--backbone FILE.py:NAME" in capfd.readouterr().err
    assert command("pretrain", "--out", "run", "--extend", "1ep", *own) == 0
    assert Run("run").recipe.epochs == 2


def test_the_same_seed_gives_the_same_network(command: Command, image_folder: Path) -> None:
    weights = []
    for out, seed in (("one", 1), ("again", 1), ("other", 2)):
        given = ("--backbone", "nets.py:Net", "--seed", str(seed), "--optim.lr", "1e-12")
        assert command("pretrain", image_folder, "--out", out, *given, *OPTIONS) == 0
        weights.append(load_file(f"{out}/encoder.safetensors")["head.weight"])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def own_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3))


@pytest.mark.parametrize("in_place", [False, True])
def test_a_module_is_trained_in_place_if_asked(in_place: bool, image_folder: Path, tmp_path: Path) -> None:
    net = own_net()
    before = deepcopy(net.state_dict())
    run = pretrain(image_folder, out=tmp_path / "run", backbone=net, in_place=in_place, layer=1, **TINY)
    assert (run.encoder.backbone.net is net) == in_place and run.encoder.num_features == 8
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()) != in_place
    assert torch.equal(run.encoder.backbone.net[3].weight, before["3.weight"]), "what follows the layer does not change"
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(load_encoder(run.folder, own_net())(images), run.encoder(images))


def test_an_adapter_gives_the_images_as_the_network_takes_them(
    image_folder: Path, class_folder: Path, tmp_path: Path
) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 6, 3)

        def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"seen": self.body(given["image"])}

    def adapter(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        return net({"image": x})

    run = pretrain(image_folder, out=tmp_path / "run", backbone=Picky(), adapter=adapter, layer="[seen]", **TINY)
    assert run.encoder.num_features == 6
    with pytest.raises(OwnlatentError, match="through an adapter"):
        load_encoder(run.folder, Picky())
    from ownlatent.backbones import own_network

    entries = evaluate(run, test=class_folder, network=own_network(Picky(), adapter), without="supervised")
    assert {"trained", "random"} <= {entry["subject"] for entry in entries}


def test_weights_of_other_training_code_are_found_behind_their_prefix(image_folder: Path, tmp_path: Path) -> None:
    net = own_net()
    tensors = {f"module.encoder_q.{name}": value.clone() for name, value in own_net().state_dict().items()}
    tensors |= {"module.queue": torch.zeros(3), "module.encoder_q.9.weight": torch.zeros(2)}
    tensors["module.encoder_q.3.weight"] = torch.full((10, 8, 3, 3), 0.5)
    save_file(tensors, tmp_path / "moco.safetensors")
    given = {**TINY, "optim.lr": 1e-12, "init_from": str(tmp_path / "moco.safetensors")}
    run = pretrain(image_folder, out=tmp_path / "run", backbone=net, **given)
    torch.testing.assert_close(run.encoder.backbone.net[3].weight, torch.full((10, 8, 3, 3), 0.5), atol=1e-6, rtol=0)
    said = (run.folder / "log.txt").read_text()
    assert "9 of the network's 9 tensors" in said and "names begin with encoder_q." in said
    assert re.search(r"unused: .*9\.weight", said) and re.search(r"loaded: 0\.weight, 0\.bias, 1\.weight", said)


def test_layers_are_shown_with_what_they_give(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("layers", "nets.py:Net", "--image-size", "32", "--backbone.width", "6") == 0
    rows = [re.split(r"  +", line) for line in capfd.readouterr().out.splitlines()]
    assert rows[0] == ["NAME", "KIND", "GIVES", "PARAMETERS"]
    assert ["body", "Sequential", "6x15x15", "180"] in rows and ["head", "Linear", "5", "35"] in rows
    assert command("layers", "torchvision:resnet18", "--depth", "1") == 0
    shown = capfd.readouterr().out
    assert re.search(r"layer3 +Sequential +256x14x14", shown) and "more layers lie deeper: --depth 2" in shown
    assert command("layers", "resnet181") == 2
    assert "the nearest" in capfd.readouterr().err


def test_layers_of_an_encoder_of_sounds(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("layers", "byol_a_512") == 0
    assert re.search(r"features +Sequential +64x8x12", capfd.readouterr().out)  # of 64 bands and 96 frames
    assert command("layers", "byol_a_512", "--channels", "2") == 2
    assert "leave out --image-size and --channels" in capfd.readouterr().err


def test_layers_of_modules_that_give_several_tensors() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"low": x[..., ::2, ::2], "flat": x.flatten(1)}

    assert any("[low] 3x4x4, [flat] 192" in line for line in layers(Two(), image_size=8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "nets.py:Net", "--layer", "bodi"), "no layer 'bodi': the nearest are body"),
        (("--backbone", "nets.py:Nett"), "defines no 'Nett'"),
        (("--backbone", "nets.py:Net", "--layer", "body", "--compile", "on"), "leave out --compile"),
        (("--backbone", "nets.py:Net", "--backbone.depth", "2"), "takes no setting 'depth'"),
        (("--pool", "first"), "--pool is one of mean, class"),
        (("--layer", "99"), "no layer 99"),
    ],
)
def test_a_wrong_network_or_layer_is_one_sentence(
    options: tuple[str, ...], message: str, command: Command, image_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("pretrain", image_folder, "--out", "run", *OPTIONS, *options) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not Path("run").exists()
