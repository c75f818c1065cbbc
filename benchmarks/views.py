"""Finished views per second on one core, beside lightly, albumentations, kornia and torchvision.

Everyone makes BYOL's pair of views of every image (table 6 at 224 px; the same without blur at 32 px): crop,
flip, colour jitter with a true HSV hue, grayscale, blur, solarise, normalise, to float32. One process, one
thread, each peer in its documented way; rounds in turn, so that a busy moment meets all; medians of rounds.

    pip install '.[bench]'
    python benchmarks/views.py --out benchmarks/results/views.json

Images: cuts of the photographs inside scikit-image, saved at JPEG quality 90: 500x375 at their own scale, and
2000x1500 enlarged with a little noise, which brings the file size to that of a camera's picture.
"""

import importlib
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the network for its latest version otherwise

import numpy as np
import torch
from PIL import Image
from results import arguments, write

from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import MultiView
from ownlatent.data.crops import Crops
from ownlatent.data.loader import VIEWS, generator, seed_of
from ownlatent.data.opening import open_source
from ownlatent.data.prepared import prepare

PHOTOGRAPHS = ("astronaut", "coffee", "cat", "rocket", "immunohistochemistry", "retina", "hubble_deep_field")
Make = Callable[[int], int]
"""Makes views of image i (modulo the set) and returns how many."""


def photographs(width: int, height: int, count: int) -> list[np.ndarray]:
    """Cuts (height, width, 3) of real photographs: at their own scale where they are large enough, else enlarged."""
    from skimage import data

    rng = np.random.default_rng(0)
    cuts = []
    for number in range(count):
        image = Image.fromarray(getattr(data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])()).convert("RGB")
        scale = max(1.0, width / image.width, height / image.height)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        x, y = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
        pixels = np.asarray(image.crop((x, y, x + width, y + height)))
        if scale > 1.3:  # an enlarged picture has no grain of its own
            pixels = (pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)
        cuts.append(pixels)
    return cuts


def jpegs(folder: Path, width: int, height: int, count: int) -> Path:
    """A folder (with one class, as lightly and torchvision want it) of JPEG files."""
    (folder / "all").mkdir(parents=True)
    for number, pixels in enumerate(photographs(width, height, count)):
        Image.fromarray(pixels).save(folder / "all" / f"{number:04d}.jpg", quality=90)
    return folder


def ours_from_files(folder: Path, size: int, finished: bool, batch: int = 64) -> Make:
    """What a loader's worker does, batch by batch; `finished`: and what training does with it on a processor."""
    source, views = open_source(folder), RECIPES["byol"]
    worker = Crops(source, views, size)
    make = MultiView(views, size, IMAGENET_MEAN, IMAGENET_STD)

    def one(number: int) -> int:
        indices = [(number * batch + place) % len(source) for place in range(batch)]
        crops = worker[number, indices, seed_of(0, VIEWS, number)].crops
        if finished:
            make.of_crops(crops, generator(0, VIEWS, number))
        return batch * len(views)

    return one


def ours_from_arrays(images: np.ndarray, size: int, batch: int = 256) -> Make:
    """Batches of images in memory, as the resident loader hands them over."""
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    make = MultiView(RECIPES["byol_small"], size, IMAGENET_MEAN, IMAGENET_STD)

    def one(number: int) -> int:
        rows = torch.arange(number * batch, (number + 1) * batch) % len(tensor)
        return sum(len(view) for view in make.of_images(tensor, generator(0, VIEWS, number), rows))

    return one


def lightly(views: tuple[View, ...], size: int, open_image: Callable[[int], Any]) -> Make:
    """lightly's BYOLTransform on Pillow images, its defaults (which are BYOL's) but for the blur at 32 px."""
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    both = BYOLTransform(
        view_1_transform=BYOLView1Transform(input_size=size, gaussian_blur=views[0].blur, min_scale=0.08),
        view_2_transform=BYOLView2Transform(input_size=size, gaussian_blur=views[1].blur, min_scale=0.08),
    )
    return lambda index: len(both(open_image(index)))


