"""What a search found, as a sheet of the images themselves."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

_DPI = 150
_TILE, _GAP, _CAPTION = 160, 10, 36  # pixels: of an image, between two, and of the two lines below it
_LETTERS = 22  # of a line
_MOST = 50  # queries on one sheet

Shown = tuple[np.ndarray, str, str]
"""An image (H, W) or (H, W, 3) in [0, 1] and the two lines below it."""


def draw_neighbours(rows: Sequence[Sequence[Shown]], path: Path) -> None:
    """A row for each query, which comes first, and what was found from left to right; at most 50 rows."""
    rows = rows[:_MOST]
    columns = max(map(len, rows))
    across, down = _TILE + _GAP, _TILE + _CAPTION + _GAP
    width, height = columns * across + 2 * _GAP, len(rows) * down + _GAP
    # One sheet in one set of axes, as of the views.
    sheet = Image.new("RGB", (width, height), "white")
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    axis = figure.add_axes((0, 0, 1, 1))
    for y, row in enumerate(rows):
        for x, (image, above, name) in enumerate(row):
            left, top = _GAP + x * across + (_GAP if x else 0), _GAP + y * down
            tile = _tile(image)
            sheet.paste(tile, (left + (_TILE - tile.width) // 2, top + (_TILE - tile.height) // 2))
            colour = "black" if x else "#0072B2"
            axis.text(
                left, top + _TILE + 3, _caption(above, name), fontsize=6, va="top", color=colour, parse_math=False
            )
    axis.imshow(sheet, interpolation="nearest")
    axis.set_axis_off()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font does not have
        figure.savefig(path)


def as_picture(image: np.ndarray, full_scale: float) -> np.ndarray:
    """An image (C, H, W) of whole numbers as an array that can be drawn: (H, W), or (H, W, 3) of three or more."""
    shown = np.clip(image.transpose(1, 2, 0) / full_scale, 0, 1)
    return shown[:, :, :3] if shown.shape[2] >= 3 else shown[:, :, 0]


def _caption(above: str, name: str) -> str:
    """Two lines that fit below a tile. The end of a name tells more than its beginning."""
    if len(above) > _LETTERS:
        above = above[: _LETTERS - 1] + "…"
    return above + "\n" + (name if len(name) <= _LETTERS else "…" + name[1 - _LETTERS :])


def _tile(image: np.ndarray) -> Image.Image:
    """The whole image in its own proportions, its longer side that of a tile, every pixel of a small one visible."""
    picture = Image.fromarray((image * 255).round().astype(np.uint8)).convert("RGB")
    scale = _TILE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
