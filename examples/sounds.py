"""Learn from sounds that a program holds, and classify with few labels. Takes --minutes.

python examples/sounds.py                                        # sounds made here, in torchaudio's form
python examples/sounds.py --speech-commands                      # torchaudio's, 2.3 GB, downloaded to data/
python examples/sounds.py --hugging-face google/speech_commands  # of the hub, by the package datasets
"""

import argparse
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression

import ownlatent
from ownlatent.data.sources.sounds import Sounds

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--minutes", type=float, default=2)
parser.add_argument("--speech-commands", action="store_true")
parser.add_argument("--hugging-face", metavar="OWNER/NAME")
arguments = parser.parse_args()


class Made:
    """Items as torchaudio's data sets give them: (waveform (1, samples), rate, label)."""

    def __init__(self, part: str):
        self.sounds = Sounds(part)

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, str]:
        sample = self.sounds[index]
        return torch.from_numpy(self.sounds.waveform(index))[None], 16_000, self.sounds.classes[sample.label]


data: Any
if arguments.speech_commands:
    from torchaudio.datasets import SPEECHCOMMANDS

    data = SPEECHCOMMANDS("data", download=True, subset="training")
elif arguments.hugging_face:
    from datasets import load_dataset

    data = load_dataset(arguments.hugging_face, split="train")
else:
    data = Made("train")
run = ownlatent.pretrain(data, modality="audio", minutes=arguments.minutes, out="runs/sounds", overwrite=True)
encoder = run.encoder.eval()  # waveforms (B, samples) of 16 kHz in, features (B, D) out
if isinstance(data, Made):
    features, labels = {}, {}
    for part, made in (("train", data), ("test", Made("test"))):
        items = [made[index] for index in range(0, len(made), 12 if part == "train" else 2)]  # ten labels of each kind
        with torch.inference_mode():
            features[part] = torch.cat([encoder(waveform) for waveform, _, _ in items]).numpy()
        labels[part] = [label for _, _, label in items]
    scale = features["train"].std(0) + 1e-6
    classifier = LogisticRegression(max_iter=1000).fit(features["train"] / scale, labels["train"])
    print(f"right with ten labels of each kind: {classifier.score(features['test'] / scale, labels['test']):.1%}")