def albumentations(views: tuple[View, ...], size: int, open_image: Callable[[int], np.ndarray]) -> Make:
    import albumentations as A
    import cv2
    from albumentations.pytorch import ToTensorV2

    cv2.setNumThreads(0)
    window = size // 10 // 2 * 2 + 1
    pipelines = [
        A.Compose(
            [
                A.RandomResizedCrop((size, size), scale=v.crop_scale, ratio=v.crop_ratio),
                A.HorizontalFlip(p=v.flip),
                A.ColorJitter(
                    (1 - v.brightness, 1 + v.brightness),
                    (1 - v.contrast, 1 + v.contrast),
                    (1 - v.saturation, 1 + v.saturation),
                    (-v.hue, v.hue),
                    p=v.jitter,
                ),
                A.ToGray(p=v.grayscale),
                A.GaussianBlur(blur_limit=(window, window), sigma_limit=v.blur_sigma, p=v.blur),
                A.Solarize(threshold_range=(0.5, 0.5), p=v.solarize),
                A.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                ToTensorV2(),
            ]
        )
        for v in views
    ]

    def one(index: int) -> int:
        image = open_image(index)
        return len([pipeline(image=image)["image"] for pipeline in pipelines])

    return one


def kornia(views: tuple[View, ...], size: int, open_images: Callable[[int], torch.Tensor]) -> Make:
    """kornia draws per image on batches of one size; a batch of files of any size is a batch of one."""
    import kornia.augmentation as K

    window = size // 10 // 2 * 2 + 1
    pipelines = [
        K.AugmentationSequential(
            K.RandomResizedCrop((size, size), scale=v.crop_scale, ratio=v.crop_ratio, cropping_mode="slice"),
            K.RandomHorizontalFlip(p=v.flip),
            K.ColorJitter(v.brightness, v.contrast, v.saturation, v.hue, p=v.jitter),
            K.RandomGrayscale(p=v.grayscale),
            *([K.RandomGaussianBlur((window, window), v.blur_sigma, p=v.blur)] if v.blur else []),
            *([K.RandomSolarize(0.0, 0.0, p=v.solarize)] if v.solarize else []),
            K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
        )
        for v in views
    ]

    def one(index: int) -> int:
        images = open_images(index).float() / 255
        return sum(len(pipeline(images)) for pipeline in pipelines)

    return one


