"""The neural stack in chunks: a chunk's own elements run by the definition, on top of older ones that are only cut.

A step pops from the chunk's own elements first, and from the older ones what it then still wants; a read does the same.
That is the split of `_parallel/neural_stack.py`, one step at a time.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack.jax_impl._chunked._line import Window, close, end, fit, none_yet, read_of
from diffstack.jax_impl._line import above, feasible
from diffstack.jax_impl._parallel._line import left_over, read_weights
from diffstack.jax_impl._parallel.neural_stack import own_step
from diffstack.jax_impl.neural_stack import NeuralStackState

__all__ = ["close", "end", "fit", "open", "tick"]

Fixed = tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch slots"], Float[Array, "*batch slots"]]


def open(state: NeuralStackState, *, steps: int) -> tuple[Fixed, Window]:
    """The older slots as they are, and no elements of the chunk yet."""
    values, strengths = state
    own = jnp.zeros_like(strengths, shape=(*strengths.shape[:-1], steps))
    window = Window(none_yet(values, steps), own, jnp.zeros_like(strengths, shape=strengths.shape[:-1]), ())
    return (values, strengths, above(strengths)), window


def tick(
    window: Window,
    fixed: Fixed,
    place: Int[Array, ""],
    actions: Float[Array, "*batch 2"],
    element: Float[Array, "*batch dim"],
) -> tuple[Window, Float[Array, "*batch dim"]]:
    """One step on the chunk's own elements, and what it takes and reads of the older ones."""
    values, older, nearer = fixed
    elements = lax.dynamic_update_index_in_dim(window.elements, element, place, -2)
    strengths, own, taken, wanted = own_step(window.strengths, place, feasible(actions))
    taken = window.taken + taken
    rest = nearer - taken[..., None]
    weights = read_weights(left_over(older, rest), rest, wanted)
    return Window(elements, strengths, taken, ()), read_of(weights, values, own, elements)
