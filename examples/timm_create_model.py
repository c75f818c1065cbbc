"""A run's weights in timm's own network: from there on timm is all that is needed. Takes --minutes.

    python examples/timm_create_model.py

pre-trains timm's ResNet-18 for a minute on the built-in photographs; timm's own network then gives the same features,
to the last digits of a float32.
"""

import argparse
import json
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from ownlatent import pretrain

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--minutes", type=float, default=1.0)
folder = Path("runs/timm")
network = {"backbone": "timm:resnet18", "batch_size": 64}
run = pretrain("photos:train", minutes=parser.parse_args().minutes, out=folder, overwrite=True, **network)

# From here on without ownlatent. The weights have timm's names; encoder.json says how the images are normalised, and
# what of the network was changed for them.
stored = json.loads((folder / "encoder.json").read_text())
preprocessing, channels = stored["preprocessing"], stored["network"]["channels"]
print(*stored["changes"], sep="\n")
model = timm.create_model("resnet18", in_chans=channels, num_classes=0)
if preprocessing["image_size"] <= 64:  # the images were small: the first convolution keeps their size, no pool follows
    model.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
    model.maxpool = nn.Identity()
model.load_state_dict(load_file(folder / "encoder.safetensors"))
# Where nothing was changed, checkpoint_path=folder / "encoder.safetensors" for timm.create_model is enough.

images = torch.randint(256, (8, channels, 32, 32), dtype=torch.uint8)
mean, std = (torch.tensor(preprocessing[name]).view(-1, 1, 1) for name in ("mean", "std"))
with torch.no_grad():
    features = model.eval()((images / preprocessing["peak"] - mean) / std)
    apart = (features - run.encoder(images)).abs().max().item()
print(f"features {tuple(features.shape)}, {apart:.1e} from the encoder's")

model.reset_classifier(num_classes=14)  # a head of timm's, to be fine-tuned
print(f"logits {tuple(model(torch.zeros(2, channels, 32, 32)).shape)}")
