"""Formats that other libraries read: one file is one format, under its own name.

Each holds LIBRARY, the library that reads what it writes, TOLERANCE, by how much features may then differ (as a share
of the largest), and `write(encoder, folder) -> Written`, which raises OwnlatentError for networks that the
format is not for. encoder: on the processor, in evaluation mode. Files with an underscore are what several share.
"""

import importlib
import pkgutil
from dataclasses import dataclass, replace
from types import ModuleType

from ownlatent.errors import OwnlatentError, nearest

FOLDER = "FOLDER"  # stands in the lines of code for the folder that they load from


@dataclass(frozen=True)
class Written:
    """What a format has written, beside its files.

    lines: code that loads them by the other library alone. With `images`, floats in [0, 1] (B, C, H, W), or with
    `sounds`, waveforms (B, samples), where it takes_sounds and the encoder is of such, it ends in
    `features` (B, D); or in `weights`, tensors by name, where the network itself has to come from elsewhere. facts:
    what a reader should know, in sentences. arrays: `images` are a NumPy array.
    """

    lines: tuple[str, ...]
    facts: tuple[str, ...] = ()
    arrays: bool = False
    takes_sounds: bool = False

    def at(self, folder: str) -> "Written":
        """The same with a folder named, within the double quotes of the code."""
        quoted = folder.replace("\\", "\\\\").replace('"', '\\"')
        lines, facts = (tuple(text.replace(FOLDER, quoted) for text in texts) for texts in (self.lines, self.facts))
        return replace(self, lines=lines, facts=facts)

    @property
    def gives_features(self) -> bool:
        """Whether the code ends in features, or else in weights alone."""
        return any(line.startswith("features = ") for line in self.lines)


def names() -> list[str]:
    """Every format, without importing any."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The file of a format. Raises OwnlatentError for an unknown one, with the nearest."""
    if name not in names():
        raise OwnlatentError(f"there is no format {name!r} to export to: {nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}")
