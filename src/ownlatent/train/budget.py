"""How long a run is, and where in it a step stands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Either a number of optimiser steps or seconds of training; the other is None.

    By steps, progress is a pure function of the step. By seconds, the schedule follows the clock,
    so that the run ends on time with its schedule complete on any machine; two such runs agree
    only as far as their machines do.
    """

    steps: int | None = None
    seconds: float | None = None

    def part(self, share: float) -> "Budget":
        """A share of it, at least one step.

        >>> Budget(steps=100).part(0.25)
        Budget(steps=25, seconds=None)
        """
        if self.steps is not None:
            return Budget(steps=max(1, round(share * self.steps)))
        assert self.seconds is not None
        return Budget(seconds=share * self.seconds)

    def progress(self, step: int, elapsed: float) -> float:
        """Share of the run done before optimiser step `step`, after `elapsed` seconds: in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.seconds is not None
        return min(1.0, elapsed / self.seconds)
