"""Two real processes on this machine train what one trains; one that dies takes the other along, by name."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import CLOCK
from pair import STEPS, fields
from safetensors.torch import load_file

from ownlatent import OwnlatentError, Run, backbones, methods, pretrain
from ownlatent.pretraining import _going_on
from ownlatent.train import processes
from ownlatent.train.checkpoints import Checkpoints
from ownlatent.train.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
SHARES = {"found", "accuracy"}  # of the images: one or two of 24 may be on the other side of a tie
ROUNDING = 5e-5  # relative, in the five digits of a first row; training doubles it about every step
PATIENCE = 300.0


def environment() -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@pytest.fixture(scope="module")
def pair(class_folder: Path, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two processes, one folder for each method."""
    work = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = min(free.getsockname()[1], 65000)
    script = Path(__file__).with_name("pair.py")
    running = [
        subprocess.Popen(
            [sys.executable, *map(str, (script, rank, class_folder, image_folder, work, port))],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=PATIENCE)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)
    return work


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if value and key not in CLOCK}
            for row in csv.DictReader(file)
        ]


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].flatten().double() for name in sorted(weights)])


@pytest.mark.parametrize("name", methods.names())
def test_two_processes_train_what_one_does(
    name: str, pair: Path, class_folder: Path, image_folder: Path, tmp_path: Path
):
    """Losses, gradients and statistics of ten steps, and the weights after them, to float32 rounding."""
    alone = pretrain(**fields(name, class_folder, image_folder), out=tmp_path / name)
    ours, theirs = rows(alone.folder), rows(pair / name)
    assert len(ours) == len(theirs) == STEPS
    for number, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        assert one.keys() == two.keys()
        for share in SHARES & one.keys():
            assert abs(one.pop(share) - two.pop(share)) < 2 / 24
        assert two == pytest.approx(one, rel=ROUNDING * 2**number, abs=2e-4)
    one, two = (flat(load_file(folder / "encoder.safetensors")) for folder in (alone.folder, pair / name))
    torch.manual_seed(0)
    before = flat(backbones.create("resnet10_w16", channels=3, image_size=16, norm="group").net.state_dict())
    assert (two - one).norm() < 5e-3 * (one - before).norm()


def command(data: Path, out: Path, **more: Any) -> list[str]:
    given = fields("byol", data, data) | {"out": out, "loading": "resident", **more}
    data_name = given.pop("data")
    options = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), str(value))]
    return [sys.executable, "-m", "ownlatent", "pretrain", data_name, *options]


def test_the_command_starts_the_processes_itself_and_resumes_with_another_number(image_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    done = subprocess.run(
        command(image_folder, out, devices=2), env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained    10 steps") == 1 and "cpu, 2 processes" in done.stdout
    done = subprocess.run(
        [*command(image_folder, out)[:3], "pretrain", "--out", str(out), "--extend", "2ep", "--devices", "1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "processes  1 instead of 2" in done.stdout and "trained    20 steps" in done.stdout


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the other process is found in /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_takes_the_run_down_and_is_named(victim: int, image_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(image_folder, out, devices=2, epochs=100_000),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not Checkpoints(out, 2).found():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        (child,) = children(process.pid)
        os.kill(process.pid if victim == 0 else child, signal.SIGKILL)
        # Both have their ends of the pipe: it is closed when the last of them is gone.
        _, errors = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "of 2 has ended" in errors and "--resume" in errors and "Traceback" not in errors, errors
    if victim == 1:
        assert "process 1 of 2 has ended" in errors and process.returncode == 2


def test_sigterm_stops_all_processes_and_everything_is_saved(image_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(image_folder, out, devices=2, epochs=100_000),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not Checkpoints(out, 2).found():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "--resume" in said and "Traceback" not in errors


def test_a_batch_that_cannot_be_shared_is_refused(image_folder: Path, tmp_path: Path):
    given = fields("byol", image_folder, image_folder) | {"devices": 5, "accumulate": 1}
    with pytest.raises(OwnlatentError, match=r"12 images .* shared by 5 processes: give --batch-size 10"):
        pretrain(**given, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_starter_sets_is_understood(monkeypatch: pytest.MonkeyPatch):
    assert processes.started_with(Recipe()) == Recipe() and processes.number(Recipe()) == 0
    monkeypatch.setenv("SLURM_NTASKS", "8")  # a plain shell of a job: nothing was started
    assert processes.count(processes.started_with(Recipe())) == 1
    for name, value in {"SLURM_STEP_ID": "0", "SLURM_NNODES": "2", "SLURM_PROCID": "5"}.items():
        monkeypatch.setenv(name, value)
    found = processes.started_with(Recipe())
    assert (found.devices, found.nodes, processes.number(found)) == (4, 2, 5)
    with pytest.raises(OwnlatentError, match="SLURM started 8 processes, and --devices and --nodes ask for 3"):
        processes.started_with(Recipe(devices=3))


def test_another_starter_brings_another_number_when_a_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    Recipe(data="images", devices=8).save(tmp_path / "recipe.json")
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    before, now = _going_on(Run(tmp_path), {}, None)
    assert (before.devices, now.devices, processes.number(now)) == (8, 4, 3)


def test_several_machines_must_know_where_to_meet(image_folder: Path, tmp_path: Path):
    given = fields("byol", image_folder, image_folder) | {"nodes": 2}
    with pytest.raises(OwnlatentError, match="needs MASTER_ADDR, MASTER_PORT and NODE_RANK"):
        pretrain(**given, out=tmp_path / "run")
