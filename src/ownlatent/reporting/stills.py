"""embedding.png and neighbours.png: what the report lets one turn and click, as pictures for papers."""

import io
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw, ImageFont

from ownlatent.reporting.gallery import Gallery, queries

# Okabe and Ito's colours; with five shapes forty groups differ, in gray too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
_SHAPES = ("o", "s", "^", "D", "P")
_MOST_GROUPS, _COLUMNS = 40, 6  # that a legend names, and in how many columns
_DPI = 200
_ROWS = 5  # queries of neighbours.png
_TILE, _GAP, _MARGIN = 96, 8, 130  # its pixels: of an image, between two, and for the encoder's name
_TITLES = {"trained": "trained", "random": "before training", "pixels": "raw pixels", "bands": "bands"}


def draw_embedding(gallery: Gallery, path: Path) -> None:
    """Two principal components of every image as each encoder sees it, by label, or by cluster where there is none."""
    labelled = (gallery.labels >= 0).any()
    groups = gallery.labels if labelled else gallery.clusters
    names = gallery.about["classes"] if labelled else [f"cluster {n + 1}" for n in range(groups.max() + 1)]
    shown = list(gallery.seen)[:3]
    # Laid out by hand: matplotlib's own way draws everything several times.
    lines = -(-min(len(names), _MOST_GROUPS) // _COLUMNS)
    width, below = 3.6 * len(shown), 0.22 * lines + 0.1
    figure = Figure(figsize=(width, 4.0 + below), dpi=_DPI)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    figure.subplots_adjust(
        left=0.05 / width, right=1 - 0.05 / width, top=1 - 0.45 / (4 + below), bottom=below / (4 + below), wspace=0.03
    )
    size = float(np.clip(6000 / max(1, len(gallery)), 2, 30))
    for axis, name in zip(axes, shown, strict=True):
        seen = gallery.seen[name]
        points = np.pad(seen.components, ((0, 0), (0, 2)))[:, :2]
        for group in np.unique(groups):
            of = points[groups == group]
            colour = "#999999" if group < 0 else COLOURS[group % len(COLOURS)]
            axis.scatter(*of.T, s=size, c=colour, marker=_SHAPES[group % len(_SHAPES)], linewidths=0, alpha=0.75)
        axis.set_title(f"{_plain(_TITLES.get(name, name))}\n{seen.variance[:2].sum():.0%} of the variance", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [
        Line2D([], [], color=COLOURS[n % len(COLOURS)], marker=_SHAPES[n % len(_SHAPES)], linestyle="", markersize=5)
        for n in range(min(len(names), _MOST_GROUPS))
    ]
    short = [name if len(name) <= 20 else name[:19] + "…" for name in names[:_MOST_GROUPS]]
    figure.legend(
        handles, [_plain(name) for name in short], loc="lower center", ncols=_COLUMNS, fontsize=7, frameon=False
    )
    _save(figure, path)


def draw_nearest(gallery: Gallery, path: Path) -> None:
    """Some images and their nearest by each encoder; a solid frame: the same label as the query, dashed: another."""
    shown = list(gallery.seen)[:3]
    lines = [(query, name) for query in queries(gallery, _ROWS) for name in shown]
    each = max(seen.neighbours.shape[1] for seen in gallery.seen.values())
    step, between = _TILE + _GAP, 2 * _GAP
    size = (_MARGIN + (each + 1) * step + between + _GAP, len(lines) * step + _GAP)
    # Drawn without matplotlib, which takes seconds for so many small pictures.
    sheet, tiles, font = Image.new("RGB", size, "white"), _Tiles(gallery), ImageFont.load_default(size=15)
    pen = ImageDraw.Draw(sheet)
    for number, (query, name) in enumerate(lines):
        top = _GAP + number * step
        pen.text((_MARGIN - _GAP, top + _TILE / 2), _TITLES.get(name, name), "black", font, anchor="rm")
        if name == shown[0]:
            sheet.paste(tiles[query], (_MARGIN, top))
        for column, place in enumerate(gallery.seen[name].neighbours[query].tolist(), 1):
            left = _MARGIN + between + column * step
            sheet.paste(tiles[place], (left, top))
            if gallery.labels[query] >= 0 <= gallery.labels[place]:
                _frame(pen, left, top, gallery.labels[query] == gallery.labels[place])
    sheet.save(path, dpi=(_DPI, _DPI), compress_level=4)


def _frame(pen: ImageDraw.ImageDraw, left: int, top: int, right: bool) -> None:
    colour, width, end = COLOURS[0] if right else COLOURS[1], 3, _TILE - 1
    if right:
        pen.rectangle((left, top, left + end, top + end), outline=colour, width=width)
        return
    for at in range(0, _TILE, 12):
        far = min(at + 7, end)
        for line in (
            (left + at, top, left + far, top + width - 1),
            (left + at, top + end - width + 1, left + far, top + end),
            (left, top + at, left + width - 1, top + far),
            (left + end - width + 1, top + at, left + end, top + far),
        ):
            pen.rectangle(line, fill=colour)


class _Tiles:
    """Thumbnails by number, cut from the sheets."""

    def __init__(self, gallery: Gallery):
        self.side, self.columns = gallery.about["side"], gallery.about["columns"]
        self.sheets = [Image.open(io.BytesIO(sheet)).convert("RGB") for sheet in gallery.sheets]

    def __getitem__(self, place: int) -> Image.Image:
        sheet, within = divmod(int(place), self.columns**2)
        left, top = within % self.columns * self.side, within // self.columns * self.side
        tile = self.sheets[sheet].crop((left, top, left + self.side, top + self.side))
        return tile.resize((_TILE, _TILE), Image.Resampling.NEAREST)


def _plain(name: str) -> str:
    """A name in which a dollar sign begins no formula, and a letter that is none can be drawn."""
    return name.encode("utf-8", "replace").decode().replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font does not have
        figure.savefig(path)
