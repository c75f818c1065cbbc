"""Runs the protocols: one entry of results.json for each subject and protocol on one pair of data sets."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownlatent import __version__
from ownlatent.augment.recipes import AnyView
from ownlatent.data.source import is_of_sounds
from ownlatent.evaluation.cache import Features
from ownlatent.evaluation.intervals import accuracy_interval, paired_difference
from ownlatent.evaluation.knn import knn_predictions
from ownlatent.evaluation.linear import FOLDS, PENALTIES, linear_predict
from ownlatent.evaluation.low_shot import draw, parse
from ownlatent.evaluation.sgd_probe import RATES, sgd_predict
from ownlatent.proof.bench import Bench
from ownlatent.proof.settings import Evaluation, listed
from ownlatent.proof.subjects import Subject
from ownlatent.proof.with_labels import WithLabels
from ownlatent.train.classify import cropping

log = logging.getLogger("ownlatent")
_MEASURED = ("seconds", "chosen", "training", "num_train")  # what an entry that is known need not find again
_CURVE = ("1%", "2%", "5%", "10%", "20%", "50%", "100%")
Record = Callable[[dict[str, Any], np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class Task:
    """One protocol with all its settings. labels: how many of them are used, "100%" for all."""

    protocol: str
    settings: dict[str, Any] = field(default_factory=dict)
    labels: str = "100%"


def tasks(options: Evaluation, sgd: dict[str, Any] | None = None, training: dict[str, Any] | None = None) -> list[Task]:
    """What the options ask for, in their order, with every setting that decides the result.

    sgd, training: what the run's image size, recipe and length add to the settings of the SGD probe and of fine-tuning.
    """
    found: list[Task] = []
    settings: dict[str, Any]
    logistic = {"classifier": "logistic regression", "penalties": list(PENALTIES), "held_out": 1 / FOLDS}
    draws = {"draws": options.draws, "seed": options.seed}
    for protocol in listed(options.protocols):
        if protocol == "knn":
            ks = sorted({int(k) for k in listed(options.k)})
            found += [Task("knn", {"k": k, "temperature": options.temperature, "similarity": "cosine"}) for k in ks]
        elif protocol == "linear":
            found.append(Task("linear", logistic))
        elif protocol == "low-shot":
            for amount in listed(options.labels):
                parse(amount)
                found.append(Task("low-shot", {"labels": amount, **draws, **logistic}, amount))
        elif protocol == "sgd":
            settings = {"epochs": options.sgd_epochs, "copies": options.sgd_copies, "batch_size": 256, "momentum": 0.9}
            settings |= {"rates": list(RATES), "held_out": 1 / FOLDS, "seed": options.seed}
            found.append(Task("sgd", settings | (sgd or {})))
        else:
            for amount in listed(options.finetune_labels):
                count = 1 if parse(amount) == (100.0, True) else options.draws
                settings = {"labels": amount, "draws": count, "seed": options.seed, "head": options.head}
                found.append(Task("finetune", settings | (training or {}), amount))
    if options.layer is None:
        return found
    layer = {"layer": options.layer}
    return [t if t.protocol == "finetune" else Task(t.protocol, t.settings | layer, t.labels) for t in found]


class Judge:
    """Judges subjects, of which the first is the trained encoder, on one pair of data sets.

    known: entries that an earlier evaluation left, with their predictions, which are not made again. record: takes
    each new entry with its predictions (S, N) and the true classes (N,).
    """

    def __init__(
        self,
        bench: Bench,
        subjects: list[Subject],
        options: Evaluation,
        with_labels: WithLabels | None,
        view: AnyView,
        known: Mapping[str, tuple[dict[str, Any], np.ndarray]],
        record: Record,
    ):
        self.bench, self.subjects, self.options, self.with_labels = bench, subjects, options, with_labels
        self.view, self.known, self.record = view, known, record
        training = None
        if with_labels is not None:
            training = {"minutes": round(with_labels.finetune_minutes, 4), **with_labels.settings}
        self.tasks = tasks(options, cropping(view), training)
        self._knn: dict[str, dict[int, Tensor]] = {}

    def run(self) -> Iterator[dict[str, Any]]:
        """Every entry, the trained encoder's first in each task."""
        truth = self.bench.features(self.subjects[0], test=True).labels.numpy()
        self._say_absent(truth)
        for task in self.tasks:
            reference: np.ndarray | None = None
            for name, variant, weights, answer in self._participants(task):
                entry = self._describe(task, name, variant, weights)
                key = measurement(entry)
                if key in self.known:
                    earlier, predicted = self.known[key]
                    entry |= {part: earlier[part] for part in _MEASURED if part in earlier}
                else:
                    began = perf_counter()
                    predicted, more = answer()
                    entry |= {"seconds": round(perf_counter() - began, 2), **more}
                right = predicted == truth
                reference = right if reference is None else reference
                entry |= self._numbers(right, truth)
                if name != "trained":
                    gain = paired_difference(reference, right)
                    entry["trained_is"] = {"mean": gain.mean, "low": gain.low, "high": gain.high}
                self.record(entry, predicted, truth)
                yield entry

    def curve(self) -> list[dict[str, Any]]:
        """Accuracy of logistic regression on the trained encoder's features by the number of labels, mean of draws."""
        truth = self.bench.features(self.subjects[0], test=True).labels
        found = []
        for amount in _CURVE:
            predicted, more = self._low_shot(self.subjects[0], amount, 1 if amount == "100%" else self.options.draws)
            found.append(
                {"labels": amount, "num": more["num_train"], "top1": float((predicted == truth.numpy()).mean())}
            )
        return found

    def _participants(
        self, task: Task
    ) -> Iterator[tuple[str, str, str, Callable[[], tuple[np.ndarray, dict[str, Any]]]]]:
        for subject in self.subjects:
            if task.protocol == "finetune":
                if self.with_labels is None or subject.encoder is None or subject.name == "random":
                    continue  # a random encoder that is trained with labels is the supervised one
                yield subject.name, subject.variant, subject.weights, partial(self._finetuned, subject, task)
            else:
                yield subject.name, subject.variant, subject.weights, partial(self._answer, subject, task)
        if self.with_labels is not None and self.with_labels.scratch is not None:
            variant = f"from scratch, {self.with_labels.minutes_of(task.labels):.3g} minutes"
            yield "supervised", variant, self.with_labels.scratch_key, partial(self._supervised, task)

    def _say_absent(self, truth: np.ndarray) -> None:
        """Warn of classes that test images have and no training image that can be read."""
        known = set(self.bench.features(self.subjects[0]).labels.tolist())
        absent = [self.bench.classes[number] for number in sorted(set(truth.tolist()) - known - {-1})]
        if absent:
            log.warning("classes    %s without training images: their test images count as wrong", ", ".join(absent))

    def _answer(self, subject: Subject, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        train, test = self._features(subject)
        if task.protocol == "knn":
            alone = self.bench.test is None
            if subject.weights not in self._knn:
                ks = sorted({int(k) for k in listed(self.options.k)})
                answers = knn_predictions(test.values, train.values, train.labels, ks, self.options.temperature, alone)
                self._knn[subject.weights] = dict(zip(ks, (answer.cpu() for answer in answers), strict=True))
            predicted = self._knn[subject.weights][task.settings["k"]]
            return predicted.unsqueeze(0).numpy(), {"num_train": len(train.labels) - alone}
        if task.protocol == "low-shot":
            return self._low_shot(subject, task.labels, self.options.draws)
        if task.protocol == "linear":
            predicted, penalty = linear_predict(train.values, train.labels, test.values)
            chosen = {"penalty": penalty}
        else:
            copies = self.bench.augmented(subject, self.options.sgd_copies, self.options.seed, self.view)
            epochs, seed = self.options.sgd_epochs, self.options.seed
            copies = [copy.to(train.labels.device) for copy in copies]
            predicted, rate = sgd_predict(copies, train.labels, train.values, test.values, epochs=epochs, seed=seed)
            chosen = {"rate": rate}
        return predicted.cpu().unsqueeze(0).numpy(), {"chosen": chosen, "num_train": len(train.labels)}

    def _features(self, subject: Subject) -> tuple[Features, Features]:
        """Of training and test images, where they are measured fastest."""
        parts = self.bench.features(subject), self.bench.features(subject, test=True)
        if self.bench.device.type != "cuda":
            return parts
        first, second = (Features(*(tensor.cuda() for tensor in part)) for part in parts)
        return first, second

    def _low_shot(self, subject: Subject, amount: str, draws: int) -> tuple[np.ndarray, dict[str, Any]]:
        train, test = self._features(subject)
        predictions, penalties = [], []
        for number in range(draws):
            rows = draw(train.labels.cpu(), amount, self.options.seed + number).to(train.labels.device)
            predicted, penalty = linear_predict(train.values[rows], train.labels[rows], test.values)
            predictions.append(predicted.cpu())
            penalties.append(penalty)
        return torch.stack(predictions).numpy(), {"chosen": {"penalty": penalties}, "num_train": len(rows)}

    def _finetuned(self, subject: Subject, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        assert self.with_labels is not None and subject.encoder is not None
        return self.with_labels.finetuned(subject.encoder, self.bench.features(subject), task.labels)

    def _supervised(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        assert self.with_labels is not None
        return self.with_labels.supervised(self.bench.features(self.subjects[0]), task.labels)

    def _describe(self, task: Task, name: str, variant: str, weights: str) -> dict[str, Any]:
        train, test = self.bench.train, self.bench.test
        return {
            "protocol": task.protocol,
            "settings": task.settings,
            "subject": name,
            "variant": variant,
            "weights": weights,
            "data": {
                "train": train.name,
                "test": (test or train).name,
                "split": "leave-one-out" if test is None else "train-test",
                "train_fingerprint": train.fingerprint,
                "test_fingerprint": (test or train).fingerprint,
                "num_classes": len(self.bench.classes),
                **({"noun": "sounds"} if is_of_sounds(train.source) else {}),
            },
            "epoch": "last",
            "chosen_on_test": "the baselines' form" if test is None else "nothing",
        }

    def _numbers(self, right: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
        interval = accuracy_interval(right)
        of_class = {
            name: round(float(right[:, truth == number].mean()), 4) if (truth == number).any() else None
            for number, name in enumerate(self.bench.classes)
        }
        return {
            "top1": float(right.mean()),
            "top1_of_draws": right.mean(1).tolist(),
            "interval": [interval.low, interval.high],
            "num_test": len(truth),
            "per_class": of_class,
        }


def identity(entry: Mapping[str, Any]) -> str:
    """A name for an entry's place: a newer one of the same subject, protocol, settings and data takes it."""
    return _name([entry[name] for name in ("subject", "protocol", "settings")] + _data(entry))


def measurement(entry: Mapping[str, Any]) -> str:
    """A name for what an entry's predictions depend on, the weights and this version of the package among it.

    A network that was trained with labels is the same beside every protocol that compares with it.
    """
    settings = entry["settings"]
    how: list[Any] = [entry["protocol"], settings]
    if entry["subject"] == "supervised":
        labels = settings.get("labels", "100%")
        how = ["supervised", labels, *((settings["draws"], settings["seed"]) if labels != "100%" else ())]
    return _name([entry["subject"], how, entry["weights"], __version__, *_data(entry)])


def _data(entry: Mapping[str, Any]) -> list[str]:
    return [entry["data"][name] for name in ("split", "train_fingerprint", "test_fingerprint")]


def _name(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
