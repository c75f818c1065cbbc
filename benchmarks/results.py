"""What every benchmark shares: its data, runs by the command line, where it ran, and the file it writes."""

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from ownlatent.cli import main
from ownlatent.train.environment import environment

DATA = Path(os.environ.get("OWNLATENT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def arguments(description: str) -> argparse.ArgumentParser:
    """The two options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the results here")
    parser.add_argument("--quick", action="store_true", help="a few seconds of everything, to see that it works")
    return parser


def write(path: Path | None, name: str, rows: list[dict[str, Any]], figures: dict[str, float]) -> None:
    """Print the figures and write {"name", "machine", "command", "rows", "figures"}."""
    here = environment()
    machine = {key: here[key] for key in ("processor", "cores", "memory_gib", "gpus", "system", "versions", "commit")}
    # Where something lies on this machine is nobody's business.
    command = " ".join(["python", *(Path(a).name if Path(a).is_absolute() else a for a in sys.argv)])
    for key, value in figures.items():
        print(f"{key:<24} {value:.4g}")
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"name": name, "machine": machine, "command": command, "rows": rows, "figures": figures}
        path.write_text(json.dumps(content, indent=2) + "\n")


def ownlatent(*arguments: Any) -> dict[str, float]:
    """Run a command; its peak memory in MiB and the CPU seconds that it took.

    In a process of its own, unless this is a quick run, in which importing torch again would take most of the time.
    """
    print("$ ownlatent", *arguments, flush=True)
    if "--quick" in sys.argv:
        try:
            main(list(map(str, arguments)))
        except SystemExit as ended:
            code = ended.code
        usage = resource.getrusage(resource.RUSAGE_SELF)
    else:
        process = subprocess.Popen([sys.executable, "-m", "ownlatent", *map(str, arguments)])
        _, status, usage = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
    if code:
        raise SystemExit(f"that command failed ({code})")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return {"peak_mib": round(usage.ru_maxrss / unit), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1)}


def thinned(folder: Path, target: Path) -> Path:
    """A folder of tables with every hundredth row of CIFAR-10's, for quick runs."""
    import pyarrow.parquet

    target.mkdir()
    for path in (folder / "train.parquet", folder / "test.parquet"):
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(table.take(list(range(0, len(table), 100))), target / path.name)
    return target
