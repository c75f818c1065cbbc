"""Headers of tar files of every dialect, and of broken ones."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ownlatent.data.index.tar import Damaged, Member, compression, members

LONG = "folder/" * 30 + "x" * 120 + ".png"
NAMES = ["a.png", "deep/er/b.png", LONG, "ünï/çödé.png", "c" * 100 + ".png", "p" * 90 + "/" + "c" * 90 + ".png"]


def walk(path: Path) -> list[Member]:
    with open(path, "rb") as file:
        return list(members(file.fileno(), os.fstat(file.fileno()).st_size))


def make(path: Path, sizes: dict[str, int], **options: object) -> Path:
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for number, (name, size) in enumerate(sizes.items()):
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, io.BytesIO(bytes([number % 256]) * size))
    return path


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 40_000])
def test_the_same_as_pythons_own_reader(tmp_path: Path, format: int, size: int) -> None:
    path = make(tmp_path / "a.tar", dict.fromkeys(NAMES, size), format=format)
    with tarfile.open(path) as tar:
        expected = [(entry.name, entry.offset_data, entry.size) for entry in tar]
    assert [(member.name.decode(), member.offset, member.size) for member in walk(path)] == expected
    assert [name for name, _, _ in expected] == NAMES


def test_names_that_old_headers_split_in_two(tmp_path: Path) -> None:
    names = ["a.png", "p" * 90 + "/" + "c" * 90 + ".png"]
    path = make(tmp_path / "a.tar", dict.fromkeys(names, 3), format=tarfile.USTAR_FORMAT)
    assert [member.name.decode() for member in walk(path)] == names


def test_what_is_no_file_has_no_content(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, type in (
            ("d", tarfile.DIRTYPE),
            ("l", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("p", tarfile.FIFOTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = type, 0, "elsewhere" * 20
            tar.addfile(entry)
        entry = tarfile.TarInfo("file")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"12345"))
    found = walk(tmp_path / "a.tar")
    assert [member.type for member in found] == [b"5", b"2", b"1", b"6", b"0"]
    with open(tmp_path / "a.tar", "rb") as file:
        assert os.pread(file.fileno(), found[-1].size, found[-1].offset) == b"12345"


def test_sizes_beyond_octal_digits_and_in_records(tmp_path: Path) -> None:
    """Eight gigabytes do not fit the digits; the files hold nothing after the header, as a sparse file would."""
    huge = 9 * 2**30
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        entry = tarfile.TarInfo("huge.png")
        entry.size = huge
        (tmp_path / "a.tar").write_bytes(entry.tobuf(format=format))
        with open(tmp_path / "a.tar", "rb") as file:
            assert [member.size for member in members(file.fileno(), huge)] == [huge]


@pytest.mark.parametrize("spoil", ["cut in a header", "checksum", "digits", "text", "endless name"])
def test_damage_ends_the_walk(tmp_path: Path, spoil: str) -> None:
    path = make(tmp_path / "a.tar", {"a.png": 600, "b.png": 600, "c.png": 600})
    data = bytearray(path.read_bytes())
    second = 512 + 1024
    if spoil == "cut in a header":
        del data[second + 100 :]
    elif spoil == "checksum":
        data[second] ^= 1
    elif spoil == "digits":
        data[second + 124] = ord("x")
    elif spoil == "text":
        data[second : second + 512] = b"no header" + bytes(503)
    else:
        entry = tarfile.TarInfo("n")
        entry.type, entry.size = b"L", 2**40
        data[second : second + 512] = entry.tobuf(format=tarfile.GNU_FORMAT)[:512]
    path.write_bytes(data)
    with open(path, "rb") as file:
        found = members(file.fileno(), len(data))
        assert next(found).name == b"a.png"
        with pytest.raises(Damaged, match=f"from byte {second}|from byte {second + 512}"):
            next(found)


def test_an_archive_without_its_end_is_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar", {"a.png": 512})
    path.write_bytes(path.read_bytes()[:1024])
    assert [member.name for member in walk(path)] == [b"a.png"]


def test_a_broken_record_is_not_followed(tmp_path: Path) -> None:
    data = bytearray(make(tmp_path / "a.tar", {"ü" * 80 + ".png": 5}, format=tarfile.PAX_FORMAT).read_bytes())
    data[512:516] = b"0 xy"
    (tmp_path / "a.tar").write_bytes(data)
    assert len(walk(tmp_path / "a.tar")) == 1


@pytest.mark.parametrize(
    ("opened", "kind"), [("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")], ids=lambda value: str(value)
)
def test_compressed_files_are_told_by_their_content(tmp_path: Path, opened: str, kind: str) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{opened}"):
        pass
    assert compression((tmp_path / "a.tar").read_bytes()[:6]) == kind
    assert compression(b"a.png\0") is None


def test_reading_needs_few_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.tar", {f"{number}.png": 700 for number in range(200)})
    count = 0
    pread: Callable[[int, int, int], bytes] = os.pread

    def counted(*arguments: int) -> bytes:
        nonlocal count
        count += 1
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", counted)
    assert len(walk(path)) == 200
    assert count < 40
