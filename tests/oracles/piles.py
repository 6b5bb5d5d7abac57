"""The neural stack, queue and deque as piles: lists of elements and what is left of them, taken from their ends.

The same structures as in `neural_stack`, `neural_queue` and `neural_deque`, but a step costs as much as it takes, so
that long sequences can be run. What is used up is dropped.
"""

import collections
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def stack(values: ArrayLike, strengths: ArrayLike, actions: ArrayLike, elements: ArrayLike) -> Array:
    """The reads of a stack: pops and reads at the top, where it is pushed."""
    pile, actions = _pile(values, strengths), np.array(actions, np.float64)
    reads = []
    for (push, pop), element in zip(actions, np.array(elements, np.float64), strict=True):
        _take(pile, pop, top=True)
        pile.append([element, max(push, 0)])
        reads.append(_read(pile, element, top=True))
    return np.array(reads)


def queue(values: ArrayLike, strengths: ArrayLike, actions: ArrayLike, elements: ArrayLike) -> Array:
    """The reads of a queue: pops and reads at the front, and pushes at the back."""
    pile, actions = _pile(values, strengths), np.array(actions, np.float64)
    reads = []
    for (push, pop), element in zip(actions, np.array(elements, np.float64), strict=True):
        _take(pile, pop, top=False)
        pile.append([element, max(push, 0)])
        reads.append(_read(pile, element, top=False))
    return np.array(reads)


def deque(values: ArrayLike, strengths: ArrayLike, actions: ArrayLike, elements: Any) -> tuple[Array, Array]:
    """The reads of a deque: pops at the top, then at the bottom, pushes at both, reads at both."""
    pile, actions = _pile(values, strengths), np.array(actions, np.float64)
    reads: tuple[list[Array], list[Array]] = [], []
    for (push, pop, push_below, pop_below), top, bottom in zip(actions, *np.array(elements, np.float64), strict=True):
        _take(pile, pop, top=True)
        _take(pile, pop_below, top=False)
        pile.append([top, max(push, 0)])
        pile.appendleft([bottom, max(push_below, 0)])
        reads[0].append(_read(pile, top, top=True))
        reads[1].append(_read(pile, top, top=False))
    return np.array(reads[0]), np.array(reads[1])


def _pile(values: ArrayLike, strengths: ArrayLike) -> collections.deque[list[Any]]:
    rows = zip(np.array(values, np.float64), np.array(strengths, np.float64), strict=True)
    return collections.deque([value, max(strength, 0)] for value, strength in rows)


def _take(pile: collections.deque[list[Any]], wanted: float, top: bool) -> None:
    end = -1 if top else 0
    while pile and wanted > 0:
        taken = min(wanted, pile[end][1])
        wanted -= taken
        pile[end][1] -= taken
        if pile[end][1] <= 0:
            pile.pop() if top else pile.popleft()


def _read(pile: collections.deque[list[Any]], like: Array, top: bool) -> Array:
    read, wanted = np.zeros_like(like), 1.0
    for value, strength in reversed(pile) if top else pile:
        if wanted <= 0:
            break
        read = read + min(strength, wanted) * value
        wanted -= strength
    return read
