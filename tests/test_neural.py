"""What the papers show, and what becomes of inputs that are not actions, of slots that overflow, and of dtypes."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from backends import Backend, assert_same_bits, dear
from diffstack.actions import NOOP, POP, PUSH
from families import (
    FULL,
    NEURAL,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NEURAL_STACK,
    SUPERPOSITION,
    Case,
    Family,
    Sample,
    Size,
)
from strategies import numpy_dtype

LINES = tuple(family for family in NEURAL if len(family.ends) == 1)
SIZE = Size(6, 3)


def rows(backend: Backend, tree: Any) -> list[Any]:
    return [leaf.tolist() for leaf in backend.numpys(tree)]


def full(backend: Backend, family: Family, *elements: float) -> Any:
    return backend.module(family.name).from_buffer(backend.array(np.array(elements, np.float32)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_figure_of_the_paper(backend: Backend, dtype: str):
    """Grefenstette et al. 2015, figure 1a."""
    actions = np.array([[0.8, 0.0], [0.5, 0.1], [0.9, 0.9]], dtype)
    with backend.x64():
        state = backend.module("neural_stack").empty(3, (3,), dtype=backend.dtype(dtype))
        arrays = backend.arrays((actions, np.eye(3, dtype=dtype)))
        state, reads = map(backend.numpys, backend.module("neural_stack").scan(state, *arrays))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(reads[0], [[0.8, 0, 0], [0.5, 0.5, 0], [0.1, 0, 0.9]], rtol=0, atol=eps)
    np.testing.assert_allclose(state[1], [0.3, 0, 0.9], rtol=0, atol=eps)


# --- inputs that are not actions ---


def oracle_of(family: Family) -> Any:
    return next(verb.oracle for verb in family.verbs if verb.name == "scan")


def scanned(backend: Backend, family: Family, sample: Sample) -> list[Any]:
    with backend.x64():
        return backend.numpys(backend.module(family.name).scan(*backend.arrays(tuple(sample), family)))


def soft(family: Family) -> Sample:
    element = (2,)
    return family.sample(np.random.default_rng(12), SIZE._replace(element=element), False)


def assert_as_the_oracle(backend: Backend, family: Family, sample: Sample) -> list[Any]:
    """The final state and the reads, NaN where the equations give NaN."""
    actual = scanned(backend, family, sample)
    with np.errstate(invalid="ignore"):
        expected = jax.tree.leaves(oracle_of(family)(*sample))
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)
    return actual


@pytest.mark.parametrize(("backend", "family"), dear([*NEURAL, SUPERPOSITION], 2), ids=str)
@pytest.mark.parametrize("change", [lambda a: a - 0.5, lambda a: 3 * a, lambda a: 4 * a - 2], ids=["lower", "3", "all"])
def test_any_actions(backend: Backend, family: Family, change: Any):
    """Below 0, above 1, rows that do not sum to 1: as the equations say."""
    sample = soft(family)
    if family in NEURAL:
        sample = sample._replace(state=sample.state._replace(strengths=change(sample.state.strengths)))
    assert_as_the_oracle(backend, family, sample._replace(actions=change(sample.actions)))


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 0), ids=str)
def test_strengths_below_0_count_as_0(backend: Backend, family: Family):
    below = soft(family)
    below = below._replace(
        actions=below.actions - 0.5, state=below.state._replace(strengths=below.state.strengths - 0.5)
    )
    zero = below._replace(
        actions=np.maximum(below.actions, 0),
        state=below.state._replace(strengths=np.maximum(below.state.strengths, 0)),
    )
    for actual, expected in zip(scanned(backend, family, below), scanned(backend, family, zero), strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 0), ids=str)
def test_strengths_below_0_have_no_gradient(backend: Backend, family: Family):
    sample = soft(family)
    sample = sample._replace(actions=sample.actions - 0.5)
    with backend.x64():
        state, actions, elements = backend.arrays(tuple(sample), family)
        ones = [backend.array(np.ones((SIZE.time, 2)))] * (2 if family is NEURAL_DEQUE else 1)
        (gradient,) = backend.vjp(
            lambda actions: backend.module(family.name).scan(state, actions, elements)[1], (actions,), ones
        )
    gradient = backend.numpy(gradient)
    assert not gradient[sample.actions < 0].any()
    assert gradient[sample.actions > 0].any()


@pytest.mark.parametrize("verb", ["push", "pop"])
@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 2), ids=str)
def test_a_nan_strength_stays(backend: Backend, family: Family, verb: str, end: int):
    """Every read is NaN from its step on, and none before."""
    if end and family is not NEURAL_DEQUE:
        end = 0
    sample = soft(family)
    whole = scanned(backend, family, sample)
    sample.actions[2, 2 * end + (POP if verb == "pop" else PUSH)] = np.nan
    actual = assert_as_the_oracle(backend, family, sample)
    for read, expected in zip(actual[2:], whole[2:], strict=True):
        assert_same_bits(read[:2], expected[:2])
        assert np.isnan(read[2:]).all()


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 0), ids=str)
def test_a_nan_in_the_state_stays(backend: Backend, family: Family):
    sample = soft(family)
    sample.state.strengths[1] = np.nan
    for read in assert_as_the_oracle(backend, family, sample)[2:]:
        assert np.isnan(read).all()


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 0), ids=str)
def test_a_nan_strength_of_a_verb(backend: Backend, family: Family):
    module, ends = backend.module(family.name), ("_top", "_bottom") if family is NEURAL_DEQUE else ("",)
    for end in ends:
        state, element = getattr(module, f"pop{end}")(full(backend, family, 1, 2), math.nan)
        peeked = getattr(module, f"peek{end}")(full(backend, family, 1, 2), math.nan)
        pushed = getattr(module, f"push{end}")(full(backend, family, 1, 2), 3.0, math.nan)
        for array in (element, peeked, state.strengths, module.size(pushed)):
            assert np.isnan(backend.numpy(array)).all()


@pytest.mark.parametrize("where", [(2, PUSH), (2, POP), (2, NOOP)], ids=str)
def test_a_nan_action_of_the_superposition_stack(backend: Backend, where: tuple[int, int]):
    """Every row takes part in every action."""
    sample = soft(SUPERPOSITION)
    sample.actions[where] = np.nan
    _, reads = assert_as_the_oracle(backend, SUPERPOSITION, sample)
    assert np.isnan(reads).any(-1).tolist() == [False, False, True, True, True, True]


def test_a_nan_element_of_the_superposition_stack(backend: Backend):
    """It spreads from its row to the neighbours, and stays in its column."""
    sample = soft(SUPERPOSITION)
    sample.elements[2, 0] = np.nan
    (buffer, reads) = assert_as_the_oracle(backend, SUPERPOSITION, sample)
    assert np.isnan(reads[2:, 0]).all()
    assert np.isfinite(reads[:, 1]).all()
    assert np.isnan(buffer[:, 0]).all()


# --- slots ---


def test_what_a_push_drops(backend: Backend):
    for family in LINES:
        module, state = backend.module(family.name), full(backend, family, 1, 2, 3)
        assert rows(backend, module.push(state, 4.0)) == [[2, 3, 4], [1, 1, 1]]
        assert rows(backend, module.push(state, 4.0, 0.0)) == [[2, 3, 4], [1, 1, 0]]
        assert rows(backend, module.push(full(backend, family, 1), 4.0)) == [[4], [1]]


def test_what_a_push_onto_the_deque_drops(backend: Backend):
    deque = backend.module("neural_deque")
    for verb, elements, left in [
        ("push_top", [1, 2, 3], [1, 3, 9]),
        ("push_top", [1, 2, 3, 4], [1, 2, 4, 9]),
        ("push_top", [1], [9]),
        ("push_bottom", [1, 2, 3], [9, 1, 3]),
        ("push_bottom", [1, 2, 3, 4], [9, 1, 3, 4]),
        ("push_bottom", [1], [9]),
    ]:
        assert rows(backend, getattr(deque, verb)(full(backend, NEURAL_DEQUE, *elements), 9.0).values) == [left]


@pytest.mark.parametrize("family", LINES, ids=str)
def test_what_a_step_drops(backend: Backend, family: Family):
    """The oldest slot, after the pop and before the read, whatever is in it and however little is pushed."""
    actions = backend.array(np.array([0.0, 0.5], np.float32))
    state, read = backend.module(family.name).step(full(backend, family, 1, 2), actions, 3.0)
    left = [1, 0] if family is NEURAL_QUEUE else [0.5, 0]
    assert rows(backend, (state, read)) == [[2, 3], left, 2 * left[0]]


def test_what_a_step_of_the_deque_drops(backend: Backend):
    step, actions = backend.module("neural_deque").step, backend.array(np.array([0, 1, 0, 0], np.float32))
    elements = backend.arrays((np.float32(8), np.float32(9)))
    for before, after in [([1, 2, 3, 4], [9, 1, 4, 8]), ([1, 2, 3], [9, 1, 8]), ([1, 2], [9, 8]), ([1], [9])]:
        state, _ = step(full(backend, NEURAL_DEQUE, *before), actions, elements)
        assert rows(backend, state.values) == [after]


def test_a_scan_drops_nothing_on_its_way(backend: Backend):
    """Two pushes and two pops in one slot; and what is left is the newest, or the bottom of the deque."""
    codes, elements = [PUSH, PUSH, POP, NOOP], np.array([1, 2, 0, 3], np.float32)
    for family, read, left in [
        (NEURAL_STACK, [1, 2, 1, 1], [[3], [0]]),
        (NEURAL_QUEUE, [1, 1, 2, 2], [[3], [0]]),
        (NEURAL_DEQUE, [1, 1, 2, 2], [[0], [0]]),
    ]:
        actions, pushed = jax.tree.map(np.float32, family.encode(codes, elements))
        state, reads = backend.module(family.name).scan(
            backend.module(family.name).empty(1), *backend.arrays((actions, pushed))
        )
        assert rows(backend, family.decode(reads)) == [read]
        assert rows(backend, state) == left


@pytest.mark.parametrize(
    ("family", "elements", "values", "strengths"),
    [
        *((family, [1, 2, 3], [0, 0, 1, 2, 3], [0, 0, 1, 1, 1]) for family in LINES),
        *((family, [1, 2, 3], [2, 3], [1, 1]) for family in LINES),
        *((family, [1, 2, 3], [1, 2, 3], [1, 1, 1]) for family in NEURAL),
        (NEURAL_DEQUE, [1, 2, 3], [1, 2, 0, 0, 3], [1, 1, 0, 0, 1]),
        (NEURAL_DEQUE, [1, 2], [1, 0, 2], [1, 0, 1]),
        (NEURAL_DEQUE, [1], [1, 0, 0], [1, 0, 0]),
        (NEURAL_DEQUE, [1, 2, 3, 4], [1, 2, 4], [1, 1, 1]),
        (NEURAL_DEQUE, [1, 2, 3], [1, 3], [1, 1]),
        (NEURAL_DEQUE, [1, 2, 3], [1], [1]),
    ],
    ids=str,
)
def test_resize(backend: Backend, family: Family, elements: list[float], values: list[float], strengths: list[float]):
    """At the oldest end; the deque's in the middle."""
    state = backend.module(family.name).resize(full(backend, family, *elements), len(values))
    assert rows(backend, state) == [values, strengths]


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 0), ids=str)
def test_a_pop_of_more_than_is_there(backend: Backend, family: Family):
    module = backend.module(family.name)
    end = "_bottom" if family is NEURAL_DEQUE else ""
    state = getattr(module, f"push{end}")(module.empty(3), 4.0, 0.5)
    state, element = getattr(module, f"pop{end}")(state, 2.0)
    assert (float(element), float(module.size(state))) == (2, 0)
    state, element = getattr(module, f"pop{end}")(state)
    assert (float(element), float(module.size(state))) == (0, 0)


