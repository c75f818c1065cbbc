"""Small residual networks for small images and slow hardware."""

from torch import nn


def resnet(channels: int, stem: int, widths: tuple[int, ...], strides: tuple[int, ...]) -> nn.Module:
    """One basic residual block per stage (He et al. 2016) after a 3x3 stem: (B, C, H, W) to (B, widths[-1])."""
    from torchvision.models.resnet import BasicBlock, conv1x1  # slow to import, and names are asked for more often

    layers: list[nn.Module] = [
        nn.Conv2d(channels, stem, 3, padding=1, bias=False),
        nn.BatchNorm2d(stem),
        nn.ReLU(inplace=True),
    ]
    inputs = stem
    for width, stride in zip(widths, strides, strict=True):
        shortcut = None
        if stride != 1 or inputs != width:
            shortcut = nn.Sequential(conv1x1(inputs, width, stride), nn.BatchNorm2d(width))
        layers.append(BasicBlock(inputs, width, stride, shortcut))
        inputs = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


# The first stage already halves the image: on a processor the full-size maps cost most and teach least.
NETWORKS = {
    "resnet8_w64": lambda channels: resnet(channels, 16, (64, 128, 256), (2, 2, 2)),
    "resnet10_w16": lambda channels: resnet(channels, 16, (16, 32, 64, 128), (1, 2, 2, 2)),
    "resnet10_w32": lambda channels: resnet(channels, 16, (32, 64, 128, 256), (2, 2, 2, 2)),
}
