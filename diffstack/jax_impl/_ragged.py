"""Sequences of different lengths in one batch: what `scan` does with `lengths`."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped


def stopped(
    steps: Shaped[Array, "..."], lengths: Int[Array, "*batch"] | None, noop: Shaped[Array, "..."] | int = 0
) -> Shaped[Array, "..."]:
    """What happens at every step, and from the end of its sequence on `noop`; time comes after the batch."""
    if lengths is None:
        return steps
    live = _live(steps, lengths)
    # A padding that is NaN must not reach the state, not even times 0.
    return jnp.where(live, steps, jnp.broadcast_to(jnp.asarray(noop, steps.dtype), steps.shape))


def _live(steps: Shaped[Array, "..."], lengths: Int[Array, "*batch"]) -> Bool[Array, "..."]:
    """Whether each step comes before the end of its sequence, in a shape that broadcasts against the steps."""
    rank = lengths.ndim
    ones = (1,) * (steps.ndim - rank - 1)
    step = lax.broadcasted_iota(lengths.dtype, (*(1,) * rank, steps.shape[rank], *ones), rank)
    return step < lengths.reshape(*lengths.shape, 1, *ones)
