"""What evaluations leave in a run folder: entries in results.json, predictions, tables and pictures."""

import io
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ownlatent.errors import OwnlatentError
from ownlatent.files import as_json, replace_file
from ownlatent.proof.judge import identity, measurement
from ownlatent.reporting import tables
from ownlatent.reporting.pictures import draw_confusion
from ownlatent.run import Run

_SHOWN = ("linear", "knn", "sgd", "low-shot", "finetune")  # whose confusion is drawn, the first that there is


class Record:
    """The evaluations of a run folder. entries: those of results.json, in their order; each is written at once."""

    def __init__(self, run: Run):
        self.run = run
        self.results = run.results
        self.entries: list[dict[str, Any]] = self.results.setdefault("evaluations", [])
        self._file = run.folder / "predictions.npz"
        self._arrays: dict[str, np.ndarray] = {}
        if self._file.exists():
            try:
                with np.load(self._file) as stored:
                    self._arrays = dict(stored)
            except (OSError, ValueError, EOFError, BadZipFile, zlib.error):  # damaged: what it held is made again
                self._arrays = {}

    def forget_others(self, weights: str) -> None:
        """Drop everything if it was measured with other trained weights than these: the encoder was replaced."""
        if any(entry["subject"] == "trained" and entry["weights"] != weights for entry in self.entries):
            self.entries.clear()
            self.results.pop("verdicts", None)

    @property
    def known(self) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
        """Entries whose predictions are kept, by `measurement`."""
        found = {entry["predictions"]: entry for entry in self.entries}
        return {key: (entry, self._arrays[key]) for key, entry in found.items() if key in self._arrays}

    def add(self, entry: dict[str, Any], predicted: np.ndarray, truth: np.ndarray) -> None:
        """Write an entry, in the place of an earlier one of the same, and its predictions (S, N)."""
        entry["predictions"], entry["truth"] = measurement(entry), _truth(entry)
        places = [number for number, other in enumerate(self.entries) if identity(other) == identity(entry)]
        if places:
            self.entries[places[0]] = entry
        else:
            self.entries.append(entry)
        self._arrays[entry["predictions"]] = predicted.astype(np.int32)
        self._arrays[entry["truth"]] = truth.astype(np.int32)
        used = {name for other in self.entries for name in (other["predictions"], other["truth"])}
        self._arrays = {name: array for name, array in self._arrays.items() if name in used}
        content = io.BytesIO()
        np.savez_compressed(content, **self._arrays)  # type: ignore[arg-type]
        self._write(self._file.name, content.getvalue())
        self.save()

    def verdict(self, data: dict[str, Any], layer: str | None) -> dict[str, Any]:
        """What is said of one pair of data sets and one layer, to be filled in: {"data", "layer", ...}."""
        facts = ("split", "train_fingerprint", "test_fingerprint")
        verdicts: list[dict[str, Any]] = self.results.setdefault("verdicts", [])
        for verdict in verdicts:
            if verdict["layer"] == layer and all(verdict["data"][fact] == data[fact] for fact in facts):
                return verdict
        verdicts.append({"data": data, "layer": layer, "words": []})
        return verdicts[-1]

    def save(self) -> None:
        self._write("results.json", as_json(self.results))

    def _write(self, name: str, content: bytes) -> None:
        try:
            replace_file(self.run.folder / name, content)
        except OSError as error:
            raise OwnlatentError(
                f"cannot write {name} to {self.run.folder} ({error.strerror}): make room, or evaluate a copy of it"
            ) from error

    def finish(self, entries: list[dict[str, Any]]) -> list[Path]:
        """Write tables of all entries, accuracy by class, and the trained encoder's confusion in `entries`; paths."""
        folder, header = self.run.folder, tables.COLUMNS
        body = tables.rows(self.entries)
        of_class = tables.by_class(self.entries)
        written = {
            "evaluation.csv": tables.as_csv(header, body),
            "evaluation.md": tables.as_markdown(header, body),
            "classes.csv": tables.as_csv(*of_class),
        }
        for name, text in written.items():
            self._write(name, text.encode())
        paths = [folder / name for name in written]
        trained = [entry for entry in entries if entry["subject"] == "trained"]
        shown = min(trained, key=lambda entry: _SHOWN.index(entry["protocol"]))
        predicted, truth = self._arrays[shown["predictions"]], self._arrays[shown["truth"]]
        title = f"{shown['data']['test']}: {tables.protocol_of(shown)}"
        draw_confusion(predicted, truth, list(shown["per_class"]), title, folder / "confusion.png")
        return [*paths, folder / "confusion.png"]


def _truth(entry: dict[str, Any]) -> str:
    """A name for the true classes of an entry's test images, which are numbered by those for training."""
    data = entry["data"]
    return f"truth-{data['train_fingerprint']}-{data['test_fingerprint']}"
