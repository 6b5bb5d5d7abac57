"""The two implementations read as one: the same files, names, parameters and docstrings, but for a short list."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "diffstack"
# The notebook is a PyTorch notebook; PyTorch's checkpoint fails under `torch.func`, and XLA fuses by itself.
ONLY_IN_TORCH = {"notebook.py", "_parallel/_recompute.py", "_chunked/_fused.py", "_chunked/_levels.py"}
FILES = sorted(str(path.relative_to(ROOT / "jax_impl")) for path in (ROOT / "jax_impl").rglob("*.py"))

# What differs, and why.
EXTRA_NAMES = {
    # JAX compiles, and knows meshes of devices; PyTorch has autocast, and gathers bits in a way of its own.
    "_arrays.py": {
        "_check_width",
        "varying_alike",
        "sharded_like",
        "_compiled",
        "_varying",
        "_explicit",
        "without_autocast",
        "gathered",
        "with_row",
    },
    # PyTorch keeps the neural stack in levels, whose ties are the same rules in other words.
    "_ties.py": {"higher", "is_cut", "weight_of_levels", "weight_cotangents", "weight_tangent"},
    # JAX finds where elements go while it compiles.
    "reversal.py": {"_places"},
    # PyTorch pays for every step of a loop, so its addresses are found without one.
    "_parallel/discrete.py": {"_addresses", "_first_fault", "_depths", "_faults"},
    # PyTorch differentiates the loop where JAX has no derivative; JAX compiles runs of steps, turns a table in a way of
    # its own, and has no name for some things that PyTorch does have one for.
    "_parallel/nondeterministic.py": {
        "_Filter",
        "_as_it_stands",
        "_with_row",
        "_backward_of_the_loop",
        "_by_rows",
        "_rows",
        "_runs",
        "_padded",
        "_turned",
    },
    # Its stack is a line of levels, which takes fewer operations; XLA would not mind them.
    "_chunked/neural_stack.py": {"Window", "close"},
    # JAX compiles runs of chunks of one size, and learns shapes without running anything.
    "controller.py": {"_longest", "_without_steps"},
    # PyTorch's modules hold the maps and the cells that JAX writes as functions, and JAX compiles a step.
    "layers/_heads.py": {"linear", "uniform"},
    "layers/recurrent.py": {"_Feedforward", "_Head", "_affine"},
    "training.py": {"_linear", "_normed", "_updated"},
}
# A tensor is made on a device, that of a tensor it is like; a JAX array goes where its inputs are. Over several devices
# `jit` adds up by itself.
EXTRA_PARAMETERS = {"device", "devices", "like", "dtype"}
# Functions that `lax.scan` calls with a carry and inputs, and PyTorch in a loop with arrays.
LOOPED = {
    "_parallel/pointer.py": {"_segment"},
    "_parallel/superposition.py": {"_segment"},
    "_parallel/neural_queue.py": {"_over_chunk"},
}
# Docstrings that speak of their framework.
OF_A_FRAMEWORK = {
    "_arrays.py": {"as_array", "as_codes", "matmul", "run"},
    "inverse.py": {"init", "learn_input"},
    # A window of PyTorch shrinks and keeps a tuple, where that of JAX keeps its shapes.
    "_chunked/superposition.py": {"Window", "open"},
    "controller.py": {"unroll", "_over_sequence", "_known_empty"},
    "layers/recurrent.py": {"StackRNN"},
    # PyTorch's optimizer changes the parameters that it is given.
    "training.py": {"Network", "update"},
    "layers/attention.py": {"StackAttention", "StackTrans"},
    "_parallel/neural_queue.py": {"_over_chunk"},
    # PyTorch has a type of its own for shapes. It differentiates the loop where JAX has no derivative, and its loop
    # adds a row where JAX writes one.
    "nondeterministic.py": {"scan", "empty", "resize"},
    "_parallel/nondeterministic.py": {"step"},
}
# Files whose own docstrings do, or which have more to derive in one of them.
OWN_WORDS = {
    "__init__.py",
    "_arrays.py",
    "_devices.py",
    "_chunked/neural_stack.py",
    "_parallel/discrete.py",
    "_parallel/nondeterministic.py",
    "layers/_heads.py",
}
# What the frameworks spell differently.
SPELLED = ((r"jnp\.asarray|torch\.tensor", "array"), (r"jnp\.|torch\.", ""), (r"jax_impl|torch_impl", "impl"))


def definitions(path: Path) -> dict[str, ast.AST]:
    """The functions and classes of a file in order, by name."""
    body = ast.parse(path.read_text()).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def parameters(node: ast.AST) -> list[str]:
    """The names of a function's parameters."""
    if not isinstance(node, ast.FunctionDef):
        return []
    arguments = node.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in EXTRA_PARAMETERS]


def said(node: ast.AST) -> str:
    """A docstring, in the words that both frameworks share."""
    text = re.sub(r" *>>> import .*\n| *device: .*\n", "", ast.get_docstring(node) or "")
    for words, word in SPELLED:
        text = re.sub(words, word, text)
    return text


def test_the_files_are_the_same():
    theirs = {str(path.relative_to(ROOT / "torch_impl")) for path in (ROOT / "torch_impl").rglob("*.py")}
    assert theirs - set(FILES) == ONLY_IN_TORCH
    assert set(FILES) <= theirs


@pytest.mark.parametrize("file", FILES)
def test_names_parameters_and_docstrings(file: str):
    paths = [ROOT / package / file for package in ("jax_impl", "torch_impl")]
    if file not in OWN_WORDS:
        assert len({said(ast.parse(path.read_text())) for path in paths}) == 1
    ours, theirs = (definitions(path) for path in paths)
    extra = EXTRA_NAMES.get(file, set())
    assert [name for name in ours if name not in extra] == [name for name in theirs if name not in extra]
    for name in ours.keys() & theirs.keys() - extra:
        if name not in LOOPED.get(file, ()):
            assert parameters(ours[name]) == parameters(theirs[name]), name
        if name not in OF_A_FRAMEWORK.get(file, ()):
            assert said(ours[name]) == said(theirs[name]), name
