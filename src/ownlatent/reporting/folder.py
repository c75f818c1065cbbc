"""What a run folder holds, read as far as it goes: a report is also made of a run that broke off."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.errors import OwnlatentError
from ownlatent.reporting.gallery import Gallery, read_arrays, read_gallery
from ownlatent.types import NOUNS


@dataclass
class RunFolder:
    """name: what the report calls it. missing: what is not there, and why or how to get it, in words."""

    path: Path
    name: str
    recipe: dict[str, Any]
    results: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, list[float | None]]
    predictions: Mapping[str, np.ndarray]
    gallery: Gallery | None
    missing: list[str] = field(default_factory=list)

    @property
    def noun(self) -> str:
        """What its data are of."""
        return NOUNS["audio" if self.recipe.get("modality") == "audio" else "image"]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Evaluations, as results.json holds them."""
        return self.results.get("evaluations", [])


def read_folder(path: Path, name: str | None = None) -> RunFolder:
    """Raises OwnlatentError if the folder holds no run."""
    missing: list[str] = []
    recipe = _json(path / "recipe.json", missing)
    if recipe is None:
        why = "its recipe.json is broken" if (path / "recipe.json").exists() else "name a folder with a recipe.json"
        raise OwnlatentError(f"{path} holds no run that can be read: {why}")
    results = {key: value for key, value in (_json(path / "results.json", missing) or {}).items() if value is not None}
    environment = _json(path / "env.json", missing) or {}
    metrics = _metrics(path / "metrics.csv")
    arrays, gallery = read_arrays(path / "predictions.npz"), read_gallery(path)
    found = RunFolder(
        path, name or path.resolve().name, recipe, results, environment, metrics, arrays, gallery, missing
    )
    _say_missing(found)
    return found


def summary(path: Path) -> dict[str, Any]:
    """The recipe and results of a run alone, for a list of runs. Raises OwnlatentError if it holds none."""
    recipe = _json(path / "recipe.json", [])
    if recipe is None:
        raise OwnlatentError(f"{path} holds no run that can be read: its recipe.json is broken")
    return {"recipe": recipe, "results": _json(path / "results.json", []) or {}}


def _say_missing(run: RunFolder) -> None:
    say, word = run.missing.append, run.results.get("health", {}).get("word")
    steps = [step for step in run.metrics.get("step", []) if step is not None]
    if not run.results.get("finished"):
        where = f"after step {steps[-1]:.0f}" if steps else "before its first step"
        ended = f"was stopped as {word}" if run.results.get("health", {}).get("stopped") else "broke off"
        say(f"The run {ended} {where}: what follows is as far as it came.")
    if not steps:
        say("There are no curves: nothing was trained yet.")
    elif len(steps) == 1:
        say("There is one measurement, which makes no curve.")
    if any(value is not None and not isfinite(value) for value in run.metrics.get("loss", [])):
        say("The loss was not a number at some steps: the curves have gaps there.")
    if not run.entries:
        say(
            "Nothing was measured against labels, so it is not known what the encoder is worth: "
            "ownlatent evaluate RUN --train DATA --test DATA tells."
        )
    if run.gallery is None:
        say("There are no images to explore: they are kept when a run ends and when it is evaluated.")
    elif len(run.gallery) < 2:
        say("There is one image, which has no neighbours.")


def _json(path: Path, missing: list[str]) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        missing.append(f"{path.name} is broken and is left out.")
        return None
    return content if isinstance(content, dict) else None


def _metrics(path: Path) -> dict[str, list[float | None]]:
    """The columns of metrics.csv. A last row that was cut off is left out; what is not a number is None."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if None not in row and None not in row.values()]
            return {name: [_number(row[name]) for row in rows] for name in (reader.fieldnames or ())}
    except (OSError, ValueError, csv.Error):
        return {}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
