"""What must hold of any program, over random strengths."""

from collections import deque
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import Backend, assert_same_bits, dear
from diffstack.actions import NOOP, POP, PUSH
from families import (
    DISCRETE,
    FAMILIES,
    NEURAL,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NEURAL_STACK,
    POINTER,
    SUPERPOSITION,
    Family,
    Size,
    encode_queue,
)
from strategies import arrays, normal, programs

# The shapes stay the same, so that JAX compiles each function once.
TIME, CUT, DIM = 8, 3, 2

hard_codes = st.lists(st.sampled_from([PUSH, POP, NOOP]), min_size=TIME, max_size=TIME)
hard = st.sampled_from([0.0, 1.0])
soft = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1.5)


def table(numbers: st.SearchStrategy[float], columns: int) -> st.SearchStrategy[Any]:
    """A row of numbers for each step."""
    rows = st.lists(numbers, min_size=TIME * columns, max_size=TIME * columns)
    return rows.map(lambda row: np.array(row).reshape(TIME, columns))


def columns(family: Family) -> int:
    return 4 if family is NEURAL_DEQUE else 2


def elements_of(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(TIME, DIM))


def empty(family: Family, dim: int = DIM, dtype: Any = np.float64) -> Any:
    """With a slot for every push, at both ends of a deque."""
    slots = 2 * TIME if family is NEURAL_DEQUE else TIME
    state = family.unused(np.zeros((slots, dim), dtype), 0)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.dtype == np.float64 else leaf, state)


def scanned(backend: Backend, family: Family, state: Any, actions: Any, elements: Any) -> Any:
    arguments = backend.arrays((state, actions, elements), family)
    return backend.module(family.name).scan(*arguments, method="sequential")


def reads(backend: Backend, family: Family, actions: Any, elements: Any) -> list[Any]:
    """The reads of a scan from an empty state; for a deque, of both its ends."""
    with backend.x64():
        state = empty(family, dtype=jax.tree.leaves(elements)[0].dtype)
        return backend.numpys(scanned(backend, family, state, actions, elements)[1])


# --- strengths ---


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 2), ids=str)
@given(data=st.data())
def test_strengths_size_and_reads(backend: Backend, family: Family, data: st.DataObject):
    """After every step, from a step to the next."""
    actions = data.draw(table(soft, columns(family)))
    d, u = actions[:, 0::2], actions[:, 1::2]
    ends, module = columns(family) // 2, backend.module(family.name)
    ones = np.ones(DIM)
    with backend.x64():
        state = backend.arrays(empty(family), family)
        before, there = backend.numpy(state.strengths), 0.0
        for t in range(TIME):
            inputs = backend.arrays((actions[t], (ones, ones) if ends == 2 else ones))
            state, read = module.step(state, *inputs)
            # A step moves every slot by one, and those at the bottom of the deque stay.
            pushed = [before[1:], d[t]] if ends == 1 else [d[t, 1:], np.delete(before, [TIME - 1, TIME]), d[t, :1]]
            after, pushed = backend.numpy(state.strengths), np.concatenate(pushed)
            assert (after >= 0).all()
            assert (after <= pushed).all()
            there = max(0.0, there - u[t].sum()) + d[t].sum()
            np.testing.assert_allclose(float(module.size(state)), there, rtol=0, atol=1e-13)
            for end in backend.numpys(read):
                np.testing.assert_allclose(end, np.full(DIM, min(1.0, there)), rtol=0, atol=1e-13)
            before = after


# --- hard actions ---


@pytest.mark.parametrize(("backend", "family"), dear([POINTER, SUPERPOSITION, NEURAL_STACK], 0), ids=str)
@given(data=st.data())
def test_one_hot_actions_make_a_discrete_stack(backend: Backend, family: Family, data: st.DataObject):
    # The pointer is a ring: it cannot tell what is empty.
    codes = data.draw(programs(TIME, TIME) if family is POINTER else hard_codes)
    elements = normal(data.draw(arrays("float32", (TIME, DIM))))
    actions, elements = family.encode(codes, elements)
    (expected,) = reads(backend, DISCRETE, np.array(codes, np.int32), elements)
    (actual,) = reads(backend, family, actions.astype(np.float32), elements)
    assert_same_bits(actual + np.float32(0), expected + np.float32(0))


@given(data=st.data())
def test_a_queue_reads_the_front(backend: Backend, data: st.DataObject):
    codes = data.draw(hard_codes)
    elements = normal(data.draw(arrays("float32", (TIME, DIM))))
    items: deque[Any] = deque()
    fronts = []
    for code, element in zip(codes, elements, strict=True):
        if code == POP and items:
            items.popleft()
        if code == PUSH:
            items.append(element)
        fronts.append(items[0] if items else np.zeros(DIM, np.float32))
    actions = NEURAL_QUEUE.encode(codes, elements)[0].astype(np.float32)
    (actual,) = reads(backend, NEURAL_QUEUE, actions, elements)
    assert_same_bits(actual + np.float32(0), np.array(fronts) + np.float32(0))


