"""Schedules as pure functions of progress, from 0 at the first step to 1 at the end of the run."""

from math import cos, pi


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine from `start` at progress 0 to `end` at 1.

    >>> round(cosine(0.5, 0.996, 1.0), 6)
    0.998
    """
    return end + (start - end) * (1 + cos(pi * progress)) / 2


def warmup_cosine(progress: float, peak: float, warmup: float = 0.0, end: float = 0.0) -> float:
    """Linear from 0 to `peak` over the first `warmup` fraction of the run, then half a cosine to `end`.

    The learning rate of BYOL (app. A) and of most of the field.

    >>> round(warmup_cosine(0.05, peak=3.2, warmup=0.1), 6)
    1.6
    """
    if progress < warmup:
        return peak * progress / warmup
    return cosine((progress - warmup) / (1 - warmup) if warmup < 1 else 1.0, peak, end)
