"""A program that runs where diffstack is installed from its wheel, and ends with 0 if that works.

`python smoke.py jax torch cli weights` runs what these extras bring, and checks that no other framework is there.
"""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import diffstack
from diffstack.actions import POP, PUSH
from diffstack.families import FAMILIES

FRAMEWORKS = {"jax": ("jax.numpy", "asarray"), "torch": ("torch", "tensor")}
LOWER, UPPER = [1.0, 2.0], [3.0, 4.0]


def families(framework: str, extras: list[str]) -> None:
    """Every family pushes two elements and pops them, a stack the newest first, and a layer runs."""
    place, name = FRAMEWORKS[framework]
    array = getattr(importlib.import_module(place), name)
    implementation = importlib.import_module(f"diffstack.{framework}_impl")
    for family in FAMILIES.values():
        module = getattr(implementation, family.name)
        if family.automaton:
            state, reads = module.scan(
                module.empty(4, (2,)), module.encode([PUSH, PUSH, POP]), array([LOWER, UPPER, LOWER])
            )
            assert reads.tolist() == [[[LOWER]], [[UPPER]], [[LOWER]]]
        else:
            end = family.ends[0]
            push, pop = getattr(module, f"push{end}"), getattr(module, f"pop{end}")
            state = push(push(module.empty(4, (2,)), array(LOWER)), array(UPPER))
            state, first = pop(state)
            state, second = pop(state)
            # What other families give back, the tests know.
            assert not family.is_stack or [first.tolist(), second.tolist()] == [UPPER, LOWER], family.name
    layers = implementation.layers
    layer = layers.StackRNN(2, 5, layers.Stack("neural_stack", 3), "gru")
    if framework == "jax":
        parameters = layer.init(importlib.import_module("jax").random.key(0))
        outputs, _ = layer.scan(parameters, array([LOWER, UPPER]))
    else:
        parameters, (outputs, _) = layer, layer(array([LOWER, UPPER]))
    assert tuple(outputs.shape) == (2, 5)
    if "weights" in extras:
        weights: Any = importlib.import_module("diffstack.weights")
        with tempfile.TemporaryDirectory() as folder:
            weights.save(Path(folder) / "layer", parameters, layer=layer)
            assert weights.load(Path(folder) / "layer", layer=layer)["cell.bias_ih"].shape == (15,)


def command(*words: str) -> str:
    """The installed command `diffstack`."""
    done = subprocess.run(
        [Path(sys.executable).parent / "diffstack", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def main(extras: list[str]) -> None:
    """Run everything."""
    assert Path(diffstack.__file__).is_relative_to(sys.prefix), f"{diffstack.__file__} is not what was installed"
    version = importlib.metadata.version("diffstack")
    assert diffstack.__version__ == version
    assert (Path(diffstack.__file__).parent / "py.typed").is_file()
    frameworks = [name for name in FRAMEWORKS if name in extras]
    for name in FRAMEWORKS:
        if name in frameworks:
            families(name, extras)
            continue
        assert importlib.util.find_spec(name) is None, f"{name} is there although only {extras} were asked for"
        done = subprocess.run([sys.executable, "-c", f"import diffstack.{name}_impl"], capture_output=True, check=False)
        assert f"pip install 'diffstack[{name}]'".encode() in done.stderr
    if "cli" in extras:
        assert version in command("--version")
        assert "reverse_string" in command("tasks")
        with tempfile.TemporaryDirectory() as folder:
            if "weights" in extras:
                for name in frameworks:
                    out = str(Path(folder) / name)
                    command(
                        *("train", "reverse_string", "--backend", name, "--stack", "superposition:2", "--cell", "rnn"),
                        *("--lengths", "1-2", "--testing", "3-3", "--steps", "2", "--out", out),
                    )
            if len(frameworks) == 2:
                command("demo", "--out", folder)
                assert (Path(folder) / "learning.png").stat().st_size
    there = [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "jaxtyping", *frameworks)]
    print(f"diffstack {version} runs with {', '.join(there)}")


if __name__ == "__main__":
    main(sys.argv[1:])
