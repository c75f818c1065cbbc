"""Rows of made-up runs, and what must be said of them."""

from typing import Any

import pytest

from ownlatent import methods
from ownlatent.diagnostics.verdict import Setting, Verdict, judge, not_finite

HEALTHY = {
    "loss": 1.2,
    "std": 0.8,
    "gradient_norm": 0.5,
    "waiting": 0.01,
    "rank": 60.0,
    "rank_share": 0.25,
    "projection_rank": 15.0,
    "weight_change": 0.002,
    "views_apart": 0.7,
}
FIRST = {"step": 1.0, "loss": 4.0, "std": 0.8, "gradient_norm": 7.0, "waiting": 0.0, "rank": None}


def setting(method: str = "byol", base_lr: float = 0.12, **given: Any) -> Setting:
    known = methods.settings(method) | {"queue": 4096, "prototypes": 1024, "projection": 512}
    settings = {name: value for name, value in known.items() if name in methods.settings(method)} | given
    return Setting(method, settings, batch_size=128, base_lr=base_lr, usual_lr=0.12, against_waiting="raise --workers")


def verdict(*changes: dict[str, float], of: Setting | None = None) -> Verdict:
    """Of a run with a measurement every 25 steps, healthy but for the changes."""
    rows = [FIRST, *({**HEALTHY, "step": 25.0 * n, **change} for n, change in enumerate(changes, 1))]
    return judge(rows, of or setting())


def test_a_healthy_run_is_called_so_with_its_numbers():
    found = verdict({}, {}, {})
    assert (found.word, found.cause, found.advice, found.step) == ("healthy", "", "", 75)
    assert "0.80" in found.reason and "60 (25%)" in found.reason


@pytest.mark.parametrize("count", [0, 1, 2])
def test_before_three_measurements_nothing_is_said(count: int):
    assert verdict(*[{"std": 0.0}] * count).word == "too early to tell"
    assert judge([], setting()).word == "too early to tell"


def test_rows_of_an_older_run_have_no_statistics():
    assert judge([{"step": 1.0, "loss": 4.0}, {"step": 2.0, "loss": 3.0}], setting()).word == "too early to tell"


def test_one_or_two_bad_moments_accuse_nobody_and_a_run_can_recover():
    low = {"std": 0.1}
    assert verdict(low, {}, low, low).word == "healthy"
    assert verdict(low, low, low).word == "collapsed"
    assert verdict(low, low, low, {}).word == "healthy"


CASES: list[tuple[str, dict[str, float], str, str]] = [
    ("byol", {"std": 0.05}, "collapsed", "std of the projections is 0.05, below 0.5"),
    ("simsiam", {"uniformity": -0.4}, "collapsed", "uniformity of the projections is -0.40, above -0.8"),
    ("simsiam", {"uniformity": -1.4}, "healthy", ""),
    ("byol", {"uniformity": -0.4}, "healthy", ""),
    ("dino", {"std": 0.3, "entropy": 0.2, "single_entropy": 0.1, "kl": 0.1}, "collapsed", "few prototypes"),
    ("dino", {"entropy": 6.93, "single_entropy": 6.93, "kl": 0.001}, "collapsed", "all prototypes alike"),
    ("dino", {"entropy": 6.5, "single_entropy": 5.5, "kl": 0.3}, "healthy", ""),
    ("dino", {"entropy": 6.93, "single_entropy": 6.0, "kl": 0.9}, "healthy", ""),
    ("simclr", {"loss": 5.54}, "stalled", "log(2 N - 1) = 5.541"),
    ("simclr", {"loss": 4.0}, "healthy", ""),
    ("moco_v2", {"loss": 8.318}, "stalled", "log(1 + K) = 8.318"),
    ("moco_v3", {"loss": 19.41}, "stalled", "4 t ln N = 19.408"),
    ("vicreg", {"variance": 0.98}, "collapsed", "no feature varies"),
    ("vicreg", {"variance": 0.4}, "healthy", ""),
    ("barlow_twins", {"invariance": 500.0}, "stalled", "500 of 512"),
    ("barlow_twins", {"alignment": 1.1}, "stalled", "1.10 apart"),
    ("barlow_twins", {"alignment": 0.7}, "healthy", ""),
    ("byol", {"projection_rank": 1.7}, "dimensionally collapsed", "along 1.7 directions"),
    ("byol", {"weight_change": 0.03, "rank_share": 0.06, "rank": 15.0}, "diverging", "by 3.0%"),
    ("byol", {"weight_change": 0.3}, "diverging", "by 30.0%"),
    ("byol", {"weight_change": 0.03}, "healthy", ""),  # large steps that do no harm, as LARS makes them
    ("byol", {"views_apart": 0.001}, "stalled", "nothing to learn"),
]


