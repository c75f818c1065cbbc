"""The operations of a view for uint8 images on a processor, compiled by numba.

The functions of augment/crop.py, colour.py and blur.py define what the operations are, on any device and
for batches. On a processor most of their time goes into carrying whole batches through memory, and rows
that differ in what is done to them have to be picked out and put back for every operation. Here an image
stays in the cache from its first operation to its last, and each operation is a loop that the compiler
turns into vector instructions. tests/augment/test_kernels.py holds the two against each other.

Compiled when first used, a few seconds, and kept on disk for the next program.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

Array = np.ndarray
Scalar = Any  # a float32 or float64 of the compiled code
f4 = np.float32


def compiled(function: Callable) -> Callable:
    """Compile when first called. No bounds are checked, and sums may be taken in any order; there are no NaNs."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "arcp", "nsz", "nnan", "ninf"},
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return numba.njit(**options)(function)
