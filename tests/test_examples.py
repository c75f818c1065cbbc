"""Every example runs, shortened."""

import gzip
import logging
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SHORTENED = {
    "finetune_pytorch.py": ["--minutes", "0.03", "--steps", "3"],
    "plain_pytorch.py": ["--steps", "12"],
    "segmentation_head.py": ["--minutes", "0.03", "--steps", "2"],
    "sounds.py": ["--minutes", "0.03"],
    "timm_create_model.py": ["--minutes", "0.03"],
}
# Runs the example as a script and then says whether the engine was loaded.
WITHOUT_LIGHTNING = ("fashion_mnist.py", "plain_pytorch.py")
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("lightning", any(name.partition(".")[0] in ("lightning", "pytorch_lightning") for name in sys.modules))
"""


def fashion_mnist(said: str, folder: Path) -> None:
    raw = folder / "data" / "drawn" / "FashionMNIST" / "raw"
    content = gzip.decompress((raw / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert content[:16] == np.array([0x803, 1000, 28, 28], ">u4").tobytes() and len(content) == 16 + 1000 * 28 * 28
    points = np.loadtxt(folder / "fashion_mnist.csv", delimiter=",", skiprows=1)
    assert points.shape == (1000, 4) and np.allclose(np.linalg.norm(points[:, :3], axis=1), 1, atol=1e-3)
    assert set(points[:, 3]) == {0, 1, 3, 8}
    assert Image.open(folder / "fashion_mnist.png").size == (700, 600)
    assert "lightning False" in said.splitlines()


def finetune_pytorch(said: str, folder: Path) -> None:
    assert len(re.findall(r"^(?:fine-tuned|from scratch) +\d+\.\d%$", said, re.MULTILINE)) == 2


def plain_pytorch(said: str, folder: Path) -> None:
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", said)]
    assert len(losses) == 3 and all(0 <= loss <= 8 for loss in losses) and losses[-1] < losses[0]
    assert "lightning False" in said.splitlines()


def segmentation_head(said: str, folder: Path) -> None:
    shares = [float(share) for share in re.findall(r"mean IoU (\S+)", said)]
    assert len(shares) == 2 and all(0 <= share <= 1 for share in shares)


def sounds(said: str, folder: Path) -> None:
    right = re.search(r"right with ten labels of each kind: (\S+)%", said)
    assert right and float(right[1]) > 100 / 14
    assert (folder / "runs" / "sounds" / "report.html").exists()


def timm_create_model(said: str, folder: Path) -> None:
    apart = re.search(r"features \(8, 512\), (\S+) from the encoder's", said)
    assert apart and float(apart[1]) < 1e-4
    assert "logits (2, 14)" in said


CHECKS = {
    check.__name__: check
    for check in (fashion_mnist, finetune_pytorch, plain_pytorch, segmentation_head, sounds, timm_create_model)
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(path), *SHORTENED.get(path.name, ["--steps", "3"])]
    if path.name in WITHOUT_LIGHTNING:
        command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", RUN, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    else:  # in this process, which has imported everything already
        monkeypatch.setattr(sys, "argv", arguments)
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # of pytest; with them a run would print nothing
        monkeypatch.chdir(tmp_path)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=DeprecationWarning, module="__main__")
            runpy.run_path(str(path), run_name="__main__")
        said = capsys.readouterr().out
    assert said
    if path.stem in CHECKS:
        CHECKS[path.stem](said, tmp_path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (40 if path.name == "plain_pytorch.py" else 60)


def test_the_loop_in_plain_pytorch_is_there() -> None:
    assert "plain_pytorch.py" in [path.name for path in EXAMPLES]
