"""What a report shows of a run, as plain values for its template and its scripts."""

import base64
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.reporting import tables
from ownlatent.reporting.folder import RunFolder
from ownlatent.reporting.gallery import NAMES, Gallery, Seen, queries
from ownlatent.reporting.health import in_words
from ownlatent.reporting.maps import maps_of
from ownlatent.reporting.pictures import NOT_DRAWN, PANELS

_QUERIES, _PAIRS, _EXAMPLES = 8, 6, 8
_MOST_CLASSES = 30  # of a table of confusions; a picture shows more


def page_facts(run: RunFolder) -> dict[str, Any]:
    """Of one run, for the template."""
    training, health = run.results.get("training", {}), run.results.get("health")
    verdicts = run.results.get("verdicts", [])
    return {
        "name": run.name,
        "verdicts": [{"of": _of_verdict(verdict), "words": verdict["words"]} for verdict in verdicts],
        "health": [line.split(None, 1)[1] if n == 0 else line.strip() for n, line in enumerate(in_words(health))]
        if health
        else [],
        "healthy": health is None or health.get("word") in ("healthy", "too early to tell"),
        "missing": run.missing,
        "gains": _gains(run.entries),
        "views": _picture(run.path / "views.png"),
        "table": _table(run.entries, run.noun) if run.entries else None,
        "noun": run.noun,
        "classes": _by_class(run),
        "confusion": _confusion(run),
        "confusion_picture": _picture(run.path / "confusion.png"),
        "facts": _facts(run, training),
        "command": run.environment.get("command"),
        "recipe": json.dumps(run.recipe, indent=2),
        "environment": json.dumps(run.environment, indent=2),
    }


def script_facts(run: RunFolder, map: str) -> dict[str, Any]:
    """Of one run, for the scripts: columns, and arrays in base64."""
    return {
        "name": run.name,
        "curves": _curves(run.metrics),
        "gallery": None if run.gallery is None else _gallery(run, run.gallery, map),
    }


