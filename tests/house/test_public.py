"""The public names, the command line's flags, and what importing them costs."""

import argparse
import re
import subprocess
import sys
from dataclasses import fields

import pytest

import ownlatent
from ownlatent import cli
from ownlatent.augment.recipes import SoundView, View
from ownlatent.proof.settings import Evaluation
from ownlatent.train.recipe import Optim, Recipe

HEAVY = ("torch", "torchvision", "lightning", "timm", "numpy", "PIL", "matplotlib", "skimage", "safetensors", "rich")
# Fields of the recipe that are not flags of their own: groups of flags, and settings named after them.
GROUPS = {"optim": "--optim.lr", "views": "--views.blur", "method_settings": "--method.", "backbone_settings": None}


def flags() -> dict[str, argparse.Action]:
    """Every flag of `ownlatent pretrain`."""
    verbs = next(action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {flag: action for action in verbs.choices["pretrain"]._actions for flag in action.option_strings}


def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "400")  # one line for each flag
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_public_names_are_what_dir_shows() -> None:
    assert sorted(ownlatent.__all__) == sorted(set(ownlatent.__all__))
    assert sorted(dir(ownlatent)) == sorted(ownlatent.__all__)
    assert {"pretrain", "load_encoder", "demo", "Run", "OwnlatentError"} <= set(ownlatent.__all__)


@pytest.mark.parametrize("name", ownlatent.__all__)
def test_public_name_can_be_imported(name: str) -> None:
    namespace: dict = {}
    exec(f"from ownlatent import {name}", namespace)
    assert name == "__version__" or namespace[name].__module__.startswith("ownlatent.")


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="pretrian"):
        ownlatent.pretrian  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import ownlatent",
        "from ownlatent.cli import main; main(['--help'])",
        "from ownlatent.cli import main; main(['pretrain', '--help'])",
        "from ownlatent.cli import main; main(['--version'])",
    ],
)
def test_nothing_heavy_is_loaded_before_there_is_work(code: str) -> None:
    report = f"import atexit, sys; atexit.register(lambda: print('HEAVY', [m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    "verb",
    ["pretrain", "demo", "preview", "prepare", "evaluate", "compare", "layers", "export", "embed", "search", "list"],
)
def test_every_command_is_in_the_help(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(rf"^ +{verb} +\S", help_of(monkeypatch, capsys), re.MULTILINE)


def test_every_field_of_the_recipe_is_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(monkeypatch, capsys, "pretrain")
    names = [field.name for field in fields(Recipe) if field.name not in GROUPS and field.name != "data"]
    names += [f"optim.{field.name}" for field in fields(Optim)]
    names += [f"views.{field.name}" for kind in (View, SoundView) for field in fields(kind)]
    missing = [name for name in names if not re.search(rf"^ +--{_dashed(name)}( VALUE|$|  )", text, re.MULTILINE)]
    assert not missing
    assert re.search(r"^ +DATA +\S", text, re.MULTILINE)
    assert all(flag in text for flag in GROUPS.values() if flag)


def test_every_option_of_an_evaluation_is_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(monkeypatch, capsys, "evaluate")
    for field in fields(Evaluation):
        assert re.search(rf"^ +--{_dashed(field.name)}( VALUE|$|  )", text, re.MULTILINE), field.name


def test_every_flag_says_what_it_is_for() -> None:
    silent = [flag for flag, action in flags().items() if not action.help and not flag.startswith("--views.")]
    assert not silent


def test_no_flag_is_there_without_a_meaning() -> None:
    """A flag that no field stands behind would be accepted and then ignored."""
    known = {field.name for field in fields(Recipe)} | {"help", "out", "recipe", "resume", "extend", "overwrite"}
    known |= {f"optim.{field.name}" for field in fields(Optim)}
    known |= {f"views.{field.name}" for kind in (View, SoundView) for field in fields(kind)}
    assert {action.dest for action in flags().values()} <= known


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"ownlatent {ownlatent.__version__}\n"


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 0
    assert "pretrain" in capsys.readouterr().out


def _dashed(name: str) -> str:
    return re.escape(name.replace("_", "-"))
