"""Images of any kind of object to uint8 or uint16 (C, H, W)."""

import numpy as np
import pytest
import torch
from PIL import Image

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.pixels import OutOfRange, channel_axis, conform, to_image

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "value",
    [
        COLOUR,
        COLOUR.transpose(2, 0, 1),
        np.asfortranarray(COLOUR),
        torch.from_numpy(COLOUR),
        torch.from_numpy(COLOUR).permute(2, 0, 1),
        Image.fromarray(COLOUR),
    ],
    ids=["HWC", "CHW", "Fortran", "tensor", "permuted", "Pillow"],
)
def test_colour(value: object) -> None:
    image = to_image(value)
    assert image.shape == (3, 5, 7) and image.dtype == torch.uint8 and image.is_contiguous()
    assert np.array_equal(image.numpy(), COLOUR.transpose(2, 0, 1))


@pytest.mark.parametrize("value", [GRAY, GRAY[None], GRAY[:, :, None], torch.from_numpy(GRAY), Image.fromarray(GRAY)])
def test_gray(value: object) -> None:
    assert np.array_equal(to_image(value).numpy(), GRAY[None])


def test_the_memory_is_its_own() -> None:
    array = GRAY.copy()
    image = to_image(array)
    array[:] = 0
    assert np.array_equal(image.numpy(), GRAY[None])
    array.flags.writeable = False
    to_image(array)  # without a warning


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_of_either_order(dtype: str) -> None:
    deep = (GRAY.astype(np.uint16) * 200).astype(dtype)
    deep.flags.writeable = False
    image = to_image(deep)
    assert image.dtype == torch.uint16 and np.array_equal(image.numpy()[0], deep)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_sixteen_bits_without_loss_of_eight(dtype: type) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = to_image((levels / 255).astype(dtype))
    assert image.dtype == torch.uint16
    exact = np.abs(image.numpy()[0].astype(int) - levels.astype(int) * 257)
    assert exact.max() <= (0 if dtype is not np.float16 else 40)
    assert to_image(torch.tensor([[0.0, 1.0], [0.5, 1.0004]])).tolist() == [[[0, 65535], [32768, 65535]]]


def test_true_is_white() -> None:
    assert to_image(np.array([[True, False]])).tolist() == [[[255, 0]]]


@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [
        ("1", 1, torch.uint8),
        ("L", 1, torch.uint8),
        ("LA", 1, torch.uint8),
        ("P", 3, torch.uint8),
        ("RGBA", 3, torch.uint8),
        ("CMYK", 3, torch.uint8),
        ("I;16", 1, torch.uint16),
        ("I", 1, torch.uint16),
    ],
)
def test_pillows_modes(mode: str, channels: int, dtype: torch.dtype) -> None:
    image = to_image(Image.new(mode, (7, 5)))
    assert image.shape == (channels, 5, 7) and image.dtype == dtype


def test_pillows_wide_numbers() -> None:
    assert to_image(Image.fromarray(np.array([[0.0, 1.0]], np.float32))).tolist() == [[[0, 65535]]]
    assert to_image(Image.fromarray(np.array([[0, 65535]], np.int32))).tolist() == [[[0, 65535]]]
    with pytest.raises(Unreadable, match="values from -1 to 70000"):
        to_image(Image.fromarray(np.array([[-1, 70000]], np.int32)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a.png", "a str is no image"),
        (None, "a NoneType is no image"),
        (np.zeros(5, np.uint8), r"shape \(5,\) is no image"),
        (np.zeros((2, 3, 4, 5), np.uint8), "is no image"),
        (np.zeros((0, 3), np.uint8), "is no image"),
        (np.zeros((4, 2, 4), np.uint8), "does not tell which axis"),
        (np.zeros((5, 5), np.int64), "holds int64"),
        (np.zeros((5, 5), np.uint32), "holds uint32"),
        (np.zeros((5, 5), complex), "holds complex128"),
        (np.full((5, 5), np.nan), "no numbers"),
    ],
)
def test_what_is_no_image(value: object, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        to_image(value)
    assert caught.type is Unreadable


@pytest.mark.parametrize("value", [np.full((5, 5), 255.0), np.full((5, 5), -0.5), torch.full((5, 5), 1.5)])
def test_floats_out_of_range(value: object) -> None:
    with pytest.raises(OutOfRange, match="floats must lie between 0 and 1"):
        to_image(value)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((3, 9, 9), 0),
        ((9, 9, 3), 2),
        ((1, 1, 9), 0),
        ((9, 1, 1), 2),
        ((13, 64, 64), 0),
        ((9, 3, 9), None),
        ((3, 3, 3), None),
    ],
)
def test_where_the_channels_are(shape: tuple[int, int, int], axis: int | None) -> None:
    assert channel_axis(shape) == axis


def test_from_one_format_to_another() -> None:
    gray, colour = to_image(GRAY), to_image(COLOUR)
    assert conform(gray, Format(1, 8)) is gray
    both = conform(gray, Format(3, 16))
    assert both.shape == (3, 5, 7) and both.dtype == torch.uint16 and both.is_contiguous()
    assert torch.equal(both[2].int(), gray[0].int() * 257)
    assert torch.equal(conform(both, Format(3, 8)), gray.expand(3, -1, -1))
    mean = conform(colour, Format(1, 8))
    assert mean.dtype == torch.uint8 and (mean[0].float() - colour.float().mean(0)).abs().max() <= 0.5
    with pytest.raises(Unreadable, match="it has 3 channels, not 4"):
        conform(colour, Format(4, 8))
