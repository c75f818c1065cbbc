"""A model card: what an encoder is, learned from and is worth, by its run folder alone; Markdown as on the Hugging
Face hub, whose header says licence, tags and library."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ownlatent.backbones.encoder import Encoder
from ownlatent.export.formats import Written
from ownlatent.export.preprocessing import without_folders
from ownlatent.reporting.tables import as_markdown, console

_UNKNOWN = "Not known: the encoder was exported without its run folder."
_TOLD = (
    "method",
    "backbone",
    "epochs",
    "minutes",
    "image_size",
    "duration",
    "batch_size",
    "accumulate",
    "seed",
    "precision",
)


def card(
    encoder: Encoder,
    run: Path | None,
    library: str,
    written: Written,
    checked: str,
    facts: Mapping[str, Any],
    licence: str | None,
) -> str:
    """The text. library: who reads it; checked: what trying it gave."""
    recipe, results, environment = (_read(run, name) for name in ("recipe.json", "results.json", "env.json"))
    spec, method = encoder.backbone.spec, recipe.get("method")
    network = without_folders(spec["name"] if spec else recipe.get("backbone", "a network of its author's own"))
    kind = f"Images of {facts['channels']} channels"
    given = "with `images` as floats in [0, 1], (B, C, H, W), resized and cut out as below"
    if encoder.modality == "audio":
        kind = "Sounds"
        given = (
            "with `sounds` as waveforms of 16 kHz, floats in [-1, 1], (B, samples)"
            if written.takes_sounds
            else "with `images` as the levels of spectrograms in [0, 1], (B, 1, 64, frames), made as below"
        )
    parts = [
        _header(library, method, licence, "audio" if encoder.modality == "audio" else "image"),
        f"# {network}, trained by {method}" if method else f"# Encoder: {network}",
        f"{kind} in, {encoder.num_features} features out."
        + (f" It was trained with{'' if method == 'supervised' else 'out'} labels." if method else ""),
        "## Use",
        f"In this folder, {given}:",
        "```python\n" + "\n".join(written.at(".").lines) + "\n```",
        _items([*written.at(".").facts, f"Tried when it was written: {checked}."]),
        "## Preprocessing",
        _preprocessing(facts),
        *(_of_run(recipe, results, environment) if recipe else ["## Data, training and results", _UNKNOWN]),
        _items(
            [
                f"changed for the {'sounds' if encoder.modality == 'audio' else 'images'}: {change}"
                for change in encoder.backbone.changes
            ]
        ),
        "## Licence",
        licence or "None was named. Name one (`--licence`) before you pass these weights on.",
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _of_run(recipe: Mapping[str, Any], results: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """What only the run folder tells."""
    return [
        *("## Data", _data(recipe)),
        *("## Results", _results(results)),
        *("## Health of the run", _health(results)),
        *("## Where it was made", _environment(environment)),
        *("## Training", _training(recipe, results)),
    ]


def _header(library: str, method: str | None, licence: str | None, kind: str = "image") -> str:
    """YAML as the hub reads it: a licence by its identifier, or another one by its name."""
    if licence is None:
        terms = ["license: unknown"]
    elif re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence.lower()):
        terms = [f"license: {licence.lower()}"]
    else:
        terms = ["license: other", f"license_name: {json.dumps(' '.join(licence.split()))}"]
    task = "feature-extraction" if kind == "audio" else "image-feature-extraction"
    tags = [*(["audio"] if kind == "audio" else []), task, "ownlatent", *([method] if method else [])]
    tags += ["self-supervised-learning"] if method not in (None, "supervised") else []
    lines = [*terms, f"library_name: {library}", f"pipeline_tag: {task}", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def _preprocessing(facts: Mapping[str, Any]) -> str:
    """Also in preprocessing.json."""
    size = facts["image_size"]
    if "sound" in facts:
        sound = facts["sound"]
        return "\n".join(
            [
                f"1. A sound is brought to {sound['rate']} Hz and one channel (the mean of them), full scale 1.",
                f"2. Its power spectrum by a Hann window of {sound['window']} samples every {sound['hop']}, with "
                f"silence around it, is summed up in {sound['bands']} bands of Slaney's mel scale, of equal area, from "
                f"{sound['lowest_hz']:g} to {sound['highest_hz']:g} Hz.",
                f"3. Levels are {facts['levels']}, with silence {sound['silence']:g} and span {sound['span']:g}.",
                f"4. The mean {_list(facts['mean'])} is subtracted, and the result divided by the standard deviation "
                f"{_list(facts['std'])}. It was trained on {size[1]} frames.",
            ]
        )
    return "\n".join(
        [
            f"1. An image of other than {size}x{size} pixels is resized so that its shorter side has "
            f"{facts['resize_shorter_side']} pixels ({facts['interpolation']}, antialiased).",
            f"2. The central {size}x{size} pixels are cut out.",
            f"3. Values are divided by {facts['divide_by']:g}, the mean {_list(facts['mean'])} is subtracted, and the "
            f"result divided by the standard deviation {_list(facts['std'])} (one number a channel).",
        ]
    )


def _data(recipe: Mapping[str, Any]) -> str:
    data = str(recipe.get("data", ""))
    if data.startswith("object:"):
        return f"Given in Python, as {data.removeprefix('object:')}."
    return f"`{', '.join(map(without_folders, data.split(',')))}`"


def _training(recipe: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """The settings that a reader asks for first; recipe.json has all of them."""
    told = {name: recipe.get(name) for name in _TOLD} | {"backbone": without_folders(str(recipe.get("backbone")))}
    optim = recipe.get("optim", {})
    told |= {"optimiser": optim.get("name"), "lr": optim.get("lr"), "weight_decay": optim.get("weight_decay")}
    told |= {f"{recipe['method']}'s {name}": value for name, value in recipe.get("method_settings", {}).items()}
    if trained := results.get("training"):
        told["trained"] = f"{trained.get('steps')} steps in {trained.get('seconds', 0) / 60:.3g} minutes"
    return _items([f"{name.replace('_', ' ')}: {value}" for name, value in told.items() if value is not None])


def _results(results: Mapping[str, Any]) -> str:
    """Every task's table in the console's words, and the verdict."""
    entries = results.get("evaluations", [])
    if not entries:
        return "Not evaluated: what this encoder is worth is not known. `ownlatent evaluate` tells."
    words = [word for verdict in results.get("verdicts", []) for word in verdict.get("words", [])]
    header = ["", "accuracy", "95 % interval", "trained is, points", "95 % interval"]
    parts = [" ".join(words)]
    for title, body in _tables(entries):
        parts.append(f"{title}\n\n{as_markdown(header, body)}".strip())
    return "\n\n".join(part for part in parts if part)


def _tables(entries: list[Mapping[str, Any]]) -> Iterator[tuple[str, list[list[str]]]]:
    from ownlatent.reporting.tables import grouped

    for group in grouped(entries):
        data = group[0]["data"]
        names = [without_folders(str(data[part])) for part in ("train", "test")]
        title = f"{console(group)[0]}. Training images: `{names[0]}`, test images: `{names[1]}`."
        body = []
        for entry in group:
            gain = entry.get("trained_is")
            mean, least, most = (f"{100 * gain[part]:+.1f}" if gain else "" for part in ("mean", "low", "high"))
            low, high = (f"{100 * bound:.1f}" for bound in entry["interval"])
            variant = f" ({entry['variant']})" if entry["variant"] else ""
            named = f"{without_folders(entry['subject'])}{variant}"
            between = f"{least} to {most}" if gain else ""
            body.append([named, f"{entry['top1']:.1%}", f"{low} to {high}", mean, between])
        yield title, body


def _health(results: Mapping[str, Any]) -> str:
    health = results.get("health", {})
    if not health:
        return "Not recorded."
    return ": ".join(str(health[part]) for part in ("word", "reason") if health.get(part))


def _environment(environment: Mapping[str, Any]) -> str:
    """Versions and hardware; not the command, which may name folders of its author's."""
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items() if version)
    hardware = ", ".join([*environment.get("gpus", []), str(environment.get("processor", ""))])
    return f"{versions}.\n\n{hardware}." if environment else "Not recorded."


def _items(texts: list[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _read(run: Path | None, name: str) -> dict[str, Any]:
    """A file of the run folder; empty if it is not there or damaged."""
    try:
        found = json.loads((run / name).read_text()) if run is not None else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
