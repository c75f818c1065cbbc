"""What there is to choose from, and what this installation can do."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ownlatent.checks.finding import Finding


def doctor() -> "Iterator[Finding]":
    """What this installation can do and what is missing, one Finding after the other."""
    from ownlatent.checks.doctor import examine

    return examine()


def catalogue(what: str, width: int = 100) -> list[str]:
    """Lines about the methods, their recipes or the tables of views: what `ownlatent list` prints."""
    from ownlatent.report.catalogue import catalogue as lines

    return lines(what, width)
