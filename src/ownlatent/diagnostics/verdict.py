"""Whether a run works, in words: from the rows of metrics.csv and the settings, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ownlatent import methods
from ownlatent.methods._base import Suspect

Row = Mapping[str, float | None]

HEALTHY, COLLAPSED, FEW_DIMENSIONS = "healthy", "collapsed", "dimensionally collapsed"
DIVERGING, STALLED, STARVED, TOO_EARLY = "diverging", "stalled", "starved", "too early to tell"
STOPPING = (COLLAPSED, DIVERGING)
"""What a run is stopped for: more training makes neither of them better."""

_AGREEING = 3  # measurements one after the other that must show the same, so that a bad moment accuses nobody
EQUAL_VIEWS = 0.02  # mean difference of two views, in units of the images' std, below which they are one
_FEW = 2.0  # effective rank of projections below which they lie on about a line
_HIGH_RATE = 8.0  # times the usual learning rate from which it is named as a cause
_LARGE_CHANGE = 0.016  # relative change of the weights in a step; at usual rates it is 0.001 to 0.007
_HUGE_CHANGE = 0.1  # that no run survives, whatever the optimiser
_LOW_RANK = 0.12  # share of the dimensions below which large changes are taken to have ruined the features
_EXPLODED = 100.0  # times its first values from which a gradient is called exploding
STARVED_FROM = 0.3  # share of the time spent waiting for data


@dataclass(frozen=True)
class Setting:
    """What is known of a run beside its rows.

    method, settings: its name, and every keyword of its constructor. batch_size: images in a pass. base_lr, usual_lr:
    the peak learning rate for 256 images, as it is and as it is usual. against_waiting: what would make the data
    faster.
    """

    method: str
    settings: Mapping[str, Any]
    batch_size: int
    base_lr: float
    usual_lr: float
    against_waiting: str = ""


@dataclass(frozen=True)
class Verdict:
    """word: one of those above. reason: the numbers that led to it. cause: the setting that most likely leads there, by
    its name ("lr" and "views" beside those of the method), and why; advice: what to change. All three are empty
    where nothing is to be said. step: the last one that was looked at."""

    word: str
    reason: str = ""
    cause: str = ""
    why: str = ""
    advice: str = ""
    step: int = 0

    def __str__(self) -> str:
        parts = [f"{self.word}: {self.reason}" if self.reason else self.word]
        if self.why:
            parts.append(f"likely cause: {self.why}")
        if self.advice:
            parts.append(f"what to do: {self.advice}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(rows: Sequence[Row], setting: Setting) -> Verdict:
    """What the rows so far, in order, say. Three measurements in a row must agree before anything is called bad."""
    measured = [row for row in rows if row.get("rank") is not None]
    step = int(rows[-1]["step"] or 0) if rows else 0
    if len(measured) < _AGREEING:
        return Verdict(TOO_EARLY, f"{len(measured)} of {_AGREEING} measurements", step=step)
    until = next(number for number, row in enumerate(rows) if row.get("rank") is not None)
    usual_gradient = max(row["gradient_norm"] or 0.0 for row in rows[: until + 1])
    found = [_symptom(row, rows[0], usual_gradient, setting) for row in measured[-_AGREEING:]]
    last = measured[-1]
    if all(found) and found[-1] is not None:
        word, reason = found[-1]
        return Verdict(word, reason, *_cause(word, last, setting), step=step)
    waiting = sorted(row["waiting"] or 0.0 for row in rows[-2 * _AGREEING :])[_AGREEING]
    if waiting > STARVED_FROM:
        reason = f"{waiting:.0%} of the time goes into waiting for data"
        return Verdict(STARVED, reason, "data", "they come slower than the network takes them", setting.against_waiting)
    return Verdict(HEALTHY, _numbers(last, setting), step=step)


def not_finite(what: str, value: float, setting: Setting, step: int) -> Verdict:
    """The verdict on a run whose loss or gradient is not finite."""
    return Verdict(DIVERGING, f"the {what} is {value} at step {step}", *_cause(DIVERGING, {}, setting), step=step)


def suspects(setting: Setting) -> Iterator[Suspect]:
    """What in the settings is known to fail, the worst first: the method's own, then the learning rate."""
    yield from methods.get(setting.method).suspects(dict(setting.settings))
    ratio = setting.base_lr / setting.usual_lr
    if ratio >= _HIGH_RATE:
        why = f"the learning rate is {ratio:.3g} times what is usual for {setting.method}"
        yield Suspect("lr", why, f"give --optim.base-lr {setting.usual_lr:g}")


def _symptom(row: Row, first: Row, usual_gradient: float, setting: Setting) -> tuple[str, str] | None:
    """What one measurement shows, the worst first."""
    method = methods.get(setting.method)
    known = {name: value for name, value in row.items() if value is not None}
    if known.get("views_apart", 1.0) < EQUAL_VIEWS:
        apart = f"{known['views_apart']:.3f}"
        return STALLED, f"the two views of an image differ by {apart} of the images' std: nothing to learn"
    if known["gradient_norm"] > _EXPLODED * usual_gradient:
        return DIVERGING, f"the gradient's norm has risen from {usual_gradient:.3g} to {known['gradient_norm']:.3g}"
    change = known.get("weight_change", 0.0)
    if change > _HUGE_CHANGE or (change > _LARGE_CHANGE and known["rank_share"] < _LOW_RANK):
        rank = f"{known['rank']:.0f} ({known['rank_share']:.0%})"
        return DIVERGING, f"each step changes the weights by {change:.1%}, with features of an effective rank of {rank}"
    if known["std"] < method.least_std:
        return (
            COLLAPSED,
            f"the std of the projections is {known['std']:.2f}, below {method.least_std:g}; {_loss(row, first)}",
        )
    if known.get("uniformity", -4.0) > method.most_uniformity:
        reason = (
            f"the uniformity of the projections is {known['uniformity']:.2f}, above {method.most_uniformity:g}, where 0"
        )
        return COLLAPSED, f"{reason} is one point; {_loss(row, first)}"
    if own := method.symptom(dict(setting.settings), known, setting.batch_size):
        return own
    if known.get("projection_rank", _FEW) < _FEW:
        return (
            FEW_DIMENSIONS,
            f"the projections lie along {known['projection_rank']:.1f} directions; {_loss(row, first)}",
        )
    return None


def _loss(row: Row, first: Row) -> str:
    return f"the loss went from {first['loss']:.3f} to {row['loss']:.3f}"


def _cause(word: str, row: Row, setting: Setting) -> tuple[str, str, str]:
    """(name, why, advice) of what most likely led there; without a name where nothing is known to."""
    apart = row.get("views_apart")
    if apart is not None and apart < EQUAL_VIEWS:
        advice = "look at the views with `ownlatent preview`, and choose stronger --views"
        return "views", "both views of an image are the same pixels", advice
    for suspect in suspects(setting):
        return suspect.setting, suspect.why, suspect.remedy
    if word == DIVERGING:
        why = f"a learning rate of {setting.base_lr:g} (for 256 images) is too high for this batch, warm-up or network"
        return "lr", why, "lower --optim.base-lr to a third, or raise --optim.warmup"
    return "", "", f"lower --optim.base-lr, which is {setting.base_lr:g}, to a third, and look at `ownlatent preview`"


def _numbers(row: Row, setting: Setting) -> str:
    least = methods.get(setting.method).least_std
    parts = [f"std of the projections {row['std']:.2f} (collapsed below {least:g})"]
    parts.append(f"effective rank of the features {row['rank']:.0f} ({row['rank_share']:.0%})")
    return ", ".join(parts)
