"""Runs that go wrong: they say so, stop where that helps, and keep what shows why."""

import json
import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ownlatent import OwnlatentError, load_encoder, pretrain, replay
from ownlatent.cli import main
from ownlatent.methods.byol import BYOL
from ownlatent.train.callbacks.statistics import NAMES
from ownlatent.train.checkpoints import Checkpoints
from ownlatent.types import Output, Views

TINY = {
    "backbone": "resnet10_w16",
    "image_size": 16,
    "batch_size": 16,
    "precision": "32",
    "accelerator": "cpu",
    "method.hidden": 32,
    "method.projection": 16,
}
# The gradient flows into the target: all projections become one within a few steps.
COLLAPSING = {"method.tau": 0, "method.stop_gradient": "false"}
EXPLODING = {"optim.name": "adamw", "optim.lr": 1e30}


def options(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


ByCommand = Callable[..., CompletedProcess[str]]


@pytest.fixture
def by_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> ByCommand:
    """The command line in this process: what it says and its exit code."""

    def run(*arguments: str) -> CompletedProcess[str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(logging.getLogger(), "handlers", [])  # of pytest; with them it would print nothing
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        code = ended.value.code or 0
        assert isinstance(code, int)
        return CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def test_a_collapsing_run_stops_says_why_and_can_be_gone_on_with(
    by_command: ByCommand, image_folder: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    done = by_command(
        "pretrain", str(image_folder), "--out", str(folder), "--epochs", "200", *options(TINY | COLLAPSING)
    )
    assert done.returncode == 3, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert "health     collapsed: the std of the projections is" in said
    assert "likely cause: the gradient flows into the target" in said
    assert "what to do: leave out --method.stop-gradient" in said
    assert "--resume --on-unhealthy warn" in said
    results = json.loads((folder / "results.json").read_text())
    assert not results["finished"] and results["health"]["stopped"]
    assert (results["health"]["word"], results["health"]["cause"]) == ("collapsed", "stop_gradient")
    assert results["health"]["said"][-1]["word"] == "collapsed"
    steps = results["training"]["steps"]
    assert 0.1 * 600 <= steps <= 0.2 * 600  # of 3 steps an epoch: after the grace period, within the first fifth
    assert load_encoder(folder)(torch.zeros(2, 3, 16, 16)).isfinite().all()

    run = pretrain(out=folder, resume=True, on_unhealthy="warn")
    assert run.results["finished"] and run.results["training"]["steps"] == 600
    assert run.results["health"]["word"] == "collapsed" and not run.results["health"]["stopped"]


def test_a_warning_is_no_failure(by_command: ByCommand, image_folder: Path, tmp_path: Path):
    settings = options(TINY | COLLAPSING)
    run = ("pretrain", str(image_folder), "--epochs", "40", "--on-unhealthy")
    assert by_command(*run, "warn", "--out", str(tmp_path / "warned"), *settings).returncode == 0
    done = by_command(*run, "stop", "--out", str(tmp_path / "stopped"), *settings)
    assert done.returncode == 3


def test_settings_that_are_known_to_fail_are_named_before_the_run(image_folder: Path, tmp_path: Path):
    folder = tmp_path / "run"
    pretrain(image_folder, out=folder, epochs=1, **TINY, **{"method.tau": 0})
    said = (folder / "log.txt").read_text()
    assert "LACKING: the target follows at once (tau 0)" in said
    assert said.index("LACKING") < said.index("trained")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_not_finite_stops_before_the_weights_are_touched(
    by_command: ByCommand, image_folder: Path, tmp_path: Path, accumulate: int
):
    folder = tmp_path / "run"
    settings = {**TINY, **EXPLODING, "accumulate": accumulate, "checkpoint_seconds": 1e-6}
    done = by_command("pretrain", str(image_folder), "--out", str(folder), "--epochs", "50", *options(settings))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "health     diverging: the" in done.stdout and "give --optim.base-lr" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    results = json.loads((folder / "results.json").read_text())
    assert results["health"]["word"] == "diverging" and results["health"]["cause"] == "lr"

    failed = json.loads((folder / "failed-step" / "step.json").read_text())
    assert failed["step"] == results["training"]["steps"] + 1
    assert [len(batch["images"]) for batch in failed["batches"]] == [16 // accumulate] * accumulate
    kept = torch.load(folder / "failed-step" / "method.pt", weights_only=True)
    newest = Checkpoints(folder, 2).newest()
    assert newest is not None
    last = newest[1]
    assert last["global_step"] == results["training"]["steps"]
    for name, value in kept.items():  # what the optimiser would have touched is what the last checkpoint holds
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, last["state_dict"][f"method.{name}"]), name
    views = load_file(folder / "failed-step" / "views.safetensors")
    assert len(views) == 2 * accumulate and all(view.isfinite().all() for view in views.values())

    again = by_command("replay", str(folder))
    assert again.returncode == 0, again.stderr
    assert f"step       {failed['step']}, 16 images" in again.stdout
    assert "first not finite: the output of" in again.stdout or "the gradient of" in again.stdout


class Poisoned(BYOL):
    """BYOL with a memory of the number of passes, of which the sixth has a loss that is not a number."""

    @wraps(BYOL.__init__)
    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.passes: torch.Tensor
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, views: Views) -> Output:
        output = super().forward(views)
        self.passes += 1
        return Output(output.loss / (0 * output.loss if self.passes == 6 else 1), output.embeddings, output.terms)


def test_a_replay_repeats_the_very_step(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the method remembered is put back as it was before the step; in another state the loss would be finite."""
    monkeypatch.setattr("ownlatent.methods.get", lambda name: Poisoned)
    folder = tmp_path / "run"
    run = pretrain(image_folder, out=folder, epochs=10, **TINY)
    assert run.results["health"]["reason"] == "the loss is inf at step 6"
    lines = replay(folder)
    assert "loss inf" in lines[-1]
    assert not any("the views" in line for line in lines)
    with pytest.raises(OwnlatentError, match="encoder"):  # no checkpoint yet, so there is none
        load_encoder(folder)


def test_only_a_run_that_failed_can_be_replayed(by_command: ByCommand, image_folder: Path, tmp_path: Path):
    pretrain(image_folder, out=tmp_path / "run", epochs=1, **TINY)
    done = by_command("replay", str(tmp_path / "run"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no step to repeat" in done.stderr and len(done.stderr.splitlines()) == 1
    (tmp_path / "run" / "failed-step").mkdir()
    (tmp_path / "run" / "failed-step" / "step.json").write_text("{}")
    done = by_command("replay", str(tmp_path / "run"))
    assert done.returncode == 2 and "cannot be read" in done.stderr and len(done.stderr.splitlines()) == 1


def test_statistics_are_columns_measured_now_and_then(image_folder: Path, tmp_path: Path):
    run = pretrain(image_folder, out=tmp_path / "run", epochs=30, **TINY)
    measured = [row for row in run.metrics if row["rank"] is not None]
    assert [row["step"] for row in measured] == [27, 54, 81, 90]  # 25 steps apart or more, in rows of 9
    for row in measured:
        assert all(row[name] is not None for name in NAMES)
        assert 1 <= row["rank"] <= 128 and 0 < row["rank_share"] <= 1 and 0 <= row["correlation"] <= 1  # type: ignore[operator]
        assert -4 <= row["uniformity"] <= 0 and 0 <= row["alignment"] <= 4  # type: ignore[operator]
    assert all(row["gradient_norm"] > 0 and row["weight_norm"] > 0 for row in run.metrics)  # type: ignore[operator]
    assert run.results["health"]["word"] in ("healthy", "stalled")