@given(data=st.data())
def test_a_deque_reads_both_ends(backend: Backend, data: st.DataObject):
    """A step pops the top, pops the bottom, and then pushes at both ends."""
    actions = data.draw(table(hard, 4))
    tops, bottoms = (normal(data.draw(arrays("float32", (TIME, DIM)))) for _ in range(2))
    items: deque[Any] = deque()
    ends = []
    for (push_top, pop_top, push_bottom, pop_bottom), top, bottom in zip(actions, tops, bottoms, strict=True):
        if pop_top and items:
            items.pop()
        if pop_bottom and items:
            items.popleft()
        if push_top:
            items.append(top)
        if push_bottom:
            items.appendleft(bottom)
        ends.append((items[-1], items[0]) if items else (np.zeros(DIM, np.float32),) * 2)
    actual = reads(backend, NEURAL_DEQUE, actions.astype(np.float32), (tops, bottoms))
    for one, expected in zip(actual, zip(*ends, strict=True), strict=True):
        assert_same_bits(one + np.float32(0), np.array(expected) + np.float32(0))


# --- the deque is the others ---


@pytest.mark.parametrize("at_the_top", [True, False])
@given(actions=table(soft, 2), seed=st.integers(0, 99))
def test_a_deque_used_at_one_end_is_the_stack(backend: Backend, at_the_top: bool, actions: Any, seed: int):
    elements, other = elements_of(seed), elements_of(seed + 100)
    (expected,) = reads(backend, NEURAL_STACK, actions, elements)
    if at_the_top:
        both = reads(backend, NEURAL_DEQUE, np.hstack([actions, 0 * actions]), (elements, other))
    else:
        both = reads(backend, NEURAL_DEQUE, np.hstack([0 * actions, actions]), (other, elements))
    np.testing.assert_allclose(both[0 if at_the_top else 1], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("from_the_top", [True, False])
@given(actions=table(soft, 2), seed=st.integers(0, 99))
def test_a_deque_used_at_both_ends_is_the_queue(backend: Backend, from_the_top: bool, actions: Any, seed: int):
    elements, other = elements_of(seed), elements_of(seed + 100)
    (expected,) = reads(backend, NEURAL_QUEUE, actions, elements)
    d, u, none = actions[:, PUSH], actions[:, POP], 0 * actions[:, 0]
    if from_the_top:
        both = reads(backend, NEURAL_DEQUE, np.stack([d, none, none, u], -1), (elements, other))
    else:
        both = reads(backend, NEURAL_DEQUE, np.stack([none, u, d, none], -1), (other, elements))
    np.testing.assert_allclose(both[1 if from_the_top else 0], expected, rtol=0, atol=1e-13)


def test_the_suite_uses_the_deque_as_a_queue():
    actions, _ = encode_queue([PUSH, POP, NOOP], np.ones((3, 1)))
    assert actions.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


# --- a sequence in two ---


def in_two(backend: Backend, family: Family, actions: Any, elements: Any) -> tuple[list[Any], list[Any]]:
    """The reads and final state of a whole sequence, and those of its two parts."""
    with backend.x64():
        state = empty(family)
        final, whole = scanned(backend, family, state, actions, elements)
        parts = []
        state = backend.arrays(state, family)
        for part in (slice(None, CUT), slice(CUT, None)):
            inputs = backend.arrays(jax.tree.map(lambda leaf, part=part: leaf[part], (actions, elements)))
            state, read = backend.module(family.name).scan(state, *inputs, method="sequential")
            parts.append(backend.numpys(read))
        joined = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
        return [*joined, *backend.numpys(state)], [*backend.numpys(whole), *backend.numpys(final)]


SOFT = [family for family in FAMILIES if not family.only_moves]


def programs_of(family: Family, is_hard: bool, seed: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    weights = family.sample(generator, Size(TIME, TIME, (DIM,)), is_hard).actions
    element = elements_of(seed)
    return weights, (element, elements_of(seed + 100)) if family is NEURAL_DEQUE else element


@pytest.mark.parametrize(("backend", "family"), dear(SOFT, 1, 2), ids=str)
@given(seed=st.integers(0, 9999))
def test_a_hard_program_in_two_parts(backend: Backend, family: Family, seed: int):
    for actual, expected in zip(*in_two(backend, family, *programs_of(family, True, seed)), strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize(("backend", "family"), dear(SOFT, 1, 2), ids=str)
@given(seed=st.integers(0, 9999))
def test_a_soft_program_in_two_parts(backend: Backend, family: Family, seed: int):
    for actual, expected in zip(*in_two(backend, family, *programs_of(family, False, seed)), strict=True):
        most = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=4 * np.finfo(np.float64).eps * most)
