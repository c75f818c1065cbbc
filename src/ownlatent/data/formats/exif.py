"""How an image is to be turned, read from EXIF by itself: Pillow prints what it does not like in the rest of it."""

import struct

_ORIENTATION, _SHORT = 0x0112, 3


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block; 1 if there is none to be found."""
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(at + 2, at + 2 + entries * 12, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):  # metadata are often damaged where the image is not
        pass
    return 1
