"""Fine-tune a run's encoder in plain PyTorch, beside the same network from scratch. Takes --minutes and --steps.

    python examples/finetune_pytorch.py

pre-trains on patches of the built-in photographs without labels, then trains both networks on ten labelled patches of
each of the 14 photographs. After as little as 20 steps of pre-training it was 61.6 % of the test patches, and 54.6 %
from scratch (150 steps, one core).
"""

import argparse
from copy import deepcopy

import torch
from torch import nn

from ownlatent import load_encoder, pretrain
from ownlatent.data.opening import open_source
from ownlatent.data.resident import load_resident

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--minutes", type=float, default=1.0)
parser.add_argument("--steps", type=int, default=200)
arguments = parser.parse_args()

pretrain("photos:train", minutes=arguments.minutes, backbone="resnet10_w16", out="runs/finetune", overwrite=True)
encoder = load_encoder("runs/finetune")  # in any other program too: uint8 (B, 1, 32, 32) in, features (B, D) out

train, test = (load_resident(open_source(f"photos:{part}", labelled=True)) for part in ("train", "test"))
images, labels = train.images[::30], train.labels[::30]  # 10 of the 300 of each photograph


def finetuned(network: nn.Module, rate: float) -> float:
    """Accuracy on the test images after training all weights on the few."""
    torch.manual_seed(0)
    model = nn.Sequential(network, nn.Linear(network.num_features, len(train.classes))).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=arguments.steps)
    for _ in range(arguments.steps):
        rows = torch.randint(len(images), (64,))
        batch = images[rows].flip(-1) if torch.rand(()) < 0.5 else images[rows]
        loss = nn.functional.cross_entropy(model(batch), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return (model.eval()(test.images).argmax(1) == test.labels).float().mean().item()


untrained = deepcopy(encoder)
for part in untrained.modules():
    if hasattr(part, "reset_parameters"):
        part.reset_parameters()
print(f"fine-tuned    {finetuned(encoder, 1e-3):.1%}")
print(f"from scratch  {finetuned(untrained, 1e-3):.1%}")
