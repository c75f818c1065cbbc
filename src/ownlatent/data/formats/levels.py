"""Numbers of any type to the levels of an image."""

import numpy as np

from ownlatent.data.formats.picture import Unreadable


def depth_of(dtype: np.dtype) -> int:
    """8 bits for uint8 and bool, 16 for anything else."""
    return 8 if dtype == np.uint8 or dtype == np.bool_ else 16


def to_levels(values: np.ndarray, depth: int) -> np.ndarray:
    """uint8 for uint8 and bool, else uint16: whole numbers are kept, fractions from 0 to 1 become 0 to 65535.

    Raises Unreadable for numbers outside of these ranges.
    """
    if depth == 8:
        return values if values.dtype == np.uint8 else values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is refused too
            raise Unreadable("it has fractions outside of 0 to 1: scale them, or save whole numbers from 0 to 65535")
        return (values.astype(np.float32) * 65535 + 0.5).astype(np.uint16)
    if values.dtype != np.uint16 and (values.min() < 0 or values.max() > 65535):
        raise Unreadable("it has numbers outside of 0 to 65535: scale them to that range")
    return values.astype(np.uint16)
