"""What an evaluation is asked to do, typed and refused before anything slow begins."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ownlatent.errors import OwnlatentError, nearest, option

PROTOCOLS = ("knn", "linear", "low-shot", "sgd", "finetune")
BASELINES = ("random", "pixels", "bands", "supervised")
HEADS = ("linear", "mlp")
DEVICES = ("auto", "cpu", "cuda", "mps")


def _option(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Evaluation:
    """The options of `ownlatent evaluate`; lists are text with commas, as on the command line."""

    protocols: str = _option(f"which to run, of {', '.join(PROTOCOLS)}", "knn,linear,low-shot")
    k: str = _option("neighbours of k-NN", "1,10,20,200")
    temperature: float = _option("of k-NN's votes, exp(cosine / temperature)", 0.07)
    labels: str = _option("labels of low-shot: a share as 1%, or images of every class as 5", "1%,10%")
    draws: int = _option("draws of the labels, each with another seed, of low-shot and of fine-tuning on some", 5)
    sgd_epochs: int = _option("length of the SGD probe in epochs", 100)
    sgd_copies: int = _option(
        "copies of the training images that the SGD probe sees, each cropped and flipped anew", 10
    )
    finetune_labels: str = _option("labels of fine-tuning, as --labels; 100% is all of them", "100%")
    finetune_minutes: float | None = _option("length of fine-tuning (default: a tenth of the pre-training)")
    head: str = _option(f"what fine-tuning puts on the encoder: {' or '.join(HEADS)}", "linear")
    supervised_minutes: float | None = _option(
        "length of training with labels from scratch (default: as long as the pre-training)"
    )
    against: str | None = _option(
        "further encoders: timm or torchvision names (with their weights), random:NAME, NAME=FILE, run folders"
    )
    without: str | None = _option(f"baselines to leave out, of {', '.join(BASELINES)}; supervised is the slow one")
    layer: str | None = _option("take the features of k-NN and the probes from this layer of the network")
    seed: int = _option("of everything that is drawn", 0)
    accelerator: str = _option("auto, cpu, cuda or mps", "auto")
    data_root: str = _option("folder in which torchvision: data sets are kept", "data")
    download: bool = _option("let torchvision: data sets be downloaded", False)


def listed(text: str | None) -> list[str]:
    """The entries of a list with commas, without empty ones, each once."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def settings(given: Mapping[str, Any], coerce: typing.Callable[[Any, Any, str], Any]) -> Evaluation:
    """An Evaluation of what was given, by name. Raises OwnlatentError for an unknown name or a value out of range."""
    hints = typing.get_type_hints(Evaluation)
    for name in given:
        if name not in hints:
            raise OwnlatentError(f"there is no option {option(name)}: {nearest(option(name), map(option, hints))}")
    typed = {name: coerce(_text(value), hints[name], name) for name, value in given.items()}
    chosen = replace(Evaluation(), **typed)
    _check(chosen)
    return chosen


def _text(value: Any) -> Any:
    """A list given in Python as the command line would have it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _check(chosen: Evaluation) -> None:
    from ownlatent.evaluation.low_shot import parse  # brings torch, which help does not need

    for name, known in (("protocols", PROTOCOLS), ("without", BASELINES)):
        for part in listed(getattr(chosen, name)):
            if part not in known:
                raise OwnlatentError(f"--{name} has no {part!r}: {nearest(part, known)}")
    if not listed(chosen.protocols):
        raise OwnlatentError(f"--protocols is empty: give some of {', '.join(PROTOCOLS)}")
    if chosen.head not in HEADS:
        raise OwnlatentError(f"--head is {' or '.join(HEADS)}, not {chosen.head!r}")
    if chosen.accelerator not in DEVICES:
        raise OwnlatentError(f"--accelerator is one of {', '.join(DEVICES)}, not {chosen.accelerator!r}")
    for name in ("labels", "finetune_labels"):
        if not listed(getattr(chosen, name)):
            raise OwnlatentError(f"{option(name)} is empty: give a share as 1%, or images of every class as 5")
    for part in listed(chosen.k) or [""]:
        if not part.isdigit() or int(part) < 1:
            raise OwnlatentError(f"--k takes whole numbers of at least 1 with commas between, not {chosen.k!r}")
    for part in (*listed(chosen.labels), *listed(chosen.finetune_labels)):
        parse(part)
    for field_ in fields(chosen):
        value = getattr(chosen, field_.name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and field_.name != "seed" and not value > 0:
            raise OwnlatentError(f"{option(field_.name)} must be greater than 0, not {value}")
    if chosen.seed < 0:
        raise OwnlatentError(f"--seed must be at least 0, not {chosen.seed}")
