"""torchvision's data sets by name."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ownlatent.data.reasons import brief
from ownlatent.data.sources.wrapped import Wrapped
from ownlatent.errors import OwnlatentError, nearest

_BUILDING_BLOCKS = ("VisionDataset", "ImageFolder", "DatasetFolder", "FakeData", "LSUN", "LSUNClass")
_PART = ("split", "image_set", "version")  # what torchvision's classes call the part of a data set
_SWITCH = ("train", "background")  # or they have a switch: True for training


def open_torchvision(
    given: str, labelled: bool = False, download: bool = False, root: str | Path | None = None
) -> Wrapped:
    """`NAME` or `NAME:PART` of torchvision's; without a part, the training images.

    root: the folder in which torchvision keeps its files, `data` by default. They are fetched only with
    download. Raises OwnlatentError for an unknown name or part, and for files that are not there.
    """
    from torchvision import datasets

    name, *parts = given.split(":")
    classes = {n: found for n in datasets.__all__ if (found := _usable(getattr(datasets, n), n))}
    if name not in classes:
        raise OwnlatentError(f"torchvision has no data set of images called {name!r}: {nearest(name, classes)}")
    known = _parameters(classes[name])
    settings = _part_settings(name, parts, known)
    folder = Path("data" if root is None else root)
    if "download" in known:
        settings["download"] = download
    try:
        data = classes[name](str(folder), **settings)
    except ImportError as error:
        raise OwnlatentError(f"torchvision:{name} needs one more package: {brief(error)}") from error
    except Exception as error:  # each of torchvision's data sets has its own way to say that files are missing
        if isinstance(error, ValueError) and parts:
            raise OwnlatentError(f"torchvision:{name} has no part {parts[0]!r}: {brief(error)}") from error
        where = f"the folder {folder.resolve()}"
        if "download" not in known:
            message = f"torchvision:{name} is not in {where} and must be put there by hand: {brief(error)}"
        elif download:
            message = f"torchvision:{name} cannot be downloaded to {where} ({brief(error)}): check the network"
        else:
            message = (
                f"torchvision:{name} is not in {where}: to download it there give --download, and if it lies "
                "elsewhere --data-root FOLDER"
            )
        raise OwnlatentError(message) from error
    return Wrapped(data, f"torchvision:{':'.join([name, *parts])}", labelled)


def _usable(found: Any, name: str) -> Any:
    """A class of torchvision's if a folder and perhaps a part are all that it needs, else None."""
    from torchvision.datasets import VisionDataset

    if not (inspect.isclass(found) and issubclass(found, VisionDataset)) or name in _BUILDING_BLOCKS:
        return None
    needed = [
        key for key, p in _parameters(found).items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    return found if set(needed) <= {"root", *_PART} else None


def _parameters(found: Any) -> dict[str, inspect.Parameter]:
    """What a constructor takes, with what it hands on to the class that it derives from."""
    own = dict(inspect.signature(found.__init__).parameters)
    del own["self"]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values()):
        inherited = _parameters(found.__mro__[1])
        return {**{key: p for key, p in inherited.items() if p.default is not p.empty}, **own}
    return own


def _part_settings(name: str, parts: Sequence[str], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Keywords for the part that is named. Raises OwnlatentError if there is no such, or if one must be named."""
    settings: dict[str, Any] = {}
    switch = next((key for key in _SWITCH if key in known), None)
    choice = next((key for key in _PART if key in known), None)
    for part in parts:
        if switch and switch not in settings and part in ("train", "test"):
            settings[switch] = part == "train"
        elif choice and choice not in settings:
            settings[choice] = part
        else:
            if not (switch or choice):
                raise OwnlatentError(f"torchvision:{name} has no parts: leave out :{part}")
            has = "the parts train and test" if switch else "one part at a time"
            raise OwnlatentError(f"torchvision:{name} has {has}, not {part!r}: name one of them")
    if choice and choice not in settings and known[choice].default is inspect.Parameter.empty:
        raise OwnlatentError(f"torchvision:{name} has several parts: name one, as in torchvision:{name}:PART")
    return settings
