"""Every example of the docstrings and every code block of the Markdown pages runs."""

import doctest
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from typer import Typer
from typer.testing import CliRunner

from benchmarks.__main__ import main as benchmarks
from diffstack import cli
from families import FULL

ROOT = Path(__file__).parents[1]
# test_devices.py and test_ecosystems.py run these, and test what they define.
NAMES = ("devices", "equinox", "flax-linen", "flax-nnx", "haiku", "lightning")
ELSEWHERE = {ROOT / "docs" / "use" / f"{name}.md" for name in NAMES}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted({*(ROOT / "docs").rglob("*.md")} - ELSEWHERE)]
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "diffstack").rglob("*.py")
    if path.name != "__main__.py"
)
# A shell command of a page runs if it is ours; what installs or downloads something does not.
LEFT_OUT = re.compile(r"(git|cd|pip|python3? -m (pip|venv)|source) ")
MAKE = f'make() {{ command make --directory {ROOT} --dry-run --assume-old .venv/installed "$@" > /dev/null; }}'
# Blocks in the tabs of a page are indented.
FENCES = re.compile(r"^ *```(?!text|math)\w", re.MULTILINE)
BENCHMARKS = Typer()
BENCHMARKS.command()(benchmarks)

# As users run them.
pytestmark = pytest.mark.usefixtures("standard_promotion", "unchecked")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str):
    runner, report = doctest.DocTestRunner(), []
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name, globs={}):
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of pictures stay empty; test_cli.py, test_training.py and test_plot.py draw one of each kind."""
    if not FULL:
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser(), CodeBlockParser("sh", run_commands)]).parse(page)
    examples = list(document.examples())
    assert len(examples) == len(FENCES.findall(page.read_text(encoding="utf-8"))), "a block that does not run"
    for example in examples:
        example.evaluate()


def run_commands(example: Example) -> None:
    """In a folder of the page's own; what is ours in this one process, which has imported both frameworks already."""
    for line in str(example.parsed).splitlines():
        if LEFT_OUT.match(line):
            continue
        match shlex.split(line, comments=True):
            case ["diffstack", "demo", *words]:
                # Its options are there; test_cli.py runs it with them.
                assert cli.run(["demo", *words, "--help"]) == 0, line
            case ["diffstack", *words]:
                assert cli.run(words if FULL else fewer(words)) == 0, line
            case ["python", "-m", "benchmarks", *words]:
                # Its options are there; test_benchmarks.py runs it with them.
                assert CliRunner().invoke(BENCHMARKS, [*words, "--help"]).exit_code == 0, line
            case _:
                done = subprocess.run(["bash", "-c", f"{MAKE}\n{line}"], capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{example.path}:{example.line}\n{done.stdout}{done.stderr}"


def fewer(words: list[str]) -> list[str]:
    """The words of a command, with a hundredth of the steps of training where there are hundreds, and a tenth of the
    lengths of 30 and more, and in PyTorch, which compiles nothing; test_training.py trains in JAX too.
    """
    parts = {"--steps": (200, 100), "--length": (30, 10), "--testing": (30, 10)}

    def part(word: str, least: int, by: int) -> str:
        return re.sub(r"\d+", lambda number: str(int(number[0]) // (by if int(number[0]) >= least else 1)), word)

    words = [
        part(word, *parts[before]) if before in parts else word
        for before, word in zip(["", *words], words, strict=False)
    ]
    return [*words, "--backend", "torch"] if words[0] in ("train", "evaluate", "trace") else words
