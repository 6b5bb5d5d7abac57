"""What only the pointer stack does: it is a ring."""

import numpy as np
import pytest

from backends import BACKENDS, TORCH, Backend, assert_close, assert_same_bits
from diffstack._checks import Layout
from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import FLOATING
from families import FULL, POINTER, Size
from strategies import numpy_dtype


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
    weights = pointer.encode(codes, dtype=backend.dtype("float16"))
    assert weights.dtype == backend.dtype("float16")
    assert rows(backend, weights) == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]]
    assert pointer.encode([]).shape == (0, 3)


def test_the_notebook_example(backend: Backend):
    """Half of an element in each of two slots."""
    pointer = backend.module("pointer")
    state = pointer.PointerState(
        backend.array(np.array([1, 2, 3], np.float32)), backend.array(np.array([0.5, 0.5, 0], np.float32))
    )
    assert rows(backend, pointer.push(state, 5.0).buffer) == [3, 3.5, 3]
    assert rows(backend, pointer.peek(state)) == 0.5 * 3 + 0.5 * 1


# --- pushes alone, and pops alone ---

# No step, one, a broken chunk, and around the ring many times; a stack that is smaller than a chunk, and a larger one.
RUNS = [
    Size(0, 1, (1,)),
    Size(1, 7, (), (2,)),
    Size(33, 7, (), (2,)),
    Size(33, 40, (2, 3)),
    Size(70, 1, (1,)),
]


def results(backend: Backend, method: str, arguments: tuple, count: int) -> tuple[list, list]:
    """Of a push of every element and then so many pops: the state, what was popped, and the gradients of it all."""
    pointer = backend.module("pointer")

    def run(state, elements):
        return pointer.pop_all(pointer.push_all(state, elements, method=method), count, method=method)

    return backend.outcome(run, arguments)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "size"), [(b, s) for b in BACKENDS for s in (RUNS if FULL or b is TORCH else RUNS[:4:3])], ids=str
)
def test_push_all_and_pop_all_by_both_methods(backend: Backend, size: Size):
    """JAX without a step, and on a large stack."""
    state, _, elements = POINTER.sample(np.random.default_rng(6), size, False)
    arguments = backend.arrays((state, elements), POINTER)
    ours, theirs = (results(backend, method, arguments, 70 - size.time) for method in ("sequential", "parallel"))
    for left, right in zip([*theirs[0], *theirs[1]], [*ours[0], *ours[1]], strict=True):
        assert_close(left, right, 1e-12)


@pytest.mark.bits
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "dtype", "method"),
    [
        (backend, dtype, method)
        for backend in BACKENDS
        for turn, dtype in enumerate(FLOATING)
        for place, method in enumerate(POINTER.methods)
        # Every dtype by one of the methods, both by turns; JAX a wide one and a narrow one.
        if FULL or (turn % 2 == place and (backend is TORCH or turn in (1, 2)))
    ],
    ids=str,
)
def test_push_all_and_pop_all_are_lossless(backend: Backend, dtype: str, method: str):
    """A one-hot index, over more pushes than there are slots."""
    generator = np.random.default_rng(7)
    buffer, elements = (generator.normal(size=(n, 3)).astype(numpy_dtype(dtype)) for n in (50, 70))
    index = np.eye(50, dtype=buffer.dtype)[47]
    pointer = backend.module("pointer")
    state = pointer.push_all(
        pointer.PointerState(backend.array(buffer), backend.array(index)), backend.array(elements), method=method
    )
    state, popped = pointer.pop_all(state, 60, method=method)
    assert_same_bits(backend.numpy(popped), elements[[*range(69, 19, -1), *range(69, 59, -1)]])
    assert_same_bits(backend.numpy(state.index), np.eye(50, dtype=buffer.dtype)[(47 + 70 - 60) % 50])


@pytest.mark.parametrize("count", [-1, 1.5, True], ids=repr)
def test_how_many_pops(backend: Backend, count):
    pointer = backend.module("pointer")
    with pytest.raises((TypeError, ValueError), match="count: expected an integer of at least 0, got"):
        pointer.pop_all(pointer.empty(2), count)


def test_the_threshold_of_push_all_and_pop_all(backend: Backend):
    choose, layout = backend.module("_methods").choose, Layout((), 2, ())
    for name in ("pointer.push_all", "pointer.pop_all"):
        assert [choose("auto", name, time, layout) for time in (3, 4)] == ["sequential", "parallel"]