def torchvision(views: tuple[View, ...], size: int, open_image: Callable[[int], torch.Tensor]) -> Make:
    """torchvision's v2 transforms on uint8 tensors."""
    from torchvision.transforms import v2

    window = size // 10 // 2 * 2 + 1
    pipelines = [
        v2.Compose(
            [
                v2.RandomResizedCrop(size, v.crop_scale, v.crop_ratio, antialias=True),
                v2.RandomHorizontalFlip(v.flip),
                v2.RandomApply([v2.ColorJitter(v.brightness, v.contrast, v.saturation, v.hue)], v.jitter),
                v2.RandomGrayscale(v.grayscale),
                *([v2.RandomApply([v2.GaussianBlur(window, v.blur_sigma)], v.blur)] if v.blur else []),
                v2.RandomSolarize(128, v.solarize),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )
        for v in views
    ]

    def one(index: int) -> int:
        image = open_image(index)
        return len([pipeline(image) for pipeline in pipelines])

    return one


def peers_from_files(folder: Path, size: int) -> dict[str, Make]:
    """Each peer that is installed, opening files in its own usual way."""
    files = sorted((folder / "all").glob("*.jpg"))
    views = RECIPES["byol"]

    def file(index: int) -> Path:
        return files[index % len(files)]

    def pillow(index: int) -> Image.Image:
        return Image.open(file(index)).convert("RGB")

    def opencv(index: int) -> np.ndarray:
        import cv2

        return cv2.imread(str(file(index)), cv2.IMREAD_COLOR_RGB)

    def tensor(index: int) -> torch.Tensor:
        from torchvision.io import ImageReadMode, decode_image

        return decode_image(str(file(index)), ImageReadMode.RGB)

    made = {
        "lightly": lambda: lightly(views, size, pillow),
        "albumentations": lambda: albumentations(views, size, opencv),
        "kornia": lambda: kornia(views, size, lambda index: tensor(index).unsqueeze(0)),
        "torchvision": lambda: torchvision(views, size, tensor),
    }
    return {name: make() for name, make in made.items() if installed(name)}


def peers_from_arrays(images: np.ndarray, size: int) -> dict[str, Make]:
    views = RECIPES["byol_small"]
    n = len(images)
    tensors = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    made = {
        "lightly": lambda: lightly(views, size, lambda index: Image.fromarray(images[index % n])),
        "albumentations": lambda: albumentations(views, size, lambda index: images[index % n]),
        "kornia": lambda: kornia(views, size, lambda index: tensors[torch.arange(index * 256, index * 256 + 256) % n]),
        "torchvision": lambda: torchvision(views, size, lambda index: tensors[index % n]),
    }
    return {name: make() for name, make in made.items() if installed(name)}


def installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        print(f"no {name} here: pip install '.[bench]'")
        return False
    return True


def race(case: str, makers: dict[str, Make], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Views per second of each in turn: a row each, with the median and the spread of the rounds."""
    speeds: dict[str, list[float]] = {name: [] for name in makers}
    position = dict.fromkeys(makers, 0)
    for number in range(rounds + 1):
        for name, make in makers.items():
            made, began = 0, perf_counter()
            while (spent := perf_counter() - began) < seconds:
                made += make(position[name])
                position[name] += 1
            if number:  # the first round warms up: compilation, caches, lazy imports
                speeds[name].append(made / spent)
    rows = []
    for name, values in speeds.items():
        row = {"case": case, "who": name, "version": version(name.split()[0]), "views_per_second": median(values)}
        rows.append({**row, "lowest": min(values), "highest": max(values), "rounds": rounds})
        print(f"{case:<12} {name:<20} {median(values):>9.1f} ({min(values):.1f} to {max(values):.1f})", flush=True)
    return rows


def ratio(rows: list[dict[str, Any]], case: str, ours: str, theirs: str) -> float | None:
    """How many times as many views per second; None where the peer is not installed."""
    speed = {row["who"]: row["views_per_second"] for row in rows if row["case"] == case}
    return round(speed[ours] / speed[theirs], 2) if theirs in speed else None


def main() -> None:
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seconds, rounds = (0.2, 1) if options.quick else (2.5, 5)
    small, large = (4, 2) if options.quick else (64, 16)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        images = np.stack(photographs(32, 32, 64 if options.quick else 2048))
        rows += race(
            "32", {"ownlatent": ours_from_arrays(images, 32), **peers_from_arrays(images, 32)}, seconds, rounds
        )

        folder = jpegs(at / "small", 500, 375, small)
        ours = {
            "ownlatent": ours_from_files(folder, 224, finished=True),
            "ownlatent worker": ours_from_files(folder, 224, finished=False),
        }
        rows += race("small 224", {**ours, **peers_from_files(folder, 224)}, seconds, rounds)

        folder = jpegs(at / "large", 2000, 1500, large)
        prepare(folder, at / "prepared", max_side=512)
        ours = {
            "ownlatent": ours_from_files(folder, 224, finished=True),
            "ownlatent prepared": ours_from_files(at / "prepared", 224, finished=True),
        }
        rows += race("large 224", {**ours, **peers_from_files(folder, 224)}, seconds, rounds)
    figures = {
        "r32_vs_lightly": ratio(rows, "32", "ownlatent", "lightly"),
        "r32_vs_albumentations": ratio(rows, "32", "ownlatent", "albumentations"),
        "small224_vs_lightly": ratio(rows, "small 224", "ownlatent", "lightly"),
        "small224_vs_albumentations": ratio(rows, "small 224", "ownlatent", "albumentations"),
        "worker224_vs_lightly": ratio(rows, "small 224", "ownlatent worker", "lightly"),
        "large224_vs_lightly": ratio(rows, "large 224", "ownlatent", "lightly"),
        "prepared224_vs_lightly": ratio(rows, "large 224", "ownlatent prepared", "lightly"),
    }
    write(options.out, "views", rows, {name: value for name, value in figures.items() if value is not None})


if __name__ == "__main__":
    main()
