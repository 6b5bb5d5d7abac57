"""Each implementation imports without the other's framework, and says what to install without its own."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent

BLOCK = """
import sys

class Blocked:
    blocked = {blocked}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(blocked: set[str], program: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + program],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )


NEITHER = {"torch", "jax", "jaxlib", "optax", "typer", "rich", "matplotlib"}


def test_without_any():
    program = "import diffstack, diffstack.actions, diffstack.errors, diffstack.tasks\nassert diffstack.__version__\n"
    done = run(NEITHER, f"{program}assert not {NEITHER} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "own", "array"),
    [({"torch"}, "jax", "jax.numpy.asarray"), ({"jax", "jaxlib", "optax", "flax"}, "torch", "torch.tensor")],
    ids=["jax", "torch"],
)
def test_without_the_other(tmp_path: Path, missing: set[str], own: str, array: str):
    """It imports and computes, and its command learns; what needs the other says so in a line."""
    np.save(tmp_path / "target.npy", np.ones((4, 4), np.float32))
    other = "torch" if own == "jax" else "jax"
    words = [["learn", "target.npy", "--backend", name, "--steps", "1"] for name in (own, other)]
    program = f"""
import {own}
from diffstack import cli, {own}_impl
assert {own}_impl.reverse({array}([0.0, 1.0, 2.0])).tolist() == [2, 1, 0]
assert [cli.run(each) for each in {[*words, ["demo"]]}] == [0, 2, 2]
assert not {missing} & set(sys.modules)
"""
    done = run(missing, program, tmp_path)
    line = rf"diffstack: .*{other} is not installed; install it with: pip install 'diffstack\[{other}\]'\n"
    assert re.fullmatch(2 * line, done.stderr)
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"target.npy", "target.learned.npy"}


def test_without_its_own():
    """One process without each framework after the other."""
    program = """
import importlib, traceback
finder = sys.meta_path[0]
for framework, extra in (("jax", "jax"), ("torch", "torch"), ("optax", "jax")):
    finder.blocked = {framework}
    for name in [name for name in sys.modules if name.startswith("diffstack")]:
        del sys.modules[name]
    try:
        importlib.import_module(f"diffstack.{extra}_impl")
    except ModuleNotFoundError:
        print(framework, extra, repr(traceback.format_exc()))
"""
    done = run(set(), program)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" ", 2)[:2] for line in lines] == [["jax", "jax"], ["torch", "torch"], ["optax", "jax"]]
    for line in lines:
        framework, extra, trace = line.split(" ", 2)
        message = f"{framework} is not installed; install it with: pip install 'diffstack[{extra}]'"
        assert ast.literal_eval(trace).splitlines()[-1] == f"ModuleNotFoundError: {message}"
        assert "During handling" not in trace
