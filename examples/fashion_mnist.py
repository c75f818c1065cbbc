"""BYOL around torchvision's ResNet-18 on 28x28 gray images, projected to 3 numbers to look at. Takes --steps.

    python examples/fashion_mnist.py              # drawn garments in Fashion-MNIST's own format, nothing is downloaded
    python examples/fashion_mnist.py --download   # the real ones, 30 MB

writes fashion_mnist.png and fashion_mnist.csv: test images as points on a sphere, where BYOL compares them by angle.
"""

import argparse
import gzip
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import extract_archive
from torchvision.models import resnet18

from ownlatent import BYOL

WIDTHS = {0: (12, 12, 7, 7, 7), 1: (6, 5, 4, 4, 4), 3: (3, 3, 4, 7, 11), 8: (0, 5, 12, 12, 12)}  # from top to bottom
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--download", action="store_true")
arguments = parser.parse_args()
root = Path("data" if arguments.download else "data/drawn")
for part, count in {} if arguments.download else {"train": 6000, "t10k": 1000}.items():
    rng, folder = np.random.default_rng(count), root / "FashionMNIST" / "raw"
    labels = rng.choice(list(WIDTHS), count).astype(np.uint8)  # T-shirts, trousers, dresses and bags
    widths = [np.interp(range(28), (2, 8, 14, 20, 25), WIDTHS[k] + rng.normal(0, 1, 5), 0, 0) for k in labels]
    garments = np.abs(np.arange(28) - rng.normal(13.5, 1, (count, 1, 1))) < np.stack(widths)[:, :, None]
    images = (garments * rng.uniform(80, 255, (count, 1, 1)) * rng.uniform(0.7, 1, garments.shape)).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for path, array in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
        header = np.array([0x0800 + array.ndim, *array.shape], ">u4")  # 8 stands for uint8
        (folder / path).write_bytes(gzip.compress(header.tobytes() + array.tobytes()))
        extract_archive(str(folder / path))
train, test = (FashionMNIST(root, train=part, download=arguments.download) for part in (True, False))
net = resnet18()
net.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)  # for gray images
learner = BYOL(net, layer="avgpool", image_size=28, channels=1, hidden=512, projection=3, steps=arguments.steps)
optimizer = torch.optim.Adam(learner.parameters(), lr=3e-4)
for step in range(arguments.steps):
    loss = learner(train.data[torch.randint(len(train), (64,))].unsqueeze(1))  # uint8 (64, 1, 28, 28)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    learner.after_step()
    print(f"step {step:4d}  loss {loss.item():.4f}", end="\r")

with torch.no_grad():
    features = learner.encoder(test.data[:1000].unsqueeze(1))  # (N, 512), what a classifier takes
    points = torch.nn.functional.normalize(learner.eval().method.projector(features))  # (N, 3)
rows = np.c_[points, test.targets[:1000]]
np.savetxt("fashion_mnist.csv", rows, fmt="%.5g", delimiter=",", header="x,y,z,label", comments="")
axes = plt.figure(figsize=(7, 6)).add_subplot(projection="3d")
dots = axes.scatter(*points.T, c=rows[:, 3], cmap="tab10", vmin=0, vmax=9, s=6)
axes.legend(*dots.legend_elements())
axes.figure.savefig("fashion_mnist.png")
