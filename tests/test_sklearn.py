"""The transformer keeps scikit-learn's rules, and its features are those of the encoder that was trained."""

import logging
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn is an extra: pip install 'ownlatent[sklearn]'")

import joblib
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from ownlatent import OwnlatentError
from ownlatent.data.sources.photos import PHOTOGRAPHS, Photos
from ownlatent.sklearn import OwnLatentTransformer
from ownlatent.train import fit as training

SMALL = {"method.hidden": 16, "method.projection": 8}
COUNT, SIDE = 24, 16


def small(**parameters: Any) -> OwnLatentTransformer:
    """One that is fitted in a moment."""
    usual = {"method": "byol", "epochs": 1, "backbone": "resnet10_w16", "image_size": 8, "settings": SMALL}
    return OwnLatentTransformer(**{**usual, "accelerator": "cpu", **parameters})


@pytest.fixture(scope="module")
def gray() -> np.ndarray:
    """uint8 (N, H, W)."""
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def colour() -> np.ndarray:
    """uint8 (N, H, W, C)."""
    return np.random.default_rng(1).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def fitted(gray: np.ndarray) -> OwnLatentTransformer:
    """Not to be changed by a test."""
    return small().fit(gray)


@estimator_checks.parametrize_with_checks([small()])
def test_it_is_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    "name",
    [
        "check_dataframe_column_names_consistency",
        "check_get_feature_names_out_error",
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
    ],
)
def test_it_is_as_scikit_learn_wants_its_own(name: str) -> None:
    """Checks that scikit-learn runs on its own estimators alone."""
    if "dataframe" in name or "pandas" in name:
        pytest.importorskip("pandas", reason="these checks are of data frames")
    getattr(estimator_checks, name)("OwnLatentTransformer", small())


def test_images_of_every_layout_are_the_same_images(gray: np.ndarray, fitted: OwnLatentTransformer) -> None:
    features = fitted.transform(gray)
    assert features.shape == (COUNT, fitted.encoder_.num_features) and features.dtype == np.float32
    assert fitted.image_shape_ == (1, SIDE, SIDE) and fitted.n_features_in_ == SIDE * SIDE
    for images in (gray[:, None], gray[..., None], gray.reshape(COUNT, -1), torch.from_numpy(gray)):
        np.testing.assert_array_equal(fitted.transform(images), features)
        np.testing.assert_array_equal(small().fit_transform(images), features)


def test_rows_of_colour_images_need_their_shape(colour: np.ndarray) -> None:
    learnt = small(image_shape=(SIDE, SIDE, 3)).fit(colour.reshape(COUNT, -1))
    assert learnt.image_shape_ == (3, SIDE, SIDE) and learnt.encoder_.mean.numel() == 3
    features = small().fit_transform(colour)
    np.testing.assert_array_equal(learnt.transform(colour.reshape(COUNT, -1)), features)
    np.testing.assert_array_equal(learnt.transform(np.moveaxis(colour, -1, 1)), features)


def test_features_are_those_of_the_encoder(gray: np.ndarray, fitted: OwnLatentTransformer) -> None:
    """Of the size that it was trained at, and of any other after it was brought to that."""
    learnt = small(image_size=SIDE).fit(gray)
    for images in (gray, torch.from_numpy(gray).float() / 255):
        given = torch.as_tensor(images)[:, None]
        with torch.no_grad():
            expected = learnt.encoder_(given).numpy()
        found = learnt.transform(gray) if images is gray else small(image_size=SIDE).fit_transform(images)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert fitted.encoder_.image_size == 8 and not fitted.encoder_.training


def test_sixteen_bits_are_read_by_the_range_of_the_camera(gray: np.ndarray) -> None:
    twelve = gray.astype(np.uint16) * 16
    learnt = small().fit(twelve)
    assert learnt.data_range_ == (0.0, 4095.0)
    assert learnt.transform(twelve).shape == (COUNT, learnt.encoder_.num_features)


def test_other_numbers_are_read_by_the_range_of_the_training_images(gray: np.ndarray) -> None:
    rows = gray.reshape(COUNT, -1).copy()
    rows[0, :2] = 0, 255
    as_floats = rows.astype(np.float64) * 2 - 100
    learnt = small().fit(as_floats)
    assert learnt.data_range_ == (-100.0, 410.0)
    expected = small().fit_transform(rows)
    np.testing.assert_allclose(learnt.transform(as_floats), expected, rtol=1e-4, atol=1e-5)
    beyond = np.where(as_floats == as_floats.max(), 1e6, as_floats)
    np.testing.assert_array_equal(learnt.transform(beyond), learnt.transform(as_floats))
    assert small().fit(rows / 255 * 0.9).data_range_ == (0.0, 1.0)


def test_a_pipeline_classifies_by_features_that_saw_no_labels(tmp_path: Path) -> None:
    patches = Photos("train")
    classes = [PHOTOGRAPHS.index(name) for name in ("grass", "coffee", "page")]
    rows = [index for index in range(len(patches)) if patches[index].label in classes][::9]
    images = np.stack([patches[index].image.numpy() for index in rows])
    labels = np.array([patches[index].label for index in rows])
    learnt = small(method="vicreg", image_size=32).fit(images)
    model = make_pipeline(FrozenEstimator(learnt), LogisticRegression(max_iter=2000))
    assert cross_val_score(model, images, labels, cv=3).mean() > 0.6
    model.fit(images, labels)
    joblib.dump(model, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(again.predict_proba(images), model.predict_proba(images))
    assert list(learnt.get_feature_names_out()[:2]) == ["ownlatenttransformer0", "ownlatenttransformer1"]


def test_a_run_leaves_nothing_behind(
    gray: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    random_state = torch.get_rng_state()
    small().fit(gray).transform(gray)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), random_state)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own, to which the lines would go
    small(verbose=True).fit(gray)
    assert "method     byol" in capfd.readouterr().out


