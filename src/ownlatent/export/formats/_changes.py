"""In which layers a network differs from the one that its library builds, and the code that makes up for it."""

from collections.abc import Iterator
from copy import deepcopy

from torch import nn

from ownlatent.export.formats._code import constructor

_TOLD = (nn.Conv2d, nn.Identity)


class Differs(Exception):
    """A network differs from its library's in more than convolutions and layers left out; the text says in what."""


def changed_layers(fresh: nn.Module, net: nn.Module) -> list[str]:
    """Lines that make of the library's network, `net` in them, one that takes the tensors of this one.

    fresh: the library's network, which is changed so. Raises Differs.
    """
    lines = []
    for name, layer in list(_differing(fresh, net)):
        if not name or type(layer) not in _TOLD:
            raise Differs(f"{f'its layer {name}' if name else 'it'} is a {type(layer).__name__} of another kind")
        fresh.set_submodule(name, deepcopy(layer))
        made = constructor(layer)
        dotted = all(part.isidentifier() for part in name.split("."))
        lines.append(f"net.{name} = {made}" if dotted else f'net.set_submodule("{name}", {made})')
    shapes = [{name: value.shape for name, value in each.state_dict().items()} for each in (fresh, net)]
    if shapes[0] != shapes[1]:
        name = next(name for name in (shapes[0] | shapes[1]) if shapes[0].get(name) != shapes[1].get(name))
        raise Differs(f"its tensor {name} has another shape or another name")
    return lines


def _differing(old: nn.Module, new: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost layers of another kind or with other settings, by name."""
    if type(new) is nn.Identity and type(old) is nn.Identity:
        return
    parts, others = dict(old.named_children()), dict(new.named_children())
    if type(old) is not type(new) or old.extra_repr() != new.extra_repr() or parts.keys() != others.keys():
        yield name, new
        return
    for part in parts:
        yield from _differing(parts[part], others[part], f"{name}.{part}" if name else part)
