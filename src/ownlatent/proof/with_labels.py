"""What the same labels give by training all weights: fine-tuning an encoder, and the same network from scratch."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ownlatent.backbones.encoder import Encoder
from ownlatent.data.labelled import Labelled
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.cache import Features
from ownlatent.evaluation.low_shot import draw, parse
from ownlatent.proof.subjects import of_encoder
from ownlatent.train.budget import Budget
from ownlatent.train.classify import choose, predict, train_classifier, training_settings
from ownlatent.train.recipe import Recipe

log = logging.getLogger("ownlatent")


@dataclass
class WithLabels:
    """Trains classifiers on labelled images and tells the classes of the test images.

    scratch: an untrained encoder, or None to leave the supervised baseline out. recipe: of the run. minutes: of one
    supervised training on all labels, and of all draws of fewer together; finetune_minutes: of one fine-tuning.
    """

    train: Labelled
    test: Labelled
    scratch: Encoder | None
    recipe: Recipe
    minutes: float
    finetune_minutes: float
    head: str
    draws: int
    seed: int
    device: torch.device
    _known: dict[str, tuple[np.ndarray, dict[str, Any]]] = field(default_factory=dict)

    @property
    def scratch_key(self) -> str:
        """What stands for the weights of a network that is yet to be trained: its start, and what decides its end."""
        assert self.scratch is not None
        start = of_encoder("", "", self.scratch).weights
        return f"{start} {self.minutes:g} minutes {sorted(self.settings.items())}"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides a training beside its start, its labels and its length."""
        return {**training_settings(self.recipe), "device": self.device.type}

    def supervised(self, known: Features, amount: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Predictions (S, N) of the same network trained from scratch on so many labels; made once for each number."""
        if amount not in self._known:
            assert self.scratch is not None
            minutes = self.minutes_of(amount)
            self._known[amount] = self._trained(self.scratch, known, amount, minutes, "linear", "supervised")
        return self._known[amount]

    def finetuned(self, encoder: Encoder, known: Features, amount: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Predictions (S, N) of an encoder that is trained on with so many labels."""
        return self._trained(encoder, known, amount, self.finetune_minutes, self.head, "finetune")

    def minutes_of(self, amount: str) -> float:
        """Length of one supervised training on so many labels: all of it for all, a part for each of several draws."""
        return self.minutes / self._draws(amount)

    def _draws(self, amount: str) -> int:
        return 1 if parse(amount) == (100.0, True) else self.draws

    def _trained(
        self, encoder: Encoder, known: Features, amount: str, minutes: float, head: str, what: str
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """known: which images can be read, and their labels."""
        labels = torch.full((len(self.train.source),), -1)
        labels[known.places] = known.labels
        draws, found, choice = self._draws(amount), [], None
        budget = Budget(seconds=60 * minutes)
        for number in range(draws):
            recipe = replace(self.recipe, seed=self.recipe.seed + number)
            rows = known.places[draw(known.labels, amount, self.seed + number)]
            log.info(
                "%-10s on %d labels, %.2g minutes%s",
                *(what, len(rows), minutes, f", draw {number + 1} of {draws}" if draws > 1 else ""),
            )
            if choice is None:  # by the first draw, for all of them
                choice = choose(encoder, self.train, labels, rows, recipe, budget, head, self.device)
            args = (encoder, self.train.source, labels, rows, recipe, budget, head)
            try:
                classifier = train_classifier(*args, choice, self.device)
            except OwnlatentError:  # what held in the short runs that chose it may diverge in the long one
                choice = replace(choice, base_lr=choice.base_lr / 3)
                log.info("%-10s diverged; again with a third of the learning rate", what)
                classifier = train_classifier(*args, choice, self.device)
            found.append(predict(classifier, self.test, self.device))
        assert choice is not None
        training = {"minutes": minutes, "head": head, **self.settings}
        chosen = {"base_lr": choice.base_lr, "weight_decay": choice.weight_decay}
        return torch.stack(found).numpy(), {"training": training, "chosen": chosen, "num_train": len(rows)}
