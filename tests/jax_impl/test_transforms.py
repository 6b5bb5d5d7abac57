"""Every verb of every family under JAX's transforms. `Backend.outcome` runs all of them under `jit`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from backends import JAX, assert_close
from families import (
    CASES,
    DISCRETE,
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
    Size,
    by_turns,
    floats,
    mainly_scans,
    product,
    some,
    with_floats,
)

TOLERANCE = 4 * float(np.finfo(np.float32).eps)
DIFFERENTIABLE = tuple(case for case in CASES if case.differentiable)
# Of what comes in two ways, these take the one and the others the other.
TURN = [case for case in CASES if case.family in (POINTER, SUPERPOSITION, NEURAL_QUEUE, NEURAL_DEQUE)]


def prepared(case: Case, dtype: Any = np.float32) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function of a case, and arguments for it with one batch axis."""
    return JAX.function(case), JAX.arguments(case, SMALL if case.method else STEP, dtype=dtype)


def of_floats(function: Callable[..., Any], arguments: Any) -> Callable[..., Any]:
    """The floating results as a function of the floating arguments."""
    return lambda *leaves: floats(function(*with_floats(arguments, leaves)))


def assert_all_close(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(JAX.numpys(actual), JAX.numpys(expected), strict=True):
        assert_close(left, right, tolerance)


@pytest.mark.parametrize("case", CASES if FULL else some(by_turns(SCANS, 1), 1, 2), ids=str)
def test_shapes_without_values(case: Case):
    function, arguments = prepared(case)
    shapes = jax.eval_shape(function, *arguments)
    result = function(*arguments)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), result
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("axis", [0, *product(-1)])
def test_vmap(family: Family, axis: int):
    """Mapping over the batch axis gives what the oracle gives, wherever it stands; all verbs in one program.

    A `scan` takes longest: those of some families are mapped below, and of the others by parity.
    """
    cases = [case for case in CASES if case.family is family and (FULL or not case.method)]
    functions, given = zip(*(prepared(case, np.float64) for case in cases), strict=True)
    moved = jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf), 0, axis), given)

    @jax.jit
    def mapped(moved: Any) -> list[Any]:
        return [jax.vmap(function, in_axes=axis)(*each) for function, each in zip(functions, moved, strict=True)]

    for result, case in zip(mapped(moved), cases, strict=True):
        for actual, expected in zip(JAX.numpys(result), case.values(SMALL if case.method else STEP), strict=True):
            assert_close(actual, expected, 1e-12)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if len(case.arguments(STEP)) > 1] if FULL else some(by_turns(SCANS, 1), 1, 2),
    ids=str,
)
@pytest.mark.parametrize("shared", [0, *product(1)])
def test_vmap_with_a_shared_argument(case: Case, shared: int):
    """The state stays while the rest is mapped, or the state is mapped and the rest stays."""
    function, arguments = prepared(case)
    axes = tuple(0 if (position > 0) == (shared == 0) else None for position in range(len(arguments)))
    one, many = [], []
    for argument, axis in zip(arguments, axes, strict=True):
        first = jax.tree.map(lambda leaf: leaf[0], argument)
        one.append(first if axis is None else argument)
        many.append(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), first) if axis is None else argument)
    assert_all_close(jax.vmap(function, in_axes=axes)(*one), function(*many))


# The families whose gradients are compared in every way, and those whose gradients are differentiated again.
FIRST = FAMILIES if FULL else (POINTER, DISCRETE, NEURAL_QUEUE)
SECOND = FAMILIES if FULL else (SUPERPOSITION, NEURAL_STACK, NONDETERMINISTIC)


@pytest.mark.parametrize(
    "case", [case for case in by_turns(mainly_scans(DIFFERENTIABLE), 0) if case.family in FIRST], ids=str
)
def test_gradients_in_every_way(case: Case):
    """<cotangent, J tangent> = <J^T cotangent, tangent>; the same of each stack by itself, or under checkpoint."""
    # The gradient of an automaton's tops is a small sum of large terms.
    with jax.enable_x64(case.family.automaton):
        every_way_agrees(case, np.float64 if case.family.automaton else np.float32)


