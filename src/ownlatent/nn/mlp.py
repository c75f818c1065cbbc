"""The head of most methods."""

from torch import nn

from ownlatent.errors import OwnlatentError
from ownlatent.nn.norm import StandardizedLinear, norm


def mlp(inputs: int, *widths: int, kind: str = "batch", bias: bool = True, last_bias: bool = False) -> nn.Sequential:
    """[Linear - norm - ReLU] for every width but the last, then Linear: (B, inputs) to (B, widths[-1]).

    kind: what normalises the hidden layers: "batch", "group" (with standardised weights), "layer" or
    "none". bias, last_bias: of the hidden layers and of the last one. The defaults are BYOL's heads
    as in the released code; the paper's pseudo-code gives the last layer a bias, the code has none.
    Raises OwnlatentError for a width or a kind that there is not.
    """
    if min(widths) < 1:
        raise OwnlatentError(
            "hidden, projection and the like are widths of heads and must be at least 1, not "
            + ", ".join(map(str, widths))
        )
    norm(kind, widths[-1])  # refuses an unknown kind also where there is no hidden layer
    layers: list[nn.Module] = []
    linear = StandardizedLinear if kind == "group" else nn.Linear
    for width in widths[:-1]:
        layers += [linear(inputs, width, bias=bias), norm(kind, width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, widths[-1], bias=last_bias))
