"""The one loop over `step` that is every family's definition of `scan`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def scan(
    step: Callable[[Any, Array, Any], tuple[Any, Any]], state: Any, actions: Array, elements: Any
) -> tuple[Any, Any]:
    """Run `step` along the time axis, which follows the batch axes; `elements` may be a tuple."""
    rank = state[0].ndim - 2

    def body(state: Any, inputs: tuple[Array, Any]) -> tuple[Any, Any]:
        return step(state, *inputs)

    time_first = jax.tree.map(lambda array: jnp.moveaxis(array, rank, 0), (actions, elements))
    state, reads = lax.scan(body, state, time_first)
    return state, jax.tree.map(lambda array: jnp.moveaxis(array, 0, rank), reads)
