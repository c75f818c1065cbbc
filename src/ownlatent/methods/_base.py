"""The contract that every method keeps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.optim.groups import split_decay
from ownlatent.types import Output, Views


@dataclass(frozen=True)
class Suspect:
    """A setting under which a method is known to fail.

    setting: its name, such as "tau". why: what it does and who found out, as the beginning of a sentence. remedy: what
    to give instead, as an order.
    """

    setting: str
    why: str
    remedy: str


def unusual_temperature(temperature: float) -> Iterator[Suspect]:
    """Of a contrastive loss; the papers use 0.05 to 1."""
    if temperature > 2:
        why = f"at a temperature of {temperature:g} near and far projections cost nearly the same"
        yield Suspect("temperature", why, "give --method.temperature 0.2")
    if temperature < 0.02:
        why = f"at a temperature of {temperature:g} only the single nearest negative counts"
        yield Suspect("temperature", why, "give --method.temperature 0.2")


def stuck(loss: float, collapsed: float, formula: str) -> tuple[str, str] | None:
    """The symptom of a loss that is that of equal projections."""
    if abs(loss - collapsed) > 0.005 * collapsed:  # healthy runs pass by within 0.02 of it in their first steps
        return None
    return "stalled", f"the loss is {loss:.3f}, that of projections that are all the same ({formula} = {collapsed:.3f})"


class Method(nn.Module):
    """A backbone and an objective over views of the same images.

    Called with V views (B, C, H, W) it returns an Output whose loss has a gradient. State driven by
    data (a queue, a centre) changes in `forward`; state driven by the optimiser (a target network)
    changes only in `after_step`. Each view is its own pass through the backbone, so that BatchNorm
    sees one view at a time. Constructor keywords are the method's settings. Labels (B,) int64 go only
    to a method that says `uses_labels`, as the second argument of forward.
    """

    backbone: Backbone
    min_views: int = 2
    max_views: int | None = 2
    """None: any number; view 0 and view 1 are then the large ones."""
    min_batch: int = 2
    """The fewest images for which the loss has a meaning: one has no statistics for BatchNorm."""
    uses_labels: bool = False
    synchronizes: bool = True
    """Whether BatchNorm is to see the images of all processes, as in most papers."""
    least_std: float = 0.5
    """relative_std of the projections below which they have drawn together. A healthy run keeps 1 in the papers of
    SimSiam and VICReg; the least of our own at defaults, on photographs and CIFAR-10, are in benchmarks/results."""
    most_uniformity: float = 0.0
    """uniformity of the projections above which they have drawn together, for a method whose std hides it."""
    name: ClassVar[str] = "a method"
    """The name of the method's file."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.name = cls.__module__.rpartition(".")[2]

    @property
    def result(self) -> Backbone:
        """The network that is evaluated and exported: the backbone, unless a method trains two and keeps the other."""
        return self.backbone

    def forward(self, views: Views) -> Output:
        raise TypeError(f"{type(self).__name__} is a contract, not a method: subclass it and define forward")

    def before_step(self, progress: float) -> None:
        """Call between backward and every optimiser step, with progress in [0, 1]; gradients may change here."""

    def after_step(self, progress: float) -> None:
        """Call once after every optimiser step (not after every micro-batch), with progress in [0, 1]."""

    def scheduled(self, progress: float) -> dict[str, float]:
        """What the method's own schedules are at progress in [0, 1], by name, such as {"tau": 0.99}."""
        return {}

    def param_groups(self) -> list[dict]:
        """Parameter groups for `optim.create`: decayed weights, then undecayed biases and norms."""
        return split_decay(self)

    @classmethod
    def suited(cls, settings: dict[str, Any], batch_size: int) -> dict[str, Any]:
        """The settings, with what batches of this size need instead; it counts only for those that nobody gave."""
        return settings

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        """What in the settings is known to make this method fail, the worst first."""
        yield from ()

    @classmethod
    def symptom(cls, settings: dict[str, Any], row: Mapping[str, float], batch_size: int) -> tuple[str, str] | None:
        """What only this method's loss and terms show in a row of metrics.csv: "collapsed" or "stalled", and why."""
        return None

    def check_batch(self, batch_size: int) -> None:
        """Raise OwnlatentError if the method cannot work with so many images in a pass, over all processes."""
        if batch_size < self.min_batch:
            raise OwnlatentError(
                f"{self.name} compares or normalises over the batch and needs at least {self.min_batch} images in each "
                f"pass, not {batch_size}: raise --batch-size or lower --accumulate"
            )

    @classmethod
    def check_views(cls, count: int) -> None:
        """Raise OwnlatentError if the method does not take so many views of each image."""
        if count < cls.min_views:
            raise OwnlatentError(
                f"{cls.name} compares views and takes at least {cls.min_views} of each image, not {count}: choose "
                "--views from `ownlatent list views`"
            )
        if cls.max_views is not None and count > cls.max_views:
            raise OwnlatentError(
                f"{cls.name} takes {cls.max_views} views of each image, not {count}: choose --views from "
                "`ownlatent list views`, or a method for many views, such as --method dino"
            )

    def pair(self, views: Views) -> tuple[Tensor, Tensor]:
        """The two views. Raises OwnlatentError if they are not two."""
        self.check_views(len(views))
        return views[0], views[1]