@pytest.mark.parametrize(("method", "change", "word", "reason"), CASES)
def test_what_the_numbers_say(method: str, change: dict[str, float], word: str, reason: str):
    usual = {"variance": 0.3, "invariance": 10.0, "entropy": 6.0, "single_entropy": 5.0, "kl": 0.5}
    found = verdict(*[usual | change] * 3, of=setting(method))
    assert found.word == word, found
    assert reason in found.reason


def test_waiting_is_named_with_what_to_change():
    found = verdict(*[{"waiting": 0.6}] * 6)
    assert (found.word, found.cause, found.advice) == ("starved", "data", "raise --workers")
    assert "60%" in found.reason
    assert verdict(*[{"waiting": 0.6}] * 2, *[{}] * 6).word == "healthy"


def test_a_collapse_is_named_before_slow_data():
    assert verdict(*[{"waiting": 0.6, "std": 0.01}] * 6).word == "collapsed"


CAUSES: list[tuple[str, dict[str, Any], str]] = [
    ("byol", {"predictor_layers": 0}, "predictor_layers"),
    ("byol", {"tau": 0, "stop_gradient": False}, "stop_gradient"),
    ("byol", {"tau": 0}, "tau"),
    ("byol", {"norm": "none"}, "norm"),
    ("simsiam", {"stop_gradient": False}, "stop_gradient"),
    ("dino", {"center_momentum": 1.0}, "center_momentum"),
    ("dino", {"center_momentum": 0.999}, "center_momentum"),
    ("dino", {"teacher_temperature": 1.0}, "teacher_temperature"),
    ("dino", {"warmup_temperature": 0.09}, "warmup_temperature"),
    ("vicreg", {"variance": 0.0}, "variance"),
    ("vicreg", {"variance": 1.0, "invariance": 1.0, "covariance": 1.0}, "covariance"),
    ("barlow_twins", {"redundancy": 1.0}, "redundancy"),
    ("barlow_twins", {"redundancy": 0.0}, "redundancy"),
    ("simclr", {"temperature": 100.0}, "temperature"),
    ("moco_v3", {"temperature": 0.001}, "temperature"),
    ("moco_v2", {"tau": 0.0}, "tau"),
    ("directpred", {"eps": 1000.0}, "eps"),
]


@pytest.mark.parametrize(("method", "given", "cause"), CAUSES)
def test_the_setting_that_is_known_to_fail_is_the_cause(method: str, given: dict[str, Any], cause: str):
    suspects = list(methods.get(method).suspects(methods.settings(method) | given))
    assert suspects[0].setting == cause
    found = verdict(*[{"std": 0.01}] * 3, of=setting(method, **given))
    assert (found.word, found.cause) == ("collapsed", cause)
    assert found.why == suspects[0].why and f"--method.{cause.split('_')[0]}" in found.advice


@pytest.mark.parametrize("method", methods.names())
def test_nothing_is_suspected_of_a_method_as_it_comes(method: str):
    for row in (None, *methods.named_recipes(method)):
        changes = methods.named_recipes(method)[row] if row else {}
        given = {n.removeprefix("method."): v for n, v in changes.items() if n.startswith("method.")}
        assert not list(methods.get(method).suspects(methods.settings(method) | given)), row
    for small in (True, False):
        for long in (True, False):
            changes = methods.usual(method, small=small, processor=True, short=False, long=long)
            given = {n.removeprefix("method."): v for n, v in changes.items() if n.startswith("method.")}
            assert not list(methods.get(method).suspects(methods.settings(method) | given))


def test_the_rate_is_the_cause_where_no_setting_is():
    found = verdict(*[{"std": 0.01}] * 3, of=setting(base_lr=12.0))
    assert (found.cause, found.advice) == ("lr", "give --optim.base-lr 0.12")
    assert "100 times" in found.why
    assert verdict(*[{"std": 0.01}] * 3, of=setting(base_lr=12.0, predictor_layers=0)).cause == "predictor_layers"
    unknown = verdict(*[{"std": 0.01}] * 3)
    assert (unknown.cause, unknown.why) == ("", "") and "--optim.base-lr" in unknown.advice


def test_equal_views_are_the_cause_whatever_else_is_odd():
    found = verdict(*[{"std": 0.01, "views_apart": 0.0}] * 3, of=setting(base_lr=12.0, predictor_layers=0))
    assert found.cause == "views" and "preview" in found.advice


def test_what_is_not_finite_diverges():
    found = not_finite("loss", float("nan"), setting(base_lr=12.0), step=7)
    assert (found.word, found.cause, found.step) == ("diverging", "lr", 7)
    usual = not_finite("loss", float("nan"), setting(), step=7)
    assert usual.cause == "lr" and "--optim.warmup" in usual.advice
    assert str(found).startswith("diverging: the loss is nan at step 7; likely cause: the learning rate is 100 times")


def test_a_gradient_that_explodes():
    found = verdict({}, *[{"gradient_norm": 900.0}] * 3)
    assert found.word == "diverging" and "from 7 to 900" in found.reason
    assert verdict({"gradient_norm": 20.0}, *[{"gradient_norm": 900.0}] * 3).word == "healthy"
