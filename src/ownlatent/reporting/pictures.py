"""The static pictures of a run folder."""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ownlatent.types import NOUNS, Modality

# Columns of metrics.csv that would crowd the picture; TensorBoard has them all.
NOT_DRAWN = {
    *("step", "epoch", "progress", "seconds", "waiting", "weight_norm", "features_std", "rank_share", "correlation"),
    *("projection_rank", "uniformity", "alignment", "predictor_alignment", "target_distance", "weight_change"),
    "views_apart",
}
# Okabe and Ito's colours, which the colour-blind can tell apart.
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"

PANELS = (
    ("loss", "loss", _BLUE),
    ("std", "std of projections x sqrt(d)", _ORANGE),
    ("rank", "effective rank of the features", _PURPLE),
    ("gradient_norm", "gradient norm", _BLUE),
    ("lr", "learning rate", _GREEN),
    ("tau", "tau", _PURPLE),
    ("images_per_second", "images / s", _BLUE),
    ("knn", "k-NN accuracy on --val", _ORANGE),
)
"""Columns of metrics.csv that are drawn first, with title and colour; the method's own follow."""

_DPI = 150
_TILE, _GAP, _LABEL = 160, 8, 90  # pixels of the sheet of views
_STEP = _TILE + _GAP


def draw_views(
    originals: Sequence[np.ndarray], views: Sequence[Sequence[np.ndarray]], path: Path, modality: Modality = "image"
) -> None:
    """A row of images, or sounds, and, under each, what the augmentation made of it.

    originals: n arrays (H, W) or (H, W, 3) in [0, 1]; views: V rows of n such arrays, of any sizes;
    they are numbered from 0, as the options --views.0.blur and so on number them.
    """
    rows = [(NOUNS[modality][:-1], list(originals)), *((f"view {v}", list(row)) for v, row in enumerate(views))]
    # One sheet in one set of axes: matplotlib takes a second and a half for twenty-four of them.
    sheet = Image.new("RGB", (len(originals) * _STEP - _GAP, len(rows) * _STEP - _GAP), "white")
    for y, (_, images) in enumerate(rows):
        for x, image in enumerate(images):
            sheet.paste(_tile(image), (x * _STEP, y * _STEP))
    width = sheet.width + _LABEL
    figure = Figure(figsize=(width / _DPI, sheet.height / _DPI), dpi=_DPI)
    axis = figure.add_axes((_LABEL / width, 0, sheet.width / width, 1))
    axis.imshow(sheet, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([y * _STEP + _TILE / 2 for y in range(len(rows))], [name for name, _ in rows], fontsize=9)
    axis.tick_params(length=0)
    axis.set_frame_on(False)
    figure.savefig(path)


def _tile(image: np.ndarray) -> Image.Image:
    """An array (H, W) or (H, W, 3) in [0, 1] as a square, every pixel of a small image visible."""
    picture = Image.fromarray((image * 255).round().astype(np.uint8)).convert("RGB")
    small = max(picture.size) < _TILE
    return picture.resize((_TILE, _TILE), Image.Resampling.NEAREST if small else Image.Resampling.BOX)


def draw_curves(folder: Path) -> bool:
    """curves.png from metrics.csv; False, and no picture, if there are no rows to draw."""
    path = folder / "metrics.csv"
    if not path.exists():
        return False
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return False
    shown = {*NOT_DRAWN, *(key for key, _, _ in PANELS)}
    panels = list(PANELS)
    panels += [(key, key.replace("_", " "), _GREEN) for key in rows[0] if key not in shown]  # the method's own
    drawn = [(key, title, colour, *_series(rows, key)) for key, title, colour in panels]
    drawn = [panel for panel in drawn if len(panel[3])]
    width = 3
    height = -(-len(drawn) // width)
    # Laid out by hand: matplotlib's own way draws everything several times.
    figure = Figure(figsize=(3.4 * width, 2.4 * height), dpi=_DPI)
    axes = np.atleast_1d(figure.subplots(height, width, squeeze=False)).ravel()
    high = 2.4 * height
    figure.subplots_adjust(
        left=0.06, right=0.985, top=1 - 0.3 / high, bottom=0.42 / high, wspace=0.26, hspace=0.8 / (2.4 - 0.8)
    )
    for axis, (key, title, colour, steps, values) in zip(axes, drawn, strict=False):
        axis.plot(steps, values, color=colour, linewidth=1.3, marker="o" if len(steps) < 25 else None, markersize=3)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        if key in ("std", "rank", "knn", "images_per_second"):
            axis.set_ylim(0, max(values) * 1.1 or 1)
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    figure.savefig(folder / "curves.png")
    return True


def draw_confusion(
    predicted: np.ndarray, truth: np.ndarray, classes: Sequence[str], title: str, path: Path, most: int = 40
) -> None:
    """Of each true class the share that was taken for each class, in percent.

    predicted: (S, N) class numbers of S draws; truth: (N,), -1 for a class that is not among `classes`. Of more than
    `most` classes those are drawn that are confused most often.
    """
    counts = np.zeros((len(classes), len(classes)))
    for row in predicted[:, truth >= 0]:
        np.add.at(counts, (truth[truth >= 0], row), 1)
    shares = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
    kept = np.arange(len(classes))
    if len(classes) > most:
        wrong = shares - np.diag(np.diag(shares))
        kept = np.sort(np.argsort(-(wrong + wrong.T).max(1))[:most])
        title += f"; the {most} of {len(classes)} classes that are confused most"
        shares = shares[np.ix_(kept, kept)]
    side = max(3.5, 0.34 * len(kept) + 1.6)
    figure = Figure(figsize=(side + 0.6, side), dpi=150, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    names = [name if len(name) < 20 else name[:18] + "…" for name in (classes[int(place)] for place in kept)]
    axis.set_xticks(range(len(kept)), names, rotation=90, fontsize=7)
    axis.set_yticks(range(len(kept)), names, fontsize=7)
    axis.set_xlabel("taken for", fontsize=8)
    axis.set_ylabel("is", fontsize=8)
    axis.set_title(title, fontsize=8)
    if len(kept) <= 15:
        for row, column in np.ndindex(shares.shape):
            if shares[row, column] >= 0.5:
                shade = "black" if shares[row, column] > 55 else "white"
                axis.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=6, color=shade)
    figure.colorbar(image, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font does not have
        figure.savefig(path)


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    known = [(int(row["step"]), float(row[key])) for row in rows if row.get(key) not in ("", None)]
    return [step for step, _ in known], [value for _, value in known]
