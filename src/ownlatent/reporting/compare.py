"""Runs side by side, from their results.json; only what was measured alike is compared."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.intervals import paired_difference
from ownlatent.reporting.tables import protocol_of

Entry = Mapping[str, Any]


def compare(runs: Mapping[str, tuple[Sequence[Entry], Path]]) -> tuple[list[str], list[list[str]], list[str]]:
    """Header and rows of a table, and what was left out in words.

    runs: by name, the entries of results.json and the predictions.npz beside it. The first run is what the others are
    compared with, by a paired bootstrap over the test images. Raises OwnlatentError if two runs have no protocol with
    the same settings and data, naming the settings that differ.
    """
    names = list(runs)
    trained = {name: [e for e in entries if e["subject"] == "trained"] for name, (entries, _) in runs.items()}
    for name, entries in trained.items():
        if not entries:
            raise OwnlatentError(f"{name} has not been evaluated: ownlatent evaluate {name} --train DATA --test DATA")
    first, body, left_out = names[0], [], []
    for entry in trained[first]:
        alike = {name: next((e for e in trained[name] if _differences(entry, e) == []), None) for name in names}
        missing = [name for name, found in alike.items() if found is None]
        if missing:
            left_out.append(f"{protocol_of(entry)}: {'; '.join(_why(entry, name, trained[name]) for name in missing)}")
            continue
        row = [protocol_of(entry), f"{100 * entry['top1']:.2f}"]
        for name in names[1:]:
            other = alike[name]
            assert other is not None
            row += [f"{100 * other['top1']:.2f}", _difference(runs[first][1], entry, runs[name][1], other)]
        body.append(row)
    if not body:
        raise OwnlatentError(f"these runs were not evaluated alike, so they are not compared: {'; '.join(left_out)}")
    header = ["protocol", first]
    for name in names[1:]:
        header += [name, f"less {first} (95 %)"]
    return header, body, left_out


def _why(entry: Entry, name: str, others: Sequence[Entry]) -> str:
    """Which settings of the other run's nearest evaluation differ."""
    same = [other for other in others if other["protocol"] == entry["protocol"]]
    if not same:
        return f"{name} has no {entry['protocol']}"
    fewest: list[str] = min((_differences(entry, other) for other in same), key=len)
    return f"in {name} " + " and ".join(fewest)


def _differences(one: Entry, other: Entry) -> list[str]:
    """The settings in which two entries differ, in words; empty if they measured the same."""
    if one["protocol"] != other["protocol"]:
        return [f"the protocol is {other['protocol']} and not {one['protocol']}"]
    a, b = ({**entry["settings"], "split": entry["data"]["split"]} for entry in (one, other))
    found = [
        f"{key} is {b.get(key, 'none')} and not {a.get(key, 'none')}" for key in {**a, **b} if a.get(key) != b.get(key)
    ]
    for part in ("train", "test"):
        if one["data"][f"{part}_fingerprint"] != other["data"][f"{part}_fingerprint"]:
            found.append(f"the {part} images are others ({other['data'][part]})")
    return found


def _difference(one_file: Path, one: Entry, other_file: Path, other: Entry) -> str:
    """Points that the other run is ahead, with its interval where both runs' predictions are kept."""
    mean = 100 * (other["top1"] - one["top1"])
    try:
        with np.load(one_file) as a, np.load(other_file) as b:
            rights = (b[other["predictions"]] == b[other["truth"]], a[one["predictions"]] == a[one["truth"]])
            gain = paired_difference(*rights)
    except (OSError, KeyError, ValueError, EOFError, BadZipFile, zlib.error):
        return f"{mean:+.2f}"
    return f"{mean:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
