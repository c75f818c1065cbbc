"""What a run on spoken digits is worth, how fast spectrograms are made, and what the demo of sounds gains.

    python benchmarks/audio.py --out benchmarks/results/audio.json

Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers. `ownlatent pretrain` without labels for
--minutes, then `ownlatent evaluate` beside the same encoder untrained, the mean and the standard deviation of each
band over time, and the same network trained with the labels for --supervised-minutes. Two splits: the customary one,
on which takes 0 to 4 of every digit and speaker are the test, and the honest one, on which one speaker is, six times
over; whoever is tested on was not heard in pre-training either. The figures of the honest split are means over the
speakers. Low-shot: 10 labels for each digit, five draws.

one loudness: on the honest split also the linear probe of the trained and the untrained encoder on recordings that
were all brought to one loudness, and of which nothing is left that lies 43 dB below it: what can be had without any
training.

front end: seconds of sound that become spectrograms in a second on one core, in batches of one second. demo: the gain
of `ownlatent demo --modality audio` over the best baseline, by k-NN.
"""

import os
import tarfile
import tempfile
from math import log
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import results
import torch
from torch import Tensor

from ownlatent import Run
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.decode import Format, decode, fit_time
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.linear import linear_accuracy
from ownlatent.proof.subjects import random_subject, untrained
from ownlatent.sound.front_end import LogMel
from ownlatent.sound.spectrum import RATE, SPAN

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
LOUD = "linear, one loudness"
HONEST = {  # ending of the figure: protocol, subject
    "": ("linear", "trained"),
    "_random": ("linear", "random"),
    "_stats": ("linear", "bands"),
    "_supervised": ("linear", "supervised"),
    "_one_loudness": (LOUD, "trained"),
    "_random_one_loudness": (LOUD, "random"),
}
KEPT_DB = 43
QUICK = ("--backbone", "resnet10_w16", "--batch-size", 32, "--duration", 0.31)


def main() -> None:
    parser = results.arguments(__doc__)
    parser.add_argument("--fsdd", type=Path, default=results.DATA / "fsdd", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=3, help="of each pre-training")
    parser.add_argument("--supervised-minutes", type=float, default=1, help="of each supervised baseline")
    parser.add_argument("--method", help="unless given that of `pretrain` for so many minutes")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {"front_end_times_real_time": front_end()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo = ("--minutes", 0.02) if options.quick else ()
        results.ownlatent("demo", "--modality", "audio", "--out", folder / "demo", *demo)
        entries = Run(folder / "demo").results["evaluations"]
        figures["demo_gain_points"] = round(100 * min(e["trained_is"]["mean"] for e in entries if "trained_is" in e), 2)
        rows += [row("demo", entry) for entry in entries]
        if (options.fsdd / "recordings.tar").exists():
            found = digits(folder, options)
            rows += found
            figures |= figures_of(found)
        else:
            print(f"no spoken digits in {options.fsdd}: that part is left out")
    results.write(options.out, "audio", rows, figures)


def front_end() -> float:
    """Seconds of sound that become spectrograms in a second, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    make, sounds, times = LogMel(), torch.randn(256, RATE), []
    with torch.inference_mode():
        for _ in range(7):
            began = perf_counter()
            make(sounds)
            times.append(perf_counter() - began)
    torch.set_num_threads(threads)
    return round(len(sounds) / median(times[1:]))


def digits(folder: Path, options: Any) -> list[dict[str, Any]]:
    """Every split: pre-trained on its training part alone, and judged."""
    with tarfile.open(options.fsdd / "recordings.tar") as tar:
        tar.extractall(folder / "digits", filter="data")
    files = sorted((folder / "digits").rglob("*.wav"))
    found = []
    for split in ("takes", *(SPEAKERS[:1] if options.quick else SPEAKERS)):
        parts = {part: folder / split / part for part in ("train", "test")}
        for number, path in enumerate(files):
            digit, speaker, take = path.stem.split("_")
            test = int(take) < 5 if split == "takes" else speaker == split
            if options.quick and number % 8:
                continue
            target = parts["test" if test else "train"] / digit / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
        run = folder / split / "run"
        minutes = 0.02 if options.quick else options.minutes
        given = ("--modality", "audio", "--minutes", minutes, "--out", run, *(QUICK if options.quick else ()))
        method = ("--method", options.method) if options.method else ()
        results.ownlatent("pretrain", parts["train"], *given, *method)
        protocols = ("--protocols", "knn,linear,low-shot", "--k", "20", "--labels", "2" if options.quick else "10")
        data = ("--train", parts["train"], "--test", parts["test"])
        length = ("--supervised-minutes", 0.02 if options.quick else options.supervised_minutes)
        results.ownlatent("evaluate", run, *data, *protocols, *length)
        found += [row(split, entry) for entry in Run(run).results["evaluations"]]
        if split != "takes":
            found += one_loudness(run, parts["train"], parts["test"])
    return found


def one_loudness(run: Path, train: Path, test: Path) -> list[dict[str, Any]]:
    """The linear probe of a run's encoder and of the untrained one on recordings of one loudness."""
    encoder = Run(run).encoder
    (x, labels), (queries, truth) = (spectrograms(folder, encoder) for folder in (train, test))
    loudness = x.amax((1, 2, 3)).mean()
    x, queries = (of_loudness(sounds, loudness) for sounds in (x, queries))
    subject = random_subject(untrained(encoder, 0), x[::5], labels[::5], None, "cpu")
    found = []
    for name, network in (("trained", encoder.eval()), ("random", subject.network)):
        top1 = linear_accuracy(embed(network, x), labels, embed(network, queries), truth)
        about = {"split": test.parent.name, "protocol": LOUD, "subject": name}
        found.append({**about, "top1": round(top1, 4), "num_test": len(truth)})
    return found


def spectrograms(folder: Path, encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Levels (N, 1, 64, T) in [0, 1] of the sounds in a folder's class subfolders, as an evaluation reads them."""
    files = sorted(folder.rglob("*.wav"))
    frames = encoder.image_size[1]
    sounds = [fit_time(decode(path.read_bytes(), Format(1, 16, sound=True)), frames) for path in files]
    return torch.stack(sounds).float() / 65535, torch.tensor([int(path.parent.name) for path in files])


def of_loudness(levels: Tensor, loudest: Tensor) -> Tensor:
    """Each of (N, 1, 64, T) with its loudest place at this level, and no place further below it than is kept."""
    lowest = loudest - KEPT_DB / 10 * log(10) / SPAN
    return (levels - levels.amax((1, 2, 3), keepdim=True) + loudest).clamp(min=float(lowest))


def row(split: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "split": split,
        "protocol": entry["protocol"],
        "subject": entry["subject"],
        "top1": round(entry["top1"], 4),
        "low": round(entry["interval"][0], 4),
        "high": round(entry["interval"][1], 4),
        "num_test": entry["num_test"],
    }


def figures_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """In percent."""
    found = {}
    for ending, asked in HONEST.items():
        speakers = [r["top1"] for r in rows if (r["protocol"], r["subject"]) == asked and r["split"] in SPEAKERS]
        found[f"fsdd_speaker_linear{ending}"] = round(100 * mean(speakers), 2)
    (knn,) = (r["top1"] for r in rows if (r["split"], r["protocol"], r["subject"]) == ("takes", "knn", "trained"))
    return found | {"fsdd_take_knn": round(100 * knn, 2)}


if __name__ == "__main__":
    main()
