"""What the numbers say, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
_NAMES = {"random": "the random encoder", "pixels": "the raw pixels", "bands": "the mean and deviation of the bands"}
_ORDER = ("linear", "knn", "sgd", "low-shot", "finetune")


def sentences(entries: Sequence[Entry], curve: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Whether the pre-training helped, by the main protocol, and what the labels alone would have given.

    entries: of one pair of data sets. curve: accuracy of the trained encoder by the number of labels.
    """
    group = _main(entries)
    return [_helped(group), *_against_labels(entries, curve)]


def _main(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of the task that decides: the linear probe, else k-NN with the k nearest to 20, else the first."""

    def rank(entry: Entry) -> tuple[int, int]:
        return _ORDER.index(entry["protocol"]), abs(entry["settings"].get("k", 20) - 20)

    best = min(entries, key=rank)
    return [e for e in entries if (e["protocol"], e["settings"]) == (best["protocol"], best["settings"])]


def _helped(group: Sequence[Entry]) -> str:
    baselines = [entry for entry in group if entry["subject"] in _NAMES]
    how = {"knn": "k-NN", "linear": "the linear probe", "sgd": "the SGD probe"}.get(group[0]["protocol"], "low-shot")
    if not baselines:
        return (
            "Whether pre-training helped is not told here: that needs k-NN or a probe beside random encoder or pixels."
        )
    best = min(baselines, key=lambda entry: entry["trained_is"]["mean"])
    gain = best["trained_is"]
    name = _NAMES[best["subject"]]
    mean, low, high = (100 * gain[part] for part in ("mean", "low", "high"))
    interval = f"95 % interval {low:+.1f} to {high:+.1f}"
    if low > 0:
        return f"Pre-training helped: {mean:.1f} points above {name}, the best baseline, by {how} ({interval})."
    if high < 0:
        return (
            f"Pre-training hurt: {-mean:.1f} points below {name}, the best baseline, by {how} ({interval}). "
            "Do not use this encoder."
        )
    return (
        f"It cannot be told whether pre-training helped: {mean:+.1f} points against {name}, the best baseline, by "
        f"{how} on {group[0]['num_test']} test {group[0].get('data', {}).get('noun', 'images')} ({interval})."
    )


def _against_labels(entries: Sequence[Entry], curve: Sequence[Mapping[str, Any]]) -> list[str]:
    """Beside the same network trained with labels from scratch, on as many labels and on all of them."""
    found = []
    for entry in entries:
        if entry["subject"] == "supervised" and entry["protocol"] in ("low-shot", "finetune"):
            gain = entry["trained_is"]
            mean, low, high = (100 * gain[part] for part in ("mean", "low", "high"))
            how = "fine-tuned " if entry["protocol"] == "finetune" else ""
            side = f"{abs(mean):.1f} points {'ahead of' if mean > 0 else 'behind'}"
            told = "" if low > 0 or high < 0 else ", which cannot be told from none"
            found.append(
                f"With {entry['num_train']} labels the {how}encoder is {side} the same network trained on them from "
                f"scratch for {_minutes(entry)} ({low:+.1f} to {high:+.1f}){told}."
            )
    full = next(
        (e for e in entries if e["subject"] == "supervised" and e["settings"].get("labels", "100%") == "100%"), None
    )
    if full is not None and curve:
        all_of_them = (
            f"the {full['top1']:.1%} of the same network trained from scratch on all {full['num_train']} for "
            f"{_minutes(full)}"
        )
        reached = next((point for point in curve if point["top1"] >= full["top1"]), None)
        if reached is None:
            found.append(f"With no number of labels does a linear layer on the encoder reach {all_of_them}.")
        else:
            found.append(f"With {reached['num']} labels a linear layer on the encoder reaches {all_of_them}.")
    return found


def _minutes(entry: Entry) -> str:
    minutes = entry["training"]["minutes"]
    return f"{minutes:.2g} minutes" if minutes < 10 else f"{minutes:.0f} minutes"
