"""The wheel is complete: it installs beside the dependencies alone and runs the main job there."""

import csv
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import ownlatent

ROOT = Path(__file__).parents[1]
RUN_FILES = (
    "recipe.json",
    "metrics.csv",
    "results.json",
    "env.json",
    "views.png",
    "curves.png",
    "encoder.safetensors",
    "encoder.json",
    "log.txt",
)


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that must succeed, with no Python settings from outside."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a new environment that holds the wheel, and sees this one's packages only after its own."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    scripts = folder / "venv" / "bin"
    run(scripts / "python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    own = Path(
        run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", cwd=folder).strip()
    )
    # A .pth file appends to the path and reads no .pth files further on, so an editable install is not seen.
    dependencies = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    dependencies |= {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    (own / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return scripts


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    source = ROOT / "src"
    files = [p for p in (source / "ownlatent").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {path.relative_to(source).as_posix() for path in files} == {n for n in names if ".dist-info/" not in n}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    for line in ("Name: ownlatent", f"Version: {ownlatent.__version__}", "License-Expression: Apache-2.0"):
        assert line in metadata.splitlines()


def test_the_demo_runs_from_the_wheel(fresh: Path, tmp_path: Path) -> None:
    where = "import ownlatent; print(ownlatent.__file__)"
    assert Path(run(fresh / "python", "-c", where, cwd=tmp_path).strip()).is_relative_to(fresh.parent)

    said = run(fresh / "ownlatent", "demo", "--minutes", "0.05", "--out", "demo", cwd=tmp_path)
    folder = tmp_path / "demo"
    missing = [name for name in RUN_FILES if not (folder / name).is_file() or not (folder / name).stat().st_size]
    assert not missing
    assert [path.name for path in tmp_path.iterdir()] == ["demo"], "nothing is written beside the run folder"

    results = json.loads((folder / "results.json").read_text())
    assert results["finished"] is True
    assert {entry["subject"] for entry in results["evaluations"]} == {"trained", "random", "pixels"}
    for entry in results["evaluations"]:
        assert entry["protocol"] == "knn" and entry["settings"]["k"] == 20
        assert (entry["num_train"], entry["num_test"]) == (4200, 1400)
        assert 1 / 14 < entry["top1"] < 1 and f"{entry['top1']:.1%}" in said

    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {"step", "epoch", "loss", "lr", "tau", "std", "images_per_second", "waiting"}
    assert rows and columns <= set(rows[0])
    assert int(rows[-1]["step"]) == results["training"]["steps"]
    environment = json.loads((folder / "env.json").read_text())
    assert environment["versions"]["ownlatent"] == ownlatent.__version__
    assert environment["command"] == "ownlatent demo --minutes 0.05 --out demo"

    rebuilt = "import ownlatent, torch; print(*ownlatent.load_encoder('demo')(torch.zeros(2, 1, 32, 32)).shape)"
    assert run(fresh / "python", "-c", rebuilt, cwd=tmp_path).split()[0] == "2"
