"""What only the pointer stack does: it is a ring."""

import numpy as np
import pytest

from backends import Backend
from diffstack.actions import NOOP, POP, PUSH


def rows(backend: Backend, array) -> list:
    return backend.numpy(array).tolist()


def test_a_push_past_the_capacity_overwrites_the_oldest(backend: Backend):
    pointer = backend.module("pointer")
    state = pointer.empty(3)
    for element in (1.0, 2.0, 3.0, 4.0):
        state = pointer.push(state, element)
    assert rows(backend, state.buffer) == [4, 2, 3]
    assert rows(backend, state.index) == [0, 1, 0]
    assert rows(backend, pointer.contents(state)) == [2, 3, 4]
    popped = []
    for _ in range(4):
        state, element = pointer.pop(state)
        popped.append(rows(backend, element))
    assert popped == [4, 3, 2, 4]


def test_from_buffer_starts_at_slot_0(backend: Backend):
    pointer = backend.module("pointer")
    state = pointer.from_buffer(backend.array(np.array([[1, 2], [3, 4], [5, 6]], np.float32)))
    assert rows(backend, state.index) == [1, 0, 0]
    assert rows(backend, pointer.peek(state)) == [5, 6]
    assert rows(backend, pointer.contents(state)) == [[1, 2], [3, 4], [5, 6]]
    state, element = pointer.pop(state)
    assert rows(backend, element) == [5, 6]
    assert rows(backend, state.index) == [0, 0, 1]


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("element", [(), (3,), (2, 3)])
def test_empty(backend: Backend, batch: tuple[int, ...], element: tuple[int, ...]):
    state = backend.module("pointer").empty(4, element, dtype=backend.dtype("float16"), batch_shape=batch)
    assert state.buffer.dtype == state.index.dtype == backend.dtype("float16")
    assert rows(backend, state.buffer) == np.zeros((*batch, 4, *element)).tolist()
    assert rows(backend, state.index) == np.broadcast_to([1.0, 0, 0, 0], (*batch, 4)).tolist()


def test_actions(backend: Backend):
    pointer = backend.module("pointer")
    codes = backend.array(np.array([[PUSH, POP], [NOOP, 7]], np.int8))
    weights = pointer.actions(codes, dtype=backend.dtype("float16"))
    assert weights.dtype == backend.dtype("float16")
    assert rows(backend, weights) == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]]
    assert pointer.actions([]).shape == (0, 3)


def test_the_notebook_example(backend: Backend):
    """Half of an element in each of two slots."""
    pointer = backend.module("pointer")
    state = pointer.PointerState(
        backend.array(np.array([1, 2, 3], np.float32)), backend.array(np.array([0.5, 0.5, 0], np.float32))
    )
    assert rows(backend, pointer.push(state, 5.0).buffer) == [3, 3.5, 3]
    assert rows(backend, pointer.peek(state)) == 0.5 * 3 + 0.5 * 1
