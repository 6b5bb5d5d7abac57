"""`unroll`: both methods against the oracle, against each other, in every mode, and what it says of bad arguments."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from backends import JAX, Backend, assert_close, assert_same_bits
from controllers import HARD, METHODS, UNROLLS, controller, unrolled
from families import FAMILIES, Case, Family, Size, floats
from test_definition import check_gradients

CHUNKED = tuple(case for case in UNROLLS if case.method == "chunked")
FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=str)


def case_of(family: Family, method: str) -> Case:
    return next(case for case in UNROLLS if case.family is family and case.method == method)


# --- the oracle ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", UNROLLS, ids=str)
def test_values_and_gradients(backend: Backend, case: Case):
    """Of every argument, against the oracle, within a chunk."""
    size = Size(13, 3, (2,), (2,))
    arguments, function = backend.arguments(case, size), unrolled(backend, case)
    if not case.differentiable:
        results = backend.numpys(function(*arguments))
        assert all(np.array_equal(left, right) for left, right in zip(results, case.values(size), strict=True))
        return
    results, gradients = backend.outcome(function, arguments, case.cotangents(size))
    for actual, expected in zip(results, floats(case.values(size)), strict=True):
        assert_close(actual, expected, 1e-12)
    check_gradients(case, size, gradients)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CHUNKED, ids=str)
def test_values_over_several_chunks(backend: Backend, case: Case):
    """From a full state and, with hard actions, over 65 steps, where soft ones are chaotic."""
    size = Size(65, 7, (2,), (2,))
    hard = HARD[case.family, case.method]
    arguments = backend.arrays(tuple(hard.arguments(size, hard=True)), case.family)
    results = backend.numpys(unrolled(backend, hard, True)(*arguments))
    for actual, expected in zip(results, hard.values(size, hard=True), strict=True):
        assert_close(actual, expected, 1e-12)


# --- the two methods ---


def agree(backend: Backend, family: Family, arguments: Any, hard: bool, **options: Any) -> None:
    """Values and gradients of everything, chunk by chunk, are those of the loop."""
    given = backend.arrays(arguments, family)
    ours, theirs = (
        backend.outcome(unrolled(backend, case_of(family, method), hard, **more), given)
        for method, more in (("sequential", {}), ("chunked", options))
    )
    for left, right in zip(theirs[0], ours[0], strict=False):
        assert_close(left, right, 1e-12)
    scale = max((np.abs(gradient).max(initial=0) for gradient in ours[1]), default=0)
    kept = len(floats(arguments[0])) if options.get("starts_empty") else 0
    for left, right in zip(theirs[1][kept:], ours[1][kept:], strict=True):
        assert np.abs(left - right).max(initial=0) <= 1e-12 * scale


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("time", [1, 37, 65])
@FAMILY
def test_chunks_are_the_loop(backend: Backend, family: Family, time: int):
    """At chunk borders and off them; full and half-filled states, soft and hard actions, ties, in one batch."""
    soft, hard = (HARD[family, "chunked"].arguments(Size(time, 40, (2,), (3,)), hard=each) for each in (False, True))
    state, actions, elements = jax.tree.map(lambda *leaves: np.concatenate(leaves), soft, hard)
    if family.strengths:
        ties = np.random.default_rng(3).choice([0, 0, 0.25, 0.5, 1, 1], size=actions[3:].shape)
        actions = np.concatenate([actions[:3], ties])
        strengths = state.strengths * (np.arange(40) < np.array([0, 20, 40, 0, 20, 40])[:, None])
        state = state._replace(strengths=strengths)
    agree(backend, family, (state, actions, elements), True)


def emptied(family: Family, state: Any) -> Any:
    """A state that holds nothing."""
    return (
        type(state)(*(np.zeros_like(leaf) for leaf in state))
        if family.name != "pointer"
        else state._replace(buffer=np.zeros_like(state.buffer))
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("slots", [7, 65, 130])
@FAMILY
def test_the_promises(backend: Backend, family: Family, slots: int):
    """A stack that starts empty, smaller than the sequence, as large or larger; with its final state and without."""
    state, *sequences = HARD[family, "chunked"].arguments(Size(65, slots, (2,), (3,)))
    arguments = (emptied(family, state), *sequences)
    agree(backend, family, arguments, True, starts_empty=True)
    given = backend.arrays(arguments, family)
    whole = unrolled(backend, case_of(family, "chunked"), True)(*given)
    (carry, states), outputs = unrolled(
        backend, case_of(family, "chunked"), True, starts_empty=True, final_states=False
    )(*given)
    assert states is None
    for actual, expected in zip(backend.numpys((carry, outputs)), backend.numpys((whole[0][0], whole[1])), strict=True):
        assert_close(actual, expected, 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", UNROLLS, ids=str)
def test_without_a_step(backend: Backend, case: Case):
    arguments = backend.arguments(case, Size(0, 3, (2,), (2,)))
    (carry, state), outputs = unrolled(backend, case)(*arguments)
    for actual, expected in zip(backend.numpys(state), backend.numpys(arguments[0]), strict=True):
        assert_same_bits(actual, expected)
    assert not backend.numpy(carry).any()
    assert all(leaf.shape == (2, 0, 2) for leaf in backend.numpys(outputs))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("method", METHODS)
@FAMILY
def test_lengths(backend: Backend, family: Family, method: str):
    """Every sequence is as it would be alone, and NaN in its padding reaches nothing."""
    case, lengths = case_of(family, method), [0, 5, 13, 9]
    state, *sequences = case.arguments(Size(13, 3, (2,), (4,)))
    for where, length in enumerate(lengths):
        for leaf in floats(sequences):
            leaf[where, length:] = np.nan
    result = unrolled(backend, case)(*backend.arrays((state, *sequences), family), backend.array(np.asarray(lengths)))
    carry, final, outputs = result[0][0], result[0][1], result[1]
    for where, length in enumerate(lengths):
        alone = jax.tree.map(lambda leaf, w=where, n=length: leaf[w, :n], tuple(sequences))
        (one, ended), shown = case.verb.oracle(jax.tree.map(lambda leaf, w=where: leaf[w], state), *alone)
        for actual, expected in zip(backend.numpys((carry, final)), jax.tree.leaves((one, ended)), strict=True):
            assert_close(actual[where], np.asarray(expected), 1e-12)
        for actual, expected in zip(backend.numpys(outputs), jax.tree.leaves(shown), strict=True):
            assert_close(actual[where, :length], expected, 1e-12)
            assert not actual[where, length:].any()


@pytest.mark.bits
@pytest.mark.parametrize("family", [family for family in FAMILIES if family.is_stack], ids=str)
def test_hard_programs_give_back_bits(backend: Backend, family: Family):
    """What is pushed over several chunks is popped bit for bit."""
    values = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)
    codes = np.asarray([0] * 40 + [1] * 40, np.int32)
    elements = np.concatenate([values, np.zeros_like(values)])
    module = backend.module(family.name)
    program = module.encode(backend.array(codes))
    state = module.empty(50, (3,))

    def decide(carry: Any, inputs: Any, read: Any) -> Any:
        return carry, *inputs, read

    inputs = program, backend.array(elements)
    _, reads = backend.module("controller").unroll(decide, (), state, inputs, method="chunked")
    assert_same_bits(backend.numpy(reads)[40:80], values[::-1])


# --- several stacks ---


def test_all_families_at_once(backend: Backend):
    """Each gets its own reads, and does what it would do alone."""
    with backend.x64():
        size = Size(20, 3, (2,), (2,))
        cases = [HARD[family, "sequential"] for family in FAMILIES]
        given = [backend.arrays(tuple(case.arguments(size)), case.family) for case in cases]
        alone = [unrolled(backend, case, True)(*each) for case, each in zip(cases, given, strict=True)]
        states, actions, elements = (tuple(each) for each in zip(*given, strict=True))

        def decide(carry: Any, inputs: Any, reads: Any) -> Any:
            xp = jnp if backend is JAX else torch
            each = [
                controller(xp, case.family, True)(mine, (action, element), read)
                for case, mine, action, element, read in zip(cases, carry, *inputs, reads, strict=True)
            ]
            return tuple(tuple(part) for part in zip(*each, strict=True))

        carry = tuple(result[0][0] * 0 for result in alone)
        for method in METHODS:
            (carries, finals), outputs = backend.module("controller").unroll(
                decide, carry, states, (actions, elements), method=method
            )
            together = backend.numpys([((c, f), o) for c, f, o in zip(carries, finals, outputs, strict=True)])
            for actual, expected in zip(together, backend.numpys(alone), strict=True):
                assert_close(actual, expected, 1e-12)
