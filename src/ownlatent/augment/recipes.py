"""Tables of views: one row per view, with the source it was taken from."""

from dataclasses import dataclass, replace

from ownlatent.types import Size, height_and_width


@dataclass(frozen=True)
class View:
    """The distribution of one view; each operation is drawn per image, in the order of the fields."""

    size: float = 1.0
    """Side as a share of the image size: 96 / 224 for DINO's small views."""
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

    def pixels(self, size: Size) -> int:
        """The side of the view in pixels, where a whole one has this."""
        assert isinstance(size, int)
        return max(1, round(self.size * size))


@dataclass(frozen=True)
class SoundView:
    """The distribution of one view of a sound's spectrogram; each operation is drawn per sound, in this order."""

    size: float = 1.0
    """Frames as a share of the view's: for small views beside large ones."""
    gain: float = 0.0
    """The most by which the recording becomes louder or softer, dB; uniform."""
    noise: float = 0.0
    """Probability of a steady noise behind the sound."""
    snr: tuple[float, float] = (25.0, 60.0)
    """How far below the loudest place the noise is, dB, uniform."""
    mixup: float = 0.4
    """The largest share of another sound that is mixed in; none with 0."""
    crop_height: tuple[float, float] = (0.6, 1.5)
    """Height of the crop as a share of the bands, uniform."""
    crop_width: tuple[float, float] = (0.6, 1.5)
    """Width of the crop as a share of the frames, uniform."""
    canvas: float = 1.5
    """Frames of what is cropped from, as a share of the view's: beyond the sound it is empty."""
    fader: float = 0.0
    """The most that is added or taken at the beginning and at the end, in standard deviations; between is a line."""
    tilt: float = 0.0
    """The most that is added or taken at the lowest and at the highest band, likewise: so microphones differ."""
    standardise: bool = True
    """Bring all views of a batch together to mean 0 and variance 1."""

    def pixels(self, size: Size) -> Size:
        """The view's bands and frames, where a whole one has these."""
        height, width = height_and_width(size)
        return height, max(1, round(self.size * width))


AnyView = View | SoundView

# Two jitters go round in the field: BYOL's (0.4, 0.4, 0.2, 0.1), which is View's default, and SimCLR's at its
# strengths of 1 and one half.
_STRONG = View(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
_HALF = View(saturation=0.4)

RECIPES: dict[str, tuple[View, ...]] = {
    # BYOL, table 6: T and T'.
    "byol": (View(blur=1.0, solarize=0.0), View(blur=0.1, solarize=0.2)),
    # SimCLR, appendix A, at strength 1: one distribution twice.
    "simclr": (replace(_STRONG, blur=0.5),) * 2,
    # MoCo v2 ("aug-plus", main_moco.py): SimCLR's at half strength, larger crops.
    "moco_v2": (replace(_HALF, crop_scale=(0.2, 1.0), blur=0.5),) * 2,
    # MoCo v3 (main_moco.py, ResNet-50): BYOL's pair with larger crops; its ViTs crop from 0.08.
    "moco_v3": (
        View(crop_scale=(0.2, 1.0), blur=1.0, solarize=0.0),
        View(crop_scale=(0.2, 1.0), blur=0.1, solarize=0.2),
    ),
    # SimSiam (main_simsiam.py): MoCo v2's.
    "simsiam": (replace(_HALF, crop_scale=(0.2, 1.0), blur=0.5),) * 2,
    # Barlow Twins, section 2.2 and main.py: BYOL's pair.
    "barlow_twins": (View(blur=1.0, solarize=0.0), View(blur=0.1, solarize=0.2)),
    # VICReg, appendix C.1: BYOL's, made symmetric. (Its released code keeps BYOL's pair: `byol`.)
    "vicreg": (View(blur=0.5, solarize=0.1),) * 2,
    # DINO, main_dino.py: two large views, BYOL's pair but for the crops, and eight small ones of 96 at 224 px.
    "dino": (
        View(crop_scale=(0.4, 1.0), blur=1.0),
        View(crop_scale=(0.4, 1.0), blur=0.1, solarize=0.2),
        *(View(size=96 / 224, crop_scale=(0.05, 0.4), blur=0.5),) * 8,
    ),
    # DINO's settings for ResNet-50: all crops smaller.
    "dino_resnet": (
        View(crop_scale=(0.14, 1.0), blur=1.0),
        View(crop_scale=(0.14, 1.0), blur=0.1, solarize=0.2),
        *(View(size=96 / 224, crop_scale=(0.05, 0.14), blur=0.5),) * 8,
    ),
    # solo-learn's rows for CIFAR ("asym"): BYOL's pair without blur, which at 32 px hides the object.
    "byol_small": (View(blur=0.0, solarize=0.0), View(blur=0.0, solarize=0.2)),
    # solo-learn's rows for CIFAR ("sym"): SimCLR's, blur included.
    "simclr_small": (replace(_STRONG, blur=0.5),) * 2,
    # solo-learn's rows for CIFAR ("sym-weak"): MoCo v2 and SimSiam, with crops from 0.08 there.
    "moco_small": (replace(_HALF, blur=0.5),) * 2,
    # SimSiam's CIFAR-10 experiments: its ImageNet views without blur.
    "simsiam_small": (replace(_HALF, crop_scale=(0.2, 1.0), blur=0.0),) * 2,
    # solo-learn's rows for CIFAR: symmetric, larger crops, no blur.
    "vicreg_small": (View(crop_scale=(0.2, 1.0), solarize=0.1),) * 2,
    # solo-learn's DINO rows for CIFAR are `byol_small`; here with DINO's small crops, four of half the side.
    "dino_small": (
        View(crop_scale=(0.25, 1.0)),
        View(crop_scale=(0.25, 1.0), solarize=0.2),
        *(View(size=0.5, crop_scale=(0.05, 0.25)),) * 4,
    ),
    # Ours, for runs of minutes: what is easier to match is learnt sooner (docs/speed.md).
    "gentle": (View(crop_scale=(0.3, 1.0), brightness=0.2, contrast=0.2),) * 2,
    # Ordinary training with labels: one view, crop and flip.
    "supervised": (View(jitter=0.0, grayscale=0.0),),
}

SOUND_RECIPES: dict[str, tuple[SoundView, ...]] = {
    # BYOL-A, version 1 (Niizumi et al. 2021, section III and config.yaml).
    "byol_a": (SoundView(),) * 2,
    # Version 2 (Niizumi et al. 2023): less of another sound, and the random linear fader.
    "byol_a_v2": (SoundView(mixup=0.2, fader=1.0),) * 2,
    # Ours, and the default: both papers' operations, each time by another microphone in another room. Without it an
    # encoder learns by which it hears: on a speaker who was never heard it is no better than an untrained one
    # (docs/audio.md).
    "microphones": (SoundView(gain=18.0, noise=0.8, fader=1.0, tilt=1.0),) * 2,
    # Ordinary training with labels: one view, a little of the crop.
    "supervised": (SoundView(mixup=0.0, crop_height=(0.9, 1.1), crop_width=(0.8, 1.25), standardise=False),),
}
