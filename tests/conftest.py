"""Small folders of real image files, made once from a fixed seed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (30, 180, 60), "red": (200, 50, 40)}
PER_CLASS = 20
SIDE = 32

WriteImage = Callable[..., Path]
# Files of long tests that share nothing, which several workers may split; all tests of any other file go to one.
SPLIT = {"test_any_network.py", "test_benchmarks.py", "test_examples.py"}


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name not in SPLIT:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the package keeps between runs is kept apart from the user's own, in child processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OWNLATENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def write_image() -> WriteImage:
    """write_image(path, height=32, width=32, mode="RGB", seed=0): noise in the format that the ending names."""

    def write(path: Path, height: int = SIDE, width: int = SIDE, mode: str = "RGB", seed: int = 0) -> Path:
        noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).convert(mode).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three class subfolders of twenty 32x32 images each, a colour with noise; not to be changed by a test."""
    root = tmp_path_factory.mktemp("nested")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(PER_CLASS):
            _image(rng, colour).save(root / name / f"{number:03d}.{'png' if number % 2 else 'jpg'}")
    return root


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty such images side by side, without classes; not to be changed by a test."""
    root = tmp_path_factory.mktemp("flat")
    rng = np.random.default_rng(1)
    colours = list(COLOURS.values())
    for number in range(PER_CLASS * len(colours)):
        _image(rng, colours[number % 3]).save(root / f"{number:03d}.{'jpg' if number % 2 else 'png'}")
    return root


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of fourteen sounds of other rates, formats and lengths each; not to be changed by a test."""
    import soundfile

    root = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(2)
    for name, pitch in {"high": 2500, "low": 200, "middle": 800}.items():
        (root / name).mkdir()
        for number in range(14):
            rate, ending = ((16_000, "wav"), (8000, "wav"), (22_050, "flac"), (44_100, "ogg"))[number % 4]
            t = np.arange(int(rng.uniform(0.2, 0.7) * rate)) / rate
            sound = rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * pitch * rng.uniform(0.9, 1.1) * t)
            sound += rng.normal(0, 0.01, len(t))
            stereo = np.stack([sound, 0.5 * sound], axis=1) if number % 3 == 0 else sound
            soundfile.write(root / name / f"{number:02d}.{ending}", stereo, rate)
    return root


def _image(rng: np.random.Generator, colour: tuple[int, int, int]) -> Image.Image:
    noise = rng.normal(0, 30, (SIDE, SIDE, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))
