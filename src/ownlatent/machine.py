"""What this machine grants the process: cores and memory, container limits included."""

import ctypes
import mmap
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
    """Let this process keep what it frees for the next allocation, in huge pages, where the C library is glibc.

    By default glibc hands large blocks back to the system, and a network that trains on a processor frees and wants
    the same tens of megabytes in every layer: clearing the new pages took 8 to 20 % of a step, and pages of 4 KiB in
    the place of 2 MiB another tenth (docs/speed.md). Blocks of a gigabyte and more, such as whole data sets, go back.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc, free, madvise = library.mallopt, library.malloc, library.free, library.madvise
    except (AttributeError, OSError, TypeError):  # another C library
        return
    malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_MMAP_THRESHOLD, _KEPT)
    # Address space that the heap will grow into: asked for, marked and given back at once. None of it is touched. Two
    # blocks, because a larger one would not come from the heap, and of more than 2 GiB the end would go back.
    size = min(_KEPT, memory() // 2) // 2**21 * 2**21 - 2**21
    rooms = [room for room in (malloc(size), malloc(size)) if room]
    for room in rooms:
        first = -(-room // mmap.PAGESIZE) * mmap.PAGESIZE
        madvise(first, (room + size - first) // mmap.PAGESIZE * mmap.PAGESIZE, _HUGE_PAGES)
    for room in rooms:
        free(room)


_KEPT = 2**30  # bytes of the largest block that is kept
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", 14)
