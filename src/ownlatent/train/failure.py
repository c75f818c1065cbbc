"""A step that could not be made because something was not finite: kept whole, and repeated to see where it began."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ownlatent.backbones import OwnNetwork
from ownlatent.data.loader import NETWORK, Batches, seed_of
from ownlatent.errors import OwnlatentError
from ownlatent.methods._base import Method
from ownlatent.train.finite import NotFinite
from ownlatent.train.module import Pretraining, gradient_norm, seed_networks
from ownlatent.train.precision import autocast
from ownlatent.train.prepare import build
from ownlatent.train.recipe import Recipe

FOLDER = "failed-step"
_LARGEST = 3  # tensors that are named


def keep(error: NotFinite, module: Pretraining, batches: Batches, folder: Path) -> None:
    """Write everything that the step needs: step.json, views.safetensors (labels too) and method.pt.

    The weights are those before the step, which they still are, and so is what the method remembers.
    """
    place, window = folder / FOLDER, error.window
    place.mkdir(exist_ok=True)
    numbers = range(window.number, window.number + len(window.passes))
    about = {
        "step": window.step,
        "progress": window.progress,
        "what": error.what,
        "value": str(error.value),
        "lr": window.lr,
        "seed": module.recipe.seed,
        "batches": [{"number": number, "images": batches.of(number)} for number in numbers],
    }
    (place / "step.json").write_text(json.dumps(about, indent=2) + "\n")
    tensors: dict[str, Tensor] = {}
    for number, (views, *labels) in zip(numbers, window.passes, strict=True):
        tensors |= {f"{number} view {v}": view.contiguous().cpu() for v, view in enumerate(views)}
        tensors |= {f"{number} labels": each.cpu() for each in labels}
    save_file(tensors, place / "views.safetensors")
    torch.save(module.method.state_dict() | window.memory, place / "method.pt")


def replay(folder: Path, recipe: Recipe, network: OwnNetwork | None = None) -> list[str]:
    """Repeat the step that `keep` kept, on the CPU, and say in lines where what is not finite begins.

    network: where the run trained one of the user's own. Raises OwnlatentError if no step was kept.
    """
    place = folder / FOLDER
    if not (place / "step.json").exists():
        raise OwnlatentError(f"{folder} has no step to repeat: a run keeps one when its loss or gradient is not finite")
    try:
        about = json.loads((place / "step.json").read_text())
        tensors = load_file(place / "views.safetensors")
        state = torch.load(place / "method.pt", map_location="cpu", weights_only=True)
        numbers = [batch["number"] for batch in about["batches"]]
        passes = [_pass(tensors, number) for number in numbers]
    except Exception as error:  # torch, safetensors and json raise many kinds on a broken file
        raise OwnlatentError(f"{place} cannot be read ({type(error).__name__}: {error}): train again") from error
    views = [view for arguments in passes for view in arguments[0]]
    method = build(recipe, views[0].shape[1], network)
    method.load_state_dict(state)
    count = sum(len(arguments[0][0]) for arguments in passes)
    lines = [
        f"step       {about['step']}, {count} images, learning rate {about['lr']:g}: the {about['what']} was "
        f"{about['value']}",
        f"views      {_range(views)}",
        f"weights    {_range(list(method.parameters()))}; largest: {', '.join(_largest(method))}",
    ]
    precisions = [recipe.precision, *(["32"] if recipe.precision != "32" else [])]
    for precision in precisions:
        method.load_state_dict(state)
        lines += [f"replayed   in precision {precision}: {_repeat(method, passes, numbers, recipe.seed, precision)}"]
    return lines


def _repeat(method: Method, passes: list[tuple[Any, ...]], numbers: list[int], seed: int, precision: str) -> str:
    """The step up to its gradients, in words."""
    method.train().zero_grad()
    losses = []
    with _first_not_finite(method) as found, torch.random.fork_rng(devices=[]):
        for arguments, number in zip(passes, numbers, strict=True):
            seed_networks(seed_of(seed, NETWORK, number))
            with autocast("cpu", precision):
                loss = method(*arguments).loss
            (loss / len(passes)).backward()
            losses.append(loss.item())
    said = f"loss {sum(losses) / len(losses):g}, gradient norm {gradient_norm(list(method.parameters())).item():g}"
    if found:
        return f"{said}; first not finite: {found[0]}"
    wrong = [name for name, p in method.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    if wrong:
        return f"{said}; every output is finite, the gradient of {wrong[-1]} and {len(wrong) - 1} other tensors is not"
    return f"{said}: all finite"


@contextmanager
def _first_not_finite(method: Method) -> Iterator[list[str]]:
    """Within it, a list that holds the first part whose output is not finite, if there is one."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(part: nn.Module, inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not output.isfinite().all():
                given = [each for each in inputs if isinstance(each, Tensor)]
                found.append(f"the output of {name} ({type(part).__name__}), whose input is {_range(given)}")

        return hook

    leaves = [(name, part) for name, part in method.named_modules() if not list(part.children())]
    handles = [part.register_forward_hook(watch(name)) for name, part in leaves]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _pass(tensors: dict[str, Tensor], number: int) -> tuple[Any, ...]:
    """The arguments of one pass: views, and labels where there are some."""
    count = sum(name.startswith(f"{number} view ") for name in tensors)
    views = [tensors[f"{number} view {v}"].contiguous(memory_format=torch.channels_last) for v in range(count)]
    labels = tensors.get(f"{number} labels")
    return (views,) if labels is None else (views, labels)


def _range(tensors: list[Tensor]) -> str:
    values = torch.cat([each.detach().float().flatten() for each in tensors])
    bad = int((~values.isfinite()).sum())
    finite = values[values.isfinite()]
    inside = f"from {finite.min():.3g} to {finite.max():.3g}" if len(finite) else "all of it"
    return inside + (f", {bad} of {len(values)} values not finite" if bad else ", all finite")


def _largest(method: Method) -> list[str]:
    sizes = {name: p.detach().abs().max().item() for name, p in method.named_parameters()}
    names = sorted(sizes, key=lambda name: -sizes[name])[:_LARGEST]
    return [f"{name} ({sizes[name]:.3g})" for name in names]
