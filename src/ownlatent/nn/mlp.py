"""The two-layer head of BYOL and its family."""

from torch import nn


class MLP(nn.Sequential):
    """Linear (bias) - BatchNorm - ReLU - Linear (no bias): (B, inputs) to (B, outputs).

    BYOL's projector and predictor as in the released code; the paper's pseudo-code gives the last
    layer a bias, the code has none, and we follow the code.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs, bias=False),
        )
