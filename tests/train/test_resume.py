"""Nothing is lost: runs that are killed, damaged, crowded or out of room, in real processes where it matters."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from ownlatent import OwnlatentError, Run, load_encoder, methods, pretrain
from ownlatent.train.callbacks.checkpoint import Checkpointing
from ownlatent.train.checkpoints import Checkpoints, Damaged, read

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {
    "backbone": "resnet10_w16",
    "image_size": 16,
    "batch_size": 16,
    "precision": "32",
    "accelerator": "cpu",
    "compile": "off",
    "method.hidden": 16,
    "method.projection": 8,
}
KILLS = 20


def weights(folder: Path) -> bytes:
    return (folder / "encoder.safetensors").read_bytes()


def checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    return [path for path, _ in Checkpoints(folder, 2).found()]


@pytest.fixture
def stopped(image_folder: Path, tmp_path: Path, stop_at: Callable[[int], Any]) -> Path:
    """A run of 18 steps that was asked to stop early, with two checkpoints."""
    with stop_at(10):
        pretrain(image_folder, out=tmp_path / "run", epochs=6, checkpoint_seconds=1e-3, **TINY)
    assert len(checkpoints(tmp_path / "run")) == 2
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(one_thread: None, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, left alone."""
    return pretrain(image_folder, out=tmp_path_factory.mktemp("whole") / "run", epochs=6, **TINY).folder


def test_runs_killed_at_random_moments_end_as_if_they_had_not_been(
    image_folder: Path, class_folder: Path, tmp_path: Path
):
    """Weights, optimiser, target, queue, statistics, metrics; by every method, with accumulation and workers."""
    script = Path(__file__).with_name("killing.py")
    command = [sys.executable, script, class_folder, image_folder, tmp_path, KILLS, len(methods.names())]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 20 and found["differing"] == [], done.stderr


