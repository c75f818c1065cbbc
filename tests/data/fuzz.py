"""Image files of every kind, damaged in every way, from a seed: each must be decoded or be Unreadable, in silence.

`run(count, seed)` does so in a process of its own with limited memory, so that a crash, a hang and a killed process
are seen too. File `number` of a seed is always the same: `damaged(number, seed)` makes it again.
"""

import io
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import tifffile
from PIL import Image

MEMORY = 4 << 30  # bytes that decoding may take, beyond what the process has after its imports
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def run(count: int, seed: int, seconds_each: float = 0.2) -> tuple[int, list[str]]:
    """(files tried, what went wrong with which of them), of `count` damaged files."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.txt"
        command = [sys.executable, __file__, str(count), str(seed), str(record)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60 + seconds_each * count)
            problems = [f"the process printed: {text.strip()}" for text in (ended.stdout, ended.stderr) if text]
            if ended.returncode:
                problems.append(f"the process ended with {ended.returncode}")
        except subprocess.TimeoutExpired:
            problems = ["the process hung"]
        lines = record.read_text().splitlines() if record.exists() else []
    tried = sum(line.startswith("file ") for line in lines)
    if problems:
        problems = [f"{problem} (last: {lines[-1] if lines else 'nothing'})" for problem in problems]
    return tried, problems + [line for line in lines if not line.startswith("file ")]


def damaged(number: int, seed: int) -> tuple[str, bytes]:
    """(what it was, its content) of one file."""
    rng = np.random.default_rng([seed, number])
    kinds = files()
    name = list(kinds)[number % len(kinds)]
    data = kinds[name]
    done = []
    for _ in range(int(rng.integers(1, 4))):
        damage = _DAMAGES[int(rng.integers(len(_DAMAGES)))]
        data = damage(data, rng)
        done.append(damage.__name__.strip("_"))
    return f"{name} ({', '.join(done)})", data


def problems_with(data: bytes) -> Iterator[str]:
    """What is wrong in how these data are treated: nothing, whatever they hold."""
    from ownlatent.data.decode import Format, Unreadable, decode, inspect, size_of

    found = {}
    for question in (inspect, size_of):
        try:
            found[question] = question(data)
        except Unreadable as error:
            yield from _problems_with_reason(str(error))
        except BaseException as error:
            yield f"{question.__name__} raised {error!r}"
    for shrink in (1, 4):
        wanted = found.get(inspect, Format(3, 8))
        try:
            image = decode(data, wanted, shrink)
        except Unreadable as error:
            yield from _problems_with_reason(str(error))
            continue
        except BaseException as error:
            yield f"decode raised {error!r}"
            continue
        if len(found) < 2:
            yield "it was decoded although its header cannot be read"
        elif str(image.dtype) != f"torch.uint{wanted.depth}" or image.shape[0] != wanted.channels:
            yield f"it was decoded to {image.dtype} {tuple(image.shape)}, not to {wanted}"
        elif shrink == 1 and not wanted.sound and tuple(image.shape[1:]) != found[size_of]:
            yield f"its size is {tuple(image.shape[1:])} and not {found[size_of]}"


def _problems_with_reason(reason: str) -> Iterator[str]:
    if not 0 < len(reason) < 120 or not reason.isprintable() or "0x" in reason or "\\x" in reason:
        yield f"a reason that is none: {reason!r}"


@cache
def files() -> dict[str, bytes]:
    """Undamaged files of every kind and flavour, 48 x 40 pixels or a twelfth of a second."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(40) * 3, np.arange(48) * 2)[:, :, None] + np.array([0, 20, 40])
    pixels = (ramp + rng.integers(0, 12, ramp.shape)).clip(0, 255).astype(np.uint8)
    deep = pixels.astype(np.uint16) * 250
    stack = np.stack([np.concatenate([deep, deep[:, ::-1, :2]], axis=2).transpose(2, 0, 1)] * 2)  # (2, 5, H, W)
    image, other = Image.fromarray(pixels), Image.fromarray(255 - pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "turned"
    tone = 0.5 * np.sin(np.arange(4000) / 9)[:, None] * np.array([1, 0.5])
    found = {
        "wav": _heard(tone, "WAV", "PCM_16"),
        "wav float": _heard(tone, "WAV", "FLOAT"),
        "flac": _heard(tone, "FLAC", "PCM_24"),
        "ogg vorbis": _heard(tone, "OGG", "VORBIS"),
        "ogg opus": _heard(tone, "OGG", "OPUS"),
        "mp3": _heard(tone, "MP3", "MPEG_LAYER_III"),
        "aiff": _heard(tone, "AIFF", "PCM_16"),
        "jpeg": _saved(image, "JPEG"),
        "jpeg turned": _saved(image, "JPEG", exif=exif),
        "jpeg gray": _saved(image.convert("L"), "JPEG"),
        "jpeg progressive": _saved(image, "JPEG", progressive=True),
        "jpeg cmyk": _saved(image.convert("CMYK"), "JPEG"),
        "jpeg restarts": _saved(image, "JPEG", subsampling=0, restart_marker_rows=1),
        "png": _saved(image, "PNG", exif=exif),
        "png alpha": _saved(image.convert("RGBA"), "PNG"),
        "png palette": _saved(image.quantize(40), "PNG", transparency=3),
        "png bits": _saved(image.convert("1"), "PNG"),
        "png deep gray": _saved(Image.fromarray(deep[:, :, 0]), "PNG"),
        "png deep": png(deep),
        "png deep interlaced": png(deep, interlaced=True),
        "png interlaced": png(pixels, interlaced=True),
        "png animated": _saved(image, "PNG", save_all=True, append_images=[other]),
        "tiff": _saved(image, "TIFF"),
        "tiff pages": _saved(image, "TIFF", save_all=True, append_images=[other]),
        "tiff lzw": _saved(image, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": _saved(image, "TIFF", compression="jpeg"),
        "tiff fax": _saved(image.convert("1"), "TIFF", compression="group4"),
        "tiff palette": _saved(image.quantize(40), "TIFF", compression="packbits"),
        "tiff cmyk": _saved(image.convert("CMYK"), "TIFF", exif=exif),
        "tiff deep": tiff(deep, compression="deflate", predictor=2),
        "tiff tiles": tiff(deep, tile=(16, 32), compression="deflate"),
        "tiff big": tiff(deep, bigtiff=True, byteorder=">"),
        "tiff many": tiff(
            np.tile(deep, (1, 1, 3)).transpose(2, 0, 1), planarconfig="separate", photometric="minisblack"
        ),
        "tiff float": tiff((pixels / 255).astype(np.float32), compression="lzma"),
        "tiff pages of tiles": tiff(np.stack([pixels, pixels]), tile=(16, 16), compression="deflate"),
        "tiff gray": tiff(pixels[:, :, 0], compression="zstd", description="a word", metadata=None),
        "tiff bits": tiff(pixels[:, :, 0] > 90, compression="packbits"),
        "tiff jpeg tiles": tiff(pixels, compression="jpeg", tile=(16, 32)),
        "tiff jpeg 2000": tiff(deep, compression="jpeg2000"),
        "tiff webp": tiff(pixels, compression="webp", metadata={"axes": "YXS"}),
        "tiff png": tiff(deep, compression="png"),
        "tiff stack": tiff(stack[0]),
        "tiff stack of blocks": tiff(stack[0], compression="lzw", predictor=2),
        "tiff stack upright": tiff(stack[0].transpose(1, 2, 0), photometric="minisblack", planarconfig="contig"),
        "tiff imagej": tiff(stack, imagej=True, metadata={"axes": "TCYX"}),
        "tiff imagej zipped": tiff(stack, imagej=True, metadata={"axes": "ZCYX"}, compression="deflate"),
        "tiff ome": tiff(stack, ome=True, metadata={"axes": "ZCYX"}),
        "tiff ome zipped": tiff(stack.swapaxes(0, 1), ome=True, metadata={"axes": "CTYX"}, compression="deflate"),
        "tiff ome of colours": tiff(
            stack[:, :3].transpose(0, 2, 3, 1), ome=True, metadata={"axes": "TYXS"}, tile=(16, 16)
        ),
        "tiff qpi": tiff(stack[0], software="PerkinElmer-QPI", metadata=None, compression="deflate"),
        "gif": _saved(image, "GIF"),
        "gif animated": _saved(image, "GIF", save_all=True, append_images=[other], disposal=2, transparency=0),
        "webp": _saved(image, "WEBP", exif=exif),
        "webp lossless": _saved(image.convert("RGBA"), "WEBP", lossless=True),
        "webp animated": _saved(image, "WEBP", save_all=True, append_images=[other]),
        "bmp": _saved(image, "BMP"),
        "bmp palette": _saved(image.quantize(16), "BMP"),
        "ppm": _saved(image, "PPM"),
        "pgm deep": b"P5\n48 40\n65535\n" + deep[:, :, 0].astype(">u2").tobytes(),
        "pgm plain": b"P2\n4 3\n255\n" + b" ".join(b"%d" % value for value in range(12)) + b"\n",
        "jpeg 2000": _saved(image, "JPEG2000"),
        "avif": _saved(image, "AVIF", exif=exif, speed=10),
        "npy": npy(pixels),
        "npy deep": npy(deep.transpose(2, 0, 1)),
        "npy float": npy((pixels[:, :, 0] / 255).astype(np.float16)),
    }
    return found


def png(pixels: np.ndarray, interlaced: bool = False) -> bytes:
    """A PNG file of uint8 or uint16 (H, W, C), interlaced too, neither of which Pillow writes."""
    height, width, channels = pixels.shape
    lines = b""
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        part = pixels[top::down, left::across].astype(pixels.dtype.newbyteorder(">"))
        if part.size:
            lines += b"".join(b"\0" + line.tobytes() for line in part)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, interlaced)
    return png_of(header, zlib.compress(lines))


def png_of(header: bytes, coded: bytes, **others: bytes) -> bytes:
    """A PNG file of the content of its chunks."""
    chunks = {
        b"IHDR": header,
        **{name.encode(): content for name, content in others.items()},
        b"IDAT": coded,
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks.items())


def tiff(pixels: np.ndarray, **settings: object) -> bytes:
    """A TIFF file by tifffile."""
    file = io.BytesIO()
    settings.setdefault("photometric", "rgb" if pixels.shape[-1] in (3, 4) else "minisblack")
    tifffile.imwrite(file, pixels, **settings)
    return file.getvalue()


def npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def _heard(samples: np.ndarray, format: str, subtype: str) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, 48_000, format=format, subtype=subtype)
    return content.getvalue()


