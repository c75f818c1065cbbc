"""The whole evaluation of a run: subjects, protocols, words, and what is written."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from ownlatent.backbones import OwnNetwork
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.labelled import Labelled
from ownlatent.data.opening import open_source
from ownlatent.errors import OwnlatentError
from ownlatent.proof.bench import Bench
from ownlatent.proof.gallery import keep_gallery
from ownlatent.proof.judge import Judge, tasks
from ownlatent.proof.record import Record
from ownlatent.proof.settings import Evaluation, listed
from ownlatent.proof.subjects import Subject, input_subject, named_subject, of_encoder, random_subject, untrained
from ownlatent.proof.verdict import sentences
from ownlatent.proof.with_labels import WithLabels
from ownlatent.reporting.tables import console
from ownlatent.run import Run
from ownlatent.train.classify import CHOOSING, usual_view
from ownlatent.types import Modality

log = logging.getLogger("ownlatent")
Pair = tuple[Labelled, Labelled | None]
_FINETUNE_SHARE = 0.1  # of the pre-training's time


def evaluate(
    run: Run, pairs: Sequence[Pair], options: Evaluation, device: torch.device, scratch: Encoder | None
) -> list[dict[str, Any]]:
    """Judge a run's encoder on each pair of labelled images (training, test), and write what was found.

    A pair without a test part is judged by k-NN, each image by the others. scratch: the same encoder as it was
    before training, which is needed unless both baselines that begin with it are left out. Returns the entries of
    results.json.
    """
    record = Record(run)
    found: list[dict[str, Any]] = []
    alone = any(test is None for _, test in pairs)
    if alone and any(task.protocol != "knn" for task in tasks(options)):
        raise OwnlatentError(
            "only k-NN works with one set of labelled images: give --train and --test, or --protocols knn"
        )
    try:
        # What is wrong with any of them is said before anything slow begins.
        benches = [Bench(train, test, device, options.layer) for train, test in pairs]
        labels = [_with_labels(run, train, test, scratch, options, device) for train, test in pairs]
        named = [named_subject(name, run.encoder, options.layer) for name in listed(options.against)]
        for bench, with_labels in zip(benches, labels, strict=True):
            entries = _judge(run, bench, with_labels, named, options, scratch, record, not found)
            found += entries
    finally:
        run.encoder.cpu()  # to whoever holds the run it is as it was
        if found:
            for path in record.finish(entries):
                log.info("wrote      %s", path)
    return found


def _judge(
    run: Run,
    bench: Bench,
    with_labels: WithLabels | None,
    named: Sequence[Subject],
    options: Evaluation,
    scratch: Encoder | None,
    record: Record,
    pictured: bool,
) -> list[dict[str, Any]]:
    """pictured: whether the report shows these images."""
    subjects = [*_subjects(run.encoder, scratch, bench, options), *named]
    record.forget_others(subjects[0].weights)
    if with_labels is not None and with_labels.scratch is not None:
        _say_how_long(with_labels, options)
    view = usual_view(run.encoder.image_size)
    judge = Judge(bench, subjects, options, with_labels, view, record.known, record.add)
    entries: list[dict[str, Any]] = []
    shown = 0
    for entry in judge.run():
        if entry["subject"] == "trained" and entries:  # a task is complete
            _tell(entries[shown:])
            shown = len(entries)
        entries.append(entry)
    _tell(entries[shown:])
    verdict = record.verdict(entries[0]["data"], options.layer)
    if any(entry["subject"] == "supervised" for entry in entries):
        facts = {"weights": subjects[0].weights, "draws": options.draws, "seed": options.seed}
        if not facts.items() <= verdict.get("label_curve", {}).items():
            verdict["label_curve"] = {**facts, "points": judge.curve()}
        words = sentences(entries, verdict["label_curve"]["points"])
    else:
        words = sentences(entries)
    verdict["words"] = words
    record.save()
    for line in words:
        log.info(line)
    if pictured:
        keep_gallery(run.folder, bench, subjects, run.encoder)
    return entries


def _tell(entries: Sequence[dict[str, Any]]) -> None:
    for line in console(entries):
        log.info(line)


def _subjects(trained: Encoder, scratch: Encoder | None, bench: Bench, options: Evaluation) -> list[Subject]:
    """The trained encoder, then what it is compared with, each baseline in its strongest form."""
    without, layer = listed(options.without), options.layer
    found = [of_encoder("trained", "last epoch", trained, layer)]
    plain = "bands" if trained.modality == "audio" else "pixels"
    if not {"random", plain} <= set(without):
        sample = bench.sample(trained.mean.numel(), trained.image_size)
    if "random" not in without:
        assert scratch is not None
        found.append(random_subject(deepcopy(scratch), *sample, layer, bench.device))  # its statistics may change
    if plain not in without:
        found.append(input_subject(trained, *sample))
    return found


def _with_labels(
    run: Run, train: Labelled, test: Labelled | None, scratch: Encoder | None, options: Evaluation, device: torch.device
) -> WithLabels | None:
    """What trains with labels, if the options ask for it. Raises OwnlatentError if its length is not known."""
    supervised = "supervised" not in listed(options.without)
    wanted = tasks(options)
    if test is None or (not supervised and all(task.protocol != "finetune" for task in wanted)):
        return None
    trained = run.results.get("training", {}).get("seconds", 0.0) / 60
    other = device.type != run.recipe.accelerator
    for flag, given, needed in (
        ("--supervised-minutes", options.supervised_minutes, supervised),
        ("--finetune-minutes", options.finetune_minutes, any(task.protocol == "finetune" for task in wanted)),
    ):
        if needed and given is None and (other or not trained):
            why = f"it trained on {run.recipe.accelerator} and this is {device.type}" if other else "it does not say"
            raise OwnlatentError(
                f"how long training as long as {run.folder} is cannot be told here ({why}): give {flag}"
                + (" or --without supervised" if flag == "--supervised-minutes" else "")
            )
    return WithLabels(
        train=train,
        test=test,
        scratch=scratch if supervised else None,
        recipe=run.recipe,
        minutes=options.supervised_minutes or trained,
        finetune_minutes=options.finetune_minutes or round(_FINETUNE_SHARE * trained, 2) or 0.01,
        head=options.head,
        draws=options.draws,
        seed=options.seed,
        device=device,
    )


def _say_how_long(with_labels: WithLabels, options: Evaluation) -> None:
    amounts = {task.labels for task in tasks(options)}
    most = sum(with_labels.minutes + CHOOSING * with_labels.minutes_of(amount) for amount in amounts)
    log.info(
        "%-10s training the same network with labels takes at most %.3g minutes (--supervised-minutes shortens it, "
        "--without supervised leaves it out)",
        *("supervised", most),
    )


def open_pairs(
    trains: Sequence[Any], tests: Sequence[Any], options: Evaluation, modality: Modality = "image"
) -> list[Pair]:
    """Labelled images, or sounds, by name or object, in pairs; of one list alone without test parts.

    Raises OwnlatentError.
    """
    where: dict[str, Any] = {"download": options.download, "root": options.data_root}

    def opened(data: Any) -> Labelled:
        name = str(data) if isinstance(data, Path) else data
        return Labelled(open_source(name, labelled=True, modality=modality, **where))

    if trains and tests:
        return [(opened(train), opened(test)) for train, test in zip(trains, tests, strict=True)]
    return [(opened(data), None) for data in trains or tests]


def untrained_of(run: Run, encoder: Encoder, network: OwnNetwork | None, options: Evaluation) -> Encoder | None:
    """The run's encoder as it was before training, or None if no baseline needs it."""
    without = listed(options.without)
    if "random" in without and "supervised" in without:
        return None
    return untrained(encoder, run.recipe.seed, network)
