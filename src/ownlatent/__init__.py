"""Learn representations without labels, and prove what they are worth.

>>> from ownlatent import pretrain          # doctest: +SKIP
>>> run = pretrain("photos", epochs=100)    # doctest: +SKIP
>>> features = run.encoder(images)          # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ownlatent.api import (
        check,
        compare,
        demo,
        doctor,
        embed,
        evaluate,
        export,
        load_encoder,
        prepare,
        pretrain,
        preview,
        replay,
        search,
    )
    from ownlatent.errors import OwnlatentError
    from ownlatent.learner import BYOL, DINO, BarlowTwins, DirectPred, MoCoV2, MoCoV3, SimCLR, SimSiam, VICReg
    from ownlatent.run import Run

__all__ = [
    "BYOL",
    "DINO",
    "BarlowTwins",
    "DirectPred",
    "MoCoV2",
    "MoCoV3",
    "OwnlatentError",
    "Run",
    "SimCLR",
    "SimSiam",
    "VICReg",
    "__version__",
    "check",
    "compare",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "load_encoder",
    "prepare",
    "pretrain",
    "preview",
    "replay",
    "report",
    "search",
]
__version__ = "0.1.0"

_HOMES = {
    "check": "ownlatent.api",
    "compare": "ownlatent.api",
    "demo": "ownlatent.api",
    "doctor": "ownlatent.api",
    "embed": "ownlatent.api",
    "evaluate": "ownlatent.api",
    "export": "ownlatent.api",
    "load_encoder": "ownlatent.api",
    "prepare": "ownlatent.api",
    "pretrain": "ownlatent.api",
    "preview": "ownlatent.api",
    "replay": "ownlatent.api",
    "report": "ownlatent.api",
    "search": "ownlatent.api",
    "Run": "ownlatent.run",
    **dict.fromkeys(
        ("BYOL", "BarlowTwins", "DINO", "DirectPred", "MoCoV2", "MoCoV3", "SimCLR", "SimSiam", "VICReg"),
        "ownlatent.learner",
    ),
    "OwnlatentError": "ownlatent.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package is instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ownlatent' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
