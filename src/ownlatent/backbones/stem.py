"""Make a network's first layers fit the images: their size and their channels."""

from copy import deepcopy

from torch import nn

from ownlatent.types import Size, height_and_width

SMALL_IMAGE = 64  # pixels: up to here the ImageNet stem would throw most of the image away
_STEM_POOLS = ("maxpool", "features.pool0")  # torchvision's and timm's names for the pool after the stem


def fit_stem(net: nn.Module, image_size: Size, channels: int, smaller: bool = True) -> list[str]:
    """Adapt the first convolution in place and say in words what was changed.

    At 64 px and below a strided first convolution becomes 3x3 with stride 1, and the max-pool of
    the stem goes (SimCLR, app. B.9). Patch embeddings are left as they are. Another
    channel count than the convolution's gets a fresh one. smaller: without it only the channels are seen to.
    """
    changes = []
    smaller = smaller and min(height_and_width(image_size)) <= SMALL_IMAGE
    if smaller:
        for name in _STEM_POOLS:
            if _has(net, name):
                net.set_submodule(name, nn.Identity())
                changes.append("no max-pool in the stem")
    found = _first_convolution(net)
    if found is None:
        return changes
    name, conv = found
    small = smaller and max(conv.stride) > 1 and not _is_patch_embedding(conv)
    if small or conv.in_channels != channels:
        changes.append(f"{name}: {channels} input channels")
        if small:
            changes[-1] += ", 3x3 with stride 1"
        net.set_submodule(name, _like(conv, channels, small))
    return changes


def _like(conv: nn.Conv2d, channels: int, small: bool) -> nn.Conv2d:
    """A fresh convolution in place of `conv`: 3x3 with stride 1 if small, else of the same kind and geometry."""
    if small:
        new = nn.Conv2d(channels, conv.out_channels, 3, stride=1, padding=1, bias=conv.bias is not None)
    else:
        new = deepcopy(conv)  # keeps padding rules and weight standardisation of the libraries' own kinds
        new.in_channels = channels
        new.weight = nn.Parameter(conv.weight.new_empty(conv.out_channels, channels, *conv.kernel_size))
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


def _is_patch_embedding(conv: nn.Conv2d) -> bool:
    """Transformers and their kin cut the image into patches that do not overlap: kernel equals stride."""
    return conv.kernel_size == conv.stride


def _first_convolution(net: nn.Module) -> tuple[str, nn.Conv2d] | None:
    return next(((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d)), None)


def _has(net: nn.Module, name: str) -> bool:
    try:
        return isinstance(net.get_submodule(name), nn.Module)
    except AttributeError:
        return False
