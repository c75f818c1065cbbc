"""What the C library does with freed memory."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from ownlatent.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    blocks = [torch.ones(2**24) for _ in range(2)]  # 64 MiB each
for _ in range(15):  # the heap has grown to what is needed after a few
    use()
before = faults()
for _ in range(10):
    use()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_used_again_without_asking_the_system():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("keep", "as it is")
    }
    pages = 2 * 2**26 // 4096  # of one use, where they are of the usual size
    assert faults["keep"] < pages
    if faults["as it is"] < pages:
        pytest.skip("the system gives memory in huge pages, and little is to be saved")
