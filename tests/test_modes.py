"""Every mode gives the plain answer: a table, family by method by mode.

A mode is a way in which users run a function: on a mesh, exported, compiled, under autocast. (`jit`, `vmap` and the
like have files of their own, `jax_impl/test_transforms.py` and `torch_impl/test_transforms.py`.) In JAX, gradients of
`scan` are traced of every family, inside `shard_map` by every method and elsewhere by one, those of `unroll` of two
families, and values are computed of two families; all of it in the full product. A trace is where a mode would refuse
them; XLA computes what was traced. PyTorch exports the `scan` of some families, and `torch_impl/test_transforms.py`
compiles those of others; `unroll` of some is compiled, and of some exported. A new family or method joins the table by
itself.
"""

import io
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import AxisType, PartitionSpec

from backends import JAX, TORCH, assert_close, assert_same_bits
from controllers import MODES
from diffstack import jax_impl
from families import (
    CASES,
    FAMILIES,
    FULL,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NEURAL_STACK,
    NONDETERMINISTIC,
    POINTER,
    SCANS,
    SMALL,
    STEP,
    SUPERPOSITION,
    Case,
    Family,
    by_turns,
    floats,
    is_floating,
    product,
    some,
    with_floats,
)

pytestmark = pytest.mark.usefixtures("unchecked")

TOLERANCE = 8 * float(np.finfo(np.float32).eps)
BATCH = PartitionSpec("batch")
VERBS = tuple(case for case in CASES if case.method is None)
SEQUENCES = (*SCANS, *MODES)


# What takes as long inside an explicit mesh: one method of each `scan`, and `unroll` of every third family.
EXPLICIT = SEQUENCES if FULL else (*by_turns(SCANS, 0), *some(MODES, 1, 2))


def valued(first: int) -> list[Case]:
    """The cases whose values are compared; of the others gradients are traced, and of all when FULL asks for it."""
    return [*SEQUENCES] if FULL else some([*by_turns(SCANS, first), *MODES], 1)


def traces(case: Case, first: int) -> bool:
    return FULL or case not in valued(first)


def assert_all_close(actual: Any, expected: Any) -> None:
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(np.asarray(left), np.asarray(right), TOLERANCE)


# --- JAX ---


