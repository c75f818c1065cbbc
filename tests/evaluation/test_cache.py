"""Kept features: found again, told apart, and never used when damaged."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from ownlatent.evaluation import cache
from ownlatent.evaluation.cache import Features, keep, load, weights_fingerprint


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OWNLATENT_CACHE", str(tmp_path))
    return tmp_path / "features"


def features(seed: int = 0) -> Features:
    values = torch.randn((10, 4), generator=torch.Generator().manual_seed(seed))
    return Features(values, torch.arange(10) % 3, torch.arange(10) + 1)


def test_what_is_kept_is_found_again():
    keep("w", "d", None, features())
    found = load("w", "d", None)
    assert found is not None
    assert all(torch.equal(a, b) for a, b in zip(found, features(), strict=True))


@pytest.mark.parametrize("other", [("v", "d", None), ("w", "e", None), ("w", "d", "layer1")])
def test_other_weights_data_or_layers_have_none(other: tuple[str, str, str | None]):
    keep("w", "d", None, features())
    assert load(*other) is None


@pytest.mark.parametrize("place", [0.2, 0.6, 0.95])
def test_a_damaged_file_is_not_used(folder: Path, place: float, caplog: pytest.LogCaptureFixture):
    keep("w", "d", None, features())
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert load("w", "d", None) is None
    assert "damaged" in caplog.text
    path.write_bytes(content[:50])
    assert load("w", "d", None) is None


def test_the_longest_unused_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch):
    keep("a", "d", None, features())
    size = next(folder.iterdir()).stat().st_size
    monkeypatch.setattr(cache, "_MOST_BYTES", 2 * size)
    (first,) = folder.iterdir()
    os.utime(first, (1, 1))
    keep("b", "d", None, features())
    for path in set(folder.iterdir()) - {first}:
        os.utime(path, (2, 2))
    assert load("a", "d", None) is not None  # now the last used
    keep("c", "d", None, features())
    assert [load(name, "d", None) is not None for name in "abc"] == [True, False, True]


def test_no_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OWNLATENT_CACHE", str(tmp_path / "file"))
    keep("w", "d", None, features())
    assert load("w", "d", None) is None


def test_fingerprint_changes_with_every_weight_buffer_and_fact():
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    plain = weights_fingerprint(network(), "a")
    assert plain == weights_fingerprint(network(), "a") != weights_fingerprint(network(), "b")
    for name in network().state_dict():
        changed = network()
        state = changed.state_dict()
        state[name].add_(1)
        assert weights_fingerprint(changed, "a") != plain, name