def _saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(0, len(data), rng.integers(1, 30)):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data) + 1))]


def _mark_end(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, but with the end that the format asks for."""
    end = {b"\xff\xd8": b"\xff\xd9", b"\x89P": _chunk(b"IEND", b""), b"GI": b"\0;"}.get(data[:2], b"")
    return _cut(data, rng) + end


def _splice(data: bytes, rng: np.random.Generator) -> bytes:
    """Goes on as another file, or another place of this one, does."""
    others = list(files().values())
    other = others[int(rng.integers(len(others)))] if rng.random() < 0.5 else data
    return data[: int(rng.integers(1, len(data) + 1))] + other[int(rng.integers(0, len(other))) :]


def _swap(data: bytes, rng: np.random.Generator) -> bytes:
    size = int(rng.integers(1, max(2, len(data) // 4)))
    first, second = sorted(int(at) for at in rng.integers(0, len(data), 2))
    if second < first + size:
        return data
    a, b = data[first : first + size], data[second : second + size]
    return data[:first] + b + data[first + size : second] + a + data[second + size :]


def _header(data: bytes, rng: np.random.Generator) -> bytes:
    """Extreme or random values in the first bytes behind the signature."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, size = int(rng.integers(4, 120)), int(rng.choice([1, 2, 4, 8]))
        value = [b"\0" * size, b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), rng.bytes(size)][int(rng.integers(4))]
        changed[at : at + size] = value
    return bytes(changed[: len(data)])


