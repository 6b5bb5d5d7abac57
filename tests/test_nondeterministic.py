"""The nondeterministic stack: the window, the range of weights, what is forbidden, hard programs, segments.

PyTorch runs both methods, and all tests. JAX, which compiles this family longest, runs the parallel form, and the loop
in the windows.
"""

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import BACKENDS, TORCH, Backend, assert_close
from diffstack.actions import NOOP, POP, PUSH
from families import FULL, NONDETERMINISTIC, SCANS, NondeterministicState
from oracles import nondeterministic as oracle

pytestmark = pytest.mark.usefixtures("x64")

METHODS = NONDETERMINISTIC.methods
METHOD = pytest.mark.parametrize(
    ("backend", "method"),
    [(b, m) for b in BACKENDS for m in METHODS if FULL or b is TORCH or m == "parallel"],
    ids=str,
)
RNG = np.random.default_rng(0)


def weights(states: int, symbols: int, steps: int, scale: float = 1.0) -> Any:
    n = states * symbols
    return scale * np.random.default_rng(1).normal(size=(steps, n * (2 * n + states)))


def empty(backend: Backend, capacity: int, dim: int, states: int, symbols: int, **options: Any) -> Any:
    dtype = backend.dtype(options.pop("dtype", "float64"))
    if "bottom" in options:
        options["bottom"] = backend.array(options["bottom"])
    module = backend.module("nondeterministic")
    return module.empty(capacity, (dim,), states=states, symbols=symbols, dtype=dtype, **options)


def test_the_oracle_is_what_all_runs_do():
    for states, symbols, steps in [(2, 2, 5), (1, 2, 6), (2, 1, 6), (1, 1, 8)]:
        actions, elements, bottom = weights(states, symbols, steps, 2), RNG.normal(size=(steps, 3)), RNG.normal(size=3)
        edges = np.full((1, states, symbols, 1, states, symbols), -np.inf)
        edges[..., 0, 0] = 0
        tops = np.full((states, symbols), -np.inf)
        tops[0, 0] = 0
        _, reads = oracle.scan(bottom[None], tops, edges, actions, elements)
        np.testing.assert_allclose(
            reads, oracle.enumerated(states, symbols, actions, elements, bottom), rtol=0, atol=4e-15
        )


@METHOD
def test_all_runs(backend: Backend, method: str):
    """The library itself, from the empty stack, whose bottom has a vector."""
    actions, elements, bottom = weights(2, 2, 5, 2), RNG.normal(size=(5, 3)), RNG.normal(size=3)
    state = empty(backend, 1, 3, 2, 2, bottom=bottom)
    module = backend.module("nondeterministic")
    _, reads = module.scan(state, *map(backend.array, (actions, elements)), method=method)
    np.testing.assert_allclose(
        backend.numpy(reads), oracle.enumerated(2, 2, actions, elements, bottom), rtol=0, atol=4e-15
    )


@pytest.mark.parametrize(
    ("backend", "capacity"), [(b, n) for b in BACKENDS for n in (1, 2, 24, 25) if FULL or b is TORCH or n == 2], ids=str
)
def test_the_window(backend: Backend, capacity: int):
    """By steps, which forget; the bottom has left after as many steps as the window has."""
    actions, elements = weights(2, 2, 24), RNG.normal(size=(24, 2))
    module, state = backend.module("nondeterministic"), empty(backend, capacity, 2, 2, 2)
    expected = tuple(map(backend.numpy, state))
    state, reads = backend.module("_sequential").scan(module.step, state, *map(backend.array, (actions, elements)))
    for actual, action, element in zip(backend.numpy(reads), actions, elements, strict=True):
        expected, read = oracle.step(*expected, action, element)
        assert_close(actual, read, 1e-12)
    for actual, like in zip(map(backend.numpy, state), expected, strict=True):
        assert_close(actual, like, 1e-11)


@pytest.mark.parametrize(
    ("backend", "method", "capacity"),
    [e for e in itertools.product(BACKENDS, METHODS, (1, 28)) if FULL or e[0] is TORCH],
    ids=str,
)
def test_segments_are_one_run(backend: Backend, method: str, capacity: int):
    """Where there is room; a state that holds nothing but the last step forgets."""
    actions, elements = map(backend.array, (weights(2, 2, 27), RNG.normal(size=(27, 2))))
    module, state = backend.module("nondeterministic"), empty(backend, capacity, 2, 2, 2)
    _, whole = module.scan(state, actions, elements, method=method)
    parts = []
    for part in (slice(0, 13), slice(13, 14), slice(14, 27)):
        state, reads = module.scan(state, actions[part], elements[part], method=method)
        parts.append(backend.numpy(reads))
    gap = np.abs(np.concatenate(parts) - backend.numpy(whole)).max()
    assert (gap < 1e-12) == (capacity == 28)


