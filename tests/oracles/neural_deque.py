"""The neural deque of Grefenstette et al. (2015), "Learning to Transduce with Unbounded Memory", section 3.3.

With i over the slots from the bottom to the top, step t pops the top, pops the bottom, pushes at both ends
(so every slot moves up by one), and reads a total strength of 1 from each end:

    s_top[i]  = max(0, s_{t-1}[i] - max(0, u_top    - sum_{j>i} s_{t-1}[j]))
    s_both[i] = max(0, s_top[i]   - max(0, u_bottom - sum_{j<i} s_top[j]))
    V_t = [v_bottom, *V_{t-1}, v_top]        s_t = [d_bottom, *s_both, d_top]
    r_top    = sum_i min(s_t[i], max(0, 1 - sum_{j>i} s_t[j])) V_t[i]
    r_bottom = sum_i min(s_t[i], max(0, 1 - sum_{j<i} s_t[j])) V_t[i]

Strengths below 0 count as 0; those above 1 are taken as they are. A NaN is never dropped.

Shapes: values (N, D) and strengths (N,), bottom first; actions (T, 4) = (d_top, u_top, d_bottom, u_bottom);
elements and reads are pairs (top, bottom) of (T, D). Every step adds a slot at each end, and none is ever
dropped.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .clamping import positive_part, smaller

Array = NDArray[Any]
Pair = tuple[Array, Array]

PUSH_TOP, POP_TOP, PUSH_BOTTOM, POP_BOTTOM = 0, 1, 2, 3


def push_top(values: ArrayLike, strengths: ArrayLike, element: ArrayLike, strength: float) -> Pair:
    """(values, strengths) with one slot more, the last."""
    values = [*np.array(values, dtype=np.float64), np.array(element, dtype=np.float64)]
    strengths = [*np.array(strengths, dtype=np.float64), positive_part(float(strength))]
    return np.array(values), np.array(strengths)


def push_bottom(values: ArrayLike, strengths: ArrayLike, element: ArrayLike, strength: float) -> Pair:
    """(values, strengths) with one slot more, the first."""
    values = [np.array(element, dtype=np.float64), *np.array(values, dtype=np.float64)]
    strengths = [positive_part(float(strength)), *np.array(strengths, dtype=np.float64)]
    return np.array(values), np.array(strengths)


def pop_top(values: ArrayLike, strengths: ArrayLike, strength: float) -> tuple[Array, Array, Array]:
    """(values, strengths, element): the element is what was taken, the sum of amounts times values."""
    s, u = _strengths(strengths), positive_part(float(strength))
    left = np.zeros(len(s))
    for i in range(len(s)):
        left[i] = positive_part(s[i] - positive_part(u - sum(s[i + 1 :])))
    return np.array(values, dtype=np.float64), left, peek_top(values, strengths, strength)


def pop_bottom(values: ArrayLike, strengths: ArrayLike, strength: float) -> tuple[Array, Array, Array]:
    """(values, strengths, element): the element is what was taken, the sum of amounts times values."""
    s, u = _strengths(strengths), positive_part(float(strength))
    left = np.zeros(len(s))
    for i in range(len(s)):
        left[i] = positive_part(s[i] - positive_part(u - sum(s[:i])))
    return np.array(values, dtype=np.float64), left, peek_bottom(values, strengths, strength)


def peek_top(values: ArrayLike, strengths: ArrayLike, strength: float = 1.0) -> Array:
    """The read of a total of `strength` from the top."""
    values = np.array(values, dtype=np.float64)
    s, total = _strengths(strengths), positive_part(float(strength))
    read = np.zeros(values.shape[1:])
    for i in range(len(s)):
        read = read + smaller(s[i], positive_part(total - sum(s[i + 1 :]))) * values[i]
    return read


def peek_bottom(values: ArrayLike, strengths: ArrayLike, strength: float = 1.0) -> Array:
    """The read of a total of `strength` from the bottom."""
    values = np.array(values, dtype=np.float64)
    s, total = _strengths(strengths), positive_part(float(strength))
    read = np.zeros(values.shape[1:])
    for i in range(len(s)):
        read = read + smaller(s[i], positive_part(total - sum(s[:i]))) * values[i]
    return read


def step(
    values: ArrayLike, strengths: ArrayLike, actions: ArrayLike, elements: tuple[ArrayLike, ArrayLike]
) -> tuple[Array, Array, Pair]:
    """(values, strengths, (read of the top, read of the bottom)) after one time step; two slots more."""
    actions = np.array(actions, dtype=np.float64)
    top, bottom = elements
    values, strengths, _ = pop_top(values, strengths, actions[POP_TOP])
    values, strengths, _ = pop_bottom(values, strengths, actions[POP_BOTTOM])
    values, strengths = push_top(values, strengths, top, actions[PUSH_TOP])
    values, strengths = push_bottom(values, strengths, bottom, actions[PUSH_BOTTOM])
    return values, strengths, (peek_top(values, strengths), peek_bottom(values, strengths))


def scan(
    values: ArrayLike, strengths: ArrayLike, actions: ArrayLike, elements: tuple[ArrayLike, ArrayLike]
) -> tuple[Array, Array, Pair]:
    """(values, strengths, (reads of the top, reads of the bottom)) after T time steps; N + 2T slots.

    The slots, bottom to top: what was pushed at the bottom, the latest first; the N initial ones; what was
    pushed at the top, the latest last.
    """
    values = np.array(values, dtype=np.float64)
    strengths = np.array(strengths, dtype=np.float64)
    actions = np.array(actions, dtype=np.float64)
    tops, bottoms = (np.array(e, dtype=np.float64) for e in elements)
    top_reads, bottom_reads = np.zeros_like(tops), np.zeros_like(bottoms)
    for t in range(len(actions)):
        values, strengths, reads = step(values, strengths, actions[t], (tops[t], bottoms[t]))
        top_reads[t], bottom_reads[t] = reads
    return values, strengths, (top_reads, bottom_reads)


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
