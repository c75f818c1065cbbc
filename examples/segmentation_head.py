"""A run's ResNet under torchvision's FCN head, beside the same network from scratch. Takes --minutes and --steps.

    python examples/segmentation_head.py

draws discs and squares, pre-trains on 2000 such images without their masks, then trains both on the masks of 64. Prints
the mean IoU of ground, discs and squares on 256 others.
"""

import argparse

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import FCN
from torchvision.models.segmentation.fcn import FCNHead

from ownlatent import backbones, pretrain

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--minutes", type=float, default=2.0)
parser.add_argument("--steps", type=int, default=60)
arguments = parser.parse_args()
SIDE = 72


def drawn(count: int) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, 3, S, S), each of a disc (1) and a square (2) on a ground (0), and their masks (N, S, S)."""
    x, y = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy")
    (x1, x2), (y1, y2) = (torch.randint(12, SIDE - 12, (2, count, 1, 1)) for _ in "xy")
    disc, square = torch.randint(8, 20, (2, count, 1, 1))
    masks = ((x - x1) ** 2 + (y - y1) ** 2 < disc**2).long()
    masks[torch.maximum((x - x2).abs(), (y - y2).abs()) < square] = 2
    colours = torch.rand(count, 3, 3, 1, 1)  # of ground, disc and square
    images = sum(colours[:, kind] * (masks == kind).unsqueeze(1) for kind in range(3))
    return ((images + 0.1 * torch.randn(images.shape)).clamp(0, 1) * 255).byte(), masks


def mean_iou(net: nn.Module) -> float:
    """On other images, after training the network and a head on the few."""
    torch.manual_seed(2)
    model = FCN(IntermediateLayerGetter(net, {"layer2": "out"}), FCNHead(128, channels=3)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(arguments.steps):
        loss = nn.functional.cross_entropy(model(few)["out"], masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = model.eval()(others)["out"].argmax(1)
    shares = [((found == k) & (true == k)).sum() / ((found == k) | (true == k)).sum() for k in range(3)]
    return torch.stack(shares).mean().item()


torch.manual_seed(1)
network = {"backbone": "torchvision:resnet18", "image_size": SIDE, "batch_size": 64}
run = pretrain(drawn(2000)[0], minutes=arguments.minutes, out="runs/fcn", overwrite=True, **network)
(few, masks), (others, true) = drawn(64), drawn(256)
few, others = ((images / 255 - run.encoder.mean) / run.encoder.std for images in (few, others))
print(f"pre-trained   mean IoU {mean_iou(run.encoder.backbone.net):.3f}")
print(f"from scratch  mean IoU {mean_iou(backbones.create('torchvision:resnet18', image_size=SIDE).net):.3f}")
