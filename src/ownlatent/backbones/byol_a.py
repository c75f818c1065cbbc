"""The encoders of BYOL for Audio, for log-mel spectrograms of 64 bands and any length."""

import torch
from torch import Tensor, nn

from ownlatent.sound.spectrum import MELS

CHANNELS = 64


class AudioNTT(nn.Module):
    """Spectrograms (B, channels, 64, T) to features (B, d): each frame's, then their maximum plus their mean over time.

    blocks: of a 3x3 convolution, BatchNorm, ReLU and a max-pool that halves frequency and time. hidden: width of the
    two layers that see each frame. skip: the convolutions' output goes beside theirs into the features.
    """

    def __init__(self, channels: int, blocks: int, hidden: int, width: int, skip: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers += [
                nn.Conv2d(CHANNELS if block else channels, CHANNELS, 3, padding=1),
                nn.BatchNorm2d(CHANNELS),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
        frame = CHANNELS * (MELS >> blocks)
        self.features, self.skip = nn.Sequential(*layers), skip
        self.fc = nn.Sequential(
            nn.Linear(frame, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Linear(hidden, width - frame * skip),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).permute(0, 3, 2, 1).flatten(2)  # (B, frames, bands x channels)
        x = torch.cat([x, self.fc(x)], dim=2) if self.skip else self.fc(x)
        return x.amax(1) + x.mean(1)


NETWORKS = {
    # Version 1 (Niizumi et al. 2021, table 1), of the paper's three widths.
    "byol_a_512": lambda channels: AudioNTT(channels, blocks=3, hidden=512, width=512, skip=False),
    "byol_a_1024": lambda channels: AudioNTT(channels, blocks=3, hidden=1024, width=1024, skip=False),
    "byol_a_2048": lambda channels: AudioNTT(channels, blocks=3, hidden=2048, width=2048, skip=False),
    # Version 2 (Niizumi et al. 2023): more frames, and what the convolutions found is kept.
    "byol_a_v2": lambda channels: AudioNTT(channels, blocks=2, hidden=2048, width=3072, skip=True),
}