def _enlarge(data: bytes, rng: np.random.Generator) -> bytes:
    """Claims far more pixels than there are, now and then more than anyone would allow."""
    if len(data) < 34:
        return data
    sides = [int(side) for side in rng.choice([0, 1, 200, 3000, 9000, 13_000, 65_000, 2**31 - 1], 2)]
    changed = bytearray(data)
    if data[:2] == b"\xff\xd8":
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            at = data.find(marker)
            if 0 < at < len(data) - 9:
                struct.pack_into(">HH", changed, at + 5, *(side & 0xFFFF for side in sides))
    elif data[:4] == b"\x89PNG" and len(data) > 33:
        struct.pack_into(">II", changed, 16, *sides)
        struct.pack_into(">I", changed, 29, zlib.crc32(changed[12:29]))
    elif data[:3] in (b"II*", b"MM\0"):
        order = "<" if data[:2] == b"II" else ">"
        for tag, side in zip((256, 257), sides, strict=True):
            for kind in (3, 4):
                at = data.find(struct.pack(order + "HHI", tag, kind, 1))
                if 0 < at < len(data) - 12:
                    struct.pack_into(order + "HHII", changed, at, tag, 4, 1, side)
    elif data[:3] == b"GIF":
        struct.pack_into("<HH", changed, 6, *(side & 0xFFFF for side in sides))
    elif data[:2] == b"BM":
        struct.pack_into("<II", changed, 18, *sides)
    elif data[:4] == b"RIFF":
        changed[24:30] = b"".join((side & 0xFFFFFF).to_bytes(3, "little") for side in sides)
    elif data[:1] == b"P":
        return data[:3] + b"%d %d" % tuple(sides) + data[8:]
    elif data[:6] == b"\x93NUMPY":
        return data.replace(b"(40, 48", b"(%d, %d" % tuple(sides), 1)
    return bytes(changed)


