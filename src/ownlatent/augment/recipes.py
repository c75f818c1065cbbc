"""Tables of views: one row per view, with the source it was taken from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """The distribution of one view; each operation is drawn per image, in the order of the fields."""

    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of the crop as a fraction of the image."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, log-uniform."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    jitter: float = 0.8
    """Probability of colour jitter."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grayscale: float = 0.2
    """Probability of dropping colour."""
    blur: float = 0.0
    """Probability of a Gaussian blur with a window of a tenth of the side."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Width of the blur in pixels, uniform."""
    solarize: float = 0.0
    """Probability of inverting the values above one half."""


RECIPES: dict[str, tuple[View, ...]] = {
    # BYOL, table 6: T and T'.
    "byol": (View(blur=1.0, solarize=0.0), View(blur=0.1, solarize=0.2)),
    # solo-learn's "asym" rows for CIFAR: the same pair without blur, which at 32 px hides the object.
    "byol_small": (View(blur=0.0, solarize=0.0), View(blur=0.0, solarize=0.2)),
}
