"""Sequences of different lengths in one batch: what `scan` and `unroll` do with `lengths`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped

from diffstack.actions import NOOP
from diffstack.families import Family
from diffstack.jax_impl._arrays import numbered


def stopped(
    steps: Shaped[Array, "..."], lengths: Int[Array, "*batch"] | None, noop: Shaped[Array, "..."] | int = 0
) -> Shaped[Array, "..."]:
    """The steps as they are up to the end of each sequence, and `noop` from there on; time comes after the batch."""
    if lengths is None:
        return steps
    live = _live(steps, lengths)
    # Padding that is NaN must not reach the state, not even times 0.
    return jnp.where(live, steps, jnp.broadcast_to(jnp.asarray(noop, steps.dtype), steps.shape))


def _live(steps: Shaped[Array, "..."], lengths: Int[Array, "*batch"]) -> Bool[Array, "..."]:
    """Whether each step comes before the end of its sequence, in a shape that broadcasts against the steps."""
    rank = lengths.ndim
    ones = (1,) * (steps.ndim - rank - 1)
    step = lax.broadcasted_iota(lengths.dtype, (*(1,) * rank, steps.shape[rank], *ones), rank)
    return step < lengths.reshape(*lengths.shape, 1, *ones)


def where_live(live: Bool[Array, "*batch"], new: Any, old: Any = None) -> Any:
    """A tree of arrays (*batch, ...): `new` where a sequence goes on, and `old`, or zeros, where it has ended."""
    old = jax.tree.map(jnp.zeros_like, new) if old is None else old

    def chosen(new: Any, old: Any) -> Array:
        new = jnp.asarray(new)
        return jnp.where(live.reshape(*live.shape, *(1,) * (new.ndim - live.ndim)), new, old)

    return jax.tree.map(chosen, new, old)


def noop(family: Family, actions: Shaped[Array, "..."], state: Any) -> Shaped[Array, "..."]:
    """The actions, of the shape of these, that leave a stack as it is."""
    if family.automaton:
        states, symbols = state.tops.shape[-2:]
        n = states * symbols
        # Of the replacements, those of a state and top by itself.
        place = numbered(actions, -1) - n * (n + states)
        same = (place >= 0) & (place % (n + 1) == 0)
        return jnp.broadcast_to(jnp.where(same, 0, -jnp.inf).astype(actions.dtype), actions.shape)
    if not family.action:
        return jnp.full_like(actions, NOOP)
    if "noop" in family.action:
        where = numbered(actions, -1) == family.action.index("noop")
        return jnp.broadcast_to(where.astype(actions.dtype), actions.shape)
    return jnp.zeros_like(actions)
