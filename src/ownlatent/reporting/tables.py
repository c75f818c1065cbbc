"""Evaluations as tables: for the console, as Markdown and as CSV; from entries of results.json alone."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]
COLUMNS = (
    "protocol",
    "train",
    "test",
    "subject",
    "variant",
    "accuracy",
    "low",
    "high",
    "trained is",
    "gain low",
    "gain high",
)
_NAMES = {
    "trained": "trained encoder",
    "random": "random encoder",
    "pixels": "raw pixels",
    "bands": "mean and std of bands",
    "supervised": "supervised",
}


def grouped(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The entries that one task made, each group in order, the trained encoder first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        data = entry["data"]
        facts = (
            entry["protocol"],
            entry["settings"],
            data["split"],
            data["train_fingerprint"],
            data["test_fingerprint"],
        )
        groups.setdefault(json.dumps(facts, sort_keys=True), []).append(entry)
    yield from groups.values()


def protocol_of(entry: Entry) -> str:
    """What an entry measured, in a few words.

    >>> protocol_of({"protocol": "knn", "settings": {"k": 20, "temperature": 0.07}})
    'k-NN, k 20, temperature 0.07'
    """
    settings = entry["settings"]
    layer = f", layer {settings['layer']}" if "layer" in settings else ""
    amount = settings.get("labels", "")
    if amount and not amount.endswith("%"):
        amount += " of every class"
    of = f"{amount} of the labels" if amount.endswith("%") else amount
    draws = f", {settings.get('draws')} draws" if settings.get("draws", 1) > 1 else ""
    words = {
        "knn": lambda: f"k-NN, k {settings['k']}, temperature {settings['temperature']:g}",
        "linear": lambda: "linear probe, logistic regression",
        "low-shot": lambda: f"low-shot, {of}{draws}, logistic regression",
        "sgd": lambda: f"linear probe, SGD for {settings['epochs']} epochs, cropped and flipped",
        "finetune": lambda: f"fine-tuning, {of}{draws}, {settings['head']} head, {settings['minutes']:g} minutes",
    }[entry["protocol"]]()
    return words + layer


def console(entries: Sequence[Entry]) -> list[str]:
    """A block for each task: accuracies in percent, and what the trained encoder is ahead of each baseline."""
    lines = []
    for group in grouped(entries):
        first = group[0]
        data = first["data"]
        by = "each by the others" if data["split"] == "leave-one-out" else f"by {first['num_train']} labelled ones"
        lines.append(f"{protocol_of(first)}: {first['num_test']} {data.get('noun', 'images')}, {by} (last epoch)")
        for entry in group:
            low, high = entry["interval"]
            if "trained_is" in entry:
                of = entry["trained_is"]
                gain = f"   trained is {_points(of['mean'])} points ({_points(of['low'])} to {_points(of['high'])})"
            else:
                gain = f"   ({100 * low:.1f} to {100 * high:.1f})"
            lines.append(f"  {_NAMES.get(entry['subject'], entry['subject']):<16} {entry['top1']:6.1%}{gain}")
    return lines


def rows(entries: Sequence[Entry]) -> list[list[str]]:
    """One row for each entry under COLUMNS, in percent and points, with 95 % intervals."""
    found = []
    for group in grouped(entries):
        for entry in group:
            gain = entry.get("trained_is")
            found.append(
                [
                    *(protocol_of(entry), entry["data"]["train"], entry["data"]["test"]),
                    *(entry["subject"], entry["variant"]),
                    *(f"{100 * value:.2f}" for value in (entry["top1"], *entry["interval"])),
                    *(("", "", "") if gain is None else (_points(gain[name], 2) for name in ("mean", "low", "high"))),
                ]
            )
    return found


def by_class(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: accuracy of each entry for each class in percent, empty for a class without test images."""
    classes = list(dict.fromkeys(name for entry in entries for name in entry["per_class"]))
    body = []
    for entry in entries:
        shares = [entry["per_class"].get(name) for name in classes]
        body.append(
            [
                *(protocol_of(entry), entry["data"]["test"], entry["subject"]),
                *("" if share is None else f"{100 * share:.2f}" for share in shares),
            ]
        )
    return ["protocol", "test", "subject", *classes], body


def as_csv(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(body)
    return text.getvalue()


def as_markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, body)]) + "\n"


def aligned(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join([cells[0].ljust(widths[0]), *rest]).rstrip()

    return [line(header), *map(line, body)]


def _points(share: float, digits: int = 1) -> str:
    return f"{100 * share:+.{digits}f}"
