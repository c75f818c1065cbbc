"""What is found of an installation, whole or not."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ownlatent import doctor
from ownlatent.checks import doctor as room


def test_this_installation_is_whole():
    found = {finding.part: finding for finding in doctor()}
    assert {"ownlatent", "machine", "disk", "cache", "torch", "devices", "engine", "views", "formats"} <= set(found)
    assert not [str(finding) for finding in found.values() if finding.state == "broken"]
    assert "JPEG" in found["formats"].text and "PNG" in found["formats"].text


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    lacking = [str(finding) for finding in doctor() if finding.state == "lacking"]
    assert any("pip install 'ownlatent[parquet]'" in line for line in lacking)


def test_what_is_broken_is_named_and_the_rest_still_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def fail() -> str:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(room, "_torch", fail)
    found = [str(finding) for finding in doctor()]
    assert "torch      BROKEN: RuntimeError: operator torchvision::nms does not exist" in found
    assert any(line.startswith("formats") for line in found)


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("OWNLATENT_CACHE", str(tmp_path / "file"))
    cache = next(finding for finding in doctor() if finding.part == "cache")
    assert cache.state == "lacking" and "OWNLATENT_CACHE" in cache.text


def test_the_command_exits_with_1_where_something_is_broken(tmp_path: Path):
    done = subprocess.run([sys.executable, "-m", "ownlatent", "doctor"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert not list(tmp_path.iterdir())
    broken = "import sys; sys.modules['timm'] = None\nfrom ownlatent.cli import main\nmain(['doctor'])"
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "engine     BROKEN: ModuleNotFoundError" in done.stdout
    assert importlib.import_module("timm")
