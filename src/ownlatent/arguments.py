"""What the command line takes: the verbs and their options."""

import argparse
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn

from ownlatent import __version__
from ownlatent.augment.recipes import SoundView, View
from ownlatent.errors import OwnlatentError, option
from ownlatent.export.formats import names as formats
from ownlatent.proof.settings import Evaluation
from ownlatent.reporting.catalogue import LISTS
from ownlatent.train.recipe import Optim, Recipe

_RECIPE = "one of the method's own (`ownlatent list recipes`) or a recipe.json; options given beside it win"
_DATA = ("data_root", "download")
_NETWORK = "the network, where the run trained one of your own: a class or function in a Python file, which is run"
_ENCODER = "a run folder, or another that holds encoder.json and encoder.safetensors"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OwnlatentError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The whole command line; the recipe's fields become options by themselves."""
    top = _Parser(
        prog="ownlatent", description="Learn from images without labels, and prove that it helped.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"ownlatent {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", title="commands")

    train = verbs.add_parser(
        "pretrain",
        help="learn an encoder from unlabelled images",
        description="Learn an encoder from unlabelled images. What is not given is chosen by the images, their "
        "number and the hardware, and printed.",
        epilog="The method's and the backbone's own settings are named after them, as in --method.tau 0.99.",
        allow_abbrev=False,
    )
    _add_run(train)
    train.add_argument("--resume", action="store_true", help="go on with the run in --out, as if it had not stopped")
    train.add_argument(
        "--extend", metavar="LENGTH", help="go on with the run in --out for longer, such as 100ep or 30min"
    )
    train.add_argument("--overwrite", action="store_true", help="replace the run in --out")

    look = verbs.add_parser(
        "preview",
        help="draw the views that a run would train on",
        description="Draw images of DATA, and under each the views that a run would train on.",
        allow_abbrev=False,
    )
    look.add_argument("data", metavar="DATA", help=_field(Recipe, "data").metadata["help"])
    look.add_argument("--out", metavar="FILE.png", default="views.png", help="the picture (default: views.png)")
    look.add_argument("--count", metavar="VALUE", default=8, help="how many images (default: 8)")
    look.add_argument("--recipe", metavar="NAME|FILE", help=_RECIPE)
    look.add_argument("--overwrite", action="store_true", help="replace the picture in --out")
    looked = ("method", "views", "modality", "image_size", "duration", "seed", "accelerator", *_DATA)
    _add_fields(look, Recipe, "", only=looked)
    _add_views(look)

    judge = verbs.add_parser(
        "evaluate",
        help="tell whether pre-training helped, beside what one could have had without it",
        description="Judge the encoder of RUN on labelled images, beside the same encoder untrained, raw pixels, the "
        "same network trained with the labels from scratch, and any other encoder; with intervals, and in words.",
        allow_abbrev=False,
    )
    judge.add_argument("run", metavar="RUN", help="a run folder")
    for part, use in (("train", "to classify by"), ("test", "that are classified")):
        judge.add_argument(
            f"--{part}",
            metavar="DATA",
            action="append",
            help=f"labelled images {use}; given again, the next pair; one of the two alone: k-NN, each by the others",
        )
    judge.add_argument("--network", metavar="FILE.py:NAME", help=_NETWORK)
    _add_fields(judge, Evaluation, "")

    beside = verbs.add_parser(
        "compare",
        help="show evaluated runs side by side",
        description="Show evaluated runs side by side. Only what was measured by the same protocol on the same images "
        "is compared.",
        allow_abbrev=False,
    )
    beside.add_argument("runs", metavar="RUN", nargs="+", help="two run folders or more; differences are to the first")
    beside.add_argument("--out", metavar="FILE", help="also write the table to this .csv or .md file")
    beside.add_argument("--overwrite", action="store_true", help="replace the file in --out")

    see = verbs.add_parser(
        "report",
        help="write a page that shows runs: curves, images, neighbours, tables",
        description="Write one HTML file that shows runs, from their folders alone. It opens from disk and asks "
        "nothing of any network.",
        allow_abbrev=False,
    )
    see.add_argument("runs", metavar="RUN", nargs="+", help="run folders; several are shown side by side")
    see.add_argument("--out", metavar="FILE.html", help="default: RUN/report.html, for several runs report.html here")
    see.add_argument(
        "--map",
        metavar="VALUE",
        default="auto",
        help="pca, or tsne or umap beside it; auto (default): tsne of up to 2,000 images where scikit-learn is there",
    )
    see.add_argument("--overwrite", action="store_true", help="replace the file in --out")

    listen = verbs.add_parser(
        "serve",
        help="list all runs below a folder with their verdicts and reports",
        description="List the runs below FOLDER with their verdicts and reports, at an address that only this machine "
        "can ask, until Ctrl-C.",
        allow_abbrev=False,
    )
    listen.add_argument("folder", metavar="FOLDER", help="a folder with run folders in it, at any depth")
    listen.add_argument("--port", metavar="VALUE", default=8765, help="0 takes any that is free (default: 8765)")

    give = verbs.add_parser(
        "export",
        help="write an encoder for another library",
        description="Write the encoder of RUN as files that another library loads by itself, with its preprocessing "
        "and a model card; they are loaded back and compared, and the code that loads them is shown.",
        allow_abbrev=False,
    )
    give.add_argument("run", metavar="RUN", help="a run folder, or one with encoder.json and encoder.safetensors")
    give.add_argument("--format", metavar="FORMAT", help=", ".join(formats()))
    give.add_argument("--out", metavar="FOLDER", help="a new folder (default: RUN/exported/FORMAT)")
    give.add_argument("--licence", metavar="TEXT", help="of the weights, for the model card, such as apache-2.0")
    give.add_argument("--overwrite", action="store_true", help="replace the export in --out")
    give.add_argument("--network", metavar="FILE.py:NAME", help=_NETWORK)

    into = verbs.add_parser(
        "embed",
        help="write the features of any number of images to a file",
        description="Write path, label and features of the images of DATA to a file. Memory does not grow with their "
        "number, and the same command given again goes on where it was stopped.",
        allow_abbrev=False,
    )
    into.add_argument("run", metavar="RUN", help=_ENCODER)
    into.add_argument("data", metavar="DATA", help=_field(Recipe, "data").metadata["help"])
    into.add_argument("--out", metavar="FILE", required=True, help="ending in .parquet, .npz, .csv or .h5")
    into.add_argument("--layer", metavar="NAME", help="take the features from this layer of the network")
    into.add_argument("--normalise", action="store_true", help="bring the features to unit length")
    into.add_argument(
        "--dtype", metavar="VALUE", default="float32", help="of the features in the file: float32 (default) or float16"
    )
    into.add_argument("--batch-size", metavar="VALUE", default=256, help="images at a time (default: 256)")
    into.add_argument("--network", metavar="FILE.py:NAME", help=_NETWORK)
    into.add_argument("--overwrite", action="store_true", help="replace the file in --out, or what was begun for it")
    _add_fields(into, Recipe, "", only=("accelerator", *_DATA))

    find = verbs.add_parser(
        "search",
        help="find the images that are most like others",
        description="Find, by the cosine of their features, the images nearest to each IMAGE among those whose "
        "features `ownlatent embed` wrote by the same encoder.",
        allow_abbrev=False,
    )
    find.add_argument("run", metavar="RUN", help=_ENCODER)
    find.add_argument("queries", metavar="IMAGE", nargs="+", help="image files to search for")
    find.add_argument("--index", metavar="FILE", required=True, help="a file that `ownlatent embed` wrote")
    find.add_argument("--count", metavar="VALUE", default=10, help="how many to find for each (default: 10)")
    find.add_argument("--out", metavar="FILE.png", help="also draw the images and what was found")
    find.add_argument("--data", metavar="DATA", help="where the images are, if they have moved since")
    find.add_argument(
        "--engine",
        metavar="VALUE",
        default="exact",
        help="exact (default), or faiss: fast among millions, by an index kept beside the file; misses a few",
    )
    find.add_argument("--network", metavar="FILE.py:NAME", help=_NETWORK)
    find.add_argument("--overwrite", action="store_true", help="replace the picture in --out")
    _add_fields(find, Recipe, "", only=("accelerator", *_DATA))

    shrink = verbs.add_parser(
        "prepare",
        help="write large photographs once as small ones",
        description="Write the images of DATA into tar shards in the folder OUT, the longer side at most --max-side "
        "pixels, and say how much faster an epoch becomes. OUT is then given to pretrain.",
        allow_abbrev=False,
    )
    shrink.add_argument("data", metavar="DATA", help=_field(Recipe, "data").metadata["help"])
    shrink.add_argument("out", metavar="OUT", help="a folder that does not exist yet")
    shrink.add_argument("--max-side", metavar="VALUE", default=512, help="of the longer side, pixels (default: 512)")
    shrink.add_argument("--labelled", action="store_true", help="keep the classes, as --val needs them")
    _add_fields(shrink, Recipe, "", only=_DATA)

    demo = verbs.add_parser(
        "demo",
        help="see it work: train on built-in photographs and compare, in 3 minutes",
        description="Train on patches of photographs that ship with scikit-image, without labels, and compare with raw "
        "pixels and with the same encoder untrained.",
        allow_abbrev=False,
    )
    demo.add_argument("--out", metavar="FOLDER", help="the run folder (default: runs/demo, or runs/demo-2 and so on)")
    demo.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    _add_fields(demo, Recipe, "", only=("modality", "method", "minutes", "seed", "views"))
    _add_views(demo)

    look_before = verbs.add_parser(
        "check",
        help="try DATA, network and method for some seconds, before a long run",
        description="Open DATA, train for some seconds and tell what a run would need and meet: time, memory, disk, "
        "files that cannot be read, doubled images, settings that are known to fail. Nothing is written.",
        epilog="It takes every option of pretrain.",
        allow_abbrev=False,
    )
    _add_run(look_before)

    again = verbs.add_parser(
        "replay",
        help="repeat the step at which a run stopped because something was not finite",
        description="Repeat the step that RUN kept when its loss or gradient was not finite; tell where that begins.",
        allow_abbrev=False,
    )
    again.add_argument("run", metavar="RUN", help="a run folder")
    again.add_argument("--network", metavar="FILE.py:NAME", help=_NETWORK)

    tree = verbs.add_parser(
        "layers",
        help="show the layers of a network, as --layer names them",
        description="Show the layers of a network with the shape of what each gives for one image.",
        epilog="The network's own settings are named after it, as in --backbone.depth 3.",
        allow_abbrev=False,
    )
    tree.add_argument("model", metavar="MODEL", help="as --backbone takes it, or a run folder")
    tree.add_argument("--image-size", metavar="VALUE", default=224, help="side of the image in pixels (default: 224)")
    tree.add_argument("--channels", metavar="VALUE", default=3, help="of the image (default: 3)")
    tree.add_argument("--depth", metavar="VALUE", default=2, help="how deep the tree is shown (default: 2)")

    verbs.add_parser(
        "doctor",
        help="tell what this installation can do, and what is missing",
        description="Try every part of this installation, and tell what works, what is missing and how to get it.",
        allow_abbrev=False,
    )

    listing = verbs.add_parser(
        "list",
        help="show the methods, their recipes or the tables of views",
        description="Show the methods and when to pick which, their recipes, or the tables of views.",
        allow_abbrev=False,
    )
    listing.add_argument("what", metavar="WHAT", choices=LISTS, help=", ".join(LISTS))
    return top


def _add_run(verb: argparse.ArgumentParser) -> None:
    """Everything that decides what a run does, and where it goes."""
    verb.add_argument("data", nargs="?", metavar="DATA", help=_field(Recipe, "data").metadata["help"])
    verb.add_argument("--out", metavar="FOLDER", help="the run folder (default: runs/NAME-METHOD)")
    verb.add_argument("--recipe", metavar="NAME|FILE", help=_RECIPE)
    _add_fields(verb.add_argument_group("recipe"), Recipe, "")
    _add_fields(verb.add_argument_group("optimiser"), Optim, "optim.")
    _add_views(verb)


def _add_views(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("views", "for all views, or for one, as in --views.1.blur 0.5 (numbered from 0)")
    for name in dict.fromkeys(field.name for kind in (View, SoundView) for field in fields(kind)):
        group.add_argument(option("views." + name), default=argparse.SUPPRESS, metavar="VALUE", dest="views." + name)


def _add_fields(group: Any, kind: type, prefix: str, only: Sequence[str] | None = None) -> None:
    for field in fields(kind):
        if "help" not in field.metadata or field.name == "data" or (only and field.name not in only):
            continue
        name = prefix + field.name
        if field.type is bool:
            flag = {"action": "store_const", "const": "true", "default": argparse.SUPPRESS}
            group.add_argument(option(name), dest=name, help=_plain(field.metadata["help"]), **flag)
            continue
        default = "" if field.default is None else f" (default: {field.default})"
        group.add_argument(
            option(name),
            default=argparse.SUPPRESS,
            metavar="VALUE",
            dest=name,
            help=_plain(field.metadata["help"] + default),
        )


def _plain(text: str) -> str:
    """Text whose per cent signs argparse does not take for its own."""
    return text.replace("%", "%%")


def _field(kind: type, name: str) -> Field:
    return next(field for field in fields(kind) if field.name == name)
