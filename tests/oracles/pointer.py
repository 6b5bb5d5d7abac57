"""The pointer stack: a ring of N slots and a soft one-hot index of the slot that the next push writes.

    soft_assign(buffer, index, element)[i] = (1 - index_i) buffer_i + index_i element
    soft_lookup(buffer, index)             = sum_i index_i buffer_i
    push: buffer <- soft_assign(buffer, index, element);  index <- roll(index, +1)
    pop:  index <- roll(index, -1);  element = soft_lookup(buffer, index)
    step: buffer <- soft_assign(buffer, a_push index, element)
          index <- a_push roll(index, +1) + a_pop roll(index, -1) + a_noop index;  read = peek

Shapes: buffer (N, D), index (N,), actions (T, 3) in the order push, pop, noop; elements and reads (T, D).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

PUSH, POP, NOOP = 0, 1, 2


def soft_assign(buffer: ArrayLike, index: ArrayLike, element: ArrayLike) -> Array:
    """The buffer with `element` written to each slot to the extent that the index says."""
    buffer, index, element = _float64(buffer, index, element)
    written = np.zeros_like(buffer)
    for i in range(len(buffer)):
        written[i] = (1 - index[i]) * buffer[i] + index[i] * element
    return written


def soft_lookup(buffer: ArrayLike, index: ArrayLike) -> Array:
    """The slots added up, each as much as the index says."""
    buffer, index = _float64(buffer, index)
    element = np.zeros(buffer.shape[1:])
    for i in range(len(buffer)):
        element = element + index[i] * buffer[i]
    return element


def push(buffer: ArrayLike, index: ArrayLike, element: ArrayLike) -> tuple[Array, Array]:
    return soft_assign(buffer, index, element), _roll(index, +1)


def pop(buffer: ArrayLike, index: ArrayLike) -> tuple[Array, Array, Array]:
    """(buffer, index, element): the buffer keeps what was popped."""
    index = _roll(index, -1)
    return np.array(buffer, dtype=np.float64), index, soft_lookup(buffer, index)


def peek(buffer: ArrayLike, index: ArrayLike) -> Array:
    return soft_lookup(buffer, _roll(index, -1))


def step(buffer: ArrayLike, index: ArrayLike, actions: ArrayLike, element: ArrayLike) -> tuple[Array, Array, Array]:
    """(buffer, index, read) after one time step."""
    index, actions = _float64(index, actions)
    forward, backward = _roll(index, +1), _roll(index, -1)

    write = np.zeros_like(index)
    moved = np.zeros_like(index)
    for i in range(len(index)):
        write[i] = actions[PUSH] * index[i]
        moved[i] = actions[PUSH] * forward[i] + actions[POP] * backward[i] + actions[NOOP] * index[i]

    buffer = soft_assign(buffer, write, element)
    return buffer, moved, peek(buffer, moved)


def scan(buffer: ArrayLike, index: ArrayLike, actions: ArrayLike, elements: ArrayLike) -> tuple[Array, Array, Array]:
    """(buffer, index, reads) after T time steps."""
    buffer, index, actions, elements = _float64(buffer, index, actions, elements)
    reads = np.zeros_like(elements)
    for t in range(len(actions)):
        buffer, index, reads[t] = step(buffer, index, actions[t], elements[t])
    return buffer, index, reads


def push_all(buffer: ArrayLike, index: ArrayLike, elements: ArrayLike) -> tuple[Array, Array]:
    """(buffer, index) after a push of every element."""
    buffer, index, elements = _float64(buffer, index, elements)
    for element in elements:
        buffer, index = push(buffer, index, element)
    return buffer, index


def pop_all(buffer: ArrayLike, index: ArrayLike, count: int) -> tuple[Array, Array, Array]:
    """(buffer, index, elements) after so many pops."""
    buffer, index = _float64(buffer, index)
    elements = np.zeros((count, *buffer.shape[1:]))
    for t in range(count):
        buffer, index, elements[t] = pop(buffer, index)
    return buffer, index, elements


def contents(buffer: ArrayLike, index: ArrayLike) -> Array:
    """sum_k index_k roll(buffer, -k): the top in the last row."""
    buffer, index = _float64(buffer, index)
    slots = len(buffer)
    rows = np.zeros_like(buffer)
    for k in range(slots):
        for i in range(slots):
            rows[i] = rows[i] + index[k] * buffer[(i + k) % slots]
    return rows


def _roll(index: ArrayLike, shift: int) -> Array:
    (index,) = _float64(index)
    rolled = np.zeros_like(index)
    for i in range(len(index)):
        rolled[(i + shift) % len(index)] = index[i]
    return rolled


def _float64(*arrays: ArrayLike) -> list[Array]:
    return [np.array(array, dtype=np.float64) for array in arrays]