def gradients(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The gradients of the sum of the results by every floating argument."""

    def run(*arguments: Any) -> list[Any]:
        def loss(leaves: list[Any]) -> Any:
            return sum(jnp.sum(leaf) for leaf in floats(function(*with_floats(arguments, leaves))))

        return jax.grad(loss)(floats(arguments))

    return run


def mesh(kind: AxisType) -> Any:
    return jax.make_mesh((2,), ("batch",), axis_types=(kind,))


def sharded(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.device_put(leaf, BATCH), tree)


def in_shard_map(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(jax.shard_map(function, mesh=mesh(AxisType.Auto), in_specs=BATCH, out_specs=BATCH))


def traced(case: Case, function: Callable[..., Any], arguments: Any) -> None:
    """Shapes come out for the gradient, as for the arguments; of some families' `unroll` for the results alone."""
    if case in MODES and not some([case], 2):
        assert floats(jax.eval_shape(function, *arguments))
        return
    shapes = jax.eval_shape(gradients(function), *arguments)
    assert [leaf.shape for leaf in shapes] == [leaf.shape for leaf in floats(arguments)]


@cache
def made_inside(case: Case, batch: int) -> Callable[..., Any]:
    """The scan from a state that is made inside: it varies over no axis of a mesh, and is sharded over none."""
    element = case.arguments(SMALL)[0][0].shape[2:]

    def run(*sequences: Any) -> Any:
        sizes = {"states": 2, "symbols": 2} if case.family.automaton else {}
        state = JAX.module(case.family.name).empty(3, element, batch_shape=(batch,), **sizes)
        return JAX.function(case)(state, *sequences)

    return run


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_jax_shard_map(case: Case):
    arguments = JAX.arguments(case, SMALL, dtype=np.float32)
    if traces(case, 0):
        traced(case, in_shard_map(JAX.function(case)), arguments)
    if case in valued(0):
        results = in_shard_map(made_inside(case, 1))(*arguments[1:])
        assert_all_close(results, JAX.computed(made_inside(case, 2), *arguments[1:]))


@pytest.mark.parametrize("case", EXPLICIT, ids=str)
def test_jax_explicit_mesh(case: Case):
    # By the method that shard_map takes, so that the plain program is compiled once; to export takes the other.
    arguments = JAX.arguments(case, SMALL, dtype=np.float32)
    inside = made_inside(case, 2)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        if traces(case, 0):
            traced(case, JAX.function(case), sharded(arguments))
        if case not in valued(0):
            return
        results = jax.jit(inside)(*sharded(arguments[1:]))
    assert_all_close(results, JAX.computed(inside, *arguments[1:]))
    assert all(leaf.sharding.spec[0] == "batch" for leaf in jax.tree.leaves(results))


@pytest.mark.parametrize("case", [*SCANS, *some(MODES, 0, 1)], ids=str)
def test_jax_export(case: Case):
    """With a symbolic batch and time in "sequential"; another method says in one line that its time is a number."""
    if case.method == "sequential":
        assert_exported(case, "batch, time")
        return
    # Of two families by this method, and of all by the other.
    if FULL or case in some([case], 2) or case in MODES:
        assert_exported(case, "batch")
    with pytest.raises(ValueError, match=r"^method: expected 'sequential' or 'auto' where the number"):
        jax.eval_shape(JAX.function(case), *symbolic_shapes(case, "batch, time"))


def symbolic_shapes(case: Case, axes: str) -> tuple[Any, ...]:
    """The arguments with a symbolic batch and, in the sequences, a symbolic time."""
    arguments, symbols = JAX.arguments(case, SMALL, dtype=np.float32), jax.export.symbolic_shape(axes)

    def symbolic(count: int, tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((*symbols[:count], *leaf.shape[count:]), leaf.dtype), tree
        )

    return symbolic(1, arguments[0]), *symbolic(len(symbols), arguments[1:])


def assert_exported(case: Case, axes: str) -> None:
    function, shapes = JAX.function(case), symbolic_shapes(case, axes)
    if traces(case, 1):
        traced(case, function, shapes)
    if case not in valued(1):
        return
    arguments = JAX.arguments(case, SMALL, dtype=np.float32)
    leaves, structure = jax.tree.flatten(arguments)
    program = jax.jit(lambda *leaves: jax.tree.leaves(function(*jax.tree.unflatten(structure, leaves))))
    exported = jax.export.export(program)(*jax.tree.leaves(shapes))
    assert_all_close(exported.call(*leaves), JAX.computed(function, *arguments))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_jax_verbs_on_meshes(family: Family):
    """Inside shard_map, and on a mesh with explicit axes; all verbs in one program, which every third family runs."""
    cases = [case for case in VERBS if case.family is family]
    given = [JAX.arguments(case, STEP, dtype=np.float32) for case in cases]

    def verbs(given: Any) -> list[Any]:
        return [JAX.function(case)(*arguments) for case, arguments in zip(cases, given, strict=True)]

    jax.eval_shape(in_shard_map(verbs), given)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        if family not in some(FAMILIES, 1):
            jax.eval_shape(verbs, sharded(given))
            return
        results = jax.jit(verbs)(sharded(given))
    assert_all_close(results, JAX.computed(verbs, given))


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.is_stack and (f.only_moves or f in some([f], 0))], ids=str)
def test_jax_reversal(family: Family):
    sequences = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 3)), jnp.float32)
    reverse = jax.vmap(partial(JAX.module("reversal").reverse, stack=JAX.module(family.name)))
    shape = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), 5, 3), jnp.float32)
    jax.export.export(jax.jit(reverse))(shape)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        explicit = jax.jit(reverse)(sharded(sequences))
        # A sequence in parts is made whole.
        parts = JAX.module("reversal").reverse(sharded(sequences[0, :4]), stack=JAX.module(family.name))
    assert_same_bits(np.asarray(parts), np.asarray(sequences[0, 3::-1]))
    for result in (in_shard_map(reverse)(sequences), explicit):
        assert_same_bits(np.asarray(result), np.asarray(sequences[:, ::-1]))
    with jax.set_mesh(mesh(AxisType.Auto)):
        result = in_shard_map(reverse)(sequences[:, 1:])
    assert_same_bits(np.asarray(result), np.asarray(sequences[:, :0:-1]))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_jax_layers_on_an_explicit_mesh(family: Family):
    """One call goes on from another; every third family runs, and the others are traced."""
    layers, capacity = jax_impl.layers, 6 if family.ring else None
    network = layers.StackRNN(4, 5, layers.Stack(family.name, 2, capacity))
    attention = layers.StackAttention(4, 2, 2, family.name, capacity)
    parameters = [layer.init(jax.random.key(0)) for layer in (network, attention)]

    def run(parameters: Any, xs: Any) -> list[Any]:
        results = []
        for layer, mine in zip((network, attention), parameters, strict=True):
            outputs, carry = layer.scan(mine, xs, lengths=jnp.asarray([3, 1]))
            results += [outputs, layer.scan(mine, xs, carry)[0]]
        return results

    xs = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4)), jnp.float32)
    with jax.set_mesh(mesh(AxisType.Explicit)):
        everywhere = jax.tree.map(lambda leaf: jax.device_put(leaf, PartitionSpec()), parameters)
        if family not in some(FAMILIES, 1):
            assert all(leaf.shape[:2] == xs.shape[:2] for leaf in jax.eval_shape(run, everywhere, sharded(xs)))
            return
        results = jax.jit(run)(everywhere, sharded(xs))
    assert all(leaf.sharding.spec[0] == "batch" for leaf in results)
    assert_all_close(results, JAX.computed(run, parameters, xs))


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


