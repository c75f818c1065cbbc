"""What a tar file holds and where in it, by its headers: nothing is unpacked."""

import os
from collections.abc import Iterator
from typing import NamedTuple

FILES, LINKS = (b"0", b"\0", b"7"), (b"1", b"2")  # types of members
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_BLOCK = 512
_READ = 16 * 1024  # bytes read at a time: the headers of several small files
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class Member(NamedTuple):
    """An entry of a tar file: its type is one letter, its offset and size are bytes."""

    name: bytes
    type: bytes
    offset: int
    size: int


class Damaged(Exception):
    """From this byte on, what follows is no tar file."""


def compression(beginning: bytes) -> str | None:
    """What a file is compressed with, by its first six bytes."""
    return next((kind for magic, kind in _COMPRESSED.items() if beginning.startswith(magic)), None)


def members(file: int, length: int) -> Iterator[Member]:
    """What a tar file of so many bytes holds, by its headers. Raises Damaged and OSError."""
    position, window, window_start = 0, b"", 0
    name: bytes | None = None
    size: int | None = None
    while position < length:
        if not window_start <= position <= position + _BLOCK <= window_start + len(window):
            window, window_start = os.pread(file, _READ, position), position
        header = window[position - window_start :][:_BLOCK]
        if len(header) == _BLOCK and not any(header):
            return
        member = _parse(header, position)
        if size is not None and member.type not in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            member = member._replace(size=size)
        position = member.offset + -(-member.size // _BLOCK) * _BLOCK
        if member.type in (_LONG_NAME, _PAX):
            if member.size > 1 << 20 or position > length:
                raise Damaged(f"it is damaged or cut off from byte {member.offset} on")
            content = os.pread(file, member.size, member.offset)
            if member.type == _LONG_NAME:
                name = content.rstrip(b"\0")
            else:
                records = _records(content)
                name, size = records.get(b"path", name), _whole(records.get(b"size"), size)
        elif member.type not in (_LONG_LINK, _PAX_GLOBAL):
            yield member if name is None else member._replace(name=name)
            name = size = None


def _parse(header: bytes, position: int) -> Member:
    damaged = Damaged(f"it is damaged or cut off from byte {position} on")
    if len(header) < _BLOCK:
        raise damaged
    try:
        check = int(header[148:156].split(b"\0")[0].strip() or b"-1", 8)
        length = header[124:136]
        if length[0] & 0x80:  # too large for octal digits
            size = int.from_bytes(length[1:], "big")
        else:
            size = int(length.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise damaged from None
    if check != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
        raise damaged
    name, prefix, type = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0], header[156:157]
    if prefix and header[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return Member(name, type, position + _BLOCK, 0 if type in b"123456" else size)


def _records(content: bytes) -> dict[bytes, bytes]:
    """The "LENGTH KEY=VALUE" lines of a pax header; what is not of that form ends them."""
    found = {}
    while content:
        digits, _, rest = content.partition(b" ")
        length = _whole(digits, 0) or 0
        if length <= len(digits) + 1:
            break
        key, _, value = rest[: length - len(digits) - 2].partition(b"=")
        found[key] = value
        content = content[length:]
    return found


def _whole(text: bytes | None, otherwise: int | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else otherwise
