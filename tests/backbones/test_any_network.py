"""BYOL around every kind of network; see architectures.py for what is held to."""

from pathlib import Path

import pytest
from architectures import HUGGING_FACE, OWN, SEGMENTATION, TIMM, TORCHVISION, Case, examine


@pytest.mark.parametrize("case", [*TIMM, *TORCHVISION, *SEGMENTATION, *OWN], ids=lambda case: case.name)
def test_a_network_is_wrapped_and_trains(case: Case, tmp_path: Path) -> None:
    examine(case, tmp_path)


@pytest.mark.parametrize("case", HUGGING_FACE, ids=lambda case: case.name)
def test_a_network_of_hugging_face_is_wrapped_and_trains(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="networks of Hugging Face need transformers")
    examine(case, tmp_path)


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in (*TIMM, *TORCHVISION, *SEGMENTATION, *OWN, *HUGGING_FACE)}) >= 60