@pytest.mark.parametrize("damage", ["torn", "changed", "empty"])
def test_a_damaged_checkpoint_is_known_and_the_one_before_it_used(
    damage: str, stopped: Path, whole: Path, caplog: pytest.LogCaptureFixture
):
    newest, before = checkpoints(stopped)
    content = bytearray(newest.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 1
    newest.write_bytes(content[: {"torn": len(content) // 2, "changed": None, "empty": 0}[damage]])
    pretrain(out=stopped, resume=True)
    said = next(record.message for record in caplog.records if "damaged" in record.message)
    assert newest.name in said and f"step {int(before.name[5:13])}" in said
    assert newest.with_suffix(".damaged").exists()
    assert weights(stopped) == weights(whole)


def test_without_a_whole_checkpoint_nothing_is_touched(stopped: Path):
    for path in checkpoints(stopped):
        path.write_bytes(b"torn")
    before = sorted(path.name for path in (stopped / "checkpoints").iterdir())
    with pytest.raises(OwnlatentError, match=r"is damaged: .*, and there is no other: give --overwrite"):
        pretrain(out=stopped, resume=True)
    assert sorted(path.name for path in (stopped / "checkpoints").iterdir()) == before


def test_a_file_that_would_run_code_is_not_opened(stopped: Path, tmp_path: Path):
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.system, (f"touch {tmp_path / 'executed'}",))

    for path in checkpoints(stopped):
        path.unlink()
    store = Checkpoints(stopped, 2)
    for content in (Malicious(), {"global_step": 3, "ownlatent": Malicious()}):
        store.save_checkpoint(content, store.at(3))  # type: ignore[arg-type]
    bare = pickle.dumps(Malicious())
    import hashlib

    (store.folder / f"step-00000009-{hashlib.sha256(bare).hexdigest()[:16]}.ckpt").write_bytes(bare)
    for path in checkpoints(stopped):
        with pytest.raises(Damaged, match="not opened"):
            read(path)
    with pytest.raises(OwnlatentError, match="not opened"):
        pretrain(out=stopped, resume=True)
    assert not (tmp_path / "executed").exists()


def test_only_so_many_checkpoints_stay(tmp_path: Path):
    store = Checkpoints(tmp_path, 3)
    for step in range(1, 1001):
        store.save_checkpoint({"step": step}, store.at(step))
    assert [step for _, step in store.found()] == [1000, 999, 998]
    assert len(list(store.folder.iterdir())) == 3


def test_another_version_is_named(stopped: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ownlatent.train.checkpoints.FORMAT", 2)
    with pytest.raises(OwnlatentError, match=r"has format 1, and this version of ownlatent reads 2: .*env\.json"):
        pretrain(out=stopped, resume=True)
    monkeypatch.undo()
    recipe = json.loads((stopped / "recipe.json").read_text())
    assert recipe["format"] == 1
    (stopped / "recipe.json").write_text(json.dumps({**recipe, "format": 2}))
    with pytest.raises(OwnlatentError, match=r"recipe\.json has format 2"):
        pretrain(out=stopped, resume=True)


# --- resume, extend, init-from --------------------------------------------------------------------


def test_what_would_change_a_run_is_shown_beside_what_it_has(stopped: Path):
    before = (stopped / "recipe.json").read_bytes()
    with pytest.raises(
        OwnlatentError, match=r"--epochs 9 \(the run has 6\.0\), --method\.hidden 32 \(the run has 16\)"
    ):
        pretrain(out=stopped, resume=True, epochs=9, **{"method.hidden": 32})
    with pytest.raises(OwnlatentError, match=r"--init-from x \(the run has none\)"):
        pretrain(out=stopped, resume=True, init_from="x")
    assert (stopped / "recipe.json").read_bytes() == before


def test_a_finished_run_is_extended_and_says_how_its_schedule_changes(image_folder: Path, tmp_path: Path):
    run = pretrain(image_folder, out=tmp_path / "run", epochs=4, **TINY)
    with pytest.raises(OwnlatentError, match=r"finished: .*--extend"):
        pretrain(out=run.folder, resume=True)
    longer = pretrain(out=run.folder, extend="2ep")
    assert longer.recipe.epochs == 6 and longer.results["finished"]
    assert longer.results["training"]["steps"] == 18 and longer.metrics[-1]["progress"] == 1
    assert longer.results["extensions"] == [{"after_step": 12, "unit": "epochs", "from": 4.0, "to": 6.0}]
    rates = {int(row["step"] or 0): row["lr"] or 0 for row in longer.metrics}
    assert rates[13] > 5 * rates[12]
    said = (run.folder / "log.txt").read_text()
    assert re.search(r"at 67 % of it, the learning rate goes from \S+ to \S+", said)


@contextmanager
def struck(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it a run ends at its first step as if it had been killed: nothing more is written."""

    class Struck(BaseException):
        pass

    def strike(*_: Any) -> None:
        raise Struck

    with monkeypatch.context() as patched:
        patched.setattr(Checkpointing, "on_train_batch_end", strike)
        with pytest.raises(Struck):
            yield


def test_an_extended_run_that_is_killed_goes_on_as_extended(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = pretrain(image_folder, out=tmp_path / "run", epochs=4, **TINY)
    with struck(monkeypatch):
        pretrain(out=run.folder, extend="2ep")
    again = pretrain(out=run.folder, resume=True)
    assert again.results["finished"] and again.results["training"]["steps"] == 18
    assert [each["to"] for each in again.results["extensions"]] == [6.0]


def test_a_run_that_is_killed_before_its_first_checkpoint_begins_as_it_began(
    whole: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with struck(monkeypatch):
        pretrain(image_folder, out=tmp_path / "run", epochs=1, init_from=str(whole), **{**TINY, "optim.lr": 1e-12})
    run = pretrain(out=tmp_path / "run", resume=True)
    old = dict(load_encoder(whole).backbone.net.named_parameters())
    for name, value in run.encoder.backbone.net.named_parameters():
        torch.testing.assert_close(value, old[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("2", "takes epochs as in 100ep or minutes as in 30min"),
        ("0ep", "takes epochs"),
        ("5min", "planned in epochs: give --extend in epochs too, as in 5ep"),
    ],
)
def test_an_extension_that_makes_no_sense_is_refused(by: str, message: str, stopped: Path):
    with pytest.raises(OwnlatentError, match=message):
        pretrain(out=stopped, extend=by)


def test_a_new_run_begins_with_old_weights(whole: Path, image_folder: Path, tmp_path: Path):
    """Those of a run or a file, in backbone and target; the baseline stays the random network."""
    fields = {**TINY, "epochs": 1, "optim.lr": 1e-12, "method": "byol"}
    run = pretrain(image_folder, out=tmp_path / "run", init_from=str(whole), **fields)
    old = dict(load_encoder(whole).backbone.net.named_parameters())
    for name, value in run.encoder.backbone.net.named_parameters():
        torch.testing.assert_close(value, old[name], atol=1e-6, rtol=0)
    state = read(checkpoints(run.folder)[0])["state_dict"]
    first = next(iter(old))
    copies = [value for name, value in state.items() if name.endswith(f".net.{first}")]
    assert len(copies) == 2  # backbone and target
    assert all(torch.allclose(copy, old[first], atol=1e-6) for copy in copies)
    said = (run.folder / "log.txt").read_text()
    assert re.search(r"weights    of .*: (\d+) of the network's \1 tensors\n", said)


def test_weights_that_fit_nothing_are_refused(image_folder: Path, tmp_path: Path):
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(OwnlatentError, match=r"no tensor of .* fits this network"):
        pretrain(image_folder, out=tmp_path / "run", epochs=1, init_from=str(tmp_path / "other.pt"), **TINY)
    with pytest.raises(OwnlatentError, match="there is no file"):
        pretrain(image_folder, out=tmp_path / "run", epochs=1, init_from=str(tmp_path / "none.pt"), **TINY)
    assert not (tmp_path / "run").exists()


# --- real processes -------------------------------------------------------------------------------


def command(image_folder: Path, out: Path, **fields: Any) -> list[str]:
    given = {"out": out, **TINY, **fields}
    options = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]
    return [sys.executable, "-m", "ownlatent", "pretrain", str(image_folder), *options]


def started(image_folder: Path, out: Path, **fields: Any) -> subprocess.Popen:
    """A run whose training has begun."""
    process = subprocess.Popen(
        command(image_folder, out, **fields), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not checkpoints(out):
        assert process.poll() is None, process.communicate()
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
    return process


def test_sigterm_saves_and_ends_with_the_code_to_try_again(image_folder: Path, tmp_path: Path):
    process = started(image_folder, tmp_path / "run", epochs=10_000, checkpoint_seconds=0.01)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 75 and "--resume" in said and "Traceback" not in errors
    assert Run(tmp_path / "run").results["stopped_by"] == "SIGTERM"
    assert load_encoder(tmp_path / "run").num_features == 128


def test_a_folder_that_vanishes_and_a_second_process(image_folder: Path, tmp_path: Path):
    """While one process trains, others are refused; when its folder is taken away, it says so."""
    run = tmp_path / "run"
    process = started(image_folder, run, epochs=10_000, checkpoint_seconds=0.01)
    for other in (["--overwrite"], ["--resume"]):
        done = subprocess.run([*command(image_folder, run, epochs=10_000), *other], capture_output=True, text=True)
        assert done.returncode == 2 and "another process is writing to" in done.stderr and process.poll() is None
    run.rename(tmp_path / "elsewhere")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and errors.count("\n") == 1 and "has vanished while it was written" in errors
    assert not run.exists() and read(checkpoints(tmp_path / "elsewhere")[0])["global_step"] > 0


def test_a_run_that_is_written_by_another_process_is_left_alone(stopped: Path, class_folder: Path):
    from ownlatent import evaluate

    with FileLock(stopped / ".lock"):
        for act in (
            lambda: pretrain(out=stopped, resume=True),
            lambda: evaluate(stopped, test=str(class_folder)),
            lambda: pretrain(class_folder, out=stopped, overwrite=True, epochs=1, **TINY),
        ):
            with pytest.raises(OwnlatentError, match="another process is writing to"):
                act()


def apart(script: str, timeout: float = 120) -> subprocess.CompletedProcess:
    """Run a shell script in a mount namespace of its own, or skip where the system does not allow one."""
    enter = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("this system does not allow a mount namespace of one's own")
    return subprocess.run([*enter, "sh", "-c", script], capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_disk_that_takes_nothing_any_more(fault: str, image_folder: Path, whole: Path, tmp_path: Path):
    """One sentence, the last checkpoint stays whole, and with room again the run ends as if nothing had been."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    run = command(image_folder, disk / "run", epochs=6, checkpoint_seconds=0.001)
    words = " ".join(map(str, run))
    lines = [f"mount -t tmpfs -o size=16m tmpfs {disk}"]
    # The disk fills, or takes no more, once there are checkpoints.
    wait = f"while ! ls {disk}/run/checkpoints/*.ckpt >/dev/null 2>&1; do sleep 0.01; done"
    fill = f"dd if=/dev/zero of={disk}/filler bs=64k 2>/dev/null"
    # Busy for as long as a file is open for writing, which mostly one is.
    lock = f"mount --bind {disk} {disk}; until mount -o remount,bind,ro {disk} 2>/dev/null; do sleep 0.001; done"
    lines += [f"({wait}; {fill if fault == 'full' else lock}) &", f"OMP_NUM_THREADS=1 {words} > /dev/null", "code=$?"]
    lines += [f"wait; cp -r {disk}/run {kept}", "exit $code"]
    done = apart("\n".join(lines))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    expected = "No space left on device" if fault == "full" else "Read-only file system"
    assert expected in done.stderr and "--resume` goes on from the last checkpoint" in done.stderr
    assert read(checkpoints(kept)[0])["global_step"] > 0
    pretrain(out=kept, resume=True)
    assert weights(kept) == weights(whole)


def test_nothing_is_asked_of_a_network(image_folder: Path, tmp_path: Path):
    """A run in which every connection would end the process; a pair of sockets within it is none."""
    guard = "import socket, os; socket.socket.connect = lambda self, address: os._exit(99)"
    run = "from ownlatent.cli import main; main()"
    arguments = command(image_folder, tmp_path / "run", epochs=1)[3:]
    done = subprocess.run([sys.executable, "-c", f"{guard}; {run}", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