def test_weights_of_any_size(backend: Backend):
    """In logarithms; the filter of probabilities holds as long as nothing that it drops comes back."""
    state = empty(backend, 1, 2, 2, 2)
    module, elements = backend.module("nondeterministic"), RNG.normal(size=(12, 2))
    both = ((400, "sequential"), (30, "parallel"))
    for scale, method in both if FULL or backend is TORCH else both[1:]:
        actions = weights(2, 2, 12, scale)
        _, reads = module.scan(state, *map(backend.array, (actions, elements)), method=method)
        _, expected = oracle.scan(*map(backend.numpy, state), actions, elements)
        np.testing.assert_allclose(backend.numpy(reads), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("backend", "dtype", "inside", "outside"),
    [
        (backend, *rule)
        for backend in BACKENDS
        for rule in (("float32", 68.0, 71.0), ("float64", 660.0, 675.0))
        if FULL or backend is TORCH or rule[0] == "float32"
    ],
    ids=str,
)
def test_the_rule_of_the_filter(backend: Backend, dtype: str, inside: float, outside: float):
    """Push 1 or, less likely, 2; push 1 over both; pop it; let only 2 stay. The filter drops what is too unlikely."""
    module, state = backend.module("nondeterministic"), empty(backend, 1, 0, 1, 3, dtype=dtype)
    for nats, method in itertools.product((inside, outside), METHODS):
        actions = np.full((4, 21), -np.inf, dtype)
        actions[0, [1, 2]] = 0, -nats
        actions[1, [3 + 1, 6 + 1]] = 0
        actions[2, 9 + 1] = 0
        actions[3, 12 + 6 + 2] = 0
        _, reads = module.scan(state, backend.array(actions), method=method)
        found = [0, 0, 0] if (nats, method) == (outside, "parallel") else [0, 0, 1]
        assert backend.numpy(reads)[-1, 0].tolist() == found


@METHOD
def test_what_is_forbidden_has_finite_gradients(backend: Backend, method: str):
    """Operations, tops that cannot be, and from the sixth step on all ways, after which there is nothing."""
    actions, elements = weights(2, 2, 8), RNG.normal(size=(8, 2))
    actions[:, ::3] = -np.inf
    actions[2, 16:24] = -np.inf
    actions[5] = -np.inf
    state = tuple(map(backend.numpy, empty(backend, 2, 2, 2, 2)))
    scan = next(case for case in SCANS if case.family is NONDETERMINISTIC and case.method == method)
    given = backend.arrays((NondeterministicState(*state), actions, elements), NONDETERMINISTIC)
    values, gradients = backend.outcome(lambda *arguments: backend.function(scan)(*arguments)[1], given)
    assert not values[0][5:].any()
    assert values[0][4].any()
    _, expected = oracle.scan(*state, actions, elements)
    assert_close(values[0], expected, 1e-12)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    *_, of_actions, of_elements = gradients
    assert of_actions[:5].any()
    assert not of_actions[5:].any()
    assert not of_elements[5:].any()


@METHOD
@given(data=st.data())
def test_hard_programs_are_those_of_the_discrete_stack(backend: Backend, method: str, data: st.DataObject):
    """One state, symbols for values, pops of nothing included."""
    codes = data.draw(st.lists(st.sampled_from([PUSH, PUSH, POP, NOOP]), min_size=12, max_size=12))
    pushed = data.draw(st.lists(st.integers(1, 3), min_size=12, max_size=12))
    module, discrete = backend.module("nondeterministic"), backend.module("discrete")
    program = module.encode(codes, pushed, symbols=4, dtype=backend.dtype("float64"))
    _, tops = module.scan(empty(backend, 1, 0, 1, 4), program, method=method)
    symbols = backend.array(np.asarray(pushed, np.int32))
    _, reads = discrete.scan(discrete.empty(12, dtype=backend.dtype("int32")), discrete.encode(codes), symbols)
    expected = np.eye(4)[backend.numpy(reads)]
    np.testing.assert_array_equal(backend.numpy(tops)[:, 0], expected)


@pytest.mark.parametrize("backend", BACKENDS if FULL else (TORCH,), ids=str)
def test_reads_are_linear_in_the_vectors_and_add_up_to_the_tops(backend: Backend):
    module, actions = backend.module("nondeterministic"), backend.array(weights(2, 3, 9))
    ones, bottom = backend.array(np.ones((9, 1))), np.ones(1)
    state, reads = module.scan(empty(backend, 10, 1, 2, 3, bottom=bottom), actions, ones)
    _, tops = module.scan(empty(backend, 10, 0, 2, 3), actions)
    np.testing.assert_allclose(backend.numpy(reads)[..., 0], backend.numpy(tops), rtol=0, atol=2e-15)
    np.testing.assert_allclose(backend.numpy(tops).sum((1, 2)), 1, rtol=0, atol=2e-15)
    np.testing.assert_allclose(backend.numpy(module.peek(state)), backend.numpy(module.contents(state))[-1], rtol=2e-15)


