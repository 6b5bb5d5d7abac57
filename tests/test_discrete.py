"""What only the discrete stack does: it counts, and it tells of faults."""

import numpy as np
import pytest

from backends import BACKENDS, TORCH, Backend
from diffstack.actions import NOOP, POP, PUSH
from diffstack.errors import StackOverflowError, StackUnderflowError
from diffstack.families import INTEGER, MOVABLE
from families import FULL


def rows(backend: Backend, array) -> list:
    return backend.numpy(array).tolist()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", MOVABLE)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_empty(backend: Backend, dtype: str, batch: tuple[int, ...]):
    state = backend.module("discrete").empty(4, (2,), dtype=backend.dtype(dtype), batch_shape=batch)
    assert [leaf.dtype for leaf in state] == [backend.dtype(name) for name in (dtype, "int32", "int8")]
    assert [rows(backend, leaf) for leaf in state] == [np.zeros(s).tolist() for s in ((*batch, 4, 2), batch, batch)]


def test_from_buffer(backend: Backend):
    discrete = backend.module("discrete")
    state = discrete.from_buffer(backend.array(np.array([1, 2, 3], np.int16)))
    assert [leaf.dtype for leaf in state] == [backend.dtype(name) for name in ("int16", "int32", "int8")]
    assert [rows(backend, leaf) for leaf in state] == [[1, 2, 3], 3, 0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "kind", "method"),
    [
        (backend, kind, method)
        for backend in BACKENDS
        for turn, kind in enumerate(INTEGER)
        for place, method in enumerate(("sequential", "parallel", "auto"))
        # JAX each by one of the methods.
        if FULL or backend is TORCH or turn % 3 == place
    ],
    ids=str,
)
def test_codes_of_every_integer_dtype(backend: Backend, kind: str, method: str):
    discrete = backend.module("discrete")
    codes = discrete.encode(backend.array(np.array([PUSH, PUSH, POP, NOOP], kind)))
    assert codes.dtype == backend.dtype(kind)
    elements = backend.array(np.array([5, 6, 7, 8], np.float32))
    state, reads = discrete.scan(discrete.empty(2, dtype=backend.dtype("float32")), codes, elements, method=method)
    assert rows(backend, reads) == [5, 6, 5, 5]
    assert rows(backend, state.fault) == 0
    stepped, read = discrete.step(state, codes[1], elements[1])
    assert (rows(backend, read), rows(backend, stepped.depth)) == (6, 2)


@pytest.mark.parametrize("method", ["sequential", "parallel"])
@pytest.mark.parametrize(
    ("codes", "fault", "depth"),
    [
        ([PUSH, PUSH, PUSH, POP], 1, 1),
        ([POP, PUSH, PUSH, PUSH], 2, 2),
        ([PUSH, 3, POP, POP], 3, 0),
        ([-1, PUSH, PUSH, PUSH], 3, 2),
        ([PUSH, PUSH, POP, POP], 0, 0),
    ],
)
def test_the_first_fault_stays(backend: Backend, method: str, codes: list[int], fault: int, depth: int):
    discrete = backend.module("discrete")
    elements = backend.array(np.arange(1, 5, dtype=np.float32))
    state, _ = discrete.scan(discrete.empty(2), discrete.encode(codes), elements, method=method)
    assert (rows(backend, state.fault), rows(backend, state.depth)) == (fault, depth)
    state, _ = discrete.scan(state, discrete.encode([9, POP, POP, POP]), elements, method=method)
    assert rows(backend, state.fault) == (fault or 3)


@pytest.mark.parametrize(
    ("faults", "error", "message"),
    [
        (
            [[0, 0, 0], [0, 1, 2]],
            StackOverflowError,
            "a push onto a full stack at batch index (1, 1); its capacity is 2",
        ),
        ([[0, 0, 2], [1, 0, 0]], StackUnderflowError, "a pop from an empty stack at batch index (0, 2)"),
        ([[3, 0, 0], [1, 0, 0]], ValueError, "an action code that is not PUSH, POP or NOOP at batch index (0, 0)"),
    ],
)
def test_raise_if_fault_names_the_first(backend: Backend, faults: list, error: type, message: str):
    discrete = backend.module("discrete")
    state = discrete.empty(2, batch_shape=(2, 3))
    discrete.raise_if_fault(state)
    state = state._replace(fault=backend.array(np.array(faults, np.int8)))
    with pytest.raises(error) as caught:
        discrete.raise_if_fault(state)
    assert type(caught.value) is error
    assert str(caught.value) == f"state: {message}"


def test_stack_errors_are_index_errors():
    assert issubclass(StackOverflowError, IndexError)
    assert issubclass(StackUnderflowError, IndexError)


def test_zero_is_read_over_stale_nan(backend: Backend):
    discrete = backend.module("discrete")
    state, element = discrete.pop(discrete.from_buffer(backend.array(np.full(1, np.nan, np.float32))))
    assert np.isnan(rows(backend, element))
    assert rows(backend, discrete.peek(state)) == 0
    assert rows(backend, discrete.contents(state)) == [0]
    assert rows(backend, discrete.pop(state)[1]) == 0
