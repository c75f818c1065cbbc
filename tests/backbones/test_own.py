"""Networks from a Python file, and modules of the user's own."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ownlatent import backbones
from ownlatent.errors import OwnlatentError

FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, channels, width=8):
        super().__init__()
        self.body = nn.Conv2d(channels, width, 3)
    def forward(self, x):
        return self.body(x)

def small():
    return nn.Conv2d(3, 4, 3)

def number():
    return 7

_hidden = small
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(FILE)
    return path


def test_a_class_in_a_file_is_given_the_channels_and_its_settings(file: Path) -> None:
    own = backbones.own_network(f"{file}:Net")
    made = backbones.create(own, channels=1, image_size=16, width=12)
    assert made.net.body.weight.shape == (12, 1, 3, 3) and made.num_features == 12
    assert made.settings == {"width": 12} and made.spec is None


def test_its_weights_follow_the_seed(file: Path) -> None:
    own = backbones.own_network(f"{file}:small")

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return backbones.create(own, image_size=16).net.weight

    assert torch.equal(weights(3), weights(3)) and not torch.equal(weights(3), weights(4))


def test_a_module_is_copied_unless_it_is_to_be_trained_in_place() -> None:
    net = nn.Conv2d(3, 4, 3)
    copied = backbones.own_network(net)(3, 16)
    assert copied is not net and torch.equal(copied.weight, net.weight)
    assert backbones.own_network(net, in_place=True)(3, 16) is net


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nets.py:Nett", "defines no 'Nett': the nearest is Net"),
        ("nets.py:_hidden", "defines no '_hidden'"),
        ("nets.py:number", "gives a int, not a torch.nn.Module"),
        ("gone.py:Net", "there is no file"),
        ("nets.py:", "FILE.py:NAME"),
        ("broken.py:Net", "cannot be run .SyntaxError"),
    ],
)
def test_a_wrong_name_is_refused_in_one_sentence(
    file: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    Path("broken.py").write_text("def Net(:")
    with pytest.raises(OwnlatentError, match=message) as refused:
        backbones.create(backbones.own_network(name), image_size=16)
    assert "\n" not in str(refused.value)


def test_an_unknown_setting_is_told_the_nearest(file: Path) -> None:
    with pytest.raises(OwnlatentError, match="no setting 'widht': the nearest is width"):
        backbones.create(backbones.own_network(f"{file}:Net"), image_size=16, widht=3)
    with pytest.raises(OwnlatentError, match="takes no setting 'width'"):
        backbones.create(nn.Conv2d(3, 4, 3), image_size=16, width=3)