@METHOD
def test_the_bottom_can_be_learnt(backend: Backend, method: str):
    """Its vector's gradient is how likely the bottom is on top."""
    module, actions = backend.module("nondeterministic"), backend.array(weights(2, 2, 6))
    elements = backend.array(np.zeros((6, 1)))

    def run(bottom: Any) -> Any:
        options = {"states": 2, "symbols": 2, "dtype": backend.dtype("float64")}
        return module.scan(module.empty(1, (1,), bottom=bottom, **options), actions, elements, method=method)[1]

    values, (gradient,) = backend.outcome(run, (backend.array(np.ones(1)),), [np.ones((6, 2, 2, 1))])
    np.testing.assert_allclose(gradient, values[0].sum(), rtol=2e-15)
    assert 0 < values[0].sum() < 6


def test_the_case_of_a_wrong_width(backend: Backend):
    module, state = backend.module("nondeterministic"), empty(backend, 1, 0, 2, 3)
    with pytest.raises(
        ValueError, match=r"^actions: expected shape \(4, 84\), log weights of 2 states and 3 symbols, "
    ):
        module.scan(state, backend.array(np.zeros((4, 83))))
    with pytest.raises(ValueError, match=r"^actions: expected shape \('time', 84\), log weights"):
        module.scan(state, backend.array(np.zeros(84)))
    with pytest.raises(ValueError, match=r"^bottom: expected shape \(2,\) or \(2,\), got shape \(3,\)"):
        empty(backend, 1, 2, 1, 1, bottom=np.zeros(3))
    with pytest.raises(ValueError, match=r"^pushed: expected shape \(2,\), a symbol for each of the codes, got"):
        module.encode([PUSH, POP], [0], symbols=2)
    with pytest.raises(ValueError, match=r"^states: expected an integer of at least 1, got 0"):
        module.empty(1, states=0)


@pytest.mark.parametrize("backend", BACKENDS if FULL else (TORCH,), ids=str)
def test_a_stack_that_starts_empty_holds_the_bottom_alone(backend: Backend):
    """Also where elements have no numbers, so that only its edges show what it holds."""
    module, unroll = backend.module("nondeterministic"), backend.module("controller").unroll
    inputs = backend.array(weights(2, 2, 3))

    def controller(carry: Any, actions: Any, read: Any) -> Any:
        return carry, actions, None, read

    for capacity in (1, 4):
        state = empty(backend, capacity, 0, 2, 2)
        (_, after), plain = unroll(controller, inputs[0, 0], state, inputs)
        _, promised = unroll(controller, inputs[0, 0], state, inputs, starts_empty=True, method="chunked")
        np.testing.assert_allclose(backend.numpy(promised), backend.numpy(plain), rtol=0, atol=2e-15)
        with pytest.raises(ValueError, match=r"^states: expected empty stacks, as starts_empty promises"):
            unroll(controller, inputs[0, 0], after, inputs, starts_empty=True)
        assert after.edges.shape == state.edges.shape
    assert module.peek(state).shape == (2, 2)


def test_traces_without_elements(backend: Backend):
    """Over several chunks: elements without numbers come out of a layer as they went in."""
    layers = backend.module("layers")
    layer = layers.StackRNN(3, 4, layers.Stack("nondeterministic", 0, states=2))
    inputs = backend.array(np.ones((20, 3), np.float32))
    if backend.name == "jax":
        run = jax.jit(lambda parameters: layer.scan(parameters, inputs, trace=True, final_states=False))
        outputs, carry, (trace,) = run(layer.init(jax.random.key(0)))
    else:
        outputs, carry, (trace,) = layer(inputs, trace=True, final_states=False)
    assert (outputs.shape, carry, trace.elements.shape, trace.reads.shape) == ((20, 4), None, (20, 0), (20, 2, 1))


def test_tops_that_cannot_be_give_no_gradient_to_others(backend: Backend):
    """Symbol 1 is never pushed and replaces nothing; the gradients of final tops go to those that can be."""
    actions, elements = weights(2, 2, 6), RNG.normal(size=(6, 2))
    for block in (slice(0, 16), slice(24, 40)):
        actions[:, block][:, 1::2] = -np.inf
    state = NondeterministicState(*map(backend.numpy, empty(backend, 7, 2, 2, 2)))
    given = backend.arrays((state, actions, elements), NONDETERMINISTIC)
    loop, parallel = (case for case in SCANS if case.family is NONDETERMINISTIC)
    first = backend if FULL else TORCH
    ours = first.outcome(first.function(loop), first.arrays((state, actions, elements), NONDETERMINISTIC))
    theirs = backend.outcome(backend.function(parallel), given)
    assert np.isneginf(ours[0][1]).tolist() == [[False, True]] * 2
    for left, right in zip(theirs[1], ours[1], strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=4e-15)
