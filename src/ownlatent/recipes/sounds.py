"""Recipes for sounds: the papers', and one for the sounds that are made here."""

from typing import Any

from ownlatent.train.recipe import Recipe

MINUTES = 1.25

# BYOL for Audio, by its code's config.yaml. Its scores are of the linear probe after pre-training on FSD50K's
# development set (40,966 clips, 80 hours); they were not run here.
_BYOL_A: dict[str, Any] = {
    "modality": "audio",
    "method": "byol",
    "duration": 0.95,
    "epochs": 100,
    "batch_size": 256,
    "optim.name": "adamw",  # Adam, as there is no decay
    "optim.weight_decay": 0.0,
    "optim.warmup": 0.0,
    "optim.end_lr": 1.0,
    "method.hidden": 4096,
    "method.projection": 256,
    "method.tau": 0.99,
    "method.tau_schedule": "constant",
}
RECIPES: dict[str, dict[str, Any]] = {
    "byol_a": {
        "about": "version 1, of width 2048: NSynth 74.1, UrbanSound8K 79.1, VoxCeleb1 40.1, VoxForge 90.2, Speech "
        "Commands v2 92.2 (12 words 91.0) after FSD50K; not run here",
        **_BYOL_A,
        "backbone": "byol_a_2048",
        "views": "byol_a",
        "optim.lr": 3e-4,
    },
    "byol_a_v2": {
        "about": "version 2: the random linear fader, less mixing, a shallower and wider encoder; CREMA-D about 64 "
        "after FSD50K; not run here",
        **_BYOL_A,
        "backbone": "byol_a_v2",
        "views": "byol_a_v2",
        "optim.lr": 1e-4,
    },
}


def sounds(method: str, minutes: float = MINUTES) -> Recipe:
    """A method on sounds that are made here; the task is which kind of sound it is.

    Command: `ownlatent demo --modality audio`. Hardware: 2 CPU cores, 2 minutes in all. Expected scores: those in
    benchmarks/results/audio.json.
    """
    return Recipe(
        data="sounds:train",
        modality="audio",
        val="sounds:test",
        method=method,
        minutes=minutes,
        batch_size=64,
    )
