"""Everything that follows the crop, for one image after the other.

All in one file: what numba keeps on disk it makes again when this file changes, and not when another does.
"""

import math

import numpy as np

from ownlatent.augment.kernels import Array, Scalar, compiled, f4

_RED, _GREEN, _BLUE = f4(0.2989), f4(0.5870), f4(0.1140)  # colour.LUMA, written here for the reason above


@compiled
def finish(
    crops: Array,
    flip: Array,
    factors: Array,
    order: Array,
    gray: Array,
    sigma: Array,
    window: int,
    solarize: Array,
    mean: Array,
    std: Array,
    out: Array,
) -> None:
    """Flip, jitter, grayscale, blur, solarise and normalise each of n crops: apply_view and normalize in one.

    crops: (n, C, S, S) uint8. flip, gray, solarize: (n,) bool. factors, order: (n, 4) as in Jitter.
    sigma: (n,) of the blur, 0 for none. window: of the blur. mean, std: (C,). out: (n, S, S, C) float32.
    """
    n, channels, size = crops.shape[:3]
    image = np.empty((channels, size * size), np.float32)
    scratch = np.empty((size, size), np.float32)
    padded = np.empty(size + window + 3, np.float32)
    for i in range(n):
        _load(crops[i], flip[i], image)
        for position in range(4):
            _adjust(image, order[i, position], factors[i, order[i, position]])
        if gray[i] and channels > 1:
            _grayscale(image)
        if sigma[i] > 0 and window >= 3:
            _blur(image, size, sigma[i], min(window // 2, size - 1), scratch, padded)
        if solarize[i]:
            for c in range(channels):
                x = image[c]
                for p in range(x.size):
                    x[p] = x[p] if x[p] < f4(0.5) else f4(1) - x[p]
        _store(image, mean, std, out[i])


@compiled
def _load(crop: Array, flip: bool, image: Array) -> None:
    """uint8 to [0, 1], mirrored if asked."""
    channels, size = crop.shape[:2]
    for c in range(channels):
        for y in range(size):
            pixels, line = crop[c, y], image[c, y * size : (y + 1) * size]
            if flip:
                mirrored = pixels[::-1]
                for x in range(size):
                    line[x] = f4(mirrored[x]) * f4(1 / 255)
            else:
                for x in range(size):
                    line[x] = f4(pixels[x]) * f4(1 / 255)


@compiled
def _store(image: Array, mean: Array, std: Array, out: Array) -> None:
    """Normalise and interleave the channels: networks on a processor want channels last."""
    channels = image.shape[0]
    flat = out.reshape(-1)
    if channels == 3:
        a, b, c = f4(1) / std[0], f4(1) / std[1], f4(1) / std[2]
        r, g, q = image[0], image[1], image[2]
        for p in range(r.size):
            flat[3 * p] = (r[p] - mean[0]) * a
            flat[3 * p + 1] = (g[p] - mean[1]) * b
            flat[3 * p + 2] = (q[p] - mean[2]) * c
    else:
        for c in range(channels):
            x, scale, shift = image[c], f4(1) / std[c], mean[c]
            for p in range(x.size):
                flat[channels * p + c] = (x[p] - shift) * scale


@compiled
def _adjust(image: Array, operation: int, factor: Scalar) -> None:
    """One operation of the colour jitter, by its number in colour.Jitter."""
    if operation == 0 and factor != f4(1):
        for c in range(image.shape[0]):
            x = image[c]
            for p in range(x.size):
                x[p] = min(max(x[p] * factor, f4(0)), f4(1))
    elif operation == 1 and factor != f4(1):
        offset = _gray_mean(image) * (f4(1) - factor)
        for c in range(image.shape[0]):
            x = image[c]
            for p in range(x.size):
                x[p] = min(max(x[p] * factor + offset, f4(0)), f4(1))
    elif operation == 2 and factor != f4(1) and image.shape[0] == 3:
        _saturation(image[0], image[1], image[2], factor)
    elif operation == 3 and factor != f4(0) and image.shape[0] == 3:
        _hue(image[0], image[1], image[2], factor)


@compiled
def _grayscale(image: Array) -> None:
    """The luma in all three channels, or of other numbers of channels the mean."""
    if image.shape[0] == 3:
        r, g, b = image[0], image[1], image[2]
        for p in range(r.size):
            gray = _RED * r[p] + _GREEN * g[p] + _BLUE * b[p]
            r[p] = gray
            g[p] = gray
            b[p] = gray
    else:
        mean, share = image[0], f4(1) / f4(image.shape[0])
        for c in range(1, image.shape[0]):
            x = image[c]
            for p in range(x.size):
                mean[p] += x[p]
        for p in range(mean.size):
            mean[p] *= share
        for c in range(1, image.shape[0]):
            image[c, :] = mean


@compiled
def _gray_mean(image: Array) -> Scalar:
    """Mean luma, or of other than three channels the mean: in float32 over a piece, in float64 over the pieces."""
    channels, size = image.shape
    total: Scalar = 0.0
    for c in range(channels):
        weight = (_RED if c == 0 else _GREEN if c == 1 else _BLUE) if channels == 3 else f4(1 / channels)
        for first in range(0, size, 4096):
            x = image[c, first : min(first + 4096, size)]
            piece = f4(0)
            for p in range(x.size):
                piece += x[p]
            total += weight * piece
    return f4(total / size)


@compiled
def _saturation(r: Array, g: Array, b: Array, factor: Scalar) -> None:
    rest = f4(1) - factor
    for p in range(r.size):
        gray = rest * (_RED * r[p] + _GREEN * g[p] + _BLUE * b[p])
        r[p] = min(max(r[p] * factor + gray, f4(0)), f4(1))
        g[p] = min(max(g[p] * factor + gray, f4(0)), f4(1))
        b[p] = min(max(b[p] * factor + gray, f4(0)), f4(1))


@compiled
def _hue(r: Array, g: Array, b: Array, turns: Scalar) -> None:
    """The rotation of augment/colour.py, term by term."""
    shift = f4(6) * turns
    for p in range(r.size):
        red, green, blue = r[p], g[p], b[p]
        value = max(max(red, green), blue)
        chroma = value - min(min(red, green), blue)
        inverse = f4(1) / max(chroma, f4(1e-8))
        from_red = (green - blue) * inverse
        from_green = (blue - red) * inverse + f4(2)
        from_blue = (red - green) * inverse + f4(4)
        sixth = (from_red if value == red else (from_green if value == green else from_blue)) + shift
        r[p] = value - chroma * _share(sixth + f4(5))
        g[p] = value - chroma * _share(sixth + f4(3))
        b[p] = value - chroma * _share(sixth + f4(1))


@compiled
def _share(k: Scalar) -> Scalar:
    k = k - f4(6) * f4(math.floor(k * f4(1 / 6)))
    return min(max(min(k, f4(4) - k), f4(0)), f4(1))


@compiled
def _blur(image: Array, size: int, sigma: Scalar, radius: int, scratch: Array, padded: Array) -> None:
    """Two one-dimensional passes with a symmetric kernel, edges mirrored.

    Beyond 4.5 sigma lie 7 millionths of a Gaussian, a five-hundredth of a gray level: those taps are
    left out. scratch: (size, size). padded: at least size + 2 * radius + 2.
    """
    radius = max(1, min(radius, math.ceil(4.5 * sigma)))
    kernel = np.zeros(radius + 2, np.float32)
    total = 0.0
    for k in range(radius + 1):
        kernel[k] = math.exp(-0.5 * (k / sigma) ** 2)
        total += kernel[k] if k == 0 else 2 * kernel[k]
    for k in range(radius + 1):
        kernel[k] /= f4(total)
    margin = radius + 1  # the taps go in pairs, so one beyond the radius may be read: its weight is zero
    for c in range(image.shape[0]):
        x = image[c].reshape(size, size)
        for y in range(size):
            line, here = scratch[y], x[y]
            for k in range(1, radius + 1, 2):
                a, b = x[_mirrored(y - k, size)], x[_mirrored(y + k, size)]
                d, e = x[_mirrored(y - k - 1, size)], x[_mirrored(y + k + 1, size)]
                one, two = kernel[k], kernel[k + 1]
                if k == 1:
                    for j in range(size):
                        line[j] = kernel[0] * here[j] + one * (a[j] + b[j]) + two * (d[j] + e[j])
                else:
                    for j in range(size):
                        line[j] += one * (a[j] + b[j]) + two * (d[j] + e[j])
        for y in range(size):
            line, here = x[y], scratch[y]
            padded[margin : margin + size] = here
            for k in range(1, margin + 1):
                padded[margin - k] = here[_mirrored(-k, size)]
                padded[margin + size - 1 + k] = here[_mirrored(size - 1 + k, size)]
            for k in range(1, radius + 1, 2):
                a, b = padded[margin - k :], padded[margin + k :]
                d, e = padded[margin - k - 1 :], padded[margin + k + 1 :]
                one, two = kernel[k], kernel[k + 1]
                if k == 1:
                    for j in range(size):
                        line[j] = kernel[0] * here[j] + one * (a[j] + b[j]) + two * (d[j] + e[j])
                else:
                    for j in range(size):
                        line[j] += one * (a[j] + b[j]) + two * (d[j] + e[j])


@compiled
def _mirrored(place: int, size: int) -> int:
    """The index that a place beyond the edge is mirrored to, at the edge pixel and from any distance."""
    period = max(1, 2 * (size - 1))
    place = abs(place) % period
    return place if place < size else period - place
