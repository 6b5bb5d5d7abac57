"""What the neural stack, queue and deque share: strengths, what a pop leaves, what a read weighs.

Slots stand in a row, oldest first. `nearer` is, for every slot, the strength that stands between it and the end that
is popped or read: `above` it for the top, `below` it for the front or the bottom. A pop of `u` takes from each slot
what the nearer ones did not give, and a read of total strength 1 weighs each slot in the same way:

    s'[i] = max(0, s[i] - max(0, u - nearer[i]))          read = sum_i min(s[i], max(0, 1 - nearer[i])) v[i]

**Ties.** Hard strengths (exactly 0 or 1) and empty slots sit on the corners of these functions, where the two sides
have two derivatives. Splitting evenly, as `maximum` does, halves a gradient at every later step. The derivative here
is the one into the feasible region, where a strength can only grow from 0: the outer max passes its gradient at 0,
and the inner ones, `max(0, u - ...)` and `max(0, 1 - ...)`, block it there. Where `min(s, room)` ties at 0, neither can
grow alone, and it passes no gradient. Where it ties above 0, in a full read, less of either gives less weight (`room`
shrinks as a nearer push grows), and it passes the gradient to both. So the gradient of a read with respect to the push
that made it is 1 after any number of no-ops, and with respect to a push of strength 0 it is the one-sided derivative.

Strengths below 0 count as 0, above 1 as they are. `where` also keeps NaN: from the step of a NaN strength on, the
reads are NaN while the slots it reached are kept. Strengths are added up in float32 at least.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack import errors
from diffstack.actions import POP, PUSH
from diffstack.torch_impl._arrays import as_array, as_codes, floating_dtype


def as_strength(strength: Any, state: Any) -> Tensor:
    """The strength of a push, pop or read as one number for each stack of the state."""
    batch = state.strengths.shape[:-1]
    number = type(strength) in (bool, int, float)
    strength = as_array("strength", strength, state.strengths)
    strength = strength.expand(batch) if number else strength
    errors.check_shape("strength", strength.shape, batch, "one number for each stack of the state")
    errors.check_dtype("strength", strength.dtype, state.strengths.dtype, "state.strengths")
    return strength


def hard_actions(codes: Any, dtype: Any) -> Tensor:
    """Integer codes as strengths of push and pop, (*codes, 2)."""
    codes = as_codes(codes)[..., None]
    return torch.cat([codes == PUSH, codes == POP], -1).to(floating_dtype(dtype))


def feasible(strengths: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float32 at least, and not below 0."""
    strengths = strengths.to(torch.promote_types(strengths.dtype, torch.float32))
    return torch.where(strengths < 0, 0, strengths)


def below(strengths: Float[Tensor, "*batch slots"]) -> Float[Tensor, "*batch slots"]:
    """The strength of all older slots."""
    sums = torch.cumsum(strengths, -1)
    return torch.cat([torch.zeros_like(sums[..., :1]), sums[..., :-1]], -1)


def above(strengths: Float[Tensor, "*batch slots"]) -> Float[Tensor, "*batch slots"]:
    """The strength of all newer slots."""
    return torch.flip(below(torch.flip(strengths, (-1,))), (-1,))


def room(strength: Float[Tensor, "*#batch"], nearer: Float[Tensor, "*#batch slots"]) -> Float[Tensor, "*#batch slots"]:
    """max(0, strength - nearer): what is left for a slot once the nearer ones have given all they have."""
    rest = strength[..., None] - nearer
    return torch.where(rest <= 0, 0, rest)


def remaining(
    strengths: Float[Tensor, "*#batch slots"],
    nearer: Float[Tensor, "*#batch slots"],
    strength: Float[Tensor, "*#batch"],
) -> Float[Tensor, "*#batch slots"]:
    """What a pop leaves: max(0, s[i] - room[i])."""
    left = strengths - room(strength, nearer)
    return torch.where(left < 0, 0, left)


def least(
    strengths: Float[Tensor, "*#batch slots"], limit: Float[Tensor, "*#batch slots"]
) -> Float[Tensor, "*#batch slots"]:
    """min(s, room), which at a tie passes its gradient to both; to neither where there is no room."""
    # A comparison with NaN is false, so a NaN strength has to be asked for.
    smaller = torch.where((strengths < limit) | torch.isnan(strengths), strengths, limit)
    tied = (strengths == limit) & (limit > 0)
    return torch.where(tied, limit + (strengths - strengths.detach()), smaller)


def reading(
    values: Float[Tensor, "*batch slots dim"],
    strengths: Float[Tensor, "*batch slots"],
    nearer: Float[Tensor, "*batch slots"],
    strength: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch dim"]:
    """What a read sees, and what a pop takes: sum_i min(s[i], room[i]) v[i]."""
    weights = least(strengths, room(strength, nearer))
    dtype = torch.promote_types(values.dtype, torch.float32)
    weights, values, kept = weights.to(dtype)[..., None, :], values.to(dtype), values.dtype
    return torch.matmul(weights, values)[..., 0, :].to(kept)


def resized(array: Tensor, axis: int, capacity: int) -> Tensor:
    """The newest slots along an axis, padded with zeros at the oldest end."""
    slots = array.shape[axis]
    if capacity <= slots:
        return array.narrow(axis, slots - capacity, capacity)
    shape = (*array.shape[:axis], capacity - slots, *array.shape[axis + 1 :])
    return torch.cat([array.new_zeros(shape), array], axis)
