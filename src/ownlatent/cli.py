"""The verbs of `ownlatent.api` on the command line."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, NoReturn

from ownlatent import __version__
from ownlatent.augment.recipes import View
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.train.recipe import Optim, Recipe, option_names

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
        help="learn an encoder from a folder of unlabelled images",
        description="Learn an encoder from unlabelled images. What is not given is chosen by the images, their "
        "number and the hardware, and printed.",
        epilog="The method's and the backbone's own settings are named after them, as in --method.tau 0.99.",
        allow_abbrev=False,
    )
    train.add_argument("data", nargs="?", metavar="DATA", help=_field(Recipe, "data").metadata["help"])
    train.add_argument("--out", metavar="FOLDER", help="the run folder (default: runs/NAME-METHOD)")
    train.add_argument("--recipe", metavar="FILE", help="start from a recipe.json; options given beside it win")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")
    train.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    _add_fields(train.add_argument_group("recipe"), Recipe, "")
    _add_fields(train.add_argument_group("optimiser"), Optim, "optim.")
    views = train.add_argument_group("views", "for both views, or for one, as in --views.1.blur 0.5 (numbered from 0)")
    for field in fields(View):
        views.add_argument(
            _flag("views." + field.name), default=argparse.SUPPRESS, metavar="VALUE", dest="views." + field.name
        )

    demo = verbs.add_parser(
        "demo",
        help="see it work: train on built-in photographs and compare, in 3 minutes",
        description="Train on patches of photographs that ship with scikit-image, without labels, and compare with raw "
        "pixels and with the same encoder untrained.",
        allow_abbrev=False,
    )
    demo.add_argument("--out", metavar="FOLDER", help="the run folder (default: runs/demo, or runs/demo-2 and so on)")
    demo.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    demo.add_argument("--minutes", default=argparse.SUPPRESS, metavar="VALUE", help="minutes of training")
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
    _refuse(unknown if verb == "pretrain" else [*unknown, *settings], verb)
    if verb is None:
        top.print_help()
        return 0
    given.update({name.removeprefix("--").replace("-", "_"): value for name, value in settings.items()})
    from ownlatent import api

    if verb == "demo":
        run = api.demo(**given)
    else:
        run = api.pretrain(given.pop("data"), **given)
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


def _refuse(arguments: Sequence[str], verb: str | None) -> None:
    """Raise for arguments that no option takes, with the nearest options."""
    if not arguments:
        return
    valid = ["--help", "--version"] if verb is None else ["--help", "--out", "--minutes", "--overwrite"]
    if verb == "pretrain":
        valid += ["--recipe", "--resume", *(_flag(name) for name in option_names() if name != "data")]
    name = arguments[0].partition("=")[0]
    if not name.startswith("-"):
        raise OwnlatentError(f"{name!r} is one argument too many: name one folder, and options with --")
    raise OwnlatentError(f"there is no option {name}: {nearest(name, valid)}")


def _add_fields(group: Any, kind: type, prefix: str) -> None:
    for field in fields(kind):
        if "help" not in field.metadata or field.name == "data":
            continue
        default = "" if field.default is None else f" (default: {field.default})"
        name = prefix + field.name
        group.add_argument(
            _flag(name), default=argparse.SUPPRESS, metavar="VALUE", dest=name, help=field.metadata["help"] + default
        )


def _field(kind: type, name: str) -> Field:
    return next(field for field in fields(kind) if field.name == name)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
