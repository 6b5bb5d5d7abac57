"""What the neural stack, queue and deque share: slots in a line, each with a strength.

The slots are in order, the oldest first (in the deque, from the bottom to the top). `nearer` gives, for every slot, the
strength that lies between it and the end that is popped or read: `above` it for the top, `below` it for the front or
the bottom. A pop of `u` takes from each slot what the nearer ones did not give, and a read weighs each slot in the same
way:

    s'[i] = max(0, s[i] - max(0, u - nearer[i]))          read = sum_i min(s[i], max(0, 1 - nearer[i])) v[i]

The derivatives at ties are those of `_ties.py`. Strengths below 0 count as 0, above 1 as they are. NaN stays: from the
step of a NaN strength on, the reads are NaN while the slots it reached are kept. Strengths are added up in float32 at
least.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.actions import POP, PUSH
from diffstack.families import FLOATING
from diffstack.torch_impl._arrays import as_array, as_codes, as_wide, floating_dtype, gathered, matmul, numbered
from diffstack.torch_impl._ties import block_at_zero, pass_at_zero, smaller

Nearer = Callable[[Tensor], Tensor]


# The equations.


def feasible(strengths: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float32 at least, and not below 0."""
    return pass_at_zero(strengths.to(torch.promote_types(strengths.dtype, torch.float32)))


def below(strengths: Float[Tensor, "*batch slots"]) -> Float[Tensor, "*batch slots"]:
    """The strength of all older slots."""
    sums = torch.cumsum(strengths, -1)
    return torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], -1)


def above(strengths: Float[Tensor, "*batch slots"]) -> Float[Tensor, "*batch slots"]:
    """The strength of all newer slots."""
    return torch.flip(below(torch.flip(strengths, (-1,))), (-1,))


def room(strength: Float[Tensor, "*#batch"], nearer: Float[Tensor, "*#batch slots"]) -> Float[Tensor, "*#batch slots"]:
    """max(0, strength - nearer): what is left for a slot once the nearer ones have given all they have."""
    return block_at_zero(strength[..., None] - nearer)


