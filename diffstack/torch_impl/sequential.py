"""The one loop over `step` that is every family's definition of `scan`."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def scan(
    step: Callable[[Any, Tensor, Any], tuple[Any, Any]], state: Any, actions: Tensor, elements: Any, rank: int
) -> tuple[Any, Any]:
    """Run `step` along the time axis, which stands behind `rank` batch axes; `elements` may be a tuple."""
    reads = []
    for inputs in zip(actions.unbind(rank), _steps(elements, rank), strict=True):
        state, read = step(state, *inputs)
        reads.append(read)
    return state, _stacked(reads, rank) if reads else elements


def _steps(elements: Any, rank: int) -> Iterable[Any]:
    # One `unbind` has one backward; indexing step by step would add up T arrays of T steps.
    if isinstance(elements, tuple):
        return zip(*(array.unbind(rank) for array in elements), strict=True)
    return elements.unbind(rank)


def _stacked(reads: list[Any], rank: int) -> Any:
    if isinstance(reads[0], tuple):
        return tuple(torch.stack(arrays, rank) for arrays in zip(*reads, strict=True))
    return torch.stack(reads, rank)
