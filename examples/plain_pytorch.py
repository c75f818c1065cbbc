"""BYOL in plain PyTorch: your own loop, optimiser and device, no engine. Takes --steps."""

import argparse

from ownlatent import backbones, methods
from ownlatent.augment.recipes import RECIPES
from ownlatent.augment.views import MultiView
from ownlatent.data.loader import Batches, generator
from ownlatent.data.opening import open_source
from ownlatent.data.resident import load_resident
from ownlatent.optim.create import create
from ownlatent.optim.schedules import warmup_cosine

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=200)
steps = parser.parse_args().steps

images = load_resident(open_source("photos:train")).images  # uint8 (N, 1, 32, 32)
mean, std = (images / 255).mean().item(), (images / 255).std().item()
views = MultiView(RECIPES["byol_small"], size=32, mean=[mean], std=[std])

backbone = backbones.create("resnet10_w16", channels=1, image_size=32)
method = methods.create("byol", backbone, hidden=512, projection=128, tau=0.99)
optimizer = create("sgd", method.param_groups(), lr=0.03, weight_decay=5e-4)  # or any of torch.optim

for step, indices in zip(range(steps), Batches(len(images), batch_size=128, seed=0), strict=False):
    for group in optimizer.param_groups:
        group["lr"] = warmup_cosine(step / steps, peak=0.03, warmup=0.05)
    output = method(views.of_images(images[indices], generator(0, step)))
    optimizer.zero_grad()
    output.loss.backward()
    method.before_step(progress=step / steps)
    optimizer.step()
    method.after_step(progress=step / steps)  # moves the target network
    if step % 10 == 0 or step == steps - 1:
        print(f"step {step:4d}  loss {output.loss.item():.4f}")

features = backbone.eval()((images[:8] / 255 - mean) / std)
print(f"features {tuple(features.shape)}")
