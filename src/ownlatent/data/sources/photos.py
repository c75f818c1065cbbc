"""Patches of the photographs that ship inside scikit-image: real images that need no download."""

import numpy as np
import torch

from ownlatent.types import Sample

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
)
SPLITS = ("train", "test")
PATCH = 32  # pixels of a patch's side as it is handed out
CUT = 48  # pixels of its side in the photograph
PER_PHOTOGRAPH = {"train": 300, "test": 100}


class Photos:
    """Grayscale patches, uint8 (1, 32, 32), labelled by the photograph they were cut from.

    The left half of every photograph is for training and the right half for testing, so that no
    test pixel is ever trained on. Positions are drawn once, from a fixed seed. Colour is dropped
    because it would name half of the photographs by itself.
    """

    def __init__(self, split: str):
        self.name = f"photos:{split}"
        self.classes = list(PHOTOGRAPHS)
        self._patches = torch.from_numpy(np.stack([p for n in PHOTOGRAPHS for p in _cut(n, split)]))

    def __len__(self) -> int:
        return len(self._patches)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self._patches[index].unsqueeze(0), self._label(index), self.title(index))

    def title(self, index: int) -> str:
        return f"{PHOTOGRAPHS[self._label(index)]}-{index:05d}"

    def stack(self, first: int, stop: int) -> tuple[torch.Tensor, list[int]]:
        return self._patches[first:stop].unsqueeze(1), [self._label(index) for index in range(first, stop)]

    def _label(self, index: int) -> int:
        return index // PER_PHOTOGRAPH[self.name.removeprefix("photos:")]


def _cut(photograph: str, split: str) -> list[np.ndarray]:
    from PIL import Image
    from skimage import data

    image = Image.fromarray(getattr(data, photograph)()).convert("L")
    middle = image.width // 2
    left, right = (0, middle) if split == "train" else (middle, image.width)
    rng = np.random.default_rng([PHOTOGRAPHS.index(photograph), SPLITS.index(split)])
    patches = []
    for _ in range(PER_PHOTOGRAPH[split]):
        x, y = int(rng.integers(left, right - CUT + 1)), int(rng.integers(0, image.height - CUT + 1))
        # Cropped first: resizing with a box would mix in pixels from beyond it, and so from the other half.
        patch = image.crop((x, y, x + CUT, y + CUT)).resize((PATCH, PATCH), Image.Resampling.BILINEAR)
        patches.append(np.asarray(patch))
    return patches