def _gains(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By how much the trained encoder is ahead of each baseline, in points, for every protocol."""
    found = []
    for group in tables.grouped(entries):
        for entry in group:
            if gain := entry.get("trained_is"):
                found.append(
                    {
                        "protocol": tables.protocol_of(entry),
                        "test": _data_of(entry),
                        "baseline": NAMES.get(entry["subject"], entry["subject"]),
                        "trained": 100 * group[0]["top1"],
                        "other": 100 * entry["top1"],
                        **{name: 100 * gain[name] for name in ("mean", "low", "high")},
                    }
                )
    return found


def _table(entries: Sequence[Mapping[str, Any]], noun: str) -> dict[str, Any]:
    tests = {entry["data"]["test_fingerprint"]: (entry["data"]["test"], entry["num_test"]) for entry in entries}
    of = ", ".join(f"{count} {noun} of {name}" for name, count in tests.values())
    chosen = ", ".join(dict.fromkeys(entry["chosen_on_test"] for entry in entries))
    notes = f"Tested on {of}, by the encoder of the last epoch; what was chosen on the test {noun}: {chosen}."
    return {"header": tables.COLUMNS, "rows": tables.rows(entries), "notes": notes}


def _data_of(entry: Mapping[str, Any]) -> str:
    """Which images an entry is of, and how they were classified."""
    data = entry["data"]
    return data["test"] + (", each by the others" if data["split"] == "leave-one-out" else f" by {data['train']}")


def _of_verdict(verdict: Mapping[str, Any]) -> str:
    layer = f", layer {verdict['layer']}" if verdict.get("layer") else ""
    return _data_of(verdict) + layer


def _by_class(run: RunFolder) -> dict[str, Any] | None:
    """Accuracies by class, a row for each class and a column for each subject of the protocol that is shown."""
    group = _shown_group(run)
    if not group:
        return None
    names = list(group[0]["per_class"])
    rows = [
        [name, *("" if (share := e["per_class"].get(name)) is None else f"{100 * share:.1f}" for e in group)]
        for name in names
    ]
    header = ["class", *(NAMES.get(entry["subject"], entry["subject"]) for entry in group)]
    return {"title": _title(group[0]), "header": header, "rows": rows}


def _title(entry: Mapping[str, Any]) -> str:
    return f"{tables.protocol_of(entry)}, {_data_of(entry)}"


def _shown_group(run: RunFolder) -> list[Mapping[str, Any]]:
    """The entries of the protocol whose classes are shown: of the gallery's images, by the probe if there is one."""
    about = {} if run.gallery is None else run.gallery.about

    def rank(group: list[Mapping[str, Any]]) -> tuple[bool, bool, bool]:
        entry = group[0]
        others = entry["data"]["test_fingerprint"] != about.get("test")
        return others, entry["settings"].get("layer") != about.get("layer"), entry["protocol"] != "linear"

    groups = [group for group in tables.grouped(run.entries) if group[0]["subject"] == "trained"]
    return min(groups, key=rank, default=[])


def _predicted(run: RunFolder) -> tuple[Mapping[str, Any], np.ndarray, np.ndarray] | None:
    """The shown entry of the trained encoder, the classes (S, N) that S draws give test images, and the true ones."""
    group = _shown_group(run)
    if not group:
        return None
    entry = group[0]
    try:
        return entry, run.predictions[entry["predictions"]], run.predictions[entry["truth"]]
    except KeyError:
        return None


def _counts(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """How often each true class was taken for each class, of all draws together."""
    counts = np.zeros((classes, classes), np.int64)
    known = truth >= 0
    for draw in predicted[:, known]:
        np.add.at(counts, (truth[known], draw), 1)
    return counts


def _confusion(run: RunFolder) -> dict[str, Any] | None:
    """Of each class the share in percent that was taken for each class; None without predictions or of many classes."""
    found = _predicted(run)
    if found is None:
        return None
    entry, predicted, truth = found
    classes = list(entry["per_class"])
    if len(classes) > _MOST_CLASSES:
        return None
    counts = _counts(predicted, truth, len(classes))
    shares = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
    rows = [{"name": name, "shares": [round(float(v)) for v in row]} for name, row in zip(classes, shares, strict=True)]
    return {"title": _title(entry), "classes": classes, "rows": rows}


def _facts(run: RunFolder, training: Mapping[str, Any]) -> list[tuple[str, str]]:
    recipe, here = run.recipe, run.environment
    length = f"{recipe['minutes']:g} minutes" if recipe.get("minutes") else f"{recipe.get('epochs')} epochs"
    found = [
        ("method", str(recipe.get("method"))),
        ("backbone", str(recipe.get("backbone"))),
        ("planned length", length),
        ("batch size", str(recipe.get("batch_size"))),
        ("seed", str(recipe.get("seed"))),
        ("data", str(recipe.get("data"))),
    ]
    if training:
        found.append(("trained", f"{training['steps']} steps in {training['seconds'] / 60:.1f} minutes"))
        found.append(("speed", f"{training['images_per_second']:.0f} {run.noun}/s"))
    for data in {json.dumps(entry["data"]): entry["data"] for entry in run.entries}.values():
        parts = ("test",) if data["split"] == "leave-one-out" else ("train", "test")
        found += [(f"labelled, {part}", f"{data[part]}, fingerprint {data[f'{part}_fingerprint']}") for part in parts]
    for extension in run.results.get("extensions", []):
        found.append(("extended", f"from {extension['from']:g} to {extension['to']:g} {extension['unit']}"))
    if here:
        machine = [str(here.get("processor")), f"{here.get('cores')} cores", f"{here.get('memory_gib')} GiB"]
        found.append(("machine", ", ".join([*machine, *here.get("gpus", [])])))
        found.append(("versions", ", ".join(f"{k} {v}" for k, v in here.get("versions", {}).items())))
        found.append(("commit", str(here.get("commit") or "not known")))
    found.append(("energy", "not measured"))
    return found


def _picture(path: Path) -> str | None:
    try:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return None


def _curves(metrics: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """The columns that are drawn with their titles, and for each the steps at which it was measured.

    What is not finite is None, which makes a gap; what was not measured at a step makes none.
    """
    titles = {key: title for key, title, _ in PANELS} | {"waiting": "share of the time spent waiting for data"}
    order = [*titles, *(key for key in metrics if key not in titles and key not in NOT_DRAWN)]
    columns = {key: column for key in order if (column := _measured(metrics, key)) is not None}
    return {
        "alignment": _measured(metrics, "predictor_alignment"),
        "columns": columns,
        "titles": {key: titles.get(key, key.replace("_", " ")) for key in columns},
    }


def _measured(metrics: Mapping[str, Sequence[float | None]], key: str) -> dict[str, list[float | None]] | None:
    rows = [
        (step, value)
        for step, value in zip(metrics.get("step", ()), metrics.get(key, ()), strict=False)
        if step is not None and isfinite(step) and value is not None
    ]
    values = [value if isfinite(value) else None for _, value in rows]
    return {"steps": [step for step, _ in rows], "values": values} if any(v is not None for v in values) else None


def _gallery(run: RunFolder, gallery: Gallery, map: str) -> dict[str, Any]:
    about = gallery.about
    return {
        **{key: about[key] for key in ("names", "classes", "side", "columns")},
        "of": _of_gallery(about, len(gallery)),
        "noun": about.get("noun", "images"),
        "sounds": {number: base64.b64encode(sound).decode() for number, sound in gallery.sounds.items()},
        "labels": _packed(gallery.labels, "<i4"),
        "clusters": _packed(gallery.clusters, "<i2"),
        "sheets": [base64.b64encode(sheet).decode() for sheet in gallery.sheets],
        "encoders": [_encoder(run, gallery, name, seen, map) for name, seen in gallery.seen.items()],
        "queries": queries(gallery, _QUERIES),
        "pairs": _pairs(run, gallery),
    }


def _of_gallery(about: Mapping[str, Any], shown: int) -> str:
    noun = about.get("noun", "images")
    count = f"{shown} {noun}" if about["count"] <= shown else f"{shown} of {about['count']} {noun}"
    kind = " that the encoder was trained on" if about["test"] is None else ""
    layer = f", layer {about['layer']}" if about["layer"] else ""
    return f"{count}{kind}, {about['data']}{layer}"


def _encoder(run: RunFolder, gallery: Gallery, name: str, seen: Seen, map: str) -> dict[str, Any]:
    maps = {"PCA": seen.components[:, :3], **maps_of(run.path, gallery, name, map)}
    return {
        "name": NAMES.get(name, name),
        "maps": {
            key: {"axes": points.shape[1], "points": _packed(_scaled(points), "<f4")} for key, points in maps.items()
        },
        "variance": [round(float(v), 4) for v in seen.variance[:3]],
        "neighbours": _packed(seen.neighbours, "<u2"),
        "each": int(seen.neighbours.shape[1]),
        "spectrum": [float(f"{v:.4g}") for v in seen.spectrum[:512]],
        "correlations": seen.correlations.tolist(),
    }


def _scaled(points: np.ndarray) -> np.ndarray:
    """Centred, with 99 of 100 points within a distance of 1: an outlier must not make all others a dot."""
    centred = points - points.mean(0)
    reach = np.quantile(np.abs(centred).max(1), 0.99) if len(points) else 1.0
    return centred / max(float(reach), 1e-12)


def _packed(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _pairs(run: RunFolder, gallery: Gallery) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most, with images of the one that were taken for the other."""
    found = _predicted(run)
    rows = gallery.rows
    if found is None or not len(rows) or gallery.about.get("test") != found[0]["data"]["test_fingerprint"]:
        return []
    entry, predicted, truth = found
    classes = list(entry["per_class"])
    counts = _counts(predicted, truth, len(classes))
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    np.fill_diagonal(shares, 0)
    worst = np.argsort(-shares, axis=None, kind="stable")[:_PAIRS]
    pairs = []
    for true, taken in zip(*np.unravel_index(worst, shares.shape), strict=True):
        if not counts[true, taken]:
            continue
        examples = np.flatnonzero((truth[rows] == true) & (predicted[0, rows] == taken))[:_EXAMPLES]
        pairs.append(
            {
                "true": classes[true],
                "taken": classes[taken],
                "count": round(int(counts[true, taken]) / len(predicted)),
                "of": int(counts[true].sum()) // len(predicted),
                "examples": examples.tolist(),
            }
        )
    return pairs
