"""Every mode gives the plain answer: a table, family by method by mode.

A mode is a way in which users run a function: transformed, on a mesh, exported, compiled, under autocast.
Each takes a case's function and its arguments, and gives what the plain call gives: results, and the gradients of their
sum of sines. A new family or method joins the table by itself.
"""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, PartitionSpec

from backends import JAX, TORCH, assert_close, assert_same_bits
from families import CASES, FAMILIES, SCANS, SMALL, STEP, Case, Family, floats, with_floats

pytestmark = pytest.mark.usefixtures("quick_compilation", "unchecked")

TOLERANCE = 8 * float(np.finfo(np.float32).eps)
BATCH = PartitionSpec("batch")
VERBS = tuple(case for case in CASES if case.method is None)


# --- JAX ---


def outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    """The results, and the gradients of the sum of their sines."""

    def loss(leaves: list[Any]) -> tuple[Any, Any]:
        results = function(*with_floats(arguments, leaves))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in floats(results)), results

    gradients, results = jax.grad(loss, has_aux=True)(floats(arguments))
    return results, gradients


def mesh(kind: AxisType) -> Any:
    return jax.make_mesh((2,), ("batch",), axis_types=(kind,))


def sharded(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.device_put(leaf, BATCH), tree)


def in_shard_map(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    run = partial(outcome, function)
    return jax.jit(jax.shard_map(lambda *a: run(a), mesh=mesh(AxisType.Auto), in_specs=BATCH, out_specs=BATCH))(
        *arguments
    )


def on_an_explicit_mesh(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with jax.set_mesh(mesh(AxisType.Explicit)):
        return jax.jit(lambda *a: outcome(function, a))(*sharded(arguments))


def on_an_explicit_mesh_without_jit(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with jax.set_mesh(mesh(AxisType.Explicit)):
        return outcome(function, sharded(arguments))


def exported(axes: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """For a symbolic batch, and in the sequences a symbolic time, too."""
    symbols = jax.export.symbolic_shape(axes)
    state, *sequences = arguments

    def symbolic(count: int, leaf: Any) -> Any:
        return jax.ShapeDtypeStruct((*symbols[:count], *leaf.shape[count:]), leaf.dtype)

    def run(leaves: list[Any]) -> list[Any]:
        return jax.tree.leaves(outcome(function, jax.tree.unflatten(jax.tree.structure(arguments), leaves)))

    specs = [
        *map(partial(symbolic, 1), jax.tree.leaves(state)),
        *map(partial(symbolic, len(symbols)), jax.tree.leaves(sequences)),
    ]
    leaves = jax.export.export(jax.jit(run))(specs).call(jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(lambda *a: outcome(function, a), *arguments)), leaves)


JAX_MODES = {
    "jit": lambda function, arguments: jax.jit(lambda *a: outcome(function, a))(*arguments),
    "vmap": lambda function, arguments: jax.vmap(lambda *a: outcome(function, a))(*arguments),
    "checkpoint": lambda function, arguments: outcome(jax.checkpoint(function), arguments),
    "shard_map": in_shard_map,
    "explicit-mesh": on_an_explicit_mesh,
    "explicit-mesh-eager": on_an_explicit_mesh_without_jit,
    "export-batch": partial(exported, "batch"),
    "export-batch-and-time": partial(exported, "batch, time"),
}


def assert_all_close(actual: Any, expected: Any) -> None:
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(np.asarray(left), np.asarray(right), TOLERANCE)


@pytest.mark.parametrize("mode", JAX_MODES)
@pytest.mark.parametrize("case", SCANS, ids=str)
def test_jax(case: Case, mode: str):
    if mode == "export-batch-and-time" and case.method == "parallel":
        with pytest.raises(ValueError, match="method: expected 'sequential' or 'auto' where the number of steps is"):
            JAX_MODES[mode](JAX.function(case), JAX.arguments(case, SMALL, dtype=np.float32))
        return
    function, arguments = JAX.function(case), JAX.arguments(case, SMALL, dtype=np.float32)
    assert_all_close(JAX_MODES[mode](function, arguments), outcome(function, arguments))


@pytest.mark.parametrize("case", VERBS, ids=str)
def test_jax_verbs_on_meshes(case: Case):
    """Inside shard_map, and on a mesh with explicit axes."""
    function, arguments = JAX.function(case), JAX.arguments(case, STEP, dtype=np.float32)
    expected = function(*arguments)
    mapped = jax.shard_map(function, mesh=mesh(AxisType.Auto), in_specs=BATCH, out_specs=BATCH)
    assert_all_close(jax.jit(mapped)(*arguments), expected)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        assert_all_close(function(*sharded(arguments)), expected)


def empty(family: Family, case: Case, batch: int) -> Any:
    return JAX.module(family.name).empty(3, case.arguments(SMALL)[0][0].shape[2:], batch_shape=(batch,))


@pytest.mark.parametrize("case", SCANS, ids=str)
def test_jax_states_that_are_made_inside(case: Case):
    """They vary over no axis of a mesh, and are sharded over none, until they meet the inputs."""
    _, *sequences = JAX.arguments(case, SMALL, dtype=np.float32)
    function = JAX.function(case)

    def run(batch: int, *sequences: Any) -> Any:
        return function(empty(case.family, case, batch), *sequences)

    expected = run(2, *sequences)
    mapped = jax.shard_map(partial(run, 1), mesh=mesh(AxisType.Auto), in_specs=BATCH, out_specs=BATCH)
    assert_all_close(jax.jit(mapped)(*sequences), expected)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        assert_all_close(run(2, *sharded(sequences)), expected)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.is_stack], ids=str)
def test_jax_reversal(family: Family):
    sequences = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 3)), jnp.float32)
    reverse = jax.vmap(partial(JAX.module("reversal").reverse, stack=JAX.module(family.name)))
    mapped = jax.shard_map(reverse, mesh=mesh(AxisType.Auto), in_specs=BATCH, out_specs=BATCH)
    shape = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), 5, 3), jnp.float32)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        explicit = reverse(sharded(sequences))
    for result in (jax.jit(mapped)(sequences), explicit, jax.export.export(jax.jit(reverse))(shape).call(sequences)):
        assert_same_bits(np.asarray(result), np.asarray(sequences[:, ::-1]))


