"""Views for images without the three channels that the papers' operations were made for."""

from collections.abc import Sequence
from dataclasses import replace

from ownlatent.augment.recipes import AnyView, View


def suited_to(views: Sequence[AnyView], channels: int) -> tuple[tuple[AnyView, ...], list[str]]:
    """The views without what means nothing for images of so many channels, and what was changed, in words.

    Brightness, contrast, blur and solarise are the same for any channels. Saturation and hue need
    red, green and blue; grayscale needs at least two channels, and of other than three takes their mean.
    Views of sounds are left as they are.
    """
    pictures = [view for view in views if isinstance(view, View)]
    if channels == 3 or not pictures:
        return tuple(views), []
    changes = []
    if any(view.jitter and (view.saturation or view.hue) for view in pictures):
        changes.append("saturation and hue left out, they need red, green and blue")
    if any(view.grayscale for view in pictures):
        lost = "left out, there is no colour" if channels == 1 else "replaced by the mean of the channels"
        changes.append(f"grayscale {lost}")
    if channels == 1:
        pictures = [replace(view, grayscale=0.0) for view in pictures]
    return tuple(replace(view, saturation=0.0, hue=0.0) for view in pictures), changes
