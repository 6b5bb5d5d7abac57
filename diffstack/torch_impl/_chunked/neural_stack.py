"""The neural stack in chunks: a chunk's own elements run by the definition, on top of older ones that are only cut.

A step pops from the chunk's own elements first, and from the older ones what it then still wants; a read does the same.
That is the split of `_parallel/neural_stack.py`, one step at a time, in the levels of `_levels.py`. The lowest boundary
lies between the older elements and the chunk's own: the older ones have been cut down to it. The highest is the top.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack._plan import Plan
from diffstack.actions import POP, PUSH
from diffstack.torch_impl._chunked._levels import as_levels, lowered, read, read_lowered
from diffstack.torch_impl._chunked._line import end, fit, written
from diffstack.torch_impl._line import above, feasible
from diffstack.torch_impl._parallel._line import left_over
from diffstack.torch_impl._ties import is_cut
from diffstack.torch_impl.neural_stack import NeuralStackState

__all__ = ["close", "end", "fit", "open", "tick"]

Fixed = tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "*batch slots"], Float[Tensor, "*batch levels"]]


class Window(NamedTuple):
    """The chunk's own elements so far, (*batch, C, D), and the boundaries around them, (*batch, C + 1).

    `asked` (*batch,) is the lowest level that a pop has asked for: a slot above it is gone, also one of strength 0.
    """

    elements: Tensor
    boundaries: Tensor
    asked: Tensor


def open(state: NeuralStackState, *, steps: int) -> tuple[Fixed, Window]:
    """The older slots as they are, and no elements of the chunk yet."""
    values, strengths = state
    each = as_levels(strengths)
    levels = torch.cat([-torch.sum(each, -1, keepdim=True), -above(each)], -1)
    nothing = torch.zeros_like(levels[..., :1])
    return (values, strengths, levels), Window(values[..., :0, :], nothing, nothing[..., 0])


def tick(
    window: Window,
    fixed: Fixed,
    place: int,
    actions: Float[Tensor, "*batch 2"],
    element: Float[Tensor, "*batch dim"],
) -> tuple[Window, Float[Tensor, "*batch dim"]]:
    """One step on the chunk's own elements, and what it takes and reads of the older ones."""
    values, _, levels = fixed
    actions = as_levels(feasible(actions))
    elements = torch.cat([window.elements, element[..., None, :]], -2)
    boundaries, end, asked = lowered(window.boundaries, window.boundaries[..., -1], levels[..., 0], actions[..., POP])
    end = end + actions[..., PUSH]
    boundaries = torch.cat([boundaries, end[..., None]], -1)
    asked = torch.minimum(window.asked, asked)
    of_older = read_lowered(levels, asked, boundaries[..., 0], end, values)
    of_own = read(boundaries[..., 1:], boundaries[..., :-1], end, elements)
    return Window(elements, boundaries, asked), (of_older + of_own).to(values.dtype)


def close(
    state: NeuralStackState,
    fixed: Fixed,
    window: Window,
    first: int,
    *,
    plan: Plan,
) -> NeuralStackState:
    """What is left of the older slots, and the chunk's own in their places."""
    values, older, levels = fixed
    left = left_over(older, (window.boundaries[..., :1] - levels[..., 1:]).to(older.dtype))
    left = torch.where(is_cut(levels[..., :-1], window.asked), 0, left)
    own = window.boundaries[..., 1:] - window.boundaries[..., :-1]
    at, rank = plan.older + first, left.ndim - 1
    return NeuralStackState(written(values, window.elements, at, rank), written(left, own, at, rank))