def _recode(data: bytes, rng: np.random.Generator) -> bytes:
    """A PNG damaged below its checksums, in the compressed lines or in the lines themselves; others are flipped."""
    if data[:4] != b"\x89PNG" or b"IDAT" not in data:
        return _flip(data, rng)
    at, chunks = 8, []
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if content and rng.random() < 0.5:
            try:
                content = zlib.compress(_flip(zlib.decompress(content), rng))
            except zlib.error:
                content = _flip(content, rng)
        chunks.append(_chunk(name, content))
        at += 12 + size
    return data[:8] + b"".join(chunks)


def _entry(data: bytes, rng: np.random.Generator) -> bytes:
    """A TIFF with a tag of another kind, length, value or place, or a chain of pages that leads elsewhere."""
    if data[:3] not in (b"II*", b"MM\0") or len(data) < 60:
        return _flip(data, rng)
    order = "<" if data[:2] == b"II" else ">"
    changed = bytearray(data)
    first, *_ = struct.unpack_from(order + "I", data, 4)
    if first > len(data) - 2:
        return _flip(data, rng)
    entries, *_ = struct.unpack_from(order + "H", data, first)
    for _ in range(int(rng.integers(1, 4))):
        at = first + 2 + 12 * int(rng.integers(0, min(entries, 40) + 1))
        field, kind = [(0, "H"), (2, "H"), (4, "I"), (8, "I")][int(rng.integers(4))]
        if at + 12 > len(data):
            continue
        old, *_ = struct.unpack_from(order + kind, data, at + field)
        near = [0, 1, 2, 3, 4, 8, 16, 40, 255, 256, 4096, 65_535, first, old + 1, old * 2, len(data), len(data) // 2]
        value = int(rng.choice([*near, 258, 259, 262, 270, 273, 277, 284, 317, 320, 322, 325, 330, 338, 347, 2**31]))
        struct.pack_into(order + kind, changed, at + field, value & (0xFFFF if kind == "H" else 0xFFFFFFFF))
    return bytes(changed)


def _digits(data: bytes, rng: np.random.Generator) -> bytes:
    """Other numbers of as many digits in what a header says in words."""
    return (
        re.sub(
            rb"(?<=[=\x22 ])\d{1,9}(?=[\n\x22, \]])",
            lambda found: (
                b"%0*d" % (len(found[0]), rng.integers(10 ** len(found[0]))) if rng.random() < 0.2 else found[0]
            ),
            data[:4000],
        )
        + data[4000:]
    )


_DAMAGES = (_flip, _cut, _mark_end, _splice, _swap, _header, _enlarge, _recode, _entry, _digits)


def _main(count: int, seed: int, record: Path) -> None:
    import resource

    from ownlatent.data import decode  # noqa: F401  (before memory is limited)

    if sys.platform == "linux":  # elsewhere the limit is not kept to
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with record.open("w", buffering=1) as lines:
        for number in range(count):
            name, data = damaged(number, seed)
            lines.write(f"file {number}: {name}\n")
            for problem in problems_with(data):
                lines.write(f"{number}: {name}: {problem}\n".replace("\r", " "))


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
