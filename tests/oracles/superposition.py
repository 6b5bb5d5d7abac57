"""The superposition stack of Joulin & Mikolov (2015), with the NO-OP action. Row 0 is the top:

    S'_0 = a_push v       + a_pop S_1     + a_noop S_0
    S'_i = a_push S_{i-1} + a_pop S_{i+1} + a_noop S_i
    read = S'_0

Below the bottom are zeros; what is pushed past row N-1 falls off. ("Inferring Algorithmic Patterns with
Stack-Augmented Recurrent Nets", the pushdown network.)

Shapes: buffer (N, D), actions (T, 3) in the order push, pop, noop; elements and reads (T, D).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

PUSH, POP, NOOP = 0, 1, 2


def push(buffer: ArrayLike, element: ArrayLike) -> Array:
    return step(buffer, [1.0, 0.0, 0.0], element)[0]


def pop(buffer: ArrayLike) -> tuple[Array, Array]:
    """(buffer, element): the element is the top before the pop."""
    element = peek(buffer)
    return step(buffer, [0.0, 1.0, 0.0], np.zeros_like(element))[0], element


def peek(buffer: ArrayLike) -> Array:
    return np.array(buffer, dtype=np.float64)[0]


def step(buffer: ArrayLike, actions: ArrayLike, element: ArrayLike) -> tuple[Array, Array]:
    """(buffer, read) after one time step."""
    old = np.array(buffer, dtype=np.float64)
    actions = np.array(actions, dtype=np.float64)
    element = np.array(element, dtype=np.float64)
    slots = len(old)

    new = np.zeros_like(old)
    for i in range(slots):
        from_above = element if i == 0 else old[i - 1]
        from_below = np.zeros_like(element) if i == slots - 1 else old[i + 1]
        new[i] = actions[PUSH] * from_above + actions[POP] * from_below + actions[NOOP] * old[i]
    return new, peek(new)


def scan(buffer: ArrayLike, actions: ArrayLike, elements: ArrayLike) -> tuple[Array, Array]:
    """(buffer, reads) after T time steps."""
    buffer = np.array(buffer, dtype=np.float64)
    actions = np.array(actions, dtype=np.float64)
    elements = np.array(elements, dtype=np.float64)
    reads = np.zeros_like(elements)
    for t in range(len(actions)):
        buffer, reads[t] = step(buffer, actions[t], elements[t])
    return buffer, reads


def contents(buffer: ArrayLike) -> Array:
    """The top in the last row."""
    buffer = np.array(buffer, dtype=np.float64)
    rows = np.zeros_like(buffer)
    for i in range(len(buffer)):
        rows[i] = buffer[len(buffer) - 1 - i]
    return rows
