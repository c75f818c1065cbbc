"""Cut a box out of an image of bytes and resize it."""

import math

import numpy as np
from torch import Tensor

from ownlatent.augment.kernels import Array, Scalar, compiled, f4

u8 = np.uint64

# Interpolation in whole numbers, as Pillow does it: three channels at a time in one 64-bit word, 21 bits each,
# which holds a sum of 8-bit values with weights that sum to 2**13.
_LANE, _ONE = 21, 1 << 13
_HALF = u8((_ONE // 2) | (_ONE // 2) << _LANE | (_ONE // 2) << 2 * _LANE)


def planes(image: Tensor) -> np.ndarray:
    """An image (C, H, W), in either memory order, as crop_uint8 takes it, without a copy where possible."""
    array = image.numpy()
    if array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array.transpose(1, 2, 0)).reshape(1, array.shape[1], -1)


@compiled
def crop_batch(sources: Array, places: Array, boxes: Array, out: Array) -> None:
    """crop_uint8 for n of the images (N, C, H, W) of one size: places (n,), boxes (n, 4) float64, out (n, C, S, S)."""
    for i in range(len(places)):
        box = (boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3])
        crop_uint8(sources[places[i]], sources.shape[1], box, out[i])


@compiled
def crop_uint8(source: Array, channels: int, box: tuple[Scalar, ...], out: Array) -> None:
    """Cut a box out of one image and resize it, as apply_crop does, rounded as Pillow rounds.

    source: uint8, either (C, H, W) or (1, H, W * C) for an image whose channels are interleaved.
    box: a tuple of four floats, top, left, height and width in pixels, not necessarily whole. out: (C, S, S) uint8.
    """
    planes, size = source.shape[0], out.shape[1]
    step = channels if planes == 1 else 1  # from one pixel to the next in a row
    source_height, source_width = source.shape[1], source.shape[2] // step
    taps = int(max(math.ceil(box[2] / size), math.ceil(box[3] / size))) * 2 + 3
    rows, row_weights = np.empty(size, np.int64), np.empty((taps, size), np.float32)
    columns, column_weights = np.empty(size, np.int64), np.empty((taps, size), np.float32)
    num_rows = triangle(box[0], box[2], source_height, size, rows, row_weights)
    num_columns = triangle(box[1], box[3], source_width, size, columns, column_weights)

    left = max(0, math.floor(box[1]))
    width = min(source_width, math.ceil(box[1] + box[3])) - left
    places = np.empty(size, np.uint64)
    whole = np.zeros((taps, size), np.uint64)
    for x in range(size):
        places[x] = u8(columns[x] - left)
        given, largest = 0, 0
        for k in range(num_columns):
            weight = int(column_weights[k, x] * f4(_ONE) + f4(0.5))
            whole[k, x] = u8(weight)
            given += weight
            if column_weights[k, x] > column_weights[largest, x]:
                largest = k
        whole[largest, x] = u8(int(whole[largest, x]) + _ONE - given)  # so that a flat image stays flat

    length = width * step
    row = np.empty(planes * length, np.float32)
    packed = np.zeros(width + taps, np.uint64)
    sums = np.empty(size, np.uint64)
    for y in range(size):
        # Down the columns first: there neighbours in a row are neighbours in memory.
        for plane in range(planes):
            line = row[plane * length : (plane + 1) * length]
            for k in range(0, num_rows, 2):
                a, b = row_weights[k, y], row_weights[k + 1, y]
                if k > 0 and a == f4(0) and b == f4(0):
                    break
                last = source_height - 1
                p = source[plane, min(rows[y] + k, last), left * step : left * step + length]
                q = source[plane, min(rows[y] + k + 1, last), left * step : left * step + length]
                if k == 0:
                    for j in range(length):
                        line[j] = a * f4(p[j]) + b * f4(q[j])
                else:
                    for j in range(length):
                        line[j] += a * f4(p[j]) + b * f4(q[j])
        for c in range(0, channels, 3):
            _pack(row, width, step, 1 if planes == 1 else length, c, min(3, channels - c), packed)
            for k in range(0, num_columns, 2):  # two taps at a time, as above; a tap too many weighs nothing
                one, other, weights, others = packed[k:], packed[k + 1 :], whole[k], whole[k + 1]
                if k == 0:
                    for x in range(size):
                        sums[x] = _HALF + weights[x] * one[places[x]] + others[x] * other[places[x]]
                else:
                    for x in range(size):
                        sums[x] += weights[x] * one[places[x]] + others[x] * other[places[x]]
            for lane in range(min(3, channels - c)):
                line_out, shift = out[c + lane, y], u8(13 + _LANE * lane)
                for x in range(size):
                    line_out[x] = np.uint8(sums[x] >> shift)


@compiled
def triangle(start: Scalar, length: Scalar, limit: int, size: int, first: Array, weights: Array) -> int:
    """Fill the taps of the triangle filter: output i is sum over k of weights[k, i] * source[first[i] + k].

    The same weights as crop.resize_weights, of pixels from 0 to `limit` - 1. first: (size,). weights:
    (K, size), K at least 2 * ceil(length / size) + 2. Returns the largest number of taps in use.
    """
    scale = length / size
    support = max(scale, 1.0)
    most = 0
    for i in range(size):
        centre = start + (i + 0.5) * scale
        low = max(math.ceil(centre - support - 0.5), max(0, math.floor(start)))
        high = min(math.floor(centre + support - 0.5) + 1, min(limit, math.ceil(start + length)))
        total = 0.0
        for k in range(high - low):
            weight = max(0.0, 1.0 - abs(low + k + 0.5 - centre) / support)
            weights[k, i] = weight
            total += weight
        for k in range(high - low):
            weights[k, i] /= f4(total)
        for k in range(high - low, weights.shape[0]):
            weights[k, i] = f4(0)
        first[i] = low
        most = max(most, high - low)
    return most


@compiled
def _pack(row: Array, width: int, step: int, channel_step: int, first: int, count: int, packed: Array) -> None:
    """Round `count` channels of a row, from channel `first`, into the lanes of one word for each pixel."""
    half = f4(0.5)
    if count == 3 and step == 3:
        for x in range(width):
            a, b, c = row[3 * x], row[3 * x + 1], row[3 * x + 2]
            packed[x] = u8(np.int64(a + half)) | (u8(np.int64(b + half)) << u8(21)) | (u8(np.int64(c + half)) << u8(42))
    elif count == 3 and step == 1:
        p, q, r = row[first * channel_step :], row[(first + 1) * channel_step :], row[(first + 2) * channel_step :]
        for x in range(width):
            packed[x] = (
                u8(np.int64(p[x] + half))
                | (u8(np.int64(q[x] + half)) << u8(21))
                | (u8(np.int64(r[x] + half)) << u8(42))
            )
    else:
        for x in range(width):
            packed[x] = u8(0)
        for lane in range(count):
            start = (first + lane) * channel_step
            for x in range(width):
                packed[x] |= u8(np.int64(row[start + x * step] + half)) << u8(_LANE * lane)
