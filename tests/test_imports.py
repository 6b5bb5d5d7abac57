"""Each implementation imports without the other's framework, and says what to install without its own."""

import subprocess
import sys

import pytest

BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(blocked: set[str], program: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("blocked", "program"),
    [
        (
            {"torch"},
            """
import jax.numpy
from diffstack import jax_impl
assert jax_impl.reverse(jax.numpy.arange(3.0)).tolist() == [2, 1, 0]
""",
        ),
        (
            {"jax", "jaxlib", "optax", "flax"},
            """
import torch
from diffstack import torch_impl
assert torch_impl.reverse(torch.arange(3.0)).tolist() == [2, 1, 0]
""",
        ),
        (
            {"torch", "jax", "jaxlib", "optax", "typer", "rich", "matplotlib"},
            "import diffstack, diffstack.actions, diffstack.errors, diffstack.tasks\nassert diffstack.__version__\n",
        ),
    ],
    ids=["jax_impl", "torch_impl", "diffstack"],
)
def test_without_the_other(blocked: set[str], program: str):
    done = run(blocked, f"{program}assert not {blocked} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("framework", "extra"), [("jax", "jax"), ("optax", "jax"), ("torch", "torch")])
def test_without_its_own(framework: str, extra: str):
    done = run({framework}, f"import diffstack.{extra}_impl")
    assert done.returncode != 0
    message = f"{framework} is not installed; install it with: pip install 'diffstack[{extra}]'"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {message}"
    assert "During handling" not in done.stderr


def test_importing_the_package_imports_no_framework():
    done = run(set(), "import diffstack\nassert not {'jax', 'torch', 'numpy'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr
