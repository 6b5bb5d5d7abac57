"""Gradients by central differences in float64."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def numerical_gradient(
    function: Callable[..., Any], inputs: Sequence[Any], cotangents: Any, step: float = 1e-6
) -> tuple[Any, ...]:
    """The gradient of sum(outputs * cotangents), outputs = function(*inputs), with respect to every input.

    Args:
        function: takes `inputs` as positional arguments; returns an array, or tuples of arrays.
        inputs: a tuple or list of floating arrays, or of tuples of them (the deque's pairs). Integer
            arguments, such as codes, belong in the function's closure.
        cotangents: like the outputs.
        step: half the distance between the two points of each difference. The result means something only
            where no tie or kink lies within `step` of the inputs; a smooth function's is good to about nine
            digits.

    Returns:
        A tuple of float64 arrays, nested like `inputs`.
    """
    inputs = _copies(inputs)
    gradients = _copies(inputs)
    weights = _leaves(_copies(cotangents))
    for array, gradient in zip(_leaves(inputs), _leaves(gradients), strict=True):
        for place in np.ndindex(array.shape):
            here = array[place]
            array[place] = above = here + step
            outputs_above = _leaves(_copies(function(*inputs)))
            array[place] = below = here - step
            outputs_below = _leaves(_copies(function(*inputs)))
            array[place] = here
            change = 0.0
            for high, low, weight in zip(outputs_above, outputs_below, weights, strict=True):
                if not high.shape == low.shape == weight.shape:
                    raise ValueError(f"output of shape {high.shape}, cotangent of shape {weight.shape}")
                # The logarithm of nothing does not change.
                moved = high != low
                change += np.sum((high[moved] - low[moved]) * weight[moved])
            gradient[place] = change / (above - below)
    return gradients


def _copies(tree: Any) -> Any:
    if isinstance(tree, (tuple, list)):
        return tuple(_copies(branch) for branch in tree)
    return np.array(tree, dtype=np.float64)


def _leaves(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, tuple):
        return [leaf for branch in tree for leaf in _leaves(branch)]
    return [tree]
