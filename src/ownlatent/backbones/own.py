"""Networks of the user's own: a module, a class or function in a Python file, and how images are given to them."""

import inspect
import runpy
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ownlatent.backbones.tap import Adapter
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.types import Size


@dataclass(frozen=True)
class OwnNetwork:
    """How to make a network that no library knows by name.

    name: what it is called in a recipe. make: a network, from keywords. adapter: how images are given to it. settings:
    the keywords that `make` takes.
    """

    name: str
    make: Callable[..., nn.Module]
    adapter: Adapter | None = None
    settings: tuple[str, ...] = ()

    def __call__(self, channels: int, image_size: Size, **keywords: Any) -> nn.Module:
        """A network; `channels` and `image_size` go to it if it takes them. Raises OwnlatentError."""
        for keyword in keywords:
            if keyword not in self.settings:
                known = nearest(keyword, self.settings) if self.settings else "it takes none"
                raise OwnlatentError(f"{self.name} takes no setting {keyword!r}: {known}")
        facts = {"channels": channels, "image_size": image_size}
        made = self.make(**{name: value for name, value in facts.items() if name in self.settings}, **keywords)
        if not isinstance(made, nn.Module):
            raise OwnlatentError(f"{self.name} gives a {type(made).__name__}, not a torch.nn.Module")
        return made


def own_network(
    network: "str | nn.Module | OwnNetwork", adapter: Adapter | None = None, in_place: bool = False
) -> OwnNetwork:
    """From a module, or FILE.py:NAME, which runs the file.

    in_place: a module itself is used, and otherwise a copy of it each time, so that it stays as it is. Raises
    OwnlatentError if there is no such file or name.
    """
    if isinstance(network, OwnNetwork):
        return network if adapter is None else replace(network, adapter=adapter)
    if isinstance(network, str):
        return replace(_from_file(network), adapter=adapter)
    kept = network
    return OwnNetwork(type(kept).__name__, (lambda: kept) if in_place else (lambda: deepcopy(kept)), adapter)


def is_file(name: str) -> bool:
    """Whether a name is FILE.py:NAME."""
    return name.partition(":")[0].endswith(".py") and ":" in name


def _from_file(name: str) -> OwnNetwork:
    path, _, wanted = name.partition(":")
    if not is_file(name) or not wanted:
        raise OwnlatentError(f"{name!r} names no network of your own: give FILE.py:NAME, a class or a function in it")
    if not Path(path).is_file():
        raise OwnlatentError(f"there is no file {path}: give the path of the Python file that makes the network")
    try:
        found = runpy.run_path(path, run_name=Path(path).stem)
    except Exception as error:  # whatever the user's own code raises
        raise OwnlatentError(f"{path} cannot be run ({type(error).__name__}: {error}): mend it") from error
    makers = {each: value for each, value in found.items() if callable(value) and not each.startswith("_")}
    if wanted not in makers:
        own = [each for each, value in makers.items() if getattr(value, "__module__", "") == Path(path).stem]
        raise OwnlatentError(f"{path} defines no {wanted!r}: {nearest(wanted, own or makers)}")
    parameters = inspect.signature(makers[wanted]).parameters.values()
    settings = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return OwnNetwork(wanted, makers[wanted], settings=settings)
