"""Networks of transformers by name: a folder with a configuration is enough, and afterwards not even that."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.export.encoder import load_encoder, save_encoder

transformers = pytest.importorskip("transformers", reason="networks of Hugging Face need transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the configuration of a small Vision Transformer for colour images of 224 px, without weights."""
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    config.save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_it_is_built_for_the_images_and_again_without_the_folder(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = backbones.create(f"hf:{folder}", image_size=64, channels=1, layer="[last_hidden_state]", pool="class")
    assert backbone.num_features == 32 and backbone.net.config.num_hidden_layers == 2
    assert (backbone.net.config.image_size, backbone.net.config.num_channels) == (64, 1)
    encoder = Encoder(backbone, 64, (0.5,), (0.2,)).eval()
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        tokens = backbone.net(encoder.normalized(images)).last_hidden_state
        torch.testing.assert_close(encoder(images), tokens[:, 0])
    save_encoder(encoder, tmp_path)
    shutil.rmtree(folder)
    with torch.no_grad():
        assert torch.equal(load_encoder(tmp_path)(images), encoder(images))


def test_settings_change_its_configuration(folder: Path) -> None:
    assert len(backbones.create(f"hf:{folder}", image_size=32, num_hidden_layers=1).net.state_dict()) < len(
        backbones.create(f"hf:{folder}", image_size=32).net.state_dict()
    )
    with pytest.raises(OwnlatentError, match="has no 'num_hiden_layers': the nearest"):
        backbones.create(f"hf:{folder}", image_size=32, num_hiden_layers=1)


def test_a_folder_without_a_configuration_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(OwnlatentError) as refused:
        backbones.create(f"hf:{tmp_path}", image_size=32)
    assert "\n" not in str(refused.value)