def test_a_module_of_the_users_own_stays_as_it_is(gray: np.ndarray) -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    transformer = small(backbone=net)
    features = transformer.fit_transform(gray)
    assert features.shape == (COUNT, 8) and transformer.get_params()["backbone"] is net
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    np.testing.assert_array_equal(clone(transformer).fit_transform(gray), features)


def test_features_may_come_from_an_inner_layer(gray: np.ndarray) -> None:
    learnt = small(layer=-5).fit(gray)  # of the blocks, the last but two
    assert learnt.encoder_.backbone.layer == "4"
    assert learnt.transform(gray).shape == (COUNT, 32) == (COUNT, len(learnt.get_feature_names_out()))


def test_the_seed_decides(gray: np.ndarray, fitted: OwnLatentTransformer) -> None:
    features = fitted.transform(gray)
    np.testing.assert_array_equal(small(random_state=np.int64(0)).fit_transform(gray), features)
    drawn = [small(random_state=np.random.RandomState(3)).fit_transform(gray) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    assert not np.allclose(drawn[0], features)
    assert not np.allclose(small(random_state=None).fit_transform(gray), features)


def test_images_are_embedded_a_few_at_a_time(
    gray: np.ndarray, fitted: OwnLatentTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, seen = fitted.transform(gray), []
    hook = fitted.encoder_.register_forward_hook(lambda module, given, output: seen.append(len(output)))
    monkeypatch.setattr("ownlatent.sklearn._BATCH", 10)
    np.testing.assert_allclose(fitted.transform(gray), features, rtol=1e-4, atol=1e-5)
    hook.remove()
    assert seen == [10, 10, 4]


def ended(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let training end otherwise than it did."""
    real = training.fit
    monkeypatch.setattr(training, "fit", lambda *given: replace(real(*given), **changes))


def test_a_collapse_is_a_convergence_warning(gray: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    health = {"word": "collapsed", "reason": "the std is 0.1", "why": "there is no predictor", "advice": "give one"}
    ended(monkeypatch, health=health)
    with pytest.warns(ConvergenceWarning, match=r"collapsed: the std is 0\.1; likely cause: .*; what to do: give one"):
        learnt = small().fit(gray)
    assert learnt.health_ == health and learnt.n_iter_ >= 1


def test_ctrl_c_is_not_swallowed(gray: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    ended(monkeypatch, stopped_by="SIGINT")
    transformer = small()
    with pytest.raises(KeyboardInterrupt):
        transformer.fit(gray)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(NotFittedError):
        transformer.transform(gray)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "byoll"}, "there is no method 'byoll': the nearest is byol"),
        ({"backbone": "resnet81"}, "there is no backbone 'resnet81'"),
        ({"accelerator": "gpu"}, "--accelerator is one of auto, cpu, cuda, mps, not 'gpu'"),
        ({"epochs": 1, "minutes": 1}, "--epochs and --minutes exclude each other"),
        ({"settings": {"optim.learning": 1}}, "there is no option --optim.learning"),
        ({"settings": {"devices": 2}}, "a transformer learns in one process"),
        ({"batch_size": 1000}, "there are 24 images, fewer than a batch of 1000"),
    ],
)
def test_a_wrong_parameter_is_refused(gray: np.ndarray, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(OwnlatentError, match=message) as raised:
        small(**parameters).fit(gray)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((COUNT, SIDE, SIDE + 1), np.uint8), "is expecting 256 features"),
        (np.zeros((COUNT, 8, 32), np.uint8), r"fit was given images of \(1, 16, 16\) .* these are of \(1, 8, 32\)"),
        (np.zeros((COUNT, SIDE, SIDE)), "fit was given uint8 and this is float64"),
        (np.full((COUNT, SIDE * SIDE), np.nan), "NaN"),
    ],
)
def test_images_of_another_kind_are_refused(fitted: OwnLatentTransformer, images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted.transform(images)


@pytest.mark.parametrize("shape", [(COUNT, 2, 8, 8, 8), (COUNT, 8, 8, 8)])
def test_what_are_no_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OwnlatentError, match=r"X has the shape .*, which are no images: give \(N, H, W\)"):
        small().fit(np.zeros(shape, np.uint8))


def test_rows_that_are_no_images_of_the_shape_are_refused(gray: np.ndarray) -> None:
    for shape in ((SIDE, SIDE + 1), (SIDE * SIDE,), (SIDE, 4, 4, 1)):
        with pytest.raises(OwnlatentError, match="whose product is that number"):
            small(image_shape=shape).fit(gray.reshape(COUNT, -1))


def test_without_scikit_learn_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['sklearn'] = None; import ownlatent.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "pip install 'ownlatent[sklearn]'" in done.stderr.splitlines()[-1]
