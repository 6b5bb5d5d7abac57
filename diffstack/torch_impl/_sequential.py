"""The one loop over `step` that is every family's definition of `scan`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def scan(
    step: Callable[[Any, Tensor, Any], tuple[Any, Any]], state: Any, actions: Tensor, elements: Any
) -> tuple[Any, Any]:
    """Run `step` along the time axis, which follows the batch axes; `elements` may be a tuple."""
    rank = state[0].ndim - 2
    pair = isinstance(elements, tuple)
    # One `unbind` has one backward; indexing step by step would add up T arrays of T steps.
    arrays = [array.unbind(rank) for array in (elements if pair else (elements,))]
    reads = []
    for action, *element in zip(actions.unbind(rank), *arrays, strict=True):
        state, read = step(state, action, tuple(element) if pair else element[0])
        reads.append(read if pair else (read,))
    if not reads:
        return state, elements
    stacked = tuple(torch.stack(each, rank) for each in zip(*reads, strict=True))
    return state, stacked if pair else stacked[0]