def test_a_pop_of_more_than_1(backend: Backend):
    for family, popped, left in [(NEURAL_STACK, 4, [1, 0.5, 0]), (NEURAL_QUEUE, 2, [0, 0.5, 1])]:
        state, element = backend.module(family.name).pop(full(backend, family, 1, 2, 3), 1.5)
        assert float(element) == popped
        assert rows(backend, state.strengths) == [left]


def test_what_falls_off_the_superposition_stack_does_not_come_back(backend: Backend):
    superposition = backend.module("superposition")
    state = superposition.from_buffer(backend.array(np.array([[1], [2]], np.float32)))
    state = superposition.push(state, backend.array(np.array([3], np.float32)))
    assert rows(backend, state) == [[[3], [2]]]
    popped = []
    for _ in range(3):
        state, element = superposition.pop(state)
        popped += rows(backend, element)
    assert popped == [[3], [2], [0]]


# --- actions and dtypes ---


def test_actions_of_both_ends(backend: Backend):
    deque = backend.module("neural_deque")
    codes = backend.array(np.array([[[PUSH, POP], [NOOP, PUSH]], [[POP, NOOP], [7, 7]]], np.int8))
    strengths = deque.encode(codes, dtype=backend.dtype("float16"))
    assert strengths.dtype == backend.dtype("float16")
    assert rows(backend, strengths) == [[[[1, 0, 0, 1], [0, 0, 1, 0]], [[0, 1, 0, 0], [0, 0, 0, 0]]]]
    assert rows(backend, deque.encode((PUSH, POP))) == [[1, 0, 0, 1]]


