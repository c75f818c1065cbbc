"""Exports of real run folders by the command line: what is said, written, kept, and refused."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import nn

from ownlatent import OwnlatentError, Run, cli, evaluate, export, load_encoder, pretrain
from ownlatent.export import formats

TINY = {"backbone": "resnet10_w16", "image_size": 16, "batch_size": 16, "precision": "32", "accelerator": "cpu"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path, class_folder: Path) -> Path:
    """A finished run that was evaluated by k-NN."""
    run = pretrain(image_folder, out=tmp_path_factory.mktemp("runs") / "run", method="byol", epochs=1, **TINY)
    evaluate(run, test=class_folder, k="5", **{"without": "supervised"})
    return run.folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def command(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", *map(str, arguments)])
    said = capfd.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


def refused(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    code, _, error = command(capfd, *arguments)
    assert code == 2 and error.startswith("ownlatent: ") and error.count("\n") == 1, error
    return error


def test_what_the_command_prints_loads_what_it_wrote(run: Path, capfd: pytest.CaptureFixture[str]):
    code, out, error = command(capfd, run, "--format", "safetensors", "--licence", "cc-by-4.0")
    assert (code, error) == (0, "")
    folder = run / "exported" / "safetensors"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "preprocessing.json", "README.md"}
    lines = out.partition("Load it with:\n")[2].splitlines()
    assert lines and str(folder) in out
    encoder = load_encoder(run)
    images = torch.rand(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    names = {"images": images}
    with torch.no_grad():
        exec("\n".join(line.removeprefix("  ") for line in lines), names)
        assert torch.equal(names["features"], encoder(images))
    facts = json.loads((folder / "preprocessing.json").read_text())
    assert facts["image_size"] == facts["centre_crop"] == facts["resize_shorter_side"] == 16
    assert facts["mean"] == [0.485, 0.456, 0.406] and facts["divide_by"] == 255 and facts["channels"] == 3


def test_the_card_tells_what_the_run_folder_knows(run: Path, image_folder: Path, class_folder: Path):
    folder = export(run, format="torchscript", licence="Our own terms, version 2").folder
    card = (folder / "README.md").read_text()
    header = card.split("---\n")[1]
    assert 'license: other\nlicense_name: "Our own terms, version 2"\n' in header and "library_name: torch\n" in header
    assert "- byol\n" in header and "- self-supervised-learning\n" in header
    assert "# resnet10_w16, trained by byol" in card and "without labels" in card
    entries = Run(run).results["evaluations"]
    assert {entry["subject"] for entry in entries} == {"trained", "random", "pixels"}
    for entry in entries:
        assert f"| {entry['top1']:.1%} |" in card
    (verdict,) = Run(run).results["verdicts"]
    assert verdict["words"][0] in card and "k-NN, k 5" in card
    assert Run(run).results["health"]["word"] in card and f"torch {version('torch')}" in card
    assert image_folder.name in card and class_folder.name in card and "lr: " in card
    assert 'torch.jit.load("./encoder.pt")' in card


def test_nothing_that_is_written_names_a_folder_of_the_authors(run: Path, image_folder: Path):
    for format in ("safetensors", "torchscript"):
        for path in export(Run(run), format=format).folder.iterdir():
            content = path.read_bytes()
            for place in (run.parent, image_folder.parent, Path.home(), Path(__file__).parents[2]):
                assert str(place).encode() not in content, f"{path.name} names {place}"


def test_a_folder_with_an_encoder_alone_is_enough(run: Path, tmp_path: Path):
    (tmp_path / "alone").mkdir()
    for name in ("encoder.json", "encoder.safetensors"):
        shutil.copy(run / name, tmp_path / "alone")
    done = export(tmp_path / "alone", format="safetensors")
    assert done.folder == tmp_path / "alone" / "exported" / "safetensors"
    card = (done.folder / "README.md").read_text()
    assert "license: unknown" in card and "Not known" in card and "self-supervised" not in card


def test_an_encoder_in_python_keeps_its_mode_and_the_random_state(run: Path, tmp_path: Path):
    encoder = load_encoder(run).train()
    state = torch.get_rng_state()
    done = export(encoder, format="safetensors", out=tmp_path / "out")
    assert done.difference == 0 and encoder.training
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(OwnlatentError, match="name the folder"):
        export(encoder, format="safetensors")


def test_what_is_there_is_replaced_only_if_wanted(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    arguments = (run, "--format", "safetensors", "--out", tmp_path / "out")
    assert command(capfd, *arguments)[0] == 0
    before = (tmp_path / "out" / "README.md").read_bytes()
    assert "--overwrite" in refused(capfd, *arguments, "--licence", "mit")
    assert (tmp_path / "out" / "README.md").read_bytes() == before
    assert command(capfd, *arguments, "--licence", "mit", "--overwrite")[0] == 0
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_a_folder_that_holds_something_else_is_never_replaced(run: Path, capfd: pytest.CaptureFixture[str]):
    before = sorted(run.iterdir())
    for out in (run, run / "recipe.json", run / "checkpoints"):
        assert "give another --out" in refused(capfd, run, "--format", "safetensors", "--out", out, "--overwrite")
    assert sorted(path for path in run.iterdir() if path.name != ".lock") == [p for p in before if p.name != ".lock"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    (tmp_path / "shut").mkdir(mode=0o500)
    assert "cannot write" in refused(capfd, run, "--format", "safetensors", "--out", tmp_path / "shut" / "out")


def test_a_file_in_the_way_is_one_sentence(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("text")
    assert "cannot write" in refused(capfd, run, "--format", "safetensors", "--out", tmp_path / "file" / "out")


def test_an_unknown_format_names_the_nearest(run: Path, capfd: pytest.CaptureFixture[str]):
    assert "the nearest is onnx" in refused(capfd, run, "--format", "onx")
    assert "safetensors" in refused(capfd, run, "--format", "_code")
    assert "hf or onnx or" in refused(capfd, run)
    assert not (run / "exported").exists()


def test_a_refusal_leaves_the_run_as_it_was(run: Path, capfd: pytest.CaptureFixture[str]):
    assert "resnet10_w16 cannot be exported as timm" in refused(capfd, run, "--format", "timm")
    assert not (run / "exported").exists()


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert "holds no encoder" in refused(capfd, tmp_path, "--format", "onnx")


@pytest.mark.parametrize(("format", "library"), [("onnx", "onnxscript"), ("hf", "transformers")])
def test_a_missing_library_is_named_with_its_extra(
    format: str, library: str, run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, library, None)
    error = refused(capfd, run, "--format", format)
    assert "pip install 'ownlatent[" in error and ("onnx" in error or "transformers" in error)
    assert not (run / "exported").exists()


def test_what_loads_otherwise_is_not_handed_out(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The comparison is real: lines that lead to other features, or to none, are refused."""
    chosen = formats.load("safetensors")
    write = chosen.write
    for line, why in (("features = features + 0.01", "differs"), ("raise ValueError('no')", r"cannot load .*\(no\)")):
        monkeypatch.setattr(chosen, "write", lambda *a, line=line: _with(write(*a), line))
        with pytest.raises(OwnlatentError, match=why):
            export(run, format="safetensors", out=tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def _with(written: formats.Written, line: str) -> formats.Written:
    return formats.Written((*written.lines, line))


def test_a_run_that_is_replaced_takes_its_exports_along(run: Path, image_folder: Path):
    export(run, format="safetensors")
    pretrain(image_folder, out=run, method="byol", epochs=1, overwrite=True, **TINY)
    assert not (run / "exported").exists()


def test_a_users_own_network_is_given_again(tmp_path: Path):
    kept = Path(__file__).parents[1] / "fixtures" / "run-format-1"
    shutil.copytree(kept, tmp_path / "run")
    fresh = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with pytest.raises(OwnlatentError, match="network"):
        export(tmp_path / "run", format="torchscript")
    done = export(tmp_path / "run", format="torchscript", network=fresh)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = load_encoder(tmp_path / "run", fresh)(images)
        torch.testing.assert_close(torch.jit.load(str(done.folder / "encoder.pt"))(images), expected)


def test_the_verb_can_be_called_whatever_was_imported_before():
    """The room that writes exports has the verb's name."""
    code = (
        "import ownlatent; first = ownlatent.export; import ownlatent.export.formats; again = ownlatent.export\n"
        "from ownlatent import OwnlatentError\n"
        "for verb in (first, again):\n"
        "    try: verb('nowhere', format='no such')\n"
        "    except OwnlatentError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("there is no format 'no such'") == 2, done.stderr
