"""One thing that was looked at, and what came of it."""

from dataclasses import dataclass

GOOD, LACKING, BROKEN = "ok", "lacking", "broken"


@dataclass(frozen=True)
class Finding:
    """part: what was looked at. state: "ok", "lacking" (could be better) or "broken". text: what was found."""

    part: str
    state: str
    text: str

    def __str__(self) -> str:
        mark = "" if self.state == GOOD else f"{self.state.upper()}: "
        return f"{self.part:<10} {mark}{self.text}"
