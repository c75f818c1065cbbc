"""Lines of code: layers as plain torch makes them, normalisation, pooling."""

import inspect
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from ownlatent.backbones.encoder import Encoder
from ownlatent.export.formats._sizes import difference
from ownlatent.export.preprocessing import plain

_SAME = 1e-4  # of the largest feature: two ways to take a mean differ by less

_PLAIN = (
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.BatchNorm2d,
    nn.Conv2d,
    nn.Dropout,
    nn.Flatten,
    nn.GELU,
    nn.GroupNorm,
    nn.Identity,
    nn.Linear,
    nn.MaxPool2d,
    nn.ReLU,
    nn.SiLU,
)


def normalisation(encoder: Encoder) -> str:
    """A line that makes `mean` and `std`."""
    return (
        "mean, std = (torch.tensor(x).view(-1, 1, 1) for x in "
        f"({plain(encoder.mean)}, {plain(encoder.std)}))  # of the values in [0, 1], by channel"
    )


def constructor(layer: nn.Module) -> str | None:
    """The call that makes a layer of torch's own, one after the other, or torchvision's residual block; else None."""
    from torchvision.models.resnet import BasicBlock

    if type(layer) in _PLAIN:
        return f"torch.nn.{type(layer).__name__}({', '.join(_arguments(layer))})"
    if type(layer) is nn.Sequential:
        parts = [constructor(part) for part in layer.children()]
        numbered = [name for name, _ in layer.named_children()] == [str(number) for number in range(len(layer))]
        return f"torch.nn.Sequential({', '.join(map(str, parts))})" if numbered and None not in parts else None
    if type(layer) is BasicBlock and type(layer.bn1) is nn.BatchNorm2d:
        first, shortcut = layer.conv1, layer.downsample
        assert isinstance(first, nn.Conv2d) and isinstance(shortcut, nn.Module | None)
        arguments = [str(first.in_channels), str(first.out_channels), str(layer.stride)]
        if isinstance(shortcut, nn.Module):
            arguments.append(str(constructor(shortcut)))
        return f"torchvision.models.resnet.BasicBlock({', '.join(arguments)})" if "None" not in arguments else None
    return None


def _arguments(layer: nn.Module) -> Iterator[str]:
    """What the layer was made from, where that is not the usual."""
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        if name in ("device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(layer, name)
        if name == "bias":
            value = value is not None
        if parameter.default is parameter.empty:
            yield repr(value)
        elif value not in (parameter.default, (parameter.default, parameter.default)):
            yield f"{name}={value!r}"


_POOLINGS: dict[int, dict[str, Callable[[Tensor], Tensor]]] = {
    2: {"": lambda output: output},
    3: {".mean(1)": lambda output: output.mean(1), "[:, 0]": lambda output: output[:, 0]},
    4: {
        ".mean((2, 3))": lambda output: output.mean((2, 3)),
        ".mean((1, 2))": lambda output: output.mean((1, 2)),
        ".flatten(1)": lambda output: output.flatten(1),
    },
}


def pooling(output: Tensor, features: Tensor) -> str | None:
    """The code behind a network's output that makes the encoder's features (B, D) of it; None if none does."""
    for code, pool in _POOLINGS.get(output.ndim, {}).items():
        pooled = pool(output)
        if difference(pooled, features) <= _SAME:
            return code
    return None
