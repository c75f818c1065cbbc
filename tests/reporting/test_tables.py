"""Tables of evaluations, from entries alone."""

import csv
import io
from typing import Any

from ownlatent.reporting import tables


def entry(subject: str, top1: float, gain: float | None = None, **changes: Any) -> dict[str, Any]:
    made = {
        "protocol": "knn",
        "settings": {"k": 20, "temperature": 0.07},
        "subject": subject,
        "variant": "a, b",
        "data": {
            "train": "a|b",
            "test": "test",
            "split": "train-test",
            "train_fingerprint": "1",
            "test_fingerprint": "2",
        },
        "num_train": 100,
        "num_test": 50,
        "top1": top1,
        "interval": [top1 - 0.05, top1 + 0.05],
        "per_class": {"cat": top1, "dog": None},
    }
    if gain is not None:
        made["trained_is"] = {"mean": gain, "low": gain - 0.1, "high": gain + 0.1}
    return made | changes


ENTRIES = [entry("trained", 0.6), entry("random", 0.45, 0.15), entry("timm:resnet18", 0.7, -0.1)]


def test_console_shows_accuracy_and_what_the_trained_encoder_is_ahead():
    assert tables.console(ENTRIES) == [
        "k-NN, k 20, temperature 0.07: 50 images, by 100 labelled ones (last epoch)",
        "  trained encoder   60.0%   (55.0 to 65.0)",
        "  random encoder    45.0%   trained is +15.0 points (+5.0 to +25.0)",
        "  timm:resnet18     70.0%   trained is -10.0 points (-20.0 to +0.0)",
    ]


def test_tasks_are_kept_apart():
    others = [
        entry("trained", 0.5, settings={"k": 1, "temperature": 0.07}),
        entry("trained", 0.5, data={**ENTRIES[0]["data"], "test_fingerprint": "3"}),
    ]
    assert [len(group) for group in tables.grouped([*ENTRIES, *others])] == [3, 1, 1]


def test_csv_can_be_read_back():
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(tables.COLUMNS, tables.rows(ENTRIES)))))
    assert [row["subject"] for row in rows] == ["trained", "random", "timm:resnet18"]
    assert rows[1]["accuracy"] == "45.00" and rows[1]["trained is"] == "+15.00" and rows[0]["gain low"] == ""
    assert rows[0]["variant"] == "a, b"


def test_markdown_has_one_line_for_each_row_and_escapes_bars():
    lines = tables.as_markdown(tables.COLUMNS, tables.rows(ENTRIES)).splitlines()
    assert len(lines) == 5 and "a\\|b" in lines[2]
    assert all(line.replace("\\|", "").count("|") == len(tables.COLUMNS) + 1 for line in lines)


def test_classes_without_test_images_stay_empty():
    header, body = tables.by_class(ENTRIES)
    assert header[-2:] == ["cat", "dog"] and body[0][-2:] == ["60.00", ""]


def test_protocols_have_words():
    low = {"labels": "5", "draws": 3, "layer": "layer3"}
    assert tables.protocol_of({"protocol": "low-shot", "settings": low}) == (
        "low-shot, 5 of every class, 3 draws, logistic regression, layer layer3"
    )
    tune = {"labels": "100%", "draws": 1, "head": "mlp", "minutes": 3.0}
    words = "fine-tuning, 100% of the labels, mlp head, 3 minutes"
    assert tables.protocol_of({"protocol": "finetune", "settings": tune}) == words


def test_columns_are_aligned():
    assert tables.aligned(["a", "b"], [["long", "1"], ["x", "22"]]) == ["a      b", "long   1", "x     22"]
