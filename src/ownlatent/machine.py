"""What this machine grants the process: cores and memory, container limits included."""

import ctypes
import os
from pathlib import Path


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory: the machine's, or its container's limit where that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        return min(physical, int(limit.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return physical


def keep_freed_memory() -> None:
    """Let this process keep what it frees for the next allocation, where the C library is glibc.

    By default glibc hands large blocks back to the system, and a network that trains on a processor frees and wants
    the same tens of megabytes in every layer: clearing the new pages took 8 to 20 % of a step (benchmarks/step.py).
    Blocks of a gigabyte and more, such as whole data sets, still go back.
    """
    try:
        mallopt, trim, mmap = ctypes.CDLL(None).mallopt, -1, -3
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(trim, 2**31 - 1)
    mallopt(mmap, 2**30)
