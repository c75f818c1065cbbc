"""What a name with braces, wildcards or commas stands for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ownlatent.data.patterns import braces, expand, split

Refuses = Callable[..., str]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("plain.tar", ["plain.tar"]),
        ("{0..2}.tar", ["0.tar", "1.tar", "2.tar"]),
        ("{008..010}", ["008", "009", "010"]),
        ("{8..010}", ["008", "009", "010"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{7..7}", ["7"]),
        ("{a,b}-{0..1}.x", ["a-0.x", "a-1.x", "b-0.x", "b-1.x"]),
        ("{00..01,05}", ["00", "01", "05"]),
        ("{a,}b", ["ab", "b"]),
        ("{a}{b,c}", ["{a}b", "{a}c"]),
        ("{}", ["{}"]),
        ("{a..c}", ["{a..c}"]),
        ("{0..1", ["{0..1"]),
    ],
)
def test_braces_are_the_shells(pattern: str, names: list[str]) -> None:
    assert braces(pattern) == names


@pytest.mark.parametrize("pattern", ["{0..1000000}", "{1..2000}/{1..2000}", "{000000000000000001..999999999999999999}"])
def test_too_many_files_are_refused_at_once(pattern: str, refuses: Refuses) -> None:
    refuses(lambda: braces(pattern), "stands for more than 1000000 files")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a, b,", ["a", "b"]),
        ("{0,1}.tar,b/", ["{0,1}.tar", "b/"]),
        ("x{0..3}y,z{a,b},w", ["x{0..3}y", "z{a,b}", "w"]),
        (",", []),
    ],
)
def test_commas_in_braces_do_not_split(text: str, parts: list[str]) -> None:
    assert split(text) == parts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("00.tar", "01.tar", "02.tar", "a/10.tar", "a/b/20.tar", "x{1,2}", "[odd].tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("0?.tar", ["00.tar", "01.tar", "02.tar"]),
        ("{02,00}.tar", ["02.tar", "00.tar"]),
        ("{00,0*}.tar", ["00.tar", "01.tar", "02.tar"]),
        ("**/[12]0.tar", ["a/10.tar", "a/b/20.tar"]),
    ],
)
def test_every_file_is_named_once(folder: Path, pattern: str, names: list[str]) -> None:
    assert expand(pattern) == [Path(name) for name in names]


@pytest.mark.parametrize("name", ["00.tar", "x{1,2}", "[odd].tar", "a", "missing", "missing.tar", "{odd}"])
def test_a_path_that_exists_or_has_no_pattern_is_plain(folder: Path, name: str) -> None:
    assert expand(name) is None


def test_what_is_missing_is_a_sentence(folder: Path, refuses: Refuses) -> None:
    refuses(lambda: expand("{00..04}.tar"), "2 of the 5 files that {00..04}.tar names are missing, the first is 03.tar")
    refuses(lambda: expand("b/*.tar"), "nothing matches b/*.tar")
    refuses(lambda: expand("{0,b/}*.tar"), "1 of the 2 files")
