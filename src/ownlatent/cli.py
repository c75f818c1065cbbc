"""The verbs of `ownlatent.api` on the command line."""

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn

from ownlatent import __version__
from ownlatent.augment.recipes import View
from ownlatent.errors import OwnlatentError, nearest, option
from ownlatent.proof.settings import Evaluation
from ownlatent.report.catalogue import LISTS
from ownlatent.train.recipe import Optim, Recipe

_RECIPE = "one of the method's own (`ownlatent list recipes`) or a recipe.json; options given beside it win"
_DATA = ("data_root", "download")
INTERRUPTED = 130  # the shell's exit code for a program that Ctrl-C ended


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
    train.add_argument("data", nargs="?", metavar="DATA", help=_field(Recipe, "data").metadata["help"])
    train.add_argument("--out", metavar="FOLDER", help="the run folder (default: runs/NAME-METHOD)")
    train.add_argument("--recipe", metavar="NAME|FILE", help=_RECIPE)
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")
    train.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    _add_fields(train.add_argument_group("recipe"), Recipe, "")
    _add_fields(train.add_argument_group("optimiser"), Optim, "optim.")
    _add_views(train)

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
    _add_fields(look, Recipe, "", only=("method", "views", "image_size", "seed", "accelerator", *_DATA))
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
    _add_fields(demo, Recipe, "", only=("method", "minutes", "seed", "views"))
    _add_views(demo)

    listing = verbs.add_parser(
        "list",
        help="show the methods, their recipes or the tables of views",
        description="Show the methods and when to pick which, their recipes, or the tables of views.",
        allow_abbrev=False,
    )
    listing.add_argument("what", metavar="WHAT", choices=LISTS, help=", ".join(LISTS))
    return top


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 2 wrong input (one line on stderr), 130 stopped by Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        sys.exit(_run(arguments))
    except OwnlatentError as error:
        print(f"ownlatent: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ownlatent: stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)


def _run(arguments: Sequence[str]) -> int:
    top = parser()
    settings, plain = _take_settings(arguments)
    known, unknown = top.parse_known_args(plain)
    given = vars(known)
    verb = given.pop("verb")
    _refuse(unknown + _misplaced(settings, verb), top, verb)
    if verb is None:
        top.print_help()
        return 0
    given.update({name.removeprefix("--").replace("-", "_"): value for name, value in settings.items()})
    from ownlatent import api

    if verb == "list":
        print("\n".join(api.catalogue(given["what"], shutil.get_terminal_size().columns)))
        return 0
    if verb == "preview":
        api.preview(given.pop("data"), **given)
        return 0
    if verb == "evaluate":
        api.evaluate(given.pop("run"), **given)
        return 0
    if verb == "compare":
        print("\n".join(api.compare(*given.pop("runs"), **given)))
        return 0
    if verb == "prepare":
        api.prepare(given.pop("data"), given.pop("out"), **given)
        return 0
    run = api.demo(**given) if verb == "demo" else api.pretrain(given.pop("data"), **given)
    return 0 if run.results["finished"] else INTERRUPTED


def _take_settings(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Settings of the method, the backbone or one view, whose names no parser can know, and the other arguments."""
    settings: dict[str, str] = {}
    plain: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not re.match(r"--(method\.|backbone\.|views\.\d)", name):
            plain.append(argument)
            continue
        if not equals:
            if not rest:
                raise OwnlatentError(f"{name} needs a value")
            value = rest.pop(0)
        settings[name] = value
    return settings, plain


def _misplaced(settings: dict[str, str], verb: str | None) -> list[str]:
    """Those settings that the command does not take."""
    if verb in ("pretrain", "demo"):
        return []
    return [name for name in settings if verb != "preview" or not name.startswith("--views.")]


def _refuse(arguments: Sequence[str], top: argparse.ArgumentParser, verb: str | None) -> None:
    """Raise for arguments that no option takes, with the nearest options of the command."""
    if not arguments:
        return
    name = arguments[0].partition("=")[0]
    if not name.startswith("-"):
        raise OwnlatentError(
            f"{name!r} is one argument too many: name one folder (or a pattern in quotes), and options with --"
        )
    raise OwnlatentError(f"there is no option {name}: {nearest(name, _options(top, verb))}")


def _options(top: argparse.ArgumentParser, verb: str | None) -> list[str]:
    """The long names of the options of a command, or of the program itself."""
    taken = top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction) and verb is not None:
            taken = action.choices[verb]
    return [name for action in taken._actions for name in action.option_strings if name.startswith("--")]


def _add_views(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("views", "for all views, or for one, as in --views.1.blur 0.5 (numbered from 0)")
    for field in fields(View):
        group.add_argument(
            option("views." + field.name), default=argparse.SUPPRESS, metavar="VALUE", dest="views." + field.name
        )


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
