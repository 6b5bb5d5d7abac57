"""Learning the input whose output is the target."""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import diffstack.jax_impl
import diffstack.torch_impl
from backends import BACKENDS, JAX, TORCH, Backend, assert_same_bits
from families import FULL
from strategies import numpy_dtype

# The notebook's target, and the losses it prints before steps 0, 10, ..., 90.
TARGET = np.repeat([[4.0], [3.0], [2.0], [1.0]], 4, 1)
LOSSES = [3.5, 1.278137, 0.343994, 0.054887, 0.016218, 0.008572, 0.006566, 0.001941, 0.000025, 0.000215]
ROWS = np.repeat([[1.0], [2.0], [3.0], [4.0]], 4, 1)

# `optax.adam` breaks the strict rules.
pytestmark = pytest.mark.usefixtures("standard_promotion")


def target(backend: Backend, dtype: str = "float32"):
    return backend.array(TARGET.astype(dtype))


def gradient_descent(backend: Backend, rate: float = 1.0):
    if backend is JAX:
        return optax.sgd(rate)
    return lambda tensors: torch.optim.SGD(tensors, lr=rate)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "dtype", "stack"),
    [
        (backend, dtype, stack)
        for backend in BACKENDS
        for dtype in ("float32", "float64")
        for stack in ("pointer", "discrete")
        # JAX each dtype with one of the stacks.
        if FULL or backend is TORCH or (dtype == "float64") == (stack == "pointer")
    ],
    ids=str,
)
def test_the_notebook(backend: Backend, dtype: str, stack: str):
    reversal = backend.module("reversal")
    program = reversal.reverse
    if stack == "discrete":

        def program(sequence):
            return reversal.reverse(sequence, stack=backend.module("discrete"))

    learned = backend.module("inverse").learn_input(target(backend, dtype), program=program)
    sequence, output, losses = (backend.numpy(array) for array in learned)
    assert losses.shape == (100,)
    assert sequence.dtype == output.dtype == losses.dtype == dtype
    np.testing.assert_allclose(losses[::10], LOSSES, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(sequence.round(), ROWS)
    np.testing.assert_array_equal(output, sequence[::-1])


def test_the_notebook_without_64_bit_mode():
    """optax corrects Adam's bias in float32 there."""
    learned = JAX.module("inverse").learn_input(target(JAX))
    np.testing.assert_allclose(learned.losses[::10], LOSSES, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(learned.sequence.round(), ROWS)


def test_the_last_loss_is_the_one_before_the_last_update(backend: Backend):
    inverse = backend.module("inverse")
    learned = inverse.learn_input(target(backend), steps=3)
    assert learned.losses.shape == (3,)
    state, _ = inverse.advance(inverse.init(target(backend)), target(backend), 2)
    expected = np.mean((backend.numpy(state.sequence)[::-1] - TARGET) ** 2)
    np.testing.assert_allclose(backend.numpy(learned.losses)[2], expected, rtol=1e-6)


def test_pieces_equal_one_run(backend: Backend):
    inverse = backend.module("inverse")
    whole, losses = inverse.advance(inverse.init(target(backend)), target(backend), 20)
    state, parts = inverse.init(target(backend)), []
    for steps in (7, 0, 12, 1):
        state, part = inverse.advance(state, target(backend), steps)
        assert part.shape == (steps,)
        parts.append(backend.numpy(part))
    assert_same_bits(np.concatenate(parts), backend.numpy(losses))
    assert_same_bits(backend.numpy(state.sequence), backend.numpy(whole.sequence))
    assert_same_bits(backend.numpy(inverse.learn_input(target(backend), steps=20).losses), backend.numpy(losses))


def test_an_old_state_stays_valid(backend: Backend):
    inverse = backend.module("inverse")
    start = inverse.init(target(backend))
    middle, _ = inverse.advance(start, target(backend), 5)
    first, first_losses = inverse.advance(middle, target(backend), 5)
    again, again_losses = inverse.advance(middle, target(backend), 5)
    assert_same_bits(backend.numpy(again_losses), backend.numpy(first_losses))
    assert_same_bits(backend.numpy(again.sequence), backend.numpy(first.sequence))
    assert_same_bits(backend.numpy(start.sequence), np.ones_like(TARGET, np.float32))


def test_no_steps(backend: Backend):
    sequence, output, losses = backend.module("inverse").learn_input(target(backend), steps=0)
    assert losses.shape == (0,)
    np.testing.assert_array_equal(backend.numpy(sequence), np.ones_like(TARGET))
    np.testing.assert_array_equal(backend.numpy(output), np.ones_like(TARGET))


def test_the_start(backend: Backend):
    learn_input = backend.module("inverse").learn_input
    exact = learn_input(target(backend), initial=backend.array(ROWS.astype(np.float32)), steps=1)
    assert backend.numpy(exact.losses).tolist() == [0]
    np.testing.assert_array_equal(backend.numpy(exact.sequence), ROWS)


def test_the_program_and_the_optimizer(backend: Backend):
    """x + x = y by gradient descent on the mean of (2 x - y)^2: one step of 1/4 of it is exact in two numbers."""
    learned = backend.module("inverse").learn_input(
        backend.array(np.array([6.0, -2.0], np.float32)),
        program=lambda sequence: sequence + sequence,
        optimizer=gradient_descent(backend, 0.25),
        steps=2,
    )
    assert backend.numpy(learned.losses).tolist() == [((2 - 6) ** 2 + (2 + 2) ** 2) / 2, 0]
    assert backend.numpy(learned.sequence).tolist() == [3, -1]
    assert backend.numpy(learned.output).tolist() == [6, -2]


def test_a_program_whose_input_has_another_shape(backend: Backend):
    learned = backend.module("inverse").learn_input(
        backend.array(np.array(6.0, np.float32)),
        initial=backend.array(np.ones(2, np.float32)),
        program=lambda sequence: sequence.sum(),
        optimizer=gradient_descent(backend, 0.25),
        steps=2,
    )
    assert backend.numpy(learned.losses).tolist() == [16, 0]
    assert backend.numpy(learned.sequence).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [(b, d) for b in BACKENDS for d in ("float16", "bfloat16") if FULL or b is TORCH or d == "bfloat16"],
    ids=str,
)
def test_half_precision(backend: Backend, dtype: str):
    array = backend.array(TARGET.astype(numpy_dtype(dtype)))
    # Not Adam, whose epsilon is zero in float16.
    learned = backend.module("inverse").learn_input(array, optimizer=gradient_descent(backend, 4.0))
    assert {leaf.dtype for leaf in learned} == {backend.dtype(dtype)}
    np.testing.assert_allclose(backend.numpy(learned.sequence).astype(float), ROWS, atol=0.01)


def test_torch_leaves_no_graph_and_no_gradient():
    inverse, goal = TORCH.module("inverse"), target(TORCH).requires_grad_()
    with torch.no_grad():
        learned = inverse.learn_input(goal, steps=3)
    assert learned.losses.tolist() == inverse.learn_input(goal, steps=3).losses.tolist()
    assert goal.grad is None
    assert not learned.sequence.requires_grad
    assert not learned.losses.requires_grad


def test_jax_advances_inside_jit():
    inverse = JAX.module("inverse")
    run = jax.jit(lambda goal: inverse.advance(inverse.init(goal), goal, 5)[1])
    np.testing.assert_allclose(run(target(JAX)), inverse.learn_input(target(JAX), steps=5).losses, rtol=1e-6)
    assert jax.vmap(run)(jnp.stack([target(JAX)] * 2)).shape == (2, 5)


@pytest.mark.parametrize("package", [diffstack.jax_impl, diffstack.torch_impl])
def test_the_public_names(package: ModuleType):
    assert package.learn_input is package.inverse.learn_input
    assert package.reverse is package.reversal.reverse
