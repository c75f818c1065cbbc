"""Views for images without the three channels that the papers' operations were made for."""

from collections.abc import Sequence
from dataclasses import replace

from ownlatent.augment.recipes import View


def suited_to(views: Sequence[View], channels: int) -> tuple[tuple[View, ...], list[str]]:
    """The views without what means nothing for images of so many channels, and what was changed, in words.

    Brightness, contrast, blur and solarise are the same for any channels. Saturation and hue need
    red, green and blue; grayscale needs at least two channels, and of other than three takes their mean.
    """
    if channels == 3:
        return tuple(views), []
    changes = []
    if any(view.jitter and (view.saturation or view.hue) for view in views):
        changes.append("saturation and hue left out, they need red, green and blue")
    if any(view.grayscale for view in views):
        lost = "left out, there is no colour" if channels == 1 else "replaced by the mean of the channels"
        changes.append(f"grayscale {lost}")
    if channels == 1:
        views = [replace(view, grayscale=0.0) for view in views]
    return tuple(replace(view, saturation=0.0, hue=0.0) for view in views), changes
