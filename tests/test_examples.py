"""Every example runs, shortened, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SHORTENED = {"plain_pytorch.py": ["--steps", "12"]}
# Runs the example as a script and then says whether the engine was loaded.
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("lightning", any(name.partition(".")[0] in ("lightning", "pytorch_lightning") for name in sys.modules))
"""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", RUN, str(path)]
    command += SHORTENED.get(path.name, ["--steps", "3"])
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if path.name == "plain_pytorch.py":
        losses = [float(loss) for loss in re.findall(r"loss (\S+)", done.stdout)]
        assert len(losses) == 3 and all(0 <= loss <= 8 for loss in losses) and losses[-1] < losses[0]
        assert "lightning False" in done.stdout.splitlines()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= (40 if path.name == "plain_pytorch.py" else 60)


def test_the_loop_in_plain_pytorch_is_there() -> None:
    assert "plain_pytorch.py" in [path.name for path in EXAMPLES]
