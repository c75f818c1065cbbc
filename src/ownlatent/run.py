"""A run folder, as an object."""

import csv
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.train.recipe import Recipe

if TYPE_CHECKING:
    from ownlatent.backbones.encoder import Encoder


class Run:
    """What a run left in its folder; everything is read when it is asked for.

    encoder: an nn.Module, images in, (B, D) features out. metrics: one dict per row of metrics.csv.
    results: the content of results.json. recipe: the resolved recipe. Raises OwnlatentError for a
    folder that holds no run.
    """

    def __init__(self, folder: str | Path, encoder: "Encoder | None" = None):
        self.folder = Path(folder)
        if not (self.folder / "recipe.json").exists():
            raise OwnlatentError(f"{folder} holds no run: name a folder with a recipe.json")
        if encoder is not None:
            self.__dict__["encoder"] = encoder

    @cached_property
    def encoder(self) -> "Encoder":
        from ownlatent.export.encoder import load_encoder

        return load_encoder(self.folder)

    @property
    def recipe(self) -> Recipe:
        return Recipe.load(self.folder / "recipe.json")

    @property
    def metrics(self) -> list[dict[str, float | None]]:
        path = self.folder / "metrics.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [{k: float(v) if v != "" else None for k, v in row.items()} for row in csv.DictReader(file)]

    @property
    def results(self) -> dict[str, Any]:
        path = self.folder / "results.json"
        if not path.exists():
            return {"finished": False, "evaluations": []}
        try:
            return json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise OwnlatentError(f"{path} is broken ({error}): delete it; --resume makes it again") from error

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"
