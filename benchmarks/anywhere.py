"""Any network in, an encoder out: how many architectures work, how exact exports are, how fast features are written.

    python benchmarks/anywhere.py --out benchmarks/results/anywhere.json

architectures: BYOL around one network of every family of timm with less than 30 M parameters, torchvision's for
classification, segmentation and detection, Hugging Face's and hand-made oddities; what each is held to is in
tests/backbones/architectures.py (two steps, gradients where they must be and nowhere else, the target follows, the
state dict has every tensor once, saved and loaded agree to the bit). exports: encoders into every format, loaded back
by the other library alone; the largest difference of features of photographs, as a share of the largest feature.
embed: `ownlatent.embed` of images in memory into Parquet, from the call to the finished file, beside the bare encoder
on batches of the same images; medians of rounds in turn.
"""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import results
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backbones"))
from architectures import HUGGING_FACE, OWN, SEGMENTATION, SLOW, TIMM, TORCHVISION, examine

from ownlatent import backbones, embed, export
from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.export import formats
from ownlatent.train.fit import silently

PARTS = ("architectures", "exports", "embed")
ENCODERS = {
    "resnet18 at 96 px": ("resnet18", 96),
    "resnet18 at 32 px": ("resnet18", 32),
    "ownlatent's": ("resnet10_w16", 32),
}
ENCODERS |= {"vit": ("vit_tiny_patch16_224", 48), "torchvision's": ("torchvision:mobilenet_v3_small", 64)}
IMAGES, SIDE, ROUNDS, BATCH = 4096, 32, 5, 256


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), metavar="A,B")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for part in options.parts.split(","):
        for row in PART[part](options):
            rows.append({"part": part, **row})
            print(json.dumps(rows[-1]), flush=True)
    results.write(options.out, "anywhere", rows, figures(rows))


def architectures(options: argparse.Namespace) -> Any:
    cases = [*TIMM, *SLOW, *TORCHVISION, *SEGMENTATION, *HUGGING_FACE, *OWN]
    for case in [*TIMM[:2], *OWN] if options.quick else cases:
        began = perf_counter()
        row: dict[str, Any] = {"name": case.name, "layer": str(case.layer or ""), "image_size": case.size}
        with tempfile.TemporaryDirectory() as scratch:
            try:
                row["features"] = examine(case, Path(scratch))
            except Exception as error:  # whatever a network raises: it does not work
                row["error"] = f"{type(error).__name__}: {error}"[:200]
        yield {**row, "seconds": round(perf_counter() - began, 1)}


def exports(options: argparse.Namespace) -> Any:
    for name, (network, size) in list(ENCODERS.items())[2:3] if options.quick else ENCODERS.items():
        encoder = made(network, size)
        for format in ["safetensors", "torchscript"] if options.quick else formats.names():
            with tempfile.TemporaryDirectory() as scratch:
                row: dict[str, Any] = {"encoder": name, "format": format}
                try:
                    with silently():
                        done = export(encoder, format=format, out=Path(scratch) / "out")
                    row["difference"] = done.difference
                except OwnlatentError as error:
                    row["refused"] = str(error)
                yield row


def made(network: str, size: int) -> Encoder:
    """Random weights, with BatchNorm statistics of a batch of noise."""
    torch.manual_seed(0)
    encoder = Encoder(backbones.create(network, image_size=size), size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    encoder.train()(torch.randint(0, 256, (16, 3, size, size), dtype=torch.uint8))
    return encoder.eval()


def embedding(options: argparse.Namespace) -> Any:
    encoder, count = made("resnet10_w16", SIDE), 512 if options.quick else IMAGES
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    net = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bare, whole = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(1 if options.quick else ROUNDS):
            began = perf_counter()
            with torch.no_grad():
                for batch in images.split(BATCH):
                    net(batch)
            bare.append(count / (perf_counter() - began))
            began = perf_counter()
            with silently():
                embed(encoder, images, out=Path(scratch) / f"{number}.parquet", batch_size=BATCH, accelerator="cpu")
            whole.append(count / (perf_counter() - began))
    yield {"images": count, "bare_images_per_second": round(median(bare)), "images_per_second": round(median(whole))}


PART = {"architectures": architectures, "exports": exports, "embed": embedding}


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    of = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    found: dict[str, float] = {}
    if of["architectures"]:
        found["architectures_tried"] = len(of["architectures"])
        found["architectures_working"] = sum("error" not in row for row in of["architectures"])
    written = [row for row in of["exports"] if "difference" in row]
    if written:
        found["export_formats"] = len({row["format"] for row in written})
        found["export_max_abs_error"] = max(row["difference"] for row in written)
    for row in of["embed"]:
        ratio = row["images_per_second"] / row["bare_images_per_second"]
        found["embed_images_per_second_over_bare"] = round(ratio, 3)
    return found


if __name__ == "__main__":
    main()
