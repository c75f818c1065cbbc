"""Names that stand for several files: ranges and choices in braces, wildcards, and commas between sources."""

import glob
import os
import re
from pathlib import Path

from ownlatent.errors import OwnlatentError

_MOST = 1_000_000  # files
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def split(text: str) -> list[str]:
    """The parts between commas, but not those within braces.

    >>> split("a/{1,2}.tar, b/")
    ['a/{1,2}.tar', 'b/']
    """
    return [part.strip() for part in re.findall(r"(?:\{[^{}]*\}|[^,])+", text) if part.strip()]


def expand(pattern: str) -> list[Path] | None:
    """The files that a pattern names, in its order, each once; None if it is a plain path.

    A path that exists is plain, whatever is in it. Wildcards are the shell's, ** for any depth, and
    what they match is sorted. Raises OwnlatentError if a file that braces name is missing, or if
    nothing matches.
    """
    if os.path.exists(pattern):
        return None
    named = braces(pattern)
    wild = [glob.has_magic(name) for name in named]
    if named == [pattern] and not wild[0]:
        return None
    found: list[str] = []
    missing = []
    for name, is_wild in zip(named, wild, strict=True):
        matches = sorted(glob.glob(name, recursive=True)) if is_wild else [name] * os.path.exists(name)
        found += matches
        if not matches:
            missing.append(name)
    if missing and len(named) > 1:
        raise OwnlatentError(
            f"{len(missing)} of the {len(named)} files that {pattern} names are missing, the first is {missing[0]}: "
            "add them or change the range"
        )
    if missing:
        raise OwnlatentError(
            f"nothing matches {pattern}: check the path, and quote it so that the shell leaves it alone"
        )
    return [Path(name) for name in dict.fromkeys(found)]


def braces(pattern: str) -> list[str]:
    """Every name that braces stand for, as in a shell; digits keep their width. Raises OwnlatentError for too many.

    >>> braces("{train,val}-{08..10}.tar")[:4]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-08.tar']
    """
    for match in _BRACES.finditer(pattern):
        choices = _choices(match[1], pattern)
        if choices:
            rest = braces(pattern[match.end() :])
            if len(choices) * len(rest) > _MOST:
                raise _too_many(pattern)
            return [pattern[: match.start()] + choice + end for choice in choices for end in rest]
    return [pattern]


def _choices(text: str, pattern: str) -> list[str]:
    """What one pair of braces stands for: a range, or choices with commas between; nothing if it is neither."""
    parts = text.split(",")
    found = []
    for part in parts:
        match = _RANGE.fullmatch(part)
        if not match:
            found.append(part)
            continue
        width = max(map(len, match.groups())) if any(end.startswith("0") for end in match.groups()) else 0
        first, last = map(int, match.groups())
        if abs(last - first) >= _MOST:
            raise _too_many(pattern)
        step = 1 if last >= first else -1
        found += [f"{number:0{width}}" for number in range(first, last + step, step)]
    return [] if found == [text] else found


def _too_many(pattern: str) -> OwnlatentError:
    return OwnlatentError(f"{pattern} stands for more than {_MOST} files: give a smaller range")