def every_way_agrees(case: Case, dtype: Any) -> None:
    function, arguments = prepared(case, dtype)
    of_all, leaves = of_floats(function, arguments), floats(arguments)
    generator = np.random.default_rng(0)
    tangents = [jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    shapes = jax.eval_shape(of_all, *leaves)
    cotangents = [jnp.asarray(generator.normal(size=leaf.shape), leaf.dtype) for leaf in shapes]

    def pulled(function: Callable[..., Any], leaves: list[Any], cotangents: list[Any]) -> list[Any]:
        return list(jax.vjp(function, *leaves)[1](cotangents))

    # A parallel form with a backward pass of its own has no forward mode; the loop has.
    own = case.family.automaton and case.method == "parallel"
    loop = next(each for each in SCANS if each.family is case.family) if own else case
    forward_mode = of_floats(prepared(loop)[0], arguments)

    def alone(arguments: Any, cotangents: list[Any]) -> list[Any]:
        return pulled(of_floats(function, arguments), floats(arguments), cotangents)

    @jax.jit
    def every_way(arguments: Any) -> tuple[Any, ...]:
        leaves = floats(arguments)
        return (
            jax.jvp(forward_mode, leaves, tangents)[1],
            pulled(of_all, leaves, cotangents),
            *([pulled(jax.checkpoint(of_all), leaves, cotangents)] if FULL or case in TURN else []),
            *([jax.vmap(alone)(arguments, cotangents)] if FULL or case not in TURN else []),
        )

    pushed, gradients, *others = every_way(arguments)
    forward = sum(float(jnp.vdot(a, b)) for a, b in zip(pushed, cotangents, strict=True))
    reverse = sum(float(jnp.vdot(a, b)) for a, b in zip(gradients, tangents, strict=True))
    np.testing.assert_allclose(forward, reverse, rtol=1e-5, atol=1e-5)
    for each in others:
        assert_all_close(each, gradients)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "case",
    [case for case in by_turns(mainly_scans(DIFFERENTIABLE), 1) if case.family in SECOND],
    ids=str,
)
def test_gradients_to_second_order(case: Case):
    """Forward over reverse, or reverse over reverse, against differences of the gradient along a direction."""
    arguments = JAX.arguments(case, Size(2 if case.method else None, 2, (1,)))
    function, leaves = of_floats(JAX.function(case), arguments), floats(arguments)
    generator = np.random.default_rng(1)
    direction, weights = ([jnp.asarray(generator.normal(size=leaf.shape)) for leaf in leaves] for _ in range(2))

    def dot(left: list[Any], right: list[Any]) -> Any:
        return sum(jnp.vdot(a, b) for a, b in zip(left, right, strict=True))

    def slope(leaves: list[Any]) -> Any:
        """The derivative of a loss along the weights, by the gradient."""
        return dot(jax.grad(lambda leaves: sum(jnp.sum(jnp.sin(leaf)) for leaf in function(*leaves)))(leaves), weights)

    @jax.jit
    def derivatives(leaves: list[Any]) -> tuple[Any, ...]:
        forward = jax.jvp(slope, (leaves,), (direction,)) if FULL or case not in TURN else ()
        if forward and not FULL:
            return forward
        value, by_reverse = jax.value_and_grad(slope)(leaves)
        return value, *forward[1:], dot(by_reverse, direction)

    moved = ([a + h * b for a, b in zip(leaves, direction, strict=True)] for h in (1e-5, -1e-5))
    after, before = (derivatives(leaves)[0] for leaves in moved)
    assert before != after
    np.testing.assert_allclose(derivatives(leaves)[1:], float(after - before) / 2e-5, rtol=1e-8)


@pytest.mark.parametrize("family", some(FAMILIES, 2), ids=str)
def test_a_scan_of_the_users_own(family: Family):
    """`lax.scan` over `step` takes time first."""
    case = next(case for case in SCANS if case.family is family)
    function, (state, actions, elements) = prepared(case)
    state = JAX.with_room(family, state, SMALL.time)
    step = JAX.module(family.name).step
    time_first = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), (actions, elements))
    final, reads = jax.lax.scan(lambda state, inputs: step(state, *inputs), state, time_first)
    reads = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), reads)
    assert_all_close((final, reads), function(state, actions, elements))


@pytest.mark.parametrize("case", some(by_turns(SCANS, 1), 1), ids=str)
def test_inputs_over_two_devices(case: Case):
    devices = jax.devices("cpu")[:2]
    assert len(devices) == 2
    function, arguments = prepared(case)
    expected = function(*arguments)
    sharding = NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec("batch"))
    result = function(*jax.device_put(arguments, sharding))
    assert_all_close(result, expected)
    for leaf in jax.tree.leaves(result):
        assert leaf.sharding.device_set == set(devices)
        assert leaf.sharding.shard_shape(leaf.shape)[0] == 1