# Of these `unroll`, which takes longest, becomes a graph with the full product alone; of the superposition stack,
# test_layers.py compiles the network.
DEAR = (SUPERPOSITION, NEURAL_STACK, NEURAL_QUEUE, NEURAL_DEQUE, NONDETERMINISTIC)
# The scans that are exported; torch_impl/test_transforms.py compiles others.
EXPORTED = (POINTER, NEURAL_STACK, NEURAL_DEQUE)


def taken_by_torch(first: int, scans: Sequence[Case]) -> list[Case]:
    """What the one way to a graph takes and the other does not: some scans, and every second `unroll`."""
    chunked = [case for case in MODES if case.method == "chunked" and FAMILIES.index(case.family) % 2 == first]
    return [*scans, *(MODES if FULL else (case for case in chunked if case.family not in DEAR))]


# The family whose functions are called at shapes as they come, for to trace with a batch that varies takes long.
CALLED = product(*FAMILIES) or (POINTER,)


@pytest.mark.parametrize(
    "case", taken_by_torch(0, [case for case in by_turns(SCANS, 0) if case.family in CALLED]), ids=str
)
def test_torch_compile_at_several_shapes(case: Case):
    """The first shape is taken for a constant, the second makes the batch a variable; a length has its own graph.

    Of `unroll` the batch is said to vary, and one graph does for every batch.
    """
    graphs, said = [], case in MODES and not FULL

    def count(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(TORCH.function(case), backend=count, fullgraph=True)
    shapes = ((2, 3, 1), (2, 5, 1)) if said else ((1, 2, 1), (2, 3, 2), (2, 5, 2), (2, 4, 2))
    for time, batch, expected in shapes:
        arguments = sized(case, time, batch)
        if said:
            jax.tree.map(lambda leaf: torch._dynamo.mark_dynamic(leaf, 0), arguments)
        assert_as_plain(case, compiled(*arguments), arguments)
        assert len(graphs) == expected


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_torch_compile_codes_in_lists(family: Family):
    """What `encode` takes is a constant of the graph."""
    torch.compiler.reset()
    codes = [[0, 1], [2, 0]] if len(family.ends) > 1 else [0, 1, 2]
    encode = TORCH.module(family.name).encode
    compiled = torch.compile(lambda x: encode(codes) + x, backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.zeros(())), encode(codes) + torch.zeros(()))


@pytest.mark.parametrize("family", [family for family in CALLED if family.is_stack], ids=str)
def test_torch_compile_the_reversal(family: Family):
    """At a second length too, where the pointer has a path of its own."""
    torch.compiler.reset()
    reverse, stack = TORCH.module("reversal").reverse, TORCH.module(family.name)
    compiled = torch.compile(lambda sequence: reverse(sequence, stack=stack), backend="eager", fullgraph=True)
    for length in (3, 2) if family is POINTER else (3,):
        sequence = torch.randn(length, 2)
        assert torch.equal(compiled(sequence), sequence.flip(0))


