"""What a run would need and meet, told before it begins."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from ownlatent.checks.duplicates import duplicates
from ownlatent.checks.finding import BROKEN, GOOD, LACKING, Finding
from ownlatent.checks.network import counting_saved, fixed_bytes, shapes
from ownlatent.data.frames import Frames
from ownlatent.data.loader import order
from ownlatent.data.resident import Resident
from ownlatent.diagnostics.verdict import EQUAL_VIEWS, STARVED_FROM, suspects
from ownlatent.machine import memory
from ownlatent.methods._card import card
from ownlatent.sound.spectrum import HOP, RATE
from ownlatent.train.budget import Budget
from ownlatent.train.callbacks.metrics import read_rows
from ownlatent.train.fit import against_waiting, fit, setting_of, silently
from ownlatent.train.images import first_batch
from ownlatent.train.prepare import Job
from ownlatent.train.resolve import is_short
from ownlatent.types import NOUNS, Views

_GIB = 2**30
_SAMPLE = 256  # images that are compared with each other
_VIEWED = 32  # images whose views are compared before a run
_SECONDS = 8.0  # of training, to time it
_FEW_SAMPLES = 16  # below which the statistics of BatchNorm are noise
_ROOM = 0.8  # of the memory that a run may take


def settings(job: Job) -> Iterator[Finding]:
    """What can be told from the recipe alone: settings that are known to fail, the batch, the learning rate."""
    recipe, setting = job.recipe, setting_of(job.recipe)
    assert recipe.batch_size is not None
    for suspect in suspects(setting):
        yield Finding("settings", LACKING, f"{suspect.why}: {suspect.remedy}")
    needed = re.match(r"\d+", card(recipe.method).needs["batch"])
    if needed and recipe.batch_size < int(needed[0]) and not is_short(recipe, job.device.type):
        text = f"batches of {recipe.batch_size}, and {recipe.method} wants {card(recipe.method).needs['batch']}"
        yield Finding("batch", LACKING, f"{text}: raise --batch-size if there are as many")
    else:
        yield Finding("batch", GOOD, f"{recipe.batch_size} {NOUNS[recipe.modality]}")
    parts = job.method.modules()
    normalised = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts)
    if normalised and setting.batch_size < _FEW_SAMPLES:
        noun = NOUNS[recipe.modality]
        text = f"BatchNorm sees {setting.batch_size} {noun} at a time, too few for its statistics: raise --batch-size,"
        yield Finding("batch", LACKING, f"{text} lower --accumulate, or give --backbone.norm group")


def images(job: Job) -> Iterator[Finding]:
    """What can be told from some of the images: doubled ones, those that cannot be read, channels and depth."""
    seen, noun = job.survey, NOUNS[job.recipe.modality]
    assert seen is not None
    skipped, of, where = len(seen.skipped), seen.count, " of a sample"
    if isinstance(job.data, (Resident, Frames)):
        skipped, of, where = len(job.data.skipped), len(job.data) + len(job.data.skipped), ""
    text = f"{skipped} of {of} files{where} cannot be read"
    yield Finding("files", GOOD, text) if not skipped else Finding("files", LACKING, f"{text}; they are left out")
    depth = 8 if seen.peak == 255 else 16
    if job.recipe.modality == "audio":
        yield Finding("lengths", GOOD, f"nine of ten sounds are up to {seen.frames * HOP / RATE:.2f} s long")
    else:
        yield Finding("pixels", GOOD, f"{seen.channels} channels of {depth} bits, {seen.side} px at the median")
    found = duplicates(job.data, order(len(job.data), 0, 0)[:_SAMPLE].tolist())
    if found.exact + found.near > 0.05 * found.looked:
        text = f"of {found.looked} {noun} {found.exact} are there twice and {found.near} more nearly"
        yield Finding("doubled", LACKING, f"{text}: leave doubled ones out, or the methods tell them apart for nothing")
    else:
        yield Finding(
            "doubled", GOOD, f"of {found.looked} {noun} {found.exact} are there twice, {found.near} more nearly"
        )


def views(job: Job, batch: Views) -> Iterator[Finding]:
    """Whether the views of an image differ."""
    if len(batch) < 2 or batch[0].shape != batch[1].shape:
        return
    apart = (batch[0] - batch[1]).abs().mean().item()
    if apart < EQUAL_VIEWS:
        text = f"the two views are the same (they differ by {apart:.3f}), and there is nothing to learn"
        yield Finding("views", LACKING, f"{text}: look at `ownlatent preview`, and choose stronger --views")
    else:
        yield Finding("views", GOOD, f"two views of the same differ by {apart:.2f} of the std of all")


def disk(job: Job, folder: Path) -> Iterator[Finding]:
    """Whether the checkpoints fit: one is written while the one before still stands."""
    assert job.recipe.optim.name is not None
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free, needed = shutil.disk_usage(there).free, 3 * fixed_bytes(job.method, job.recipe.optim.name)
    text = f"a run takes about {needed / _GIB:.2f} GiB, {free / _GIB:.1f} are free"
    yield Finding("disk", GOOD, text) if free > needed else Finding("disk", BROKEN, f"{text}: give --out elsewhere")


def network(job: Job, batch: Views) -> Iterator[Finding]:
    """The shapes from stage to stage, the parameters, and the memory that batches of this size take."""
    recipe = job.recipe
    assert recipe.batch_size and recipe.optim.name
    method = deepcopy(job.method).to(job.device)
    arguments = (batch, torch.zeros(len(batch[0]), dtype=torch.long)) if method.uses_labels else (batch,)
    for name, shape in shapes(method, arguments):
        yield Finding("shape", GOOD, f"{name:<30} {shape}")
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    yield Finding(
        "network", GOOD, f"{trained / 1e6:.2f} M parameters are trained, {method.backbone.num_features} features"
    )
    fixed = fixed_bytes(method, recipe.optim.name)
    with counting_saved(list(method.parameters())) as saved:
        method.train()(*arguments)
    each = (saved[0] + sum(view.nbytes for view in batch)) / len(batch[0])
    there = torch.cuda.mem_get_info(job.device)[0] if job.device.type == "cuda" else memory()
    if isinstance(job.data, Resident):
        there -= job.data.images.nbytes
    elif isinstance(job.data, Frames):
        there -= job.data.frames.nbytes
    images_in_pass = recipe.batch_size // recipe.accumulate
    needed, most = fixed + each * images_in_pass, int((_ROOM * there - fixed) / each)
    noun = NOUNS[recipe.modality]
    text = f"about {needed / _GIB:.2f} GiB for passes of {images_in_pass} {noun}; about {max(0, most)} would fit"
    if most < images_in_pass:
        yield Finding("memory", BROKEN, f"{text}: give --accumulate {-(-images_in_pass // max(1, most))}")
    else:
        yield Finding("memory", GOOD, text)


def speed(job: Job) -> Iterator[Finding]:
    """Training for some seconds, and how long the whole would take. The job is used up."""
    budget = Budget(steps=None, seconds=_SECONDS)
    with tempfile.TemporaryDirectory() as scratch, silently():
        fit(replace(job, budget=budget, val=None), Path(scratch))
        rows = read_rows(Path(scratch) / "metrics.csv")
    rows = rows[len(rows) // 3 :]  # the first steps warm caches and compile
    rate = median(row["images_per_second"] or 0.0 for row in rows)
    waiting = median(row["waiting"] or 0.0 for row in rows)
    if job.budget.steps is not None:
        assert job.recipe.batch_size is not None
        length = job.budget.steps * job.recipe.batch_size / rate
    else:
        assert job.budget.seconds is not None
        length = job.budget.seconds
    epochs = length * rate / len(job.data)
    yield Finding(
        "speed", GOOD, f"{rate:.0f} {NOUNS[job.recipe.modality]}/s: {epochs:.3g} epochs take {_duration(length)}"
    )
    text = f"{waiting:.0%} of the time goes into waiting for data"
    if waiting > STARVED_FROM:
        yield Finding("waiting", LACKING, f"{text}: {against_waiting(job)}")
    else:
        yield Finding("waiting", GOOD, text)


def before_training(job: Job, folder: Path) -> Iterator[Finding]:
    """What is looked at before every run, in a second or two."""
    yield from settings(job)
    yield from images(job)
    yield from views(job, first_batch(job.data, job.views, job.recipe.seed, min(_VIEWED, len(job.data))))
    yield from disk(job, folder)


def check(job: Job, folder: Path) -> Iterator[Finding]:
    """All of it, in less than half a minute. The job is used up."""
    recipe = job.recipe
    assert recipe.batch_size is not None
    batch = first_batch(job.data, job.views, recipe.seed, recipe.batch_size // recipe.accumulate)
    batch = [view.to(job.device) for view in batch]
    yield from network(job, batch)
    yield from before_training(job, folder)
    yield from speed(job)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