@pytest.mark.parametrize("family", LINES, ids=str)
def test_actions(backend: Backend, family: Family):
    encode = backend.module(family.name).encode
    assert rows(backend, encode([[PUSH, POP], [NOOP, 7]])) == [[[[1, 0], [0, 1]], [[0, 0], [0, 0]]]]
    assert encode([]).shape == (0, 2)


DTYPES = [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float64"), ("float64", "float16")]


@pytest.mark.parametrize(
    ("values", "strengths", "backend", "case"),
    [
        (values, strengths, backend, Case(family, verb))
        for turn, (values, strengths) in enumerate(DTYPES)
        for backend, family in dear(NEURAL, turn % 3)
        for verb in family.verbs
        if FULL or verb.name == "step"
    ],
    ids=str,
)
def test_strengths_of_a_dtype_of_their_own(backend: Backend, case: Case, values: str, strengths: str):
    """Reads have the dtype of the values, and states keep both."""

    def cast(leaf: Any) -> Any:
        # Nothing but values and elements has five entries.
        return leaf.astype(numpy_dtype(values if leaf.shape[-1:] == (5,) else strengths))

    size = Size(4 if case.verb.name == "scan" else None, 3, (5,), (2,))
    arguments = jax.tree.map(cast, tuple(case.arguments(size)))
    with backend.x64():
        result = backend.function(case)(*backend.arrays(arguments, case.family))
        actual = backend.numpys(result)
    expected = case.values(size)
    for array, exact in zip(actual, expected, strict=True):
        if case.verb.name == "size":
            assert array.dtype == np.promote_types(numpy_dtype(strengths), np.float32)
        else:
            assert array.dtype == numpy_dtype(values if exact.shape[-1:] == (5,) else strengths)
        coarse = max(float(eps(values)), float(eps(strengths)))
        np.testing.assert_allclose(array.astype(np.float64), exact, rtol=0, atol=16 * coarse * np.abs(exact).max())


def eps(dtype: str) -> Any:
    return {"bfloat16": 2.0**-7}.get(dtype) or np.finfo(dtype).eps
