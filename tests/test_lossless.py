"""What is popped is what was pushed, bit for bit."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import BACKENDS, JAX, TORCH, Backend, assert_same_bits
from diffstack.actions import PUSH
from diffstack.families import FLOATING
from families import (
    DISCRETE,
    FAMILIES,
    FULL,
    METHODS,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NONDETERMINISTIC,
    POINTER,
    SUPERPOSITION,
    Family,
    is_floating,
)
from strategies import arrays, finite, kept_by_xla, normal, numpy_dtype, programs

pytestmark = pytest.mark.bits

# As many slots as steps, for the families that use one at every push.
TIME = SLOTS = 10
ELEMENT = (1,)
# By the other one, test_pointer.py has the bits of the pointer, and test_definition.py the last place of the others.
ONE = {
    POINTER: ["sequential"],
    NEURAL_QUEUE: ["parallel"],
    NEURAL_DEQUE: ["sequential"],
    NONDETERMINISTIC: ["parallel"],
}
WITH_PUSH = [family for family in FAMILIES if {"push", "pop"} <= {verb.name for verb in family.verbs}]


def pushable(array: Any, family: Family, backend: Backend, dtype: str) -> Any:
    """What the promise covers: every bit pattern for the family that only moves them, else normal values and zero."""
    if family is not DISCRETE:
        return normal(array)
    return kept_by_xla(array) if backend is JAX and dtype == "bfloat16" else array


def unsigned_zeros(array: Any, family: Family) -> Any:
    """The soft families may change the sign of a zero."""
    return array if family is DISCRETE else np.where(array == 0, np.zeros_like(array), array)


def cast(tree: Any, dtype: str) -> Any:
    """Weights in the dtype of the elements, which have it already."""
    return jax.tree.map(lambda leaf: leaf.astype(numpy_dtype(dtype)) if is_floating(leaf) else leaf, tree)


def tops(codes: list[int], elements: Any, taken: int) -> tuple[list[Any], list[int]]:
    """What a Python list reads, and at which steps there is something to read."""
    items: list[Any] = []
    reads, filled = [], []
    for step, (code, element) in enumerate(zip(codes, elements, strict=True)):
        if code == PUSH:
            items.append(element)
        else:
            items.pop(taken)
        if items:
            reads.append(items[taken])
            filled.append(step)
    return reads, filled


@pytest.mark.parametrize(
    ("backend", "family", "method", "dtype"),
    [
        (b, f, m, dtype)
        for b, (f, m) in itertools.product(BACKENDS, METHODS)
        for turn, dtype in enumerate(f.dtypes)
        # Every dtype by one of the methods, every fourth by the one that takes long to compile; JAX every second dtype,
        # and what takes it longest by one of the methods.
        if FULL
        or (m == f.method(turn % 4 == FAMILIES.index(f) % 4) and (b is TORCH or turn % 2 == FAMILIES.index(f) % 2))
        if FULL or b is TORCH or m in ONE.get(f, f.methods)
    ],
    ids=str,
)
@given(data=st.data())
def test_scan(backend: Backend, family: Family, method: str, dtype: str, data: st.DataObject):
    codes = data.draw(programs(TIME, SLOTS))
    elements = pushable(data.draw(arrays(dtype, (TIME, *ELEMENT))), family, backend, dtype)
    stale = data.draw(arrays(dtype, (SLOTS, *ELEMENT)))
    state = family.unused(stale if family is DISCRETE else finite(stale), data.draw(st.integers(0, SLOTS - 1)))
    with backend.x64():
        arguments = backend.arrays(cast((state, *family.encode(codes, elements)), dtype), family)
        _, reads = backend.module(family.name).scan(*arguments, method=method)
        reads = backend.numpy(family.decode(reads))
    expected, filled = tops(codes, family.kept(elements), family.taken)
    assert_same_bits(
        unsigned_zeros(reads[filled], family),
        unsigned_zeros(np.array(expected, reads.dtype).reshape(-1, *ELEMENT), family),
    )


@pytest.mark.parametrize(
    ("backend", "family", "dtype"),
    [
        (b, f, dtype)
        for b, f in itertools.product(BACKENDS, WITH_PUSH)
        for turn, dtype in enumerate(FLOATING)
        # JAX one of them.
        if FULL or b is TORCH or turn % 4 == FAMILIES.index(f) % 4
    ],
    ids=str,
)
@given(data=st.data())
def test_push_and_pop(backend: Backend, family: Family, dtype: str, data: st.DataObject):
    codes = data.draw(programs(TIME, SLOTS))
    elements = pushable(data.draw(arrays(dtype, (TIME, *ELEMENT))), family, backend, dtype)
    stale = data.draw(arrays(dtype, (SLOTS, *ELEMENT)))
    stale = stale if family is DISCRETE else finite(stale)
    items: list[Any] = []
    module = backend.module(family.name)
    with backend.x64():
        state = backend.arrays(cast(family.unused(stale, data.draw(st.integers(0, SLOTS - 1))), dtype), family)
        for code, element in zip(codes, elements, strict=True):
            if code == PUSH:
                items.append(family.kept(element))
                state = module.push(state, backend.array(element))
            else:
                state, popped = module.pop(state)
                expected = unsigned_zeros(items.pop(family.taken), family)
                assert_same_bits(unsigned_zeros(backend.numpy(popped), family), expected)


@pytest.mark.parametrize(
    ("backend", "family"),
    [(b, f) for b in BACKENDS for f in FAMILIES if FULL or b is TORCH or f in (POINTER, SUPERPOSITION)],
    ids=str,
)
def test_a_small_number_over_a_large_one(backend: Backend, family: Family):
    """`buffer + index * (element - buffer)`, the notebook's form, gives 0.0 here."""
    state = family.unused(np.full((1, 1), 1e8, np.float32), 0)
    arguments = cast((state, *family.encode([PUSH], np.ones((1, 1), np.float32))), "float32")
    for method in family.methods:
        _, reads = backend.module(family.name).scan(*backend.arrays(arguments, family), method=method)
        assert backend.numpy(family.decode(reads)).tolist() == [[1.0]]


