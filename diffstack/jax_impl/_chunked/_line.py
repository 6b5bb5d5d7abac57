"""What the neural families share: slots that are written once, and cut by what a chunk pops of them.

The slots of all steps are laid out before they are pushed, with strength 0, so that no step moves them. Within a chunk
the older slots keep the strengths and the sums `nearer` that they had at its start. `_parallel/_line.py` says what is
left of them, and what a read sees, when `taken` in total has been popped.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack._plan import Plan
from diffstack.jax_impl._line import feasible, newest_at_the_end, with_room
from diffstack.jax_impl._parallel._chunking import pad
from diffstack.jax_impl._parallel._line import left_over, product


class Window(NamedTuple):
    """The chunk's own elements, (*batch, C, D), and strengths; and what the older slots have lost and still have."""

    elements: Array
    strengths: Array
    taken: Any
    total: Any


def fit(state: Any, *, plan: Plan) -> Any:
    """Slots for all steps up to the end of the run, oldest first."""
    values, strengths = state
    if plan.first == 0:
        values, strengths = values[..., : plan.older, :], feasible(strengths)[..., : plan.older]
    more = plan.older + plan.stop - strengths.shape[-1]
    return state._replace(values=pad(values, -2, 0, more), strengths=pad(strengths, -1, 0, more))


def close(state: Any, fixed: Any, window: Window, first: Int[Array, ""], *, plan: Plan) -> Any:
    """What is left of the older slots, and the chunk's own in their places."""
    values, older, nearer = fixed
    left = left_over(older, nearer - window.taken[..., None])
    at, rank = plan.older + first, left.ndim - 1
    return state._replace(
        values=written(values, window.elements, at, rank), strengths=written(left, window.strengths, at, rank)
    )


def end(state: Any, lengths: Int[Array, "*batch"] | None, *, plan: Plan) -> Any:
    """What the capacity of the structure keeps."""
    state = with_room(state, plan.slots - plan.older)
    return newest_at_the_end(state, plan.slots, lengths)


def written(slots: Float[Array, "..."], own: Float[Array, "..."], at: Int[Array, ""], rank: int) -> Float[Array, "..."]:
    """The slots, which follow `rank` batch axes, with the chunk's own put in their places."""
    return lax.dynamic_update_slice_in_dim(slots, own.astype(slots.dtype), at, rank)


def read_of(
    weights: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    own: Float[Array, "*batch steps"],
    elements: Float[Array, "*batch steps dim"],
) -> Float[Array, "*batch dim"]:
    """The read of the older slots and of the chunk's own."""
    read = product(weights[..., None, :], values) + product(own[..., None, :], elements)
    return read[..., 0, :].astype(values.dtype)


def none_yet(values: Float[Array, "*batch slots dim"], steps: int) -> Float[Array, "*batch {steps} dim"]:
    """Room for the elements of a chunk."""
    return jnp.zeros_like(values, shape=(*values.shape[:-2], steps, values.shape[-1]))
