"""The files that Pillow reads wrongly or not at all: 16 bits in colour, more channels, other kinds of numbers."""

import io
import itertools
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import tifffile
from fuzz import npy, png, tiff
from PIL import Image

from ownlatent.data.decode import Format, Unreadable, decode, inspect, size_of

pytestmark = pytest.mark.filterwarnings("error")


def numbers(shape: tuple[int, ...], dtype: type = np.uint16) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape).astype(dtype)
    return rng.integers(0, min(65_536, np.iinfo(dtype).max), shape).astype(dtype)


def read(data: bytes) -> np.ndarray:
    """(H, W, C) in the file's own format."""
    found = inspect(data)
    image = decode(data, found).permute(1, 2, 0).numpy()
    assert image.shape == (*size_of(data), found.channels) and image.dtype.itemsize * 8 == found.depth
    return image


@pytest.mark.parametrize("shape", [(40, 48), (1, 1), (3, 2), (5, 9)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(shape: tuple[int, int], interlaced: bool, channels: int, dtype: type) -> None:
    pixels = numbers((*shape, channels), dtype)
    assert (read(png(pixels, interlaced)) == pixels[:, :, : 1 if channels < 3 else 3]).all()


def test_pillow_would_have_lost_half_of_the_bits() -> None:
    """The day that this fails, Pillow can read these files itself."""
    with Image.open(io.BytesIO(png(numbers((4, 4, 3))))) as image:
        assert np.asarray(image).dtype == np.uint8


LAYOUTS = [
    layout
    for layout in itertools.product(
        (np.uint8, np.uint16), (1, 2, 3, 5, 13), (None, "deflate", "lzma"), (None, (32, 48)), (1, 2), "<>", (None, 2)
    )
    if not (layout[1] == 1 and layout[4] == 2) and not (layout[2] is None and layout[6])
]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_in_every_layout(dtype: type) -> None:
    """Strips and tiles that do not fit, planes and pixels, both orders of bytes, compressed, as differences."""
    for kind, channels, compression, tile, planes, order, predictor in LAYOUTS:
        if kind is not dtype:
            continue
        pixels = numbers((70, 90, channels), dtype)
        stored = pixels.transpose(2, 0, 1) if planes == 2 else pixels if channels > 1 else pixels[:, :, 0]
        data = tiff(
            stored,
            photometric="rgb" if channels == 3 else "minisblack",
            planarconfig=planes if channels > 1 else None,
            compression=compression,
            predictor=predictor,
            tile=tile,
            byteorder=order,
            rowsperstrip=None if tile else 16,
            bigtiff=order == ">",
        )
        assert (read(data) == pixels).all(), (channels, compression, tile, planes, order, predictor)


@pytest.mark.parametrize(
    "compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd"]
)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_tiff_as_pillow_writes_it(mode: str, compression: str) -> None:
    image = Image.fromarray(numbers((50, 70, 3), np.uint8))
    image = Image.fromarray(numbers((50, 70))) if mode == "I;16" else image.convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    expected = np.asarray(image if mode == "I;16" else image.convert("L" if mode in "1L" else "RGB"))
    assert (read(file.getvalue()).squeeze() == expected).all()


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_tiff_of_faxes(compression: str) -> None:
    page = Image.fromarray(np.random.default_rng(0).random((60, 77)) > 0.7)
    file = io.BytesIO()
    page.save(file, "TIFF", compression=compression)
    assert (read(file.getvalue())[:, :, 0] == np.asarray(page) * 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
def test_tiff_with_jpeg_inside(mode: str) -> None:
    ramp = np.add.outer(np.arange(60), np.arange(80))[:, :, None] + np.array([0, 50, 100])
    image = Image.fromarray(ramp.astype(np.uint8))
    file = io.BytesIO()
    image.convert(mode).save(file, "TIFF", compression="jpeg", quality=95)
    expected = np.asarray(image.convert("L") if mode == "L" else image).astype(int).reshape(60, 80, -1)
    assert np.abs(read(file.getvalue()).astype(int) - expected).max() < 12


def test_tiff_of_an_unusual_number_of_bits() -> None:
    levels = np.random.default_rng(0).integers(0, 4, (20, 30), dtype=np.uint8)
    bits = np.unpackbits(levels[:, :, None], axis=2)[:, :, -2:].reshape(20, 60)
    data = tiff(np.packbits(bits, axis=1), photometric="minisblack")
    # tifffile writes no two bits: a file of 8 bits and a quarter of the width is made one of 2 bits.
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for tag, value in ((256, 30), (258, 2)):
            at = file.pages.first.tags[tag].valueoffset
            data = data[:at] + value.to_bytes(2, "little") + data[at + 2 :]
    assert (read(data)[:, :, 0] == levels * 85).all()


def test_tiff_where_zero_is_white() -> None:
    for pixels in (numbers((8, 9), np.uint8), numbers((8, 9))):
        assert (read(tiff(pixels, photometric="miniswhite"))[:, :, 0] == ~pixels).all()


@pytest.mark.parametrize(
    ("samples", "photometric", "extra", "channels"),
    [
        (2, "minisblack", "unassalpha", 1),
        (2, "minisblack", "unspecified", 2),
        (4, "rgb", "unassalpha", 3),
        (4, "rgb", "assocalpha", 3),
        (4, "rgb", "unspecified", 4),
        (4, "minisblack", None, 4),
        (5, "rgb", ("unassalpha", "unspecified"), 5),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_drops_transparency_only_if_it_says_so(
    samples: int, photometric: str, extra: str | None, channels: int, dtype: type
) -> None:
    pixels = numbers((20, 30, samples), dtype)
    data = tiff(pixels, photometric=photometric, extrasamples=extra, planarconfig="contig")
    assert (read(data) == pixels[:, :, :channels]).all()


def stored(pixels: np.ndarray, **settings: object) -> bytes:
    """As tifffile writes an array by itself, with no word on what its axes are unless there is one in the settings."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a guess at colours, which it will not make for ever
        tifffile.imwrite(file, pixels, **settings)
    return file.getvalue()


AXES = {
    "shaped": ["YX", "CYX", "ZYX", "TZCYX", "CZYX", "YXC", "XYC", "ZYXS", "SYX"],
    "imagej": ["YX", "CYX", "ZYX", "TYX", "TZCYX", "ZYXS"],
    "ome": ["YX", "CYX", "ZYX", "TZCYX", "CZYX", "TCZYX", "ZYXS", "CYXS"],
}
LENGTHS = {"T": 2, "Z": 4, "C": 5, "Y": 33, "X": 48, "S": 3}


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize(("kind", "axes"), [(kind, axes) for kind in AXES for axes in AXES[kind]])
def test_stacks_of_tiff(kind: str, axes: str, compression: str | None) -> None:
    """All channels, on whichever pages they are, of the first time and depth."""
    pixels = numbers(tuple(LENGTHS[axis] for axis in axes), np.uint8)
    data = stored(
        pixels,
        compression=compression,
        photometric="rgb" if "S" in axes else "minisblack",
        planarconfig="separate" if axes == "SYX" else None,
        metadata={"axes": axes},
        **({} if kind == "shaped" else {kind: True}),
    )
    kept = [axis for axis in axes if axis in "YXCS"]
    first = pixels[tuple(slice(None) if axis in kept else 0 for axis in axes)]
    expected = first.transpose([kept.index(axis) for axis in "YXCS" if axis in kept])
    assert (read(data) == expected.reshape(*expected.shape[:2], -1)).all()


@pytest.mark.parametrize(
    ("shape", "channels", "size"),
    [
        ((13, 64, 64), 13, (64, 64)),
        ((64, 64, 13), 13, (64, 64)),
        ((64, 70, 64), 64, (70, 64)),
        ((65, 70, 64), 1, (70, 64)),
        ((70, 65, 31), 31, (70, 65)),
        ((4, 20, 30), 4, (20, 30)),
        ((3, 20, 30), 3, (20, 30)),
        ((20, 30, 3), 3, (20, 30)),
        ((2, 13, 40, 50), 13, (40, 50)),
        ((5, 20, 30, 3), 3, (20, 30)),
    ],
)
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_arrays_that_tifffile_wrote_without_a_word(
    shape: tuple[int, ...], channels: int, size: tuple[int, int], compression: str | None
) -> None:
    pixels = numbers(shape)
    image = read(stored(pixels, compression=compression))
    assert image.shape == (*size, channels)
    if pixels.ndim == 4 or channels == 1:
        pixels = pixels[0]
    first = pixels.ndim == 3 and pixels.shape[1:] == size
    assert (image == (pixels.transpose(1, 2, 0) if first else pixels.reshape(image.shape))).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_pages_of_which_nothing_is_told_are_no_channels(channels: int) -> None:
    pages = numbers((5, 20, 30, channels), np.uint8)
    data = stored(pages.squeeze(), metadata=None, photometric="minisblack" if channels == 1 else "rgb")
    assert (read(data) == pages[0]).all()


def test_channels_of_perkin_elmer() -> None:
    pixels = numbers((5, 20, 30), np.float32)
    data = stored(pixels, software="PerkinElmer-QPI", metadata=None, compression="deflate")
    assert np.abs(read(data) - pixels.transpose(1, 2, 0) * 65_535).max() <= 0.51


def _ome(planes: str, pages: np.ndarray, **sizes: int) -> bytes:
    lengths = " ".join(f'Size{axis}="{sizes.get(axis, 1)}"' for axis in "CTZ")
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:here"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" {lengths} SizeX="30" SizeY="20">{planes}'
        "</Pixels></Image></OME>"
    )
    return stored(pages, description=text, metadata=None, photometric="minisblack", compression="deflate")


@pytest.mark.parametrize(
    ("here", "channels"),
    [([(0, 0), (0, 1), (0, 2)], 3), ([(1, 0), (1, 1), (1, 2)], 3), ([(0, 1)], 1), ([(0, 2), (1, 0)], 1)],
)
def test_a_part_of_an_ome_data_set(here: list[tuple[int, int]], channels: int) -> None:
    """Some (time, channel) are in this file, and the rest in others: what is here is read, and nothing made up."""
    pages, planes = numbers((len(here), 20, 30)), ""
    for time, channel in np.ndindex(2, 3):
        inside = (time, channel) in here
        planes += (
            f'<TiffData FirstC="{channel}" FirstT="{time}" IFD="{here.index((time, channel)) if inside else 0}" '
            f'PlaneCount="1"><UUID FileName="a">urn:uuid:{"here" if inside else "there"}</UUID></TiffData>'
        )
    assert (read(_ome(planes, pages, C=3, T=2)) == pages[:channels].transpose(1, 2, 0)).all()


@pytest.mark.parametrize(
    ("planes", "sizes"),
    [
        ('<TiffData IFD="0" PlaneCount="2"/>', {"C": 2, "T": 10**9}),
        ('<TiffData IFD="0" PlaneCount="2"/>', {"C": 200, "T": 200, "Z": 200}),
        ('<TiffData IFD="0" PlaneCount="999999999"/>', {"C": 2}),
    ],
)
def test_an_ome_header_that_boasts(planes: str, sizes: dict[str, int]) -> None:
    with pytest.raises(Unreadable, match="more than 10,000 pages: save"):
        inspect(_ome(planes, numbers((2, 20, 30)), **sizes))


@pytest.mark.parametrize("settings", [{}, {"imagej": True}, {"metadata": None}])
def test_very_many_pages(settings: dict[str, object]) -> None:
    data = stored(np.zeros((10_001, 2, 2), np.uint8), photometric="minisblack", compression="packbits", **settings)
    if "metadata" in settings:
        assert inspect(data) == Format(1, 8)
    else:
        with pytest.raises(Unreadable, match="more than 10,000 pages: save"):
            inspect(data)


@pytest.mark.parametrize("length", [1, 3, 99, 150])
@pytest.mark.parametrize("words", [b"ImageJ=1\nimages=9\nslices=9\0", b"<OME></OME>\0", b'{"shape": [9, 4, 4]}\0'])
def test_pages_in_a_circle(length: int, words: bytes) -> None:
    data = stored(np.zeros((4, 4), np.uint8), description=words[:-1].decode(), metadata=None, compression="packbits")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        link = file.pages.next_page_offset
    start = len(data) + len(data) % 2
    chain = [start + 6 * page for page in range(length)]
    links = b"".join(struct.pack("<HI", 0, after) for after in [*chain[1:], chain[0]])
    data = data[:link] + struct.pack("<I", start) + data[link + 4 :].ljust(start - link - 4, b"\0") + links
    found: object
    try:
        found = size_of(data)
    except Unreadable as error:
        found = str(error)
    assert found in ((4, 4), "damaged TIFF data")


def _with_tags(data: bytes, **values: int) -> bytes:
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name, value in values.items():
            tag = file.pages.first.tags[name]
            struct.pack_into("<HHII", changed, tag.offset, tag.code, 4, 1, value)
    return bytes(changed)


@pytest.mark.parametrize(
    "values",
    [
        {"TileWidth": 60_000, "TileLength": 60_000},
        {"TileWidth": 2**30, "TileLength": 2**30},
        {"TileWidth": 0, "TileLength": 0},
        {"ImageWidth": 1, "ImageLength": 170_000_000},
    ],
)
def test_blocks_out_of_proportion(values: dict[str, int]) -> None:
    """Nothing is allocated for more than the file can hold."""
    data = stored(numbers((64, 64)), tile=(64, 64), compression="deflate", metadata=None)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            decode(_with_tags(data, **values), Format(1, 16))
        assert tracemalloc.get_traced_memory()[1] < 2e9
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png", "webp"])
def test_an_image_inside_that_is_far_larger_than_its_block(compression: str) -> None:
    pixels = np.zeros((256, 256, 3), np.uint8)
    data = stored(pixels, photometric="rgb", compression=compression, metadata=None)
    assert (read(data) == pixels).all()
    with pytest.raises(Unreadable, match="damaged"):
        decode(_with_tags(data, ImageWidth=64, ImageLength=64, RowsPerStrip=64), Format(3, 8))


def test_a_truncated_jpeg_inside_is_not_half_gray() -> None:
    data = stored(numbers((64, 64, 3), np.uint8), photometric="rgb", compression="jpeg", metadata=None)
    with pytest.raises(Unreadable, match="early"):
        decode(data[: len(data) * 2 // 3], Format(3, 8))


@pytest.mark.parametrize("compression", ["jpegxl", "jpegxr", "lerc"])
def test_compressions_that_are_not_read_are_named(compression: str) -> None:
    data = stored(np.zeros((64, 64), np.uint8), compression=compression)
    with pytest.raises(Unreadable, match=r"compression \d+, which is not supported: save it with LZW or deflate"):
        decode(data, Format(1, 8))


def test_tags_that_all_point_to_one_place() -> None:
    """Each of 4,096 tags of 50,000 numbers would be read by itself."""
    for tag in (258, 273, 338, 339, 347):
        head = b"II*\0\x08\0\0\0" + struct.pack("<H", 4096)
        entries = struct.pack("<HHII", tag, 3, 50_000, len(head) + 4096 * 12 + 4) * 4096
        with pytest.raises(Unreadable):
            inspect(head + entries + bytes(4 + 100_000))


@pytest.mark.parametrize("pack", [tiff, npy])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_become_sixteen_bits(pack: type, dtype: type) -> None:
    values = numbers((20, 30), dtype)
    values[0, :2] = 0, 1
    assert np.abs(read(pack(values))[:, :, 0] - values.astype(float) * 65_535).max() <= 0.51
    for wrong in (1.01, -0.01, np.nan, np.inf):
        values[3, 3] = wrong
        with pytest.raises(Unreadable, match="scale them"):
            decode(pack(values), Format(1, 16))


@pytest.mark.parametrize("pack", [tiff, npy])
@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32, np.int32, np.int64, np.uint64])
def test_whole_numbers_are_kept_or_refused(pack: type, dtype: type) -> None:
    top = min(65_535, np.iinfo(dtype).max)
    values = np.linspace(0, top, 600).reshape(20, 30).astype(dtype)
    data = pack(values)
    assert inspect(data).depth == 16 and (read(data)[:, :, 0] == values).all()
    wrong = [number for number in (-1, 65_536) if np.iinfo(dtype).min <= number <= np.iinfo(dtype).max]
    for number in wrong:
        values[3, 3] = number
        with pytest.raises(Unreadable, match="outside of 0 to 65535: scale"):
            decode(pack(values), Format(1, 16))


@pytest.mark.parametrize(
    ("shape", "channels", "size"),
    [
        ((20, 30), 1, (20, 30)),
        ((20, 30, 3), 3, (20, 30)),
        ((3, 20, 30), 3, (20, 30)),
        ((13, 64, 64), 13, (64, 64)),
        ((64, 64, 13), 13, (64, 64)),
        ((2, 20, 30), 2, (20, 30)),
        ((20, 30, 1), 1, (20, 30)),
        ((1, 1), 1, (1, 1)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(shape: tuple[int, ...], channels: int, size: tuple[int, int], order: str) -> None:
    values = numbers(shape)
    image = read(npy(np.asarray(values, order=order)))
    assert image.shape == (*size, channels)
    first = len(shape) == 3 and shape[0] == channels
    assert (image == (values.transpose(1, 2, 0) if first else values.reshape(*size, channels))).all()


def test_npy_in_other_words() -> None:
    values = numbers((20, 30))
    assert (read(npy(values.astype(">u2")))[:, :, 0] == values).all()
    assert (read(npy(values > 30_000))[:, :, 0] == (values > 30_000) * 255).all()
    for version in ((1, 0), (2, 0), (3, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, values, version=version)
        assert (read(file.getvalue())[:, :, 0] == values).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(5, np.uint8), "1 axes"),
        (np.zeros((2, 3, 4, 5), np.uint8), "4 axes"),
        (np.zeros((4, 0), np.uint8), "without pixels"),
        (np.zeros((4, 4), np.complex64), "plain numbers"),
        (np.array([["a", "b"]]), "plain numbers"),
        (np.zeros((4, 4), [("x", "u1")]), "plain numbers"),
    ],
)
def test_npy_that_is_no_image(values: np.ndarray, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        inspect(npy(values))


def test_npy_is_never_unpickled() -> None:
    file = io.BytesIO()
    np.save(file, np.array([[object()]]), allow_pickle=True)
    with pytest.raises(Unreadable, match="plain numbers"):
        decode(file.getvalue(), Format(1, 8))
    with pytest.raises(Unreadable, match="early"):
        decode(npy(np.zeros((9, 9)))[:-1], Format(1, 16))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("compression", [None, "deflate", "lzma"])
def test_truncated_tiff(compression: str | None, share: float) -> None:
    data = tiff(numbers((64, 64, 5)), compression=compression, planarconfig="contig", rowsperstrip=16)
    with pytest.raises(Unreadable, match=r"early|damaged"):
        decode(data[: int(len(data) * share)], Format(5, 16))
