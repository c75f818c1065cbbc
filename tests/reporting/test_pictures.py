"""The pictures are made from the run folder and from arrays alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ownlatent.reporting.pictures import draw_confusion, draw_curves, draw_views

HEADER = "step,epoch,loss,lr,tau,std,images_per_second,waiting,knn\n"


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3)])
def test_views_are_drawn_for_gray_and_colour(tmp_path: Path, shape: tuple[int, ...]):
    rng = np.random.default_rng(0)
    originals = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(8)]
    draw_views(originals, [[rng.random(shape) for _ in range(8)] for _ in range(2)], tmp_path / "views.png")
    with Image.open(tmp_path / "views.png") as picture:
        assert picture.width > 1000 and picture.width > 2 * picture.height
        assert len(picture.convert("L").getcolors(256) or ()) > 50


def test_curves_are_drawn_from_the_rows_there_are(tmp_path: Path):
    assert draw_curves(tmp_path) is False
    (tmp_path / "metrics.csv").write_text(HEADER)
    assert draw_curves(tmp_path) is False
    (tmp_path / "metrics.csv").write_text(HEADER + "1,0.5,4.0,0.1,,0.9,100,0,\n2,1.0,3.0,0.0,,0.8,110,0,0.5\n")
    assert draw_curves(tmp_path) is True
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000


def test_drawing_needs_no_torch(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text(HEADER + "1,0.5,4.0,0.1,0.99,0.9,100,0,\n")
    code = "import sys; from pathlib import Path; from ownlatent.reporting.pictures import draw_curves; "
    code += "draw_curves(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0


@pytest.mark.parametrize("count", [2, 10, 90])
def test_confusion_is_drawn_for_few_and_many_classes(tmp_path: Path, count: int):
    truth = np.random.default_rng(0).integers(0, count, 400)
    truth[:3] = -1
    predicted = np.stack([truth.clip(0), np.random.default_rng(1).integers(0, count, 400)])
    draw_confusion(predicted, truth, [f"class number {n}" for n in range(count)], "k-NN", tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.width > 500 and len(picture.convert("L").getcolors(256) or ()) > 30
