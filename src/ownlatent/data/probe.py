"""What the images of a source have in common, by a sample of them."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ownlatent.data.decode import Format, Unreadable, format_of, joint
from ownlatent.data.pixels import OutOfRange
from ownlatent.data.source import EncodedSource
from ownlatent.errors import OwnlatentError

_PROBED = 64  # images looked at


def spread(count: int, most: int = _PROBED) -> Sequence[int]:
    """At most `most` numbers below count, evenly spread and beginning with 0.

    >>> list(spread(100, most=4))
    [0, 25, 50, 75]
    """
    return range(0, count, max(1, -(-count // most)))


def format_of_files(source: EncodedSource) -> Format:
    """What the images of a source are decoded to.

    Where none of the sample can be read, the first one that can decides. Raises OwnlatentError if
    there is none, or if the images do not go together.
    """
    reason = ""

    def readable() -> Iterator[bytes]:
        nonlocal reason
        for index in spread(len(source)):
            try:
                data = source.encoded(index)
            except Unreadable as error:
                reason = str(error)
            else:
                yield data

    try:
        return format_of(readable())
    except Unreadable as error:
        reason = reason or str(error)
    for index in range(len(source)):
        try:
            return format_of([source.encoded(index)])
        except Unreadable:
            continue
    raise OwnlatentError(
        f"none of the {len(source)} images of {source.name} can be read ({reason}): are the files complete?"
    )


def format_of_images(fetch: Callable[[int], Tensor], count: int, name: str) -> Format:
    """As `format_of_files`, of a source whose images are decoded already. fetch: image (C, H, W) by number.

    16 bits that were made of 8, as floats k/255 are, count as 8.
    """
    found: set[Format] = set()
    reason = ""
    for indices in (spread(count), range(count)):
        for index in indices:
            try:
                image = fetch(index)
            except OutOfRange as error:
                raise OwnlatentError(
                    f"image {index} of {name} cannot be used because {error}: give uint8 or uint16, or divide by the "
                    "largest value, and leave out any normalisation"
                ) from None
            except Unreadable as error:
                reason = str(error)
                continue
            found.add(Format(image.shape[0], 8 if _is_eight_bit(image) else 16))
            if len(indices) == count and count > _PROBED:
                break
        if found:
            break
    if not found:
        raise OwnlatentError(f"none of the {count} images of {name} can be used: {reason}")
    return merged(found, name)


def _is_eight_bit(image: Tensor) -> bool:
    return image.dtype == torch.uint8 or not bool((image.int() % 257).any())


def merged(formats: set[Format], name: str) -> Format:
    """The format that all of these go into: gray images become colour, 8 bits become 16. Raises OwnlatentError."""
    together = joint(formats)
    if together is None:
        some = " or ".join(map(str, sorted({format.channels for format in formats})))
        raise OwnlatentError(f"the images of {name} have {some} channels: give those of one kind")
    return together
