"""The bytes of a file to a tensor: colours, orientation, depth, size, and every way of being broken, all in silence."""

import io
import logging
import struct
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from fuzz import files, npy, png, tiff
from PIL import Image

from ownlatent.data.decode import (
    EXTENSIONS,
    Format,
    Unreadable,
    decode,
    fit_square,
    format_of,
    inspect,
    resize,
    size_of,
)
from ownlatent.errors import OwnlatentError

pytestmark = pytest.mark.filterwarnings("error")  # a warning would be printed

GRAY, COLOUR = Format(1, 8), Format(3, 8)
KINDS = ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"]
SUBJECT = np.zeros((4, 6, 3), np.uint8)  # red in the upper left corner, blue in the lower right, else black
SUBJECT[0, 0], SUBJECT[-1, -1] = (255, 0, 0), (0, 0, 255)
HUGE = 20_000  # pixels of a side; 400 megapixels


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **settings: Any) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **settings)
    return file.getvalue()


def noise(height: int = 64, width: int = 64, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def photograph(side: int = 256) -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut()).resize((side, side // 2), Image.Resampling.BOX)


def array(image: torch.Tensor) -> np.ndarray:
    """(H, W, C)"""
    return image.permute(1, 2, 0).numpy()


def reason(data: bytes, format: Format = COLOUR) -> str:
    with pytest.raises(Unreadable) as caught:
        decode(data, format)
    text = str(caught.value)
    assert text and text.isprintable() and len(text) < 120 and "0x" not in text and "b'" not in text
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_every_common_format(kind: str) -> None:
    data = saved(np.full((16, 24, 3), 120, np.uint8), kind)
    assert inspect(data) == COLOUR and size_of(data) == (16, 24)
    decoded = decode(data, COLOUR)
    assert decoded.dtype == torch.uint8 and decoded.shape == (3, 16, 24)
    assert (decoded.int() - 120).abs().max() <= 2


def test_every_ending_is_lower_case_and_has_its_dot() -> None:
    assert all(ending == "." + ending[1:].lower() for ending in EXTENSIONS) and ".npy" in EXTENSIONS


_OURS = ("npy", "npy deep", "npy float", "tiff webp")  # Pillow's libtiff has no WebP


def _known_to_pillow() -> list[str]:
    return [name for name, data in files().items() if name not in _OURS and inspect(data) in (GRAY, COLOUR)]


@pytest.mark.parametrize("name", _known_to_pillow())
def test_what_pillow_reads_rightly_is_read_the_same(name: str) -> None:
    data = files()[name]
    with Image.open(io.BytesIO(data)) as image:
        turned = image.getexif().get(0x0112, 1) == 6
        expected = np.asarray(image.convert("RGB"))
    if turned and not data.startswith((b"II", b"MM")):  # which Pillow turns by itself
        expected = np.rot90(expected, -1)
    difference = np.abs(array(decode(data, COLOUR)).astype(int) - expected)
    assert difference.max() <= (1 if "jpeg" in name else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(kind: str, orientation: int) -> None:
    """The stored pixels are turned and the EXIF entry says how: what is decoded is always the subject."""
    scale = 1 if kind in ("PNG", "TIFF", "WEBP") else 16  # so that corners survive compression
    subject = SUBJECT.repeat(scale, 0).repeat(scale, 1)
    stored = {
        1: subject,
        2: subject[:, ::-1],
        3: subject[::-1, ::-1],
        4: subject[::-1],
        5: subject.transpose(1, 0, 2),
        6: np.rot90(subject, 1),
        7: subject[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(subject, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    data = saved(np.ascontiguousarray(stored), kind, exif=exif, **settings)
    assert size_of(data) == subject.shape[:2]
    difference = np.abs(array(decode(data, COLOUR)).astype(int) - subject)
    assert difference.max() == 0 if scale == 1 else difference.mean() < 5


def test_damaged_exif_does_not_cost_the_image() -> None:
    for exif in (b"", b"MM", b"II*\0\xff\xff\xff\xff", b"nonsense", b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 20):
        for kind in ("JPEG", "PNG", "WEBP"):
            data = saved(np.full((16, 24, 3), 120, np.uint8), kind, exif=b"Exif\0\0" + exif)
            assert decode(data, COLOUR).shape == (3, 16, 24) and size_of(data) == (16, 24)


def test_palette() -> None:
    data = saved(Image.fromarray(SUBJECT).quantize(8, dither=Image.Dither.NONE), transparency=b"\0\x80\xff")
    assert (array(decode(data, COLOUR)) == SUBJECT).all()
    assert decode(data, GRAY).shape == (1, 4, 6)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (level, level, level)) for level in (10, 200)]
    settings: dict[str, Any] = {"WEBP": {"lossless": True}}.get(kind, {})
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **settings)
    assert set(decode(data, GRAY).flatten().tolist()) == {10}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_is_dropped(kind: str) -> None:
    settings: dict[str, Any] = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    data = saved(Image.new("RGBA", (4, 4), (10, 20, 30, 0)), kind, **settings)
    assert inspect(data) == COLOUR and decode(data, COLOUR)[:, 0, 0].tolist() == [10, 20, 30]
    if kind != "WEBP":
        data = saved(Image.new("LA", (4, 4), (10, 0)), kind)
        assert inspect(data) == GRAY and set(decode(data, GRAY).flatten().tolist()) == {10}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    data = saved(Image.new("RGB", (16, 16), (200, 40, 40)).convert("CMYK"), kind)
    assert inspect(data) == COLOUR
    red, green, blue = decode(data, COLOUR).float().mean((1, 2)).tolist()
    assert red > 180 and green < 60 and blue < 60
    assert abs(decode(data, GRAY).float().mean() - 88) < 4


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_channels_by_the_header(mode: str, channels: int) -> None:
    assert inspect(saved(Image.new(mode, (4, 4)))) == Format(channels, 8)


@pytest.mark.parametrize("format", [GRAY, COLOUR, Format(1, 16), Format(3, 16)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_format_is_as_asked(kind: str, mode: str, format: Format) -> None:
    data = saved(Image.new(mode, (5, 4), 77 if mode == "L" else (77, 77, 77)), kind)
    decoded = decode(data, format)
    assert decoded.shape == (format.channels, 4, 5)
    assert decoded.dtype == (torch.uint8 if format.depth == 8 else torch.uint16)
    assert set(decoded.flatten().tolist()) == {77 if format.depth == 8 else 77 * 257}


def test_deep_files_keep_their_levels_or_lose_the_low_byte() -> None:
    values = np.linspace(1000, 65_535, 64).reshape(8, 8).astype(np.uint16)
    for data in (saved(values), saved(values, "TIFF"), npy(values), b"P5 8 8 65535\n" + values.astype(">u2").tobytes()):
        assert inspect(data) == Format(1, 16)
        assert (array(decode(data, Format(1, 16)))[:, :, 0] == values).all()
        assert (array(decode(data, GRAY))[:, :, 0] == values >> 8).all()
        assert decode(data, Format(3, 16)).shape == (3, 8, 8)


def test_colour_becomes_gray_by_luma() -> None:
    pixels = noise()
    expected = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    deep = pixels.astype(np.uint16) * 257
    for data, scale in ((saved(pixels), 1), (tiff(pixels), 1), (npy(deep), 257), (png(deep), 257)):
        gray = decode(data, Format(1, 8 if scale == 1 else 16))
        assert gray.shape == (1, 64, 64) and np.abs(array(gray)[:, :, 0].astype(int) - expected * scale).max() <= scale


def test_other_numbers_of_channels_are_not_converted() -> None:
    assert reason(saved(noise()), Format(13, 16)) == "it has 3 channels and the others 13"
    assert reason(saved(noise(), "JPEG"), Format(2, 8)) == "it has 3 channels and the others 2"
    assert reason(npy(noise(channels=1)), Format(13, 8)) == "it has 1 channel and the others 13"
    assert reason(npy(noise(channels=4)), COLOUR) == "it has 4 channels and the others 3"


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("size", [(512, 384), (333, 217)])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_shrunken_jpeg_is_the_whole_one_averaged(mode: str, size: tuple[int, int], shrink: int) -> None:
    data = saved(photograph().resize(size).convert(mode), "JPEG", quality=95)
    whole, small = array(decode(data, COLOUR)), array(decode(data, COLOUR, shrink))
    assert small.shape == (-(-size[1] // shrink), -(-size[0] // shrink), 3)
    even = whole[: size[1] // shrink * shrink, : size[0] // shrink * shrink].astype(float)
    averaged = even.reshape(size[1] // shrink, shrink, size[0] // shrink, shrink, 3).mean((1, 3))
    assert np.abs(small[: averaged.shape[0], : averaged.shape[1]] - averaged).mean() < 3


def test_shrinking_turns_too_and_leaves_other_files_whole() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(saved(photograph(), "JPEG", exif=exif), COLOUR, 4).shape == (3, 64, 32)
    assert decode(saved(photograph(), "PNG"), COLOUR, 4).shape == (3, 128, 256)
    assert decode(saved(np.zeros((1, 1, 3), np.uint8), "JPEG"), COLOUR, 8).shape == (3, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_single_pixel(kind: str, mode: str) -> None:
    data = saved(Image.new(mode, (1, 1), 50 if mode == "L" else (50, 50, 50)), kind)
    assert size_of(data) == (1, 1) and (decode(data, COLOUR).int() - 50).abs().max() <= 2


def test_the_tensor_is_writable_and_its_own() -> None:
    for data in (saved(noise()), saved(noise(), "JPEG"), tiff(noise()), npy(noise()), saved(noise(), "BMP")):
        decode(data, COLOUR).zero_()
        assert decode(data, COLOUR).float().mean() > 50


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_truncated_files_are_unreadable(kind: str, share: float) -> None:
    data = saved(noise(), kind)
    assert "early" in (text := reason(data[: int(len(data) * share)])) or "damaged" in text


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_half_a_jpeg_is_not_half_gray(mode: str, progressive: bool) -> None:
    """Nor if somebody has put an end to it, as a camera or a download manager does."""
    data = saved(photograph().convert(mode), "JPEG", progressive=progressive, exif=b"Exif\0\0thumbnail \xff\xd9")
    for share in (0.4, 0.6, 0.9):
        cut = data[: int(len(data) * share)]
        assert reason(cut) == "the file ends too early"
        assert reason(cut + b"\xff\xd9") == "damaged JPEG data"


def test_a_jpeg_with_a_harmless_flaw_is_read() -> None:
    """Bytes that belong to nothing, for which libjpeg-turbo would warn."""
    data = saved(photograph(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    at = data.index(b"\xff\xdb")
    flawed = data[:at] + b"abc" + data[at:]
    assert size_of(flawed) == (128, 256) and (decode(flawed, COLOUR) == decode(data, COLOUR)).all()
    assert reason(flawed[: len(data) // 2]) == "the file ends too early"


def test_damage_under_a_checksum_is_seen() -> None:
    data = bytearray(saved(noise()))
    data[len(data) // 2] ^= 1
    assert reason(bytes(data)) == "damaged PNG data"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\x00", "zeros"),
        (bytes(5000), "zeros"),
        (b"this is text, whatever its name says", "not an image but text"),
        (b"\xff\xd8\xff\xe0", "early"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body>", "not an image but a page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image but a page"),
        (b"%PDF-1.7\n%\xe2\xe3", "not an image but a PDF"),
        (b"PK\x03\x04\x14\0\0\0", "not an image of a known kind"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"GIF89a", "early"),
        (b"\x93NUMPY\x01\0\x10\0{'shape': (3,)} ", ".npy"),
    ],
)
def test_files_that_are_no_images_are_unreadable(content: bytes, words: str) -> None:
    assert words in reason(content)
    for question in (inspect, size_of):
        with pytest.raises(Unreadable, match=words):
            question(content)


def _bombs() -> dict[str, bytes]:
    jpeg = bytearray(saved(noise(), "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, HUGE, HUGE)
    gif = bytearray(saved(Image.new("L", (8, 8)), "GIF"))
    struct.pack_into("<HH", gif, 6, HUGE, HUGE)
    bmp = bytearray(saved(noise(), "BMP"))
    struct.pack_into("<II", bmp, 18, HUGE, HUGE)
    extended = bytearray(saved(noise(), "WEBP", exif=b"Exif\0\0MM"))
    assert extended[12:16] == b"VP8X"
    extended[24:30] = 2 * (HUGE - 1).to_bytes(3, "little")
    jpeg2000 = bytearray(saved(noise(), "JPEG2000"))
    struct.pack_into(">II", jpeg2000, jpeg2000.index(b"ihdr") + 4, HUGE, HUGE)
    half = bytearray(png(noise()))
    struct.pack_into(">II", half, 16, HUGE, HUGE)
    many = tiff(np.zeros((13, 64, 64), np.uint16), planarconfig="separate", photometric="minisblack")
    for tag in (256, 257):
        many = many.replace(struct.pack("<HHII", tag, 4, 1, 64), struct.pack("<HHII", tag, 4, 1, 10_000))
    return {
        "jpeg": bytes(jpeg),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "webp": bytes(extended),
        "jpeg 2000": bytes(jpeg2000),
        "png": bytes(half),
        "tiff of 13 x 100 megapixels": many,
        "ppm": b"P6 20000 20000 255\n",
        "npy": npy(noise()).replace(b"(64, 64, 3)", b"(20000, 20000, 3)"),
    }


@pytest.mark.parametrize("name", _bombs())
def test_bombs_are_refused_by_their_header(name: str) -> None:
    for question in (inspect, size_of, reason):
        if question is reason:
            assert "megapixels are too many" in reason(_bombs()[name])
        else:
            with pytest.raises(Unreadable, match="megapixels are too many"):
                question(_bombs()[name])


def test_a_hundred_megapixels_are_read() -> None:
    """Above the size at which Pillow begins to warn, by every way of decoding."""
    side = 10_000
    level = Image.new("L", (side, side), 99)
    flat = np.broadcast_to(np.uint8(99), (side, side))
    for data in (saved(level, "PNG", compress_level=1), saved(level, "JPEG"), tiff(flat, compression="deflate")):
        assert size_of(data) == (side, side)
        assert (decode(data, GRAY, 8)[:, ::100, ::100] == 99).all()
    gif = saved(level.resize((side, side // 10 * 9)), "GIF")
    assert decode(gif, GRAY).shape == (1, side // 10 * 9, side)


def test_threads_do_not_disturb_each_other() -> None:
    sound = list(files().values()) * 3

    def read(data: bytes) -> torch.Tensor:
        return decode(data, inspect(data))

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(read, sound))
    assert all(torch.equal(image, read(data)) for image, data in zip(together, sound, strict=True))


def test_nothing_global_is_changed() -> None:
    def state() -> tuple:
        loggers = [logging.getLogger(name) for name in ("", "PIL", "tifffile")]
        heard = [(logger.level, logger.handlers[:], logger.propagate, logger.disabled) for logger in loggers]
        return warnings.filters[:], Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL").filters[:], np.geterr(), heard

    before = state()
    for data in files().values():
        decode(data, inspect(data))
    assert state() == before


def test_tifffile_is_silenced_for_us_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Not for the application that reads a TIFF itself, even while another thread is decoding."""
    flawed = tiff(noise(), rowsperstrip=8).replace(struct.pack("<HHI", 279, 3, 8), struct.pack("<HHI", 279, 3, 9))
    logger, heard = logging.getLogger("tifffile"), 0
    with ThreadPoolExecutor(1) as pool:
        decoding = [pool.submit(inspect, flawed) for _ in range(50)]
        while not all(each.done() for each in decoding):
            logger.warning("of the application")
            heard += 1
    logger.warning("of the application")
    assert [record.getMessage() for record in caplog.records] == ["of the application"] * (heard + 1)
    with tifffile.TiffFile(io.BytesIO(flawed)):
        assert "count" in caplog.records[-1].getMessage()
    assert inspect(flawed) == COLOUR and sum(map(logger.filters.count, logger.filters)) == 1


def test_one_format_for_a_source() -> None:
    gray, colour, deep = saved(noise()[:, :, 0]), saved(noise()), saved(noise()[:, :, 0].astype(np.uint16))
    many, broken = npy(noise(channels=13)), b"text"
    assert format_of([gray, gray]) == GRAY and format_of(iter([broken, gray, colour])) == COLOUR
    assert format_of([colour, deep]) == Format(3, 16) and format_of([many, broken]) == Format(13, 8)
    with pytest.raises(Unreadable, match="text"):
        format_of([b"", broken])
    with pytest.raises(Unreadable):
        format_of([])
    with pytest.raises(OwnlatentError, match=r"of 3 and of 13 channels: give"):
        format_of([many, colour])


def test_resize_is_antialiased() -> None:
    """A checkerboard of single pixels shrinks to gray, not to black or white."""
    board = (torch.arange(32).view(-1, 1) + torch.arange(32)).remainder(2).mul(255).to(torch.uint8).expand(3, -1, -1)
    small = resize(board, (8, 8))
    assert small.shape == (3, 8, 8) and small.dtype == torch.uint8
    assert (small[:, 1:-1, 1:-1].int() - 127).abs().max() < 20
    assert resize(board, (32, 32)) is board


def test_deep_images_are_resized_as_finely_as_they_are() -> None:
    deep = torch.from_numpy(noise(40, 30).transpose(2, 0, 1).astype(np.uint16) * 257)
    small = fit_square(deep, 20)
    assert small.dtype == torch.uint16 and small.shape == (3, 20, 20)
    rough = fit_square((deep.int() // 257).to(torch.uint8), 20)
    assert (small.float() / 257 - rough.float()).abs().max() < 1 and len(small.int().unique()) > 600
    white = fit_square(torch.full((1, 50, 50), 65_535, dtype=torch.int32).to(torch.uint16), 32)
    assert set(white.flatten().tolist()) == {65_535}


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
