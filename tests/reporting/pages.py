"""Images with names that a page might run, break at or show the wrong way round."""

from pathlib import Path

import numpy as np
from PIL import Image

HOSTILE = ("<script>alert(1)<", "\"'&amp;<", "\u202etxet eht sdrawkcab", "🐙 ünïcode", "{{ 7*7 }}")


def colour(number: int) -> np.ndarray:
    """Of the images of a class."""
    return np.array([50 * number, 255 - 50 * number, 99])


def draw(folder: Path, each: int, seed: int) -> Path:
    """Images of a colour for each name, which is also in their own names."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(HOSTILE):
        (folder / name).mkdir(parents=True)
        for place in range(each):
            pixels = (colour(number) + rng.normal(0, 30, (20, 24, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{place:02d} {name}.png")
    return folder