def test_torch_compile_pops_from_several_batches():
    torch.compiler.reset()
    pointer = TORCH.module("pointer")
    compiled = torch.compile(lambda state: pointer.pop_all(state, 5), backend="eager", fullgraph=True)
    for batch in (2, 3, 4):
        state = pointer.push_all(pointer.empty(3, (2,), batch_shape=(batch,)), torch.randn(batch, 4, 2))
        for left, right in zip(
            jax.tree.leaves(compiled(state)), jax.tree.leaves(pointer.pop_all(state, 5)), strict=True
        ):
            assert torch.equal(left, right)


@pytest.mark.parametrize(
    "case", taken_by_torch(1, [case for case in by_turns(SCANS, 1) if FULL or case.family in EXPORTED]), ids=str
)
def test_torch_export_with_a_dynamic_batch(case: Case):
    arguments = sized(case, 2, 3)
    batch = torch.export.Dim("batch")
    shapes = torch.utils._pytree.tree_map(lambda leaf: {0: batch}, arguments)
    program = torch.export.export(Scan(case), arguments, dynamic_shapes=(shapes,)).module()
    for size in (3, 5):
        arguments = sized(case, 2, size)
        assert_as_plain(case, program(*arguments), arguments)


@pytest.mark.parametrize("case", [*CASES, *MODES], ids=str)
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


def test_torch_autocast_inside_a_compiled_function():
    """The backward pass that PyTorch compiles is then as exact as without it."""
    case = next(case for case in SCANS if case.family is SUPERPOSITION and case.method == "parallel")
    function, arguments = TORCH.function(case), sized(case, SMALL.time, 2)

    def cast(*arguments: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return function(*arguments)

    torch.compiler.reset()
    compiled = torch.compile(cast, backend="aot_eager", fullgraph=True)
    plain = TORCH.outcome(function, arguments)
    for actual, expected in zip(TORCH.outcome(compiled, arguments), plain, strict=True):
        for left, right in zip(actual, expected, strict=True):
            assert_close(left, right, TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_torch_autocast_to_another_dtype(family: Family):
    """A state of float16 under autocast to bfloat16, which cannot join such arrays by itself."""
    module, sizes = TORCH.module(family.name), {"states": 2, "symbols": 2} if family.automaton else {}
    codes = [[0, 1], [2, 0]] if len(family.ends) > 1 else [0, 1, 2]
    sequence = torch.randn(3, 2).half()
    state, *inputs = sized(next(case for case in SCANS if case.family is family), SMALL.time, 2)
    if not family.automaton:  # whose weights have a dtype of their own
        state, inputs = jax.tree.map(lambda leaf: leaf.half() if is_floating(leaf) else leaf, (state, inputs))
    unroll = partial(TORCH.module("controller").unroll, lambda carry, each, read: (carry, *each, (each, read)), ())

    def run() -> list[Any]:
        bottom = {"bottom": sequence[0]} if family.automaton else {}
        results = [module.empty(3, (2,), dtype=torch.float16, **sizes, **bottom)]
        options = {"dtype": torch.float16} if family.action else {}
        results.append(module.encode(codes, **options, **sizes))
        results += [unroll(state, tuple(inputs), method=method) for method in ("sequential", "chunked")]
        if family.is_stack:
            results.append(TORCH.module("reversal").reverse(sequence, stack=module))
        return results

    plain = run()
    with torch.autocast("cpu", torch.bfloat16):
        cast = run()
    for left, right in zip(TORCH.numpys(cast), TORCH.numpys(plain), strict=True):
        assert_same_bits(left, right)


@pytest.mark.parametrize("case", [*CASES, *MODES], ids=str)
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
    for backend, cases in ((TORCH, SCANS), (JAX, some(by_turns(SCANS, 0), 1, 2))):
        for case in cases:
            state, actions, elements = case.arguments(SMALL, dtype=np.float32)
            half = jax.tree.map(
                lambda leaf: leaf.astype(np.float16) if is_floating(leaf) else leaf, (actions, elements)
            )
            wide = jax.tree.map(lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float16 else leaf, half)
            run = backend.function(case)
            if case.family.only_moves:
                with pytest.raises(TypeError, match="elements: expected dtype float32, that of the state, got dtype f"):
                    run(*backend.arrays((state, actions, half[1]), case.family))
                continue
            results = [run(*backend.arrays((state, *each), case.family)) for each in (half, wide)]
            for left, right in zip(*map(backend.numpys, results), strict=True):
                assert_same_bits(left, right)
