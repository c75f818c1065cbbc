"""Image files in memory, and what is true of every error that a user sees."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ownlatent.errors import OwnlatentError


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """picture(level, mode="RGB", side=8, kind="PNG"): a file of one colour, told by its first value, the level."""

    def make(level: int, mode: str = "RGB", side: int = 8, kind: str = "PNG") -> bytes:
        out = io.BytesIO()
        colour = (level, level // 2, 255 - level) if mode == "RGB" else level
        Image.new(mode, (side, side), colour).save(out, kind)
        return out.getvalue()

    return make


@pytest.fixture(scope="session")
def refuses() -> Callable[..., str]:
    """refuses(call, words): the call raises OwnlatentError, in one sentence with these words in it."""

    def check(call: Callable[[], object], words: str) -> str:
        with pytest.raises(OwnlatentError) as caught:
            call()
        text = str(caught.value)
        assert caught.type is OwnlatentError and words in text
        assert "\n" not in text and ". " not in text and not text.removesuffix("...").endswith(".")
        return text

    return check


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OWNLATENT_CACHE", str(folder))
    return folder
