"""The exact stack: N slots, an integer depth, and a sticky fault.

A push writes the slot at `depth`; a pop leaves its slot as it is (stale). A push onto a full stack, a pop
from an empty one and an unknown code change nothing but the fault. Whatever is read from an empty stack is
zero. The first fault stays.

Elements are only moved: Python objects in `DiscreteStack`, arrays of any dtype in `scan`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PUSH, POP, NOOP = 0, 1, 2
OVERFLOW, UNDERFLOW, UNKNOWN_CODE = 1, 2, 3


class DiscreteStack:
    """A stack of at most `capacity` objects; `zero` is what an empty stack gives."""

    def __init__(self, capacity: int, zero: Any = 0) -> None:
        self.capacity = capacity
        self.zero = zero
        self.slots = [zero] * capacity  # slots[depth:] are stale
        self.depth = 0
        self.fault = 0

    def push(self, element: Any) -> None:
        if self.depth == self.capacity:
            self._record(OVERFLOW)
            return
        self.slots[self.depth] = element
        self.depth += 1

    def pop(self) -> Any:
        if self.depth == 0:
            self._record(UNDERFLOW)
            return self.zero
        self.depth -= 1
        return self.slots[self.depth]

    def peek(self) -> Any:
        if self.depth == 0:
            return self.zero
        return self.slots[self.depth - 1]

    def step(self, code: int, element: Any) -> Any:
        """The top after one time step."""
        if code == PUSH:
            self.push(element)
        elif code == POP:
            self.pop()
        elif code != NOOP:
            self._record(UNKNOWN_CODE)
        return self.peek()

    def contents(self) -> list[Any]:
        """As many rows as the capacity: zeros for unused slots, then bottom to top."""
        return [self.zero] * (self.capacity - self.depth) + self.slots[: self.depth]

    def _record(self, fault: int) -> None:
        if self.fault == 0:
            self.fault = fault


def scan(buffer: Array, depth: int, fault: int, codes: Array, elements: Array) -> tuple[Array, int, int, Array]:
    """(buffer, depth, fault, reads) after T time steps; the buffer with its stale slots.

    Shapes: buffer (N, *element), codes (T,), elements and reads (T, *element).
    """
    stack = _load(buffer, depth, fault)
    reads = np.zeros_like(elements)
    for t in range(len(codes)):
        reads[t, ...] = stack.step(int(codes[t]), elements[t, ...])
    return _rows(stack.slots, buffer), stack.depth, stack.fault, reads


def contents(buffer: Array, depth: int) -> Array:
    """(N, *element): the top in the last row; unused rows are zero and come first."""
    return _rows(_load(buffer, depth, fault=0).contents(), buffer)


def _load(buffer: Array, depth: int, fault: int) -> DiscreteStack:
    stack = DiscreteStack(len(buffer), zero=np.zeros(buffer.shape[1:], buffer.dtype))
    # `[i, ...]` gives an array even of a single number; a scalar might not keep the bits of every dtype.
    stack.slots = [buffer[i, ...] for i in range(len(buffer))]
    stack.depth = int(depth)
    stack.fault = int(fault)
    return stack


def _rows(elements: list[Array], like: Array) -> Array:
    rows = np.zeros_like(like)
    for i, element in enumerate(elements):
        rows[i, ...] = element
    return rows
