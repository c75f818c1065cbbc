"""An encoder as a transformer of scikit-learn's: images in, features out, learnt without labels.

>>> from sklearn.frozen import FrozenEstimator                                             # doctest: +SKIP
>>> learnt = OwnLatentTransformer(epochs=100).fit(unlabelled)                              # doctest: +SKIP
>>> model = make_pipeline(FrozenEstimator(learnt), LogisticRegression()).fit(few, labels)  # doctest: +SKIP
"""

import signal
import warnings
from collections.abc import Iterator
from copy import deepcopy
from math import ceil, prod, sqrt
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_array, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("OwnLatentTransformer needs scikit-learn 1.6: pip install 'ownlatent[sklearn]'") from error

from ownlatent.errors import OwnlatentError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ownlatent.train.prepare import Job

_BATCH = 256  # images that are embedded at once
_LEAST_SIDE = 8  # pixels, of the smallest views that there are
_LEVELS = (np.dtype(np.uint8), np.dtype(np.uint16))  # types that say by themselves what is white


class OwnLatentTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn an encoder from images without labels; images to features (N, D) float32.

    X: images (N, H, W), (N, C, H, W) or (N, H, W, C), or rows (N, features). A row is a square gray image, or one of
    `image_shape`; one that is no square is filled up with zeros to the next one, of 8x8 pixels at least. uint8, uint16
    and floats in [0, 1] mean what they mean everywhere in this package. Of any other numbers the least of the training
    images becomes black and the largest white, and what lies outside in `transform` is cut off.

    In a Pipeline `fit` learns from the images that have labels. To learn from all images, fit it by itself, and put it
    into the Pipeline within `sklearn.frozen.FrozenEstimator`.

    method, epochs, minutes, backbone, layer, image_size, batch_size, accelerator: as `ownlatent.pretrain` takes them;
    None is chosen by the images, their number and the hardware. A backbone that is a module is copied. image_shape:
    (H, W) or (H, W, C) of rows. settings: any other field of the recipe by its dotted name, such as {"optim.lr": 0.1}.
    random_state: the seed; by epochs and on a processor, where weights stay in float32, the same one gives the same
    encoder. None draws one. verbose: print what a run prints.

    encoder_: the nn.Module, on the processor: uint8, uint16 or floats in [0, 1], (B, C, H, W), to (B, D).
    image_shape_: (C, H, W). data_range_: the values that are black and white. dtype_: that of the training images.
    health_: the verdict on the training, as a run's results.json holds it. n_iter_: optimiser steps. n_features_in_:
    values of an image.

    Training that collapses or diverges gives a ConvergenceWarning. Raises OwnlatentError, and ValueError for what
    scikit-learn calls so; input that does not fit is both.
    """

    def __init__(
        self,
        method: str | None = None,
        *,
        epochs: float | None = None,
        minutes: float | None = None,
        backbone: "str | nn.Module | None" = None,
        layer: str | int | None = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        batch_size: int | None = None,
        settings: dict[str, Any] | None = None,
        accelerator: str = "auto",
        random_state: Any = 0,
        verbose: bool = False,
    ):
        self.method = method
        self.epochs = epochs
        self.minutes = minutes
        self.backbone = backbone
        self.layer = layer
        self.image_size = image_size
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.settings = settings
        self.accelerator = accelerator
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "OwnLatentTransformer":
        """Learn from images; y is not looked at."""
        from ownlatent.diagnostics.verdict import STOPPING
        from ownlatent.log import to_console
        from ownlatent.reporting.health import in_words
        from ownlatent.train.fit import fit, silently

        values = self._checked(X, first=True)
        self.dtype_, self.data_range_ = values.dtype, _range_of(values)
        images = self._images(values)
        with to_console() if self.verbose else silently(), TemporaryDirectory() as scratch:
            job = self._job(images)
            outcome = fit(job, Path(scratch))
        if outcome.stopped_by:
            signal.raise_signal(
                signal.Signals[outcome.stopped_by]
            )  # training ended in good order, now so does the rest
        if outcome.health["word"] in STOPPING:
            warnings.warn("; ".join(map(str.strip, in_words(outcome.health))), ConvergenceWarning, stacklevel=2)
        self.image_shape_: tuple[int, ...] = images.shape[1:]
        self.encoder_ = job.encoder.cpu().eval()
        if self.dtype_ == np.uint16:
            self.data_range_ = 0.0, self.encoder_.full_scale
        self.health_, self.n_iter_ = outcome.health, int(outcome.training["steps"])
        self._n_features_out = self.encoder_.num_features
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features (N, D) float32 of images like those that `fit` was given."""
        check_is_fitted(self, "encoder_")
        from ownlatent.evaluation.embed import embed
        from ownlatent.train.images import choose_device

        values = self._checked(X, first=False)
        device = choose_device(self.accelerator)
        encoder = self.encoder_ if device.type == "cpu" else deepcopy(self.encoder_).to(device)
        return embed(encoder, self._batches(values), device=device)[: len(values)].numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # float32, whatever the images are
        tags.non_deterministic = self.minutes is not None
        return tags

    def _job(self, images: np.ndarray) -> "Job":
        """A run on these images, ready to start."""
        import torch

        from ownlatent.recipes.begin import apart, begin
        from ownlatent.train import processes
        from ownlatent.train.prepare import prepare

        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        names = ("method", "epochs", "minutes", "layer", "image_size", "batch_size", "accelerator")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        # On a processor the precision would be measured, and a busy moment could make another encoder of the same seed.
        exact = self.accelerator == "cpu" or not torch.cuda.is_available()
        given |= {"seed": int(seed), "precision": "32" if exact else "auto", **(self.settings or {})}
        try:
            fields, network, objects = apart(images, self.backbone, given)
            recipe, late = begin(None, fields)
            if processes.count(recipe) > 1:
                raise OwnlatentError("a transformer learns in one process: leave devices and nodes out of its settings")
            return prepare(recipe, late, network, objects)
        except OwnlatentError as error:
            raise _Unsuitable(str(error)) from error

    def _checked(self, X: Any, first: bool) -> np.ndarray:
        """The values as an array, (N, features) or images. first: of the training images, like which others must be."""
        least = 2 if first else 1
        if len(X.shape if hasattr(X, "shape") else np.asarray(X).shape) > 2:
            values = check_array(X, allow_nd=True, ensure_min_samples=least, estimator=self, input_name="X")
            validate_data(self, values[:1].reshape(1, -1), reset=first, skip_check_array=True)
        else:
            values = validate_data(self, X, ensure_min_samples=least, reset=first)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if not first and values.dtype != self.dtype_ and (values.dtype in _LEVELS or self.dtype_ in _LEVELS):
            raise _Unsuitable(
                f"fit was given {self.dtype_} and this is {values.dtype}, in which other values are black and white: "
                "give both the same"
            )
        return values

    def _batches(self, values: np.ndarray) -> "Iterator[Tensor]":
        """Images as the encoder takes them, uint8 or uint16 (B, C, S, S).

        A last one that would be alone comes twice: of one image torch sums in another order, and the features of an
        image shall not depend on its company.
        """
        import torch

        from ownlatent.data.decode import Format, fit
        from ownlatent.data.pixels import conform, to_tensor

        size = self.encoder_.image_size
        format = Format(self.image_shape_[0], 8 if self.encoder_.peak == 255 else 16)  # as the training images were
        for start in range(0, len(values), _BATCH):
            images = self._images(values[start : start + _BATCH])
            if images.shape[1:] != self.image_shape_:
                raise _Unsuitable(
                    f"fit was given images of {self.image_shape_} (channels, height, width), and these are of "
                    f"{images.shape[1:]}: give the same"
                )
            fitted = [fit(conform(to_tensor(image, 0), format), size) for image in images]
            yield torch.stack(fitted * 2 if len(fitted) == 1 else fitted)

    def _images(self, values: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W), uint8, uint16 or float32 in [0, 1]."""
        from ownlatent.data.pixels import channel_axis

        if values.dtype not in _LEVELS:
            low, high = self.data_range_
            values = ((values.astype(np.float64) - low) / ((high - low) or 1.0)).clip(0, 1).astype(np.float32)
        if values.ndim == 2:
            return _rows_as_images(values, self.image_shape)
        if values.ndim == 3:
            return values[:, None]
        axis = channel_axis(values.shape[1:]) if values.ndim == 4 else None
        if axis is None:
            raise _Unsuitable(
                f"X has the shape {values.shape}, which are no images: give (N, H, W), (N, C, H, W) or (N, H, W, C), "
                "larger in pixels than their number of channels"
            )
        return values if axis == 0 else np.moveaxis(values, -1, 1)


class _Unsuitable(OwnlatentError, ValueError):
    """Wrong input, as this package says it and as scikit-learn does."""


def _range_of(values: np.ndarray) -> tuple[float, float]:
    """The values that are black and white: those of the type, or else of the data."""
    if values.dtype in _LEVELS:
        return 0.0, float(np.iinfo(values.dtype).max)
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if values.dtype.kind == "f" and low >= 0 and high <= 1 else (low, high)


def _rows_as_images(rows: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Rows (N, features) as images (N, C, H, W), of a shape (H, W) or (H, W, C), or else as squares."""
    count, width = rows.shape
    if shape is None:
        side = max(_LEAST_SIDE, ceil(sqrt(width)))
        return np.pad(rows, ((0, 0), (0, side**2 - width))).reshape(count, 1, side, side)
    if len(shape) not in (2, 3) or prod(shape) != width:
        raise _Unsuitable(
            f"rows of {width} values are no images of image_shape {tuple(shape)}: give (height, width) or "
            "(height, width, channels) whose product is that number"
        )
    return np.moveaxis(rows.reshape(count, *shape[:2], -1), -1, 1)
