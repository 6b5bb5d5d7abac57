"""The method "auto" steps for the values and takes the derivatives from "parallel", under every mix of transforms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from backends import JAX, assert_close
from diffstack.jax_impl import pointer, superposition
from diffstack.jax_impl.parallel import pointer as parallel

pytestmark = pytest.mark.usefixtures("quick_compilation")

Arrays = tuple[jax.Array, ...]
BATCHES: list[Any] = [(0, None, None, None), (None, 1, None, None), (None, None, 1, 0)]
REST = [(0, 0, 0, 0), (None, None, 0, None), (None, None, None, 1), (None, 0, None, 1), (2, None, None, 0)]
BATCHES += [pytest.param(batch, marks=pytest.mark.full) for batch in REST]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "is_faster", lambda time, entries: True)
    monkeypatch.setattr(parallel, "_CHUNK", 2)


def scan(method: str) -> Callable[..., Arrays]:
    def run(buffer: Any, index: Any, actions: Any, elements: Any) -> Arrays:
        state, reads = pointer.scan(pointer.PointerState(buffer, index), actions, elements, method=method)
        return *state, reads

    return run


def arguments() -> Arrays:
    """Two chunks, the second broken off."""
    generator = np.random.default_rng(21)
    buffer, elements = generator.normal(size=(4, 2)), generator.normal(size=(3, 2))
    index, actions = generator.dirichlet(np.ones(4)), generator.dirichlet(np.ones(3), size=3)
    return tuple(map(jnp.asarray, (buffer, index, actions, elements)))


def loss(function: Callable[..., Arrays]) -> Callable[..., jax.Array]:
    return lambda *arrays: sum(jnp.sum(jnp.sin(output)) for output in function(*arrays))


def assert_same(transform: Callable[[Callable[..., Arrays]], Any]) -> None:
    for actual, expected in zip(
        *(jax.tree.leaves(transform(scan(method))) for method in ("auto", "sequential")), strict=True
    ):
        assert_close(JAX.numpy(actual), JAX.numpy(expected), 1e-12)


def test_each_does_its_part():
    """The bits of the values are those of stepping, those of the gradients are those of "parallel"."""
    arrays = arguments()
    values, stepped, at_once = (jax.jit(scan(method))(*arrays) for method in ("auto", "sequential", "parallel"))
    assert all(map(np.array_equal, values, stepped))
    assert not all(map(np.array_equal, values, at_once))
    gradients = (jax.jit(jax.grad(loss(scan(method)), (0, 1, 2, 3)))(*arrays) for method in ("auto", "parallel"))
    assert all(map(np.array_equal, *gradients))


def test_the_superposition_stack_too():
    generator = np.random.default_rng(22)
    actions, elements = (
        jnp.asarray(generator.dirichlet(np.ones(3), size=9)),
        jnp.asarray(generator.normal(size=(9, 32))),
    )

    def reads(method: str) -> Callable[..., jax.Array]:
        return lambda *arrays: superposition.scan(superposition.empty(16, (32,)), *arrays, method=method)[1]

    values, stepped, at_once = (
        jax.jit(reads(method))(actions, elements) for method in ("auto", "sequential", "parallel")
    )
    assert np.array_equal(values, stepped)
    assert not np.array_equal(values, at_once)
    along = jax.jit(lambda *arrays: jax.vjp(reads("auto"), *arrays)[0])(actions, elements)
    assert np.array_equal(along, at_once)


def test_what_has_no_gradient_costs_none():
    arrays = arguments()

    def operations(method: str, wanted: tuple[int, ...]) -> float:
        return jax.jit(jax.grad(loss(scan(method)), wanted)).lower(*arrays).compile().cost_analysis()["flops"]

    assert operations("auto", (3,)) < 1.02 * operations("parallel", (3,)) < operations("auto", (0, 1, 2, 3))


@pytest.mark.parametrize("wrap", [jax.checkpoint, pytest.param(jax.jit, marks=pytest.mark.full)])
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_vmap(batch: tuple[int | None, ...], wrap: Callable[..., Any]):
    """Of every mix of batched inputs, in forward and reverse mode."""
    with JAX.x64():
        arrays = tuple(
            array if axis is None else jnp.stack([array, array * 0.5 + 0.1], axis)
            for array, axis in zip(arguments(), batch, strict=True)
        )
        directions = tuple(map(jnp.cos, arrays))

        def mapped(function: Any) -> Any:
            return jax.vmap(wrap(function), in_axes=batch)

        assert_same(lambda function: jax.jvp(mapped(function), arrays, directions))
        assert_same(lambda function: jax.grad(loss(mapped(function)), (0, 1, 2, 3))(*arrays))
        assert_same(lambda function: mapped(jax.grad(loss(function), (1, 2)))(*arrays))


def test_derivatives_of_derivatives():
    with JAX.x64():
        arrays = arguments()
        assert_same(lambda function: jax.hessian(loss(function), (1, 3))(*arrays))
        assert_same(lambda function: jax.jacfwd(jax.checkpoint(function), (0, 2))(*arrays))


def test_inside_a_scan():
    with JAX.x64():
        buffer, *rest = arguments()

        def thrice(function: Callable[..., Arrays]) -> Callable[..., Arrays]:
            def run(buffer: jax.Array, *rest: jax.Array) -> Arrays:
                def body(buffer: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
                    buffer, _, reads = function(buffer, *rest)
                    return buffer, reads

                return jax.lax.scan(body, buffer, None, 3)

            return run

        assert_same(lambda function: jax.grad(loss(thrice(function)))(buffer, *rest))
        assert_same(lambda function: jax.jvp(lambda buffer: thrice(function)(buffer, *rest), (buffer,), (buffer,)))
