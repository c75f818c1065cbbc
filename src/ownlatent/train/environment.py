"""Where a run happened: versions, hardware, command, commit."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from ownlatent.machine import cores, memory

PACKAGES = ("ownlatent", "torch", "torchvision", "timm", "lightning", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Facts for env.json; the command is kept as it was given, paths included."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(memory() / 2**30, 1),
        "gpus": gpus,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str | None:
    """The commit of ownlatent's own checkout, where it runs from one."""
    here = Path(__file__).resolve().parent
    try:
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name], cwd=here, capture_output=True, timeout=5
        )
        if tracked.returncode:
            return None
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        return head.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        return None
