"""The verbs of `ownlatent.api` on the command line."""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from ownlatent.arguments import parser
from ownlatent.errors import OwnlatentError, nearest

UNHEALTHY = 3  # a run that has collapsed or diverged
TRY_AGAIN = 75  # a run that SIGTERM ended, all saved: a scheduler may start it again with --resume (EX_TEMPFAIL)
INTERRUPTED = 130  # the shell's exit code for a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit.

    0 done, 2 wrong input (one line on stderr), 3 unhealthy, 75 saved after SIGTERM, 130 stopped by Ctrl-C.
    """
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

    return _VERBS[verb](api, given)


def _pretrain(api: Any, given: dict[str, Any]) -> int:
    return _ended(api.pretrain(given.pop("data"), **given))


def _demo(api: Any, given: dict[str, Any]) -> int:
    return _ended(api.demo(**given))


def _ended(run: Any) -> int:
    """The exit code of a run."""
    from ownlatent.train import processes

    if processes.number(run.recipe) > 0:
        return 0  # the first process still judges, and answers for all
    if run.recipe.on_unhealthy == "stop" and run.unhealthy:
        return UNHEALTHY
    if run.results["finished"]:
        return 0
    return TRY_AGAIN if run.results.get("stopped_by") == "SIGTERM" else INTERRUPTED


def _preview(api: Any, given: dict[str, Any]) -> int:
    api.preview(given.pop("data"), **given)
    return 0


def _evaluate(api: Any, given: dict[str, Any]) -> int:
    api.evaluate(given.pop("run"), **given)
    return 0


def _compare(api: Any, given: dict[str, Any]) -> int:
    return _print(api.compare(*given.pop("runs"), **given))


def _report(api: Any, given: dict[str, Any]) -> int:
    path = str(api.report(*given.pop("runs"), **given))
    return _print([f"wrote      {os.fsencode(path).decode('utf-8', 'backslashreplace')}"])


def _serve(api: Any, given: dict[str, Any]) -> int:
    api.serve(given.pop("folder"), **given)
    return 0


def _embed(api: Any, given: dict[str, Any]) -> int:
    api.embed(given.pop("run"), given.pop("data"), **given)
    return 0


def _search(api: Any, given: dict[str, Any]) -> int:
    from ownlatent.features.search import as_lines

    queries = given.pop("queries")
    found = api.search(given.pop("run"), queries, **given)
    return _print(line for query, some in zip(queries, found, strict=True) for line in as_lines(query, some))


def _prepare(api: Any, given: dict[str, Any]) -> int:
    api.prepare(given.pop("data"), given.pop("out"), **given)
    return 0


def _check(api: Any, given: dict[str, Any]) -> int:
    return _say(api.check(given.pop("data"), **given))


def _doctor(api: Any, given: dict[str, Any]) -> int:
    return _say(api.doctor())


def _export(api: Any, given: dict[str, Any]) -> int:
    done = api.export(given.pop("run"), **given)
    return _print(["Load it with:", *(f"  {line}" for line in done.lines)])


def _replay(api: Any, given: dict[str, Any]) -> int:
    return _print(api.replay(given.pop("run"), **given))


def _layers(api: Any, given: dict[str, Any]) -> int:
    return _print(api.layers(given.pop("model"), **given))


def _list(api: Any, given: dict[str, Any]) -> int:
    return _print(api.catalogue(given["what"], shutil.get_terminal_size().columns))


_VERBS: dict[str, Callable[[Any, dict[str, Any]], int]] = {
    "pretrain": _pretrain,
    "check": _check,
    "preview": _preview,
    "prepare": _prepare,
    "evaluate": _evaluate,
    "compare": _compare,
    "report": _report,
    "serve": _serve,
    "export": _export,
    "embed": _embed,
    "search": _search,
    "replay": _replay,
    "layers": _layers,
    "demo": _demo,
    "doctor": _doctor,
    "list": _list,
}


def _print(lines: Iterable[str]) -> int:
    print("\n".join(lines))
    return 0


def _say(findings: Iterable[Any]) -> int:
    """Print findings as they come; 1 if something is broken."""
    broken = False
    for finding in findings:
        print(finding, flush=True)
        broken = broken or finding.state == "broken"
    return int(broken)


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
    if verb in ("pretrain", "check", "demo"):
        return []
    if verb == "layers":
        return [name for name in settings if not name.startswith("--backbone.")]
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
