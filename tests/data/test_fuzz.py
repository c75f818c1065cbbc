"""Damaged files by the thousand, in a process of their own with limited memory: decoded or Unreadable, in silence."""

from pathlib import Path

import fuzz
import numpy as np
import pytest

COUNT = 1_500


def test_damaged_files_are_decoded_or_unreadable() -> None:
    tried, failures = fuzz.run(COUNT, seed=0)
    assert not failures, "\n".join(failures[:10])
    assert tried == COUNT


def test_sound_files_are_decoded() -> None:
    """Else damaging them would test nothing."""
    from ownlatent.data.decode import decode, inspect, size_of

    for data in fuzz.files().values():
        assert decode(data, inspect(data)).shape[1:] == size_of(data)
        assert not list(fuzz.problems_with(data))


def test_files_are_the_same_every_time_and_most_of_them_damaged() -> None:
    made = [fuzz.damaged(number, seed=1) for number in range(200)]
    assert made == [fuzz.damaged(number, seed=1) for number in range(200)]
    assert made != [fuzz.damaged(number, seed=2) for number in range(200)]
    sound = set(fuzz.files().values())
    assert np.mean([data in sound for _, data in made]) < 0.1


def test_what_goes_wrong_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Something printed, a wrong exception and a crash are each told, with the file that was at fault."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tried, (printed, crashed, raised) = fuzz.run(10, seed=0)
    assert tried == 4
    assert "printed: a word" in printed
    assert "ended with -11" in crashed and "last: file 3: " in crashed
    assert "decode raised KeyError" in raised and raised.startswith("1: ")


BROKEN = """
import os, sys
import ownlatent.data.decode as module

calls = []

def decode(data, format, shrink=1):
    calls.append(shrink)
    if len(calls) == 1:
        print("a word", file=sys.stderr, flush=True)
    if len(calls) == 3:
        raise KeyError("x")
    if len(calls) == 7:
        os.kill(os.getpid(), 11)
    raise module.Unreadable("damaged")

module.decode = decode
"""
