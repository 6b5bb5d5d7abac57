"""The neural stack of Grefenstette et al. (2015), "Learning to Transduce with Unbounded Memory", eq. 1 to 3.

With i over the elements from the oldest to the newest, step t pops u_t, pushes v_t with strength d_t, and
reads a total strength of 1 from the top:

    s_t[i] = max(0, s_{t-1}[i] - max(0, u_t - sum_{j>i} s_{t-1}[j]))   for i < t,        s_t[t] = d_t
    r_t    = sum_i min(s_t[i], max(0, 1 - sum_{j>i} s_t[j])) v_i

Strengths below 0 count as 0; those above 1 are taken as they are. A NaN is never dropped.

Shapes: values (N, D) and strengths (N,), oldest first; actions (T, 2), d at PUSH and u at POP; elements and
reads (T, D). Every push adds a slot, and none is ever dropped.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .clamping import positive_part, smaller

Array = NDArray[Any]

PUSH, POP = 0, 1


def push(values: ArrayLike, strengths: ArrayLike, element: ArrayLike, strength: float) -> tuple[Array, Array]:
    """(values, strengths) with one slot more, the newest."""
    values = [*np.array(values, dtype=np.float64), np.array(element, dtype=np.float64)]
    strengths = [*np.array(strengths, dtype=np.float64), positive_part(float(strength))]
    return np.array(values), np.array(strengths)


def pop(values: ArrayLike, strengths: ArrayLike, strength: float) -> tuple[Array, Array, Array]:
    """(values, strengths, element): the element is what was taken, the sum of amounts times values."""
    s, u = _strengths(strengths), positive_part(float(strength))
    left = np.zeros(len(s))
    for i in range(len(s)):
        left[i] = positive_part(s[i] - positive_part(u - sum(s[i + 1 :])))
    return np.array(values, dtype=np.float64), left, peek(values, strengths, strength)


def peek(values: ArrayLike, strengths: ArrayLike, strength: float = 1.0) -> Array:
    """The read of a total of `strength` from the top."""
    values = np.array(values, dtype=np.float64)
    s, total = _strengths(strengths), positive_part(float(strength))
    read = np.zeros(values.shape[1:])
    for i in range(len(s)):
        read = read + smaller(s[i], positive_part(total - sum(s[i + 1 :]))) * values[i]
    return read


def step(values: ArrayLike, strengths: ArrayLike, actions: ArrayLike, element: ArrayLike) -> tuple[Array, Array, Array]:
    """(values, strengths, read) after one time step; one slot more."""
    actions = np.array(actions, dtype=np.float64)
    values, strengths, _ = pop(values, strengths, actions[POP])
    values, strengths = push(values, strengths, element, actions[PUSH])
    return values, strengths, peek(values, strengths)


def scan(
    values: ArrayLike, strengths: ArrayLike, actions: ArrayLike, elements: ArrayLike
) -> tuple[Array, Array, Array]:
    """(values, strengths, reads) after T time steps; N + T slots."""
    values = np.array(values, dtype=np.float64)
    strengths = np.array(strengths, dtype=np.float64)
    actions = np.array(actions, dtype=np.float64)
    elements = np.array(elements, dtype=np.float64)
    reads = np.zeros_like(elements)
    for t in range(len(actions)):
        values, strengths, reads[t] = step(values, strengths, actions[t], elements[t])
    return values, strengths, reads


def size(values: ArrayLike, strengths: ArrayLike) -> float:
    """The total strength."""
    return float(sum(_strengths(strengths)))


def contents(values: ArrayLike, strengths: ArrayLike) -> Array:
    """Strengths times values, slot by slot."""
    values, s = np.array(values, dtype=np.float64), _strengths(strengths)
    rows = np.zeros_like(values)
    for i in range(len(s)):
        rows[i] = s[i] * values[i]
    return rows


def _strengths(strengths: ArrayLike) -> list[float]:
    return [positive_part(s) for s in np.array(strengths, dtype=np.float64).tolist()]
