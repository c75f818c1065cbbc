"""Runs the lines of code that exports tell, in a process that has no ownlatent: `loading.py JOBS.json`.

JOBS.json: a list of {"lines", "images", "features"}, the code and the .npy files that it is given and gives. images:
float32 in [0, 1] (B, C, H, W).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch


def load(job: dict) -> None:
    images = np.load(job["images"])
    numpy = "onnxruntime" in job["lines"][0]
    names = {"images": images if numpy else torch.from_numpy(images).contiguous(memory_format=torch.channels_last)}
    with torch.no_grad():
        exec("\n".join(job["lines"]), names)
    np.save(job["features"], np.asarray(names["features"]))


if __name__ == "__main__":
    sys.modules["ownlatent"] = None  # type: ignore[assignment]  # importing it fails
    for job in json.loads(Path(sys.argv[1]).read_text()):
        load(job)
