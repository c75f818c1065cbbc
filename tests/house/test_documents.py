"""What the documents promise is there: options, files, imports."""

import ast
import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from ownlatent import backbones
from ownlatent.arguments import parser
from ownlatent.augment.recipes import View
from ownlatent.methods import names, settings
from ownlatent.train.recipe import option_names

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path):
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def test_every_option_in_the_readme_exists():
    known = {f"--{name.replace('_', '-')}" for name in option_names()}
    for verb in parser()._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        known |= set(verb._option_string_actions)
    known |= {f"--views.{number}.{field.name}" for number in (0, 1) for field in fields(View)}
    known |= {f"--method.{setting.replace('_', '-')}" for name in names() for setting in settings(name)}
    known |= {f"--backbone.{keyword}" for keyword in inspect.signature(backbones.create).parameters}
    known |= {"--quick"}
    used = set(re.findall(r"--[a-z][\w.-]*\w", (ROOT / "README.md").read_text()))
    assert used and used <= known, used - known


def test_every_file_of_a_run_in_the_readme_is_written_by_one():
    listed = re.search(r"runs/photos-byol/\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert listed
    promised = set(re.findall(r"[\w/]+\.(?:json|csv|png|txt|ckpt|safetensors)", listed[1]))
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert len(promised) >= 9
    assert all(Path(name).name in source for name in promised)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks_are_python_and_import_what_exists(document: Path):
    for block in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ownlatent":
                module = __import__(node.module, fromlist=["x"])
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_pages_of_the_methods_are_those_of_their_files(tmp_path: Path):
    """Each page comes from a docstring: run scripts/method_pages.py after changing one."""
    subprocess.run([sys.executable, ROOT / "scripts" / "method_pages.py", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.md")}
    kept = {path.name: path.read_text() for path in (ROOT / "docs" / "methods").glob("*.md")}
    assert set(made) == {"README.md", *(f"{name}.md" for name in names())}
    assert made == kept


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_of_methods_in_the_documents_exist(document: Path):
    known = {f"--method.{setting.replace('_', '-')}" for name in names() for setting in settings(name)}
    used = set(re.findall(r"--method\.[a-z][\w-]*", document.read_text()))
    assert used <= known, used - known
