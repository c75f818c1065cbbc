"""One file to uint8: colours, orientation, depth, and every way of being broken."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ownlatent.data.decode import EXTENSIONS, channels_of, decode, fit_square, resize
from ownlatent.data.source import Unreadable

SUBJECT = np.zeros((4, 6, 3), np.uint8)  # red in the upper left corner, blue in the lower right, else black
SUBJECT[0, 0], SUBJECT[-1, -1] = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize("ending", sorted(EXTENSIONS - {".jp2", ".avif"}))
def test_every_common_format(tmp_path: Path, ending: str) -> None:
    level = np.full((16, 24, 3), 120, np.uint8)
    image = Image.fromarray(level)
    path = tmp_path / f"image{ending}"
    (image.convert("L") if ending == ".pgm" else image).save(path)
    decoded = decode(path, 3)
    assert decoded.dtype == torch.uint8 and decoded.shape == (3, 16, 24)
    assert (decoded.int() - 120).abs().max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    """The stored pixels are turned and the EXIF entry says how: what is decoded is always the subject."""
    stored = {
        1: SUBJECT,
        2: SUBJECT[:, ::-1],
        3: SUBJECT[::-1, ::-1],
        4: SUBJECT[::-1],
        5: SUBJECT.transpose(1, 0, 2),
        6: np.rot90(SUBJECT, 1),
        7: SUBJECT[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(SUBJECT, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif)
    assert (decode(tmp_path / "turned.png", 3).numpy().transpose(1, 2, 0) == SUBJECT).all()


def test_palette(tmp_path: Path) -> None:
    Image.fromarray(SUBJECT).quantize(8, dither=Image.Dither.NONE).save(tmp_path / "palette.png")
    decoded = decode(tmp_path / "palette.png", 3)
    assert (decoded.numpy().transpose(1, 2, 0) == SUBJECT).all()
    assert decode(tmp_path / "palette.png", 1).shape == (1, 4, 6)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert set(decode(tmp_path / "moving.gif", 1).flatten().tolist()) == {10}


def test_transparency_is_dropped(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert decode(tmp_path / "clear.png", 3)[:, 0, 0].tolist() == [10, 20, 30]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 40, 40)).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert channels_of(tmp_path / "print.jpg") == 3
    red, green, blue = decode(tmp_path / "print.jpg", 3).float().mean((1, 2)).tolist()
    assert red > 150 and green < 90 and blue < 90


@pytest.mark.parametrize(
    ("name", "dtype"), [("deep.png", np.uint16), ("deep.tif", np.uint16), ("float.tif", np.float32)]
)
def test_deep_files_use_their_whole_range(tmp_path: Path, name: str, dtype: type) -> None:
    """A 16-bit file with values from 1000 to 5000 would be black or white if it were cut to eight bits."""
    values = np.linspace(1000, 5000, 64).reshape(8, 8).astype(dtype)
    Image.fromarray(values).save(tmp_path / name)
    assert channels_of(tmp_path / name) == 1
    decoded = decode(tmp_path / name, 1)
    assert decoded.min() == 0 and decoded.max() == 255
    assert (decoded.flatten().int().diff() >= 0).all() and len(decoded.unique()) == 64


def test_a_deep_file_of_one_value(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "flat.png")
    assert decode(tmp_path / "flat.png", 1).unique().numel() == 1


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_channels_by_the_header(tmp_path: Path, mode: str, channels: int) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "image.png")
    assert channels_of(tmp_path / "image.png") == channels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_channels_as_asked(tmp_path: Path, mode: str, channels: int) -> None:
    Image.new(mode, (5, 4), 77 if mode == "L" else (77, 77, 77)).save(tmp_path / "image.png")
    decoded = decode(tmp_path / "image.png", channels)
    assert decoded.shape == (channels, 4, 5) and set(decoded.flatten().tolist()) == {77}


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("ending", [".jpg", ".png", ".gif", ".tif", ".webp", ".bmp"])
def test_truncated_files_are_unreadable(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cut{ending}"
    _noise().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Unreadable):
        decode(path, 3)


@pytest.mark.parametrize("content", [b"", b"\x00", b"this is text, whatever its name says", b"\xff\xd8\xff\xe0"])
def test_files_that_are_no_images_are_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    for read in (lambda: decode(path, 3), lambda: channels_of(path)):
        with pytest.raises(Unreadable) as caught:
            read()
        assert str(caught.value) and "\n" not in str(caught.value)


def test_the_reason_does_not_repeat_the_path(tmp_path: Path) -> None:
    """It is printed after the file's name."""
    path = tmp_path / "image.jpg"
    path.write_bytes(b"text")
    with pytest.raises(Unreadable) as caught:
        decode(path, 3)
    assert str(tmp_path) not in str(caught.value)


def test_missing_files_and_folders_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    for path in (tmp_path / "nowhere.jpg", tmp_path / "folder.jpg"):
        with pytest.raises(Unreadable):
            decode(path, 3)


def test_bombs_are_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _noise().save(tmp_path / "large.png")
    for limit in (3000, 1000):  # above the limit Pillow warns, above twice the limit it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(Unreadable, match="safety limit"):
            decode(tmp_path / "large.png", 3)


def test_resize_is_antialiased() -> None:
    """A checkerboard of single pixels shrinks to gray, not to black or white."""
    board = (torch.arange(32).view(-1, 1) + torch.arange(32)).remainder(2).mul(255).to(torch.uint8).expand(3, -1, -1)
    small = resize(board, (8, 8))
    assert small.shape == (3, 8, 8) and small.dtype == torch.uint8
    assert (small[:, 1:-1, 1:-1].int() - 127).abs().max() < 20
    assert resize(board, (32, 32)) is board


@pytest.mark.parametrize("size", [32, 64, 65, 96, 224])
@pytest.mark.parametrize("shape", [(40, 40), (31, 90), (90, 31), (17, 400), (300, 301)])
def test_fit_square_gives_the_size(size: int, shape: tuple[int, int]) -> None:
    fitted = fit_square(torch.full((3, *shape), 9, dtype=torch.uint8), size)
    assert fitted.shape == (3, size, size) and fitted.dtype == torch.uint8
    assert set(fitted.flatten().tolist()) == {9}


def test_fit_square_cuts_the_centre() -> None:
    wide = torch.zeros(1, 32, 96, dtype=torch.uint8)
    wide[..., 32:64] = 255
    assert (fit_square(wide, 32) == 255).all()


def test_fit_square_leaves_the_papers_margin_on_large_images() -> None:
    """224 of 256 pixels: what lies in the outer sixteenth is not seen."""
    image = torch.full((1, 256, 256), 255, dtype=torch.uint8)
    image[:, 16:-16, 16:-16] = 0
    assert fit_square(image, 224).max() == 0
    assert fit_square(image, 64).max() > 200
