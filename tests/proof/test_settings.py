"""Options of an evaluation, refused before anything slow begins."""

import pytest

from ownlatent.errors import OwnlatentError
from ownlatent.proof.settings import Evaluation, listed, settings
from ownlatent.train.recipe import coerce


def test_text_and_python_values_say_the_same():
    typed = settings({"protocols": ["knn", "linear"], "k": [1, 20], "draws": 3, "layer": None}, coerce)
    assert typed == settings({"protocols": "knn,linear", "k": "1,20", "draws": "3"}, coerce)
    assert listed(typed.k) == ["1", "20"] and listed(None) == []


def test_nothing_given_is_the_default():
    assert settings({}, coerce) == Evaluation()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"protocol": "knn"}, "no option --protocol: the nearest is --protocols"),
        ({"protocols": "knn,linaer"}, "--protocols has no 'linaer': the nearest is linear"),
        ({"protocols": ""}, "--protocols is empty"),
        ({"without": "pixel"}, "--without has no 'pixel': the nearest is pixels"),
        ({"k": "0"}, "--k takes whole numbers"),
        ({"k": "one"}, "--k takes whole numbers"),
        ({"temperature": 0}, "--temperature must be greater than 0"),
        ({"draws": 0}, "--draws must be greater than 0"),
        ({"head": "big"}, "--head is linear or mlp"),
        ({"supervised_minutes": -1}, "--supervised-minutes must be greater than 0"),
        ({"seed": -1}, "--seed must be at least 0"),
    ],
)
def test_wrong_options_are_refused(given: dict, words: str):
    with pytest.raises(OwnlatentError, match=words):
        settings(given, coerce)
