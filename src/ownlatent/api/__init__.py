"""The front door: the verbs of the command line, as functions."""

from ownlatent.api.data import prepare, preview
from ownlatent.api.encoders import export, load_encoder
from ownlatent.api.features import embed, search
from ownlatent.api.judging import compare, evaluate
from ownlatent.api.knowledge import catalogue, doctor, layers
from ownlatent.api.reports import report, serve
from ownlatent.api.training import check, demo, pretrain, replay

__all__ = [
    "catalogue",
    "check",
    "compare",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "layers",
    "load_encoder",
    "prepare",
    "pretrain",
    "preview",
    "replay",
    "report",
    "search",
    "serve",
]