# --- the exceptions that the documentation names ---


@pytest.mark.parametrize(("dtype", "subnormal"), [("float32", 1e-40), ("float64", 1e-310)])
def test_pointer_subnormals(backend: Backend, dtype: str, subnormal: float):
    """XLA on the CPU flushes them to zero in arithmetic; PyTorch keeps them."""
    pointer = backend.module("pointer")
    with backend.x64():
        element = np.array(subnormal, dtype)
        assert element > 0
        state = pointer.push(pointer.empty(2, dtype=backend.dtype(dtype)), backend.array(element))
        popped = backend.numpy(pointer.pop(state)[1])
    assert_same_bits(popped, np.zeros_like(element) if backend is JAX else element)


def test_pointer_zeros_lose_their_sign(backend: Backend):
    pointer = backend.module("pointer")
    state = pointer.push(pointer.from_buffer(backend.array(np.ones(2, np.float32))), -0.0)
    assert backend.numpy(pointer.pop(state)[1]) == 0


@pytest.mark.parametrize(("pattern", "moved"), [(0x7F81, 0x7FC0), (0xFFC1, 0xFFC0)], ids=hex)
def test_discrete_bfloat16_nan(backend: Backend, pattern: int, moved: int):
    """XLA on the CPU computes bfloat16 in float32 even where it only moves it; PyTorch moves bits."""
    discrete = backend.module("discrete")
    element = np.array(pattern, np.uint16).view(numpy_dtype("bfloat16"))
    state = discrete.push(discrete.empty(2, dtype=backend.dtype("bfloat16")), backend.array(element))
    popped = backend.numpy(discrete.pop(state)[1]).view(np.uint16)
    assert popped == (moved if backend is JAX else pattern)
