"""`ownlatent list`: what it says of methods, recipes and views is read from their files."""

import subprocess
import sys
from pathlib import Path

import pytest

from ownlatent import cli, methods
from ownlatent.augment.recipes import RECIPES
from ownlatent.errors import OwnlatentError
from ownlatent.methods import _card
from ownlatent.methods._card import card
from ownlatent.reporting.catalogue import LISTS, catalogue
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Recipe, edit


def listed(what: str, width: int = 100) -> str:
    return "\n".join(catalogue(what, width))


@pytest.mark.parametrize("name", methods.names())
def test_a_card_is_complete(name: str):
    about = card(name)
    assert about.name == name and about.title and about.summary.endswith(".")
    assert about.idea.count(". ") + 1 == 3 or about.idea.count(". ") + about.idea.count(": ") >= 2, "three sentences"
    assert set(about.needs) >= {"batch", "memory", "negatives", "momentum", "predictor"}
    assert about.needs["momentum"] in ("yes", "no") and about.needs["predictor"] in ("yes", "no")
    assert (
        about.pick and about.wrong and about.equation.startswith(("loss", "C =", "l(", "ctr(", "P_t", "F <-", "BYOL's"))
    )
    assert about.year is None if name == "supervised" else 2019 <= (about.year or 0) <= 2026


@pytest.mark.parametrize("name", methods.names())
def test_every_setting_is_explained_and_none_that_is_not_there(name: str):
    about = card(name)
    assert about.defaults == methods.settings(name)
    unexplained = [
        setting for setting in about.defaults if setting not in about.settings + about.wrong + about.equation
    ]
    assert not unexplained


@pytest.mark.parametrize("name", methods.names())
def test_the_card_and_the_module_have_the_same_recipes(name: str):
    assert card(name).recipes == methods.recipes(name)


@pytest.mark.parametrize("name", methods.names())
def test_every_recipe_is_made_of_options_that_are_there(name: str):
    for row, values in methods.recipes(name).items():
        assert ("about" in values) == (row not in methods.UNASKED), row
        changes = {key: value for key, value in values.items() if key != "about" and not key.startswith("views.")}
        check(edit(Recipe(method=name), changes))
        known = methods.settings(name)
        assert all(key.removeprefix("method.") in known for key in changes if key.startswith("method."))
        assert values.get("views", "byol") in RECIPES


@pytest.mark.parametrize("name", methods.names())
def test_a_published_recipe_states_whatever_the_usual_ones_do_of_the_optimiser(name: str):
    """Else the usual value would slip in where the paper has another."""
    usual = {key for row in methods.UNASKED for key in methods.recipes(name).get(row, {}) if key.startswith("optim.")}
    for row, values in methods.named_recipes(name).items():
        missing = usual - set(values) - ({"optim.base_lr"} if "optim.lr" in values else set())
        assert not missing, row


def test_methods_are_shown_with_paper_needs_and_when_to_pick_them():
    text = listed("methods")
    for name in methods.names():
        assert f"\n{name}\n" in f"\n{text}"
    assert "Grill et al. 2020, arXiv 2006.07733" in text
    assert all(text.count(f"\n  {label} ") == len(methods.names()) for label in ("paper", "needs", "pick it"))


def test_recipes_are_shown_as_options():
    text = listed("recipes", 120)
    assert "--method byol --recipe imagenet_300" in text and "--optim.base-lr 0.3" in text
    for name in methods.names():
        assert all(f"--method {name} --recipe {row}\n" in text + "\n" for row in methods.named_recipes(name))


def test_views_that_are_alike_are_shown_once():
    text = listed("views")
    assert all(f"\n{name}\n" in f"\n{text}" for name in RECIPES)
    assert "view 2-9   size 0.428571" in text and "view 0-1   crop_scale 0.2,1" in text


@pytest.mark.parametrize("what", LISTS)
@pytest.mark.parametrize("width", [20, 80, 500])
def test_lines_fit_the_terminal(what: str, width: int):
    assert max(map(len, catalogue(what, width))) <= max(60, min(width, 120))


@pytest.mark.parametrize("what", LISTS)
def test_no_torch_is_needed(what: str):
    code = f"import sys; from ownlatent.cli import main\ntry: main(['list', {what!r}])\n"
    code += "except SystemExit as end: print('ENDED', end.code, 'torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "ENDED 0 False False", done.stderr


def test_an_unknown_list_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["list", "method"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "methods" in error


def test_a_file_without_a_section_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text(
        '"""Mine (Me 2026)."""\n\n\nclass Mine(Method):\n    """It learns.\n\n    Idea: a."""\n'
    )
    monkeypatch.setattr(_card, "__file__", str(tmp_path / "_card.py"))
    with pytest.raises(ValueError, match="Mine has no paragraph that begins with 'Equation'"):
        card("mine")


def test_a_method_of_ones_own_is_found_by_its_file(monkeypatch: pytest.MonkeyPatch):
    assert "_base" not in methods.names() and "_card" not in methods.names()
    with pytest.raises(OwnlatentError, match=r"the nearest are moco_v3, moco_v2"):
        methods.get("moco_v4")
