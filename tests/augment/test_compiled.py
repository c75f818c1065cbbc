"""How the compiled loops are kept on disk: never an old one, and no need of a place."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ownlatent.augment import kernels


def test_compiled_files_call_nothing_in_one_another():
    """numba looks at the file of the outermost function alone: of what that calls elsewhere it keeps the old code."""
    files = list(Path(kernels.__file__).parent.glob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(kernels.__name__ + "."):
                pytest.fail(f"{file.name}, line {node.lineno}, imports from {node.module}")


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same():
    """A package that was installed for reading only, and a user without a home, as in many containers."""
    script = """
import numba, numba.core.caching as caching
caching.CacheImpl._locator_classes = []
try:
    numba.njit(cache=True)(lambda: 0)
except RuntimeError:
    import ownlatent.augment.kernels.crop, ownlatent.augment.kernels.view
    print("imported")
else:
    print("numba keeps its files elsewhere now")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "imported\n", done.stderr
