"""The neural queue in chunks: older elements are only cut, and come before those of the chunk.

A pop takes from the older elements first, and from the chunk's own what it then still wants; a read does the same. So
with G the strength that is left of the older ones, the chunk's own elements run by the definition, but for a pop of
max(0, u - G) and a read of max(0, 1 - G).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack.actions import POP, PUSH
from diffstack.jax_impl._arrays import numbered
from diffstack.jax_impl._chunked._line import Window, close, end, fit, none_yet, read_of
from diffstack.jax_impl._line import below, feasible, remaining, room
from diffstack.jax_impl._parallel._line import left_over, read_weights
from diffstack.jax_impl._ties import block_at_zero, smaller
from diffstack.jax_impl.neural_queue import NeuralQueueState

__all__ = ["close", "end", "fit", "open", "tick"]

Fixed = tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch slots"], Float[Array, "*batch slots"]]


def open(state: NeuralQueueState, *, steps: int) -> tuple[Fixed, Window]:
    """The older slots as they are, and no elements of the chunk yet."""
    values, strengths = state
    own = jnp.zeros_like(strengths, shape=(*strengths.shape[:-1], steps))
    total = jnp.sum(strengths, -1)
    return (values, strengths, below(strengths)), Window(none_yet(values, steps), own, jnp.zeros_like(total), total)


def tick(
    window: Window,
    fixed: Fixed,
    place: Int[Array, ""],
    actions: Float[Array, "*batch 2"],
    element: Float[Array, "*batch dim"],
) -> tuple[Window, Float[Array, "*batch dim"]]:
    """One step on the older slots, and what it takes and reads of the chunk's own."""
    (values, older, nearer), own = fixed, window.strengths
    elements = lax.dynamic_update_index_in_dim(window.elements, element, place, -2)
    push, pop = feasible(actions[..., PUSH]), feasible(actions[..., POP])
    own = remaining(own, below(own), room(pop, window.total[..., None])[..., 0])
    own = jnp.where(numbered(own, -1) == place, push[..., None], own)
    # As in the definition, a pop of 0 has no gradient.
    taken = window.taken + block_at_zero(pop)
    rest = nearer - taken[..., None]
    left = left_over(older, rest)
    total, one = jnp.sum(left, -1), jnp.ones_like(pop)
    of_own = smaller(own, room(room(one, total[..., None])[..., 0], below(own)))
    read = read_of(read_weights(left, rest, one), values, of_own, elements)
    return Window(elements, own, taken, total), read
