"""A folder with every kind of dirt: each file is read rightly, or skipped, counted and listed with its reason."""

import io
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fuzz import npy, png, png_of
from PIL import Image
from torch import Tensor

from ownlatent.data.decode import fit_square
from ownlatent.data.resident import Resident, load_resident
from ownlatent.data.sources.folder import Folder

pytestmark = pytest.mark.filterwarnings("error")

RED = (200, 40, 40)
SIDE = 16
LARGE = 10_000


def saved(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE), **settings: object) -> bytes:
    """A file of a single red."""
    file = io.BytesIO()
    image = Image.new(mode, size) if mode == "P" else Image.new("RGB", size, RED).convert(mode)
    if mode == "P":
        image.putpalette([*RED, 0, 0, 0])
    image.save(file, kind, **settings)
    return file.getvalue()


def _animated(kind: str) -> bytes:
    blue = Image.new("RGB", (SIDE, SIDE), (0, 0, 255))
    return saved(kind, save_all=True, append_images=[blue, blue])


def _rotated() -> bytes:
    """Lies on its side; upright it is red above and black below."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (SIDE, SIDE))
    image.paste(RED, (0, 0, SIDE // 2, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    return file.getvalue()


GOOD: dict[str, Callable[[], bytes]] = {
    "a photograph.jpg": lambda: saved("JPEG"),
    "an exact copy of it.jpg": lambda: saved("JPEG"),
    "capital letters.JPG": lambda: saved("JPEG"),
    "a JPEG named.png": lambda: saved("JPEG"),
    "a PNG named.jpg": saved,
    "a WebP named.gif": lambda: saved("WEBP"),
    "of ink.jpg": lambda: saved("JPEG", "CMYK"),
    "of ink.tif": lambda: saved("TIFF", "CMYK", compression="tiff_lzw"),
    "palette.png": lambda: saved(mode="P"),
    "transparent palette.png": lambda: saved(mode="P", transparency=b"\x80\xff"),
    "interlaced.png": lambda: png(np.broadcast_to(np.uint8(RED), (SIDE, SIDE, 3)), interlaced=True),
    "moving.gif": lambda: _animated("GIF"),
    "moving.webp": lambda: _animated("WEBP"),
    "moving.png": lambda: _animated("PNG"),
    "of many pages.tif": lambda: _animated("TIFF"),
    "a pixel.png": lambda: saved(size=(1, 1)),
    "a pixel.jpg": lambda: saved("JPEG", size=(1, 1)),
    "array.npy": lambda: npy(np.broadcast_to(np.uint8(RED), (SIDE, SIDE, 3))),
    "with other metadata.jpg": lambda: saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", comment=b"\xff" * 99),
    "large.png": lambda: saved(mode="P", size=(LARGE, LARGE), bits=1, compress_level=1),
    "large.jpg": lambda: saved("JPEG", size=(LARGE, LARGE)),
    "\u5199\u771f \N{CAMERA}.png": saved,
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "half.jpg": (lambda: saved("JPEG", size=(200, 200))[:900], "the file ends too early"),
    "half and mended.jpg": (lambda: saved("JPEG", size=(200, 200))[:900] + b"\xff\xd9", "damaged JPEG data"),
    "half.png": (lambda: _noise("PNG")[:2000], "the file ends too early|damaged PNG data"),
    "half.tif": (lambda: _noise("TIFF")[:2000], "the file ends too early"),
    "half.gif": (lambda: _noise("GIF")[:2000], "the file ends too early"),
    "half.webp": (lambda: _noise("WEBP")[:900], "damaged WebP data"),
    "empty.jpg": (lambda: b"", "the file is empty"),
    "zeros.png": (lambda: bytes(1000), "not an image but zeros only"),
    "notes.jpg": (lambda: b"buy milk", "not an image but text"),
    "not found.jpg": (lambda: b"<html><h1>404</h1></html>", "not an image but a page"),
    "paper.png": (lambda: b"%PDF-1.4\n%\xc3\xa4", "not an image but a PDF document"),
    "phone.jpg": (lambda: b"\0\0\0\x24ftypheic" + bytes(40), "a HEIC photograph, .* convert it to JPEG"),
    "bomb.png": (
        lambda: png_of(b"\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0", b"\x78\x9c\3\0"),
        "4,295 megapixels are too many",
    ),
    "other things.npy": (lambda: npy(np.array([["a", "b"]])), "something else than plain numbers"),
}


def _noise(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dirty")
    for name, make in GOOD.items():
        (root / name).write_bytes(make())
    for name, (make, _) in BAD.items():
        (root / name).write_bytes(make())
    (root / "rotated.jpg").write_bytes(_rotated())
    (root / "folder.jpg").mkdir()
    (root / "folder.jpg" / "inside.png").write_bytes(saved())
    (root / "link.jpg").symlink_to("a photograph.jpg")
    (root / "to nothing.jpg").symlink_to("nowhere.jpg")
    (root / "to itself.jpg").symlink_to("to itself.jpg")
    (root / "loop").symlink_to(".", target_is_directory=True)
    (root / "notes.txt").write_text("not even an image's name")
    os.mkfifo(root / "pipe.png")
    with open(os.fsencode(root) + b"/caf\xe9.png", "wb") as file:
        file.write(saved())
    return root


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def loaded(dirty: Path) -> tuple[Folder, Resident]:
    return _load(dirty)


@cache
def _load(folder: Path) -> tuple[Folder, Resident]:
    """Once for all tests, but within one, so that what is printed is seen."""
    source = Folder(folder)
    return source, load_resident(source, lambda image: fit_square(image, SIDE))


def images(loaded: tuple[Folder, Resident]) -> dict[str, Tensor]:
    """What was read, by title."""
    source, resident = loaded
    skipped = {title for title, _ in resident.skipped}
    titles = [title for title in map(source.title, range(len(source))) if title not in skipped]
    assert len(titles) == len(resident)
    return dict(zip(titles, resident.images, strict=True))


def test_every_file_is_read_or_listed_once(dirty: Path, loaded: tuple[Folder, Resident]) -> None:
    source, resident = loaded
    titles = [source.title(index) for index in range(len(source))]
    assert len(set(titles)) == len(titles) and len(resident) + len(resident.skipped) == len(titles)
    assert set(GOOD) | set(BAD) <= set(titles)
    assert "notes.txt" not in titles and "folder.jpg" not in titles and "folder.jpg/inside.png" in titles
    assert not any(title.startswith("loop") for title in titles)


@pytest.mark.parametrize("name", [*GOOD, "link.jpg", "folder.jpg/inside.png", "caf\\xe9.png"])
def test_what_can_be_read_is_read_rightly(name: str, loaded: tuple[Folder, Resident]) -> None:
    image = images(loaded)[name]
    assert image.shape == (3, SIDE, SIDE)
    assert all(abs(int(level) - wanted) <= 3 for level, wanted in zip(image[:, 5, 5], RED, strict=True))


def test_what_lies_on_its_side_is_turned(loaded: tuple[Folder, Resident]) -> None:
    image = images(loaded)["rotated.jpg"].float()
    assert image[0, : SIDE // 2].mean() > 180 and image[0, SIDE // 2 :].mean() < 20


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_listed_with_its_reason(name: str, loaded: tuple[Folder, Resident]) -> None:
    reasons = dict(loaded[1].skipped)
    assert re.search(BAD[name][1], reasons[name])


def test_every_reason_is_a_few_words_on_one_line(loaded: tuple[Folder, Resident]) -> None:
    for title, reason in loaded[1].skipped:
        assert reason and len(reason) < 120 and reason.isprintable(), title
        assert "0x" not in reason and "Error" not in reason and "\\x" not in reason and "/" not in reason, reason


def test_what_is_no_file_is_listed_and_waits_for_nobody(loaded: tuple[Folder, Resident]) -> None:
    reasons = dict(loaded[1].skipped)
    assert {"to nothing.jpg", "pipe.png"} <= set(reasons)
    assert set(reasons) == {*BAD, "to nothing.jpg", "to itself.jpg", "pipe.png"}


def test_a_file_that_may_not_be_read_is_listed(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    for name in ("open.png", "shut.png"):
        (tmp_path / name).write_bytes(saved())
    (tmp_path / "shut.png").chmod(0)
    resident = load_resident(Folder(tmp_path))
    assert len(resident) == 1 and [title for title, _ in resident.skipped] == ["shut.png"]
    assert "permission" in resident.skipped[0][1]
