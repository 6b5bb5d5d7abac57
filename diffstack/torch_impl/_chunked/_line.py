"""What the neural families share: slots that are written once, and cut by what a chunk pops of them.

The slots of all steps are laid out before they are pushed, with strength 0, so that no step moves them. Within a chunk
the older slots keep the strengths and the sums `nearer` that they had at its start. `_parallel/_line.py` says what is
left of them, and what a read sees, when `taken` in total has been popped.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack._plan import Plan
from diffstack.torch_impl._line import feasible, newest_at_the_end, with_room
from diffstack.torch_impl._parallel._chunking import pad
from diffstack.torch_impl._parallel._line import left_over, product


class Window(NamedTuple):
    """The chunk's own elements, (*batch, C, D), and strengths; and what the older slots have lost and still have."""

    elements: Tensor
    strengths: Tensor
    taken: Any
    total: Any


def fit(state: Any, *, plan: Plan) -> Any:
    """Slots for all steps up to the end of the run, oldest first."""
    values, strengths = state
    if plan.first == 0:
        values, strengths = values[..., : plan.older, :], feasible(strengths)[..., : plan.older]
    more = plan.older + plan.stop - strengths.shape[-1]
    return state._replace(values=pad(values, -2, 0, more), strengths=pad(strengths, -1, 0, more))


def close(state: Any, fixed: Any, window: Window, first: int, *, plan: Plan) -> Any:
    """What is left of the older slots, and the chunk's own in their places."""
    values, older, nearer = fixed
    left = left_over(older, nearer - window.taken[..., None])
    at, rank = plan.older + first, left.ndim - 1
    return state._replace(
        values=written(values, window.elements, at, rank), strengths=written(left, window.strengths, at, rank)
    )


def end(state: Any, lengths: Int[Tensor, "*batch"] | None, *, plan: Plan) -> Any:
    """What the capacity of the structure keeps."""
    state = with_room(state, plan.slots - plan.older)
    return newest_at_the_end(state, plan.slots, lengths)


def written(slots: Float[Tensor, "..."], own: Float[Tensor, "..."], at: int, rank: int) -> Float[Tensor, "..."]:
    """The slots, which follow `rank` batch axes, with the chunk's own put in their places."""
    return torch.slice_scatter(slots, own.to(slots.dtype), rank, at, at + own.shape[rank])


def read_of(
    weights: Float[Tensor, "*batch slots"],
    values: Float[Tensor, "*batch slots dim"],
    own: Float[Tensor, "*batch steps"],
    elements: Float[Tensor, "*batch steps dim"],
) -> Float[Tensor, "*batch dim"]:
    """The read of the older slots and of the chunk's own."""
    read = product(weights[..., None, :], values) + product(own[..., None, :], elements)
    return read[..., 0, :].to(values.dtype)


def none_yet(values: Float[Tensor, "*batch slots dim"], steps: int) -> Float[Tensor, "*batch {steps} dim"]:
    """Room for the elements of a chunk."""
    return values.new_zeros((*values.shape[:-2], steps, values.shape[-1]))