def remaining(
    strengths: Float[Tensor, "*#batch slots"],
    nearer: Float[Tensor, "*#batch slots"],
    strength: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch slots"]:
    """What a pop leaves: max(0, s[i] - room[i])."""
    return pass_at_zero(strengths - room(strength, nearer))


# What the verbs do to a state, whose values are (*batch, slots, dim).


def pop(state: Any, strength: Float[Tensor, "*batch"], nearer: Nearer) -> Any:
    """The state that a pop leaves."""
    strengths = feasible(state.strengths)
    left = remaining(strengths, nearer(strengths), feasible(strength))
    return state._replace(strengths=left.to(state.strengths.dtype))


def peek(state: Any, strength: Float[Tensor, "*batch"], nearer: Nearer) -> Float[Tensor, "*batch dim"]:
    """What a read of so much strength sees, and what a pop of it takes."""
    strengths = feasible(state.strengths)
    weights = smaller(strengths, room(feasible(strength), nearer(strengths)))
    dtype = torch.promote_types(state.values.dtype, torch.float32)
    read = matmul(weights.to(dtype)[..., None, :], state.values.to(dtype))
    return read[..., 0, :].to(state.values.dtype)


def push(state: Any, element: Float[Tensor, "*batch dim"], strength: Float[Tensor, "*batch"]) -> Any:
    """The state with one more slot at its newest end."""
    strength = feasible(strength).to(state.strengths.dtype)
    values = torch.cat([state.values, element[..., None, :]], -2)
    return state._replace(values=values, strengths=torch.cat([state.strengths, strength[..., None]], -1))


def push_oldest(state: Any, element: Float[Tensor, "*batch dim"], strength: Float[Tensor, "*batch"]) -> Any:
    """The state with one more slot at its oldest end, the bottom of a deque."""
    strength = feasible(strength).to(state.strengths.dtype)
    values = torch.cat([element[..., None, :], state.values], -2)
    return state._replace(values=values, strengths=torch.cat([strength[..., None], state.strengths], -1))


def newest(state: Any, capacity: int) -> Any:
    """The state without its oldest slots."""
    first = state.strengths.shape[-1] - capacity
    return state._replace(values=state.values[..., first:, :], strengths=state.strengths[..., first:])


def with_room(state: Any, slots: int) -> Any:
    """The state with empty slots at its oldest end."""
    values, strengths = (
        array.new_zeros((*array.shape[:rank], slots, *array.shape[rank + 1 :]))
        for array, rank in ((state.values, state.values.ndim - 2), (state.strengths, state.strengths.ndim - 1))
    )
    return state._replace(
        values=torch.cat([values, state.values], -2),
        strengths=torch.cat([strengths, state.strengths], -1),
    )


def resize(state: Any, *, capacity: int) -> Any:
    """The newest slots, or all of them and empty ones at the oldest end."""
    slots = state.strengths.shape[-1]
    return newest(state, capacity) if capacity <= slots else with_room(state, capacity - slots)


def taken_slots(state: Any, slots: Int[Tensor, "*batch kept"]) -> Any:
    """The state of the slots at some places, which may differ from stack to stack."""
    return state._replace(
        values=gathered(state.values, slots),
        strengths=torch.gather(state.strengths, -1, slots),
    )


def newest_at_the_end(state: Any, capacity: int, lengths: Int[Tensor, "*batch"] | None) -> Any:
    """The newest slots at the end of each sequence, of a state in which the longest one has pushed last."""
    if lengths is None:
        return newest(state, capacity)
    longest = state.strengths.shape[-1] - capacity
    slot = numbered(state.strengths[..., :capacity], -1)
    return taken_slots(state, torch.clamp(lengths, 0, longest)[..., None] + slot)


def contents(state: Any) -> Float[Tensor, "*batch slots dim"]:
    """Values times strengths."""
    return state.values * feasible(state.strengths).to(state.values.dtype)[..., None]


def size(state: Any) -> Float[Tensor, "*batch"]:
    """The total strength."""
    return torch.sum(feasible(state.strengths), -1)


# What the public functions share.


def empty(
    kind: type, capacity: int, element_shape: tuple[int, ...], dtype: Any, batch_shape: tuple[int, ...], device: Any
) -> Any:
    """A state of slots of strength 0."""
    layout = _checks.check_empty(capacity, element_shape, batch_shape)
    values = torch.zeros((*layout.batch, layout.slots, *layout.element), dtype=floating_dtype(dtype), device=device)
    return kind(values, values.new_zeros((*layout.batch, layout.slots)))


def from_buffer(kind: type, buffer: Any) -> Any:
    """A state whose slots have strength 1."""
    buffer = as_array("buffer", buffer)
    layout = _checks.check_buffer(buffer)
    _checks.check_kind("buffer", buffer.dtype, FLOATING, "a floating dtype")
    return kind(buffer.clone(), buffer.new_ones(layout.slots))


def as_strength(strength: Any, state: Any) -> Tensor:
    """The strength of a push, pop or read as one number for each stack of the state."""
    batch = state.strengths.shape[:-1]
    number = type(strength) in (bool, int, float)
    strength = as_wide("strength", strength, state.strengths)
    strength = torch.broadcast_to(strength, batch) if number else strength
    _checks.check_shape("strength", strength.shape, batch, "one number for each stack of the state")
    _checks.check_dtype("strength", strength.dtype, state.strengths.dtype, "state.strengths")
    return strength


def as_strengths(actions: Any, state: Any, layout: Layout, *rest: int) -> Tensor:
    """The strengths of a step, or of a sequence of them."""
    actions = as_wide("actions", actions, state.strengths)
    _checks.check_weights(actions, (*layout.batch, *rest), state.strengths.dtype)
    return actions


def hard_strengths(codes: Any, dtype: Any) -> Tensor:
    """Integer codes as strengths of push and pop, (*codes, 2)."""
    codes = as_codes(codes)[..., None]
    return torch.cat([codes == PUSH, codes == POP], -1).to(floating_dtype(dtype))
