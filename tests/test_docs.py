"""Every example of the docstrings and every code block of the Markdown pages runs."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "diffstack").rglob("*.py")
    if path.name != "__main__.py"
)
# A shell command of a page runs if it is ours; what installs or downloads something does not.
LEFT_OUT = re.compile(r"(git|cd|pip|python3? -m (pip|venv)|source) ")
# A folder of the page's own, and this interpreter's diffstack.
SHELL = """
set -eu
diffstack() { "$PYTHON" -m diffstack "$@"; }
python() { "$PYTHON" "$@"; }
make() { command make --directory "$ROOT" --dry-run --assume-old .venv/installed "$@" > /dev/null; }
"""

# As users run them.
pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str):
    runner, report = doctest.DocTestRunner(), []
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name, globs={}):
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser(), CodeBlockParser("sh", run_commands)]).parse(page)
    for example in document.examples():
        example.evaluate()


def run_commands(example: Example) -> None:
    lines = [line for line in str(example.parsed).splitlines() if not LEFT_OUT.match(line)]
    environment = {**os.environ, "PYTHON": sys.executable, "ROOT": str(ROOT), "PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", SHELL + "\n".join(lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{example.path}:{example.line}\n{done.stdout}{done.stderr}"