# --- PyTorch ---


class Scan(torch.nn.Module):
    """What `torch.export` takes: a module."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.run = TORCH.function(case)

    def forward(self, *arguments: Any) -> Any:
        return self.run(*arguments)


def sized(case: Case, time: int | None, batch: int) -> tuple[Any, ...]:
    return TORCH.arguments(case, SMALL._replace(time=time, batch=(batch,)), dtype=np.float32)


def assert_as_plain(case: Case, result: Any, arguments: tuple[Any, ...]) -> None:
    expected = TORCH.function(case)(*arguments)
    for left, right in zip(TORCH.numpys(result), TORCH.numpys(expected), strict=True):
        assert_close(left, right, TOLERANCE)


@pytest.mark.parametrize("case", SCANS, ids=str)
def test_torch_compile_at_several_shapes(case: Case):
    """One function, compiled: another batch, and then another length."""
    torch.compiler.reset()
    compiled = torch.compile(TORCH.function(case), backend="aot_eager", fullgraph=True)
    for time, batch in ((5, 2), (5, 3), (5, 4), (6, 3)):
        arguments = sized(case, time, batch)
        assert_as_plain(case, compiled(*arguments), arguments)


@pytest.mark.parametrize("case", SCANS, ids=str)
def test_torch_compile_serves_many_batches_with_one_graph(case: Case):
    graphs = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(TORCH.function(case), backend=count, fullgraph=True, dynamic=None)
    for batch in (2, 3, 5, 7):
        compiled(*sized(case, 5, batch))
    # The first batch is taken for a constant, the second makes it a variable.
    assert len(graphs) == 2


@pytest.mark.parametrize("case", SCANS, ids=str)
def test_torch_export_with_a_dynamic_batch(case: Case):
    arguments = sized(case, 5, 3)
    batch = torch.export.Dim("batch")
    shapes = torch.utils._pytree.tree_map(lambda leaf: {0: batch}, arguments)
    program = torch.export.export(Scan(case), arguments, dynamic_shapes=(shapes,)).module()
    for size in (3, 5):
        arguments = sized(case, 5, size)
        assert_as_plain(case, program(*arguments), arguments)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_autocast(case: Case):
    """The bits are those without it, in every verb; so are those of the gradients."""
    arguments = sized(case, SMALL.time if case.method else None, 2)
    plain = TORCH.outcome(TORCH.function(case), arguments)

    def cast(*arguments: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return TORCH.function(case)(*arguments)

    for actual, expected in zip(TORCH.outcome(cast, arguments), plain, strict=True):
        for left, right in zip(actual, expected, strict=True):
            assert_same_bits(left, right)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_meta(case: Case):
    """Shapes and dtypes come out without values, under autocast too."""
    arguments = sized(case, SMALL.time if case.method else None, 2)
    expected = jax.tree.leaves(TORCH.function(case)(*arguments))
    meta = jax.tree.map(lambda leaf: leaf.to("meta"), arguments)
    with torch.autocast("cpu", torch.bfloat16):
        results = jax.tree.leaves(TORCH.function(case)(*meta))
    for result, like in zip(results, expected, strict=True):
        assert (result.device.type, result.shape, result.dtype) == ("meta", like.shape, like.dtype)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_torch_load(family: Family):
    """States load with the safe default, `weights_only=True`."""
    state = TORCH.module(family.name).empty(3, (2,), batch_shape=(2,))
    file = io.BytesIO()
    torch.save({"stack": state}, file)
    file.seek(0)
    loaded = torch.load(file)["stack"]
    assert type(loaded) is type(state)
    for left, right in zip(loaded, state, strict=True):
        assert torch.equal(left, right)


# --- both ---


def test_a_narrower_element_is_cast_up():
    """To the state's dtype, which changes no value; `discrete`, which only moves bits, takes its own dtype alone."""
    for case in SCANS:
        for backend in (JAX, TORCH):
            state, actions, elements = case.arguments(SMALL, dtype=np.float32)
            half = jax.tree.map(lambda leaf: leaf.astype(np.float16), (actions, elements))
            wide = jax.tree.map(lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf, half)
            run = backend.function(case)
            if case.family.name == "discrete":
                with pytest.raises(TypeError, match="elements: expected dtype float32, that of the state, got dtype f"):
                    run(*backend.arrays((state, actions, half[1]), case.family))
                continue
            results = [run(*backend.arrays((state, *each), case.family)) for each in (half, wide)]
            for left, right in zip(*map(backend.numpys, results), strict=True):
                assert_same_bits(left, right)
