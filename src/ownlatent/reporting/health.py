"""A verdict as lines for people, from what results.json holds of it."""

from collections.abc import Mapping
from typing import Any


def in_words(health: Mapping[str, Any]) -> list[str]:
    """The word with its numbers, then the likely cause and what to do, where there is something to say."""
    lines = [f"health     {health['word']}" + (f": {health['reason']}" if health["reason"] else "")]
    if health["why"]:
        lines.append(f"           likely cause: {health['why']}")
    if health["advice"]:
        lines.append(f"           what to do: {health['advice']}")
    return lines
