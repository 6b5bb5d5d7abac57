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

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from diffstack import errors
from diffstack.actions import POP, PUSH
from diffstack.jax_impl._arrays import as_array, as_codes, floating_dtype


def as_strength(strength: Any, state: Any) -> Array:
    """The strength of a push, pop or read as one number for each stack of the state."""
    batch = state.strengths.shape[:-1]
    number = type(strength) in (bool, int, float)
    strength = as_array("strength", strength, state.strengths)
    strength = jnp.broadcast_to(strength, batch) if number else strength
    errors.check_shape("strength", strength.shape, batch, "one number for each stack of the state")
    errors.check_dtype("strength", strength.dtype, state.strengths.dtype, "state.strengths")
    return strength


def hard_actions(codes: Any, dtype: Any) -> Array:
    """Integer codes as strengths of push and pop, (*codes, 2)."""
    codes = as_codes(codes)[..., None]
    return jnp.concatenate([codes == PUSH, codes == POP], -1).astype(floating_dtype(dtype))


def feasible(strengths: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """In float32 at least, and not below 0."""
    strengths = strengths.astype(np.promote_types(strengths.dtype, np.float32))
    return jnp.where(strengths < 0, 0, strengths)


def below(strengths: Float[Array, "*batch slots"]) -> Float[Array, "*batch slots"]:
    """The strength of all older slots."""
    sums = jnp.cumsum(strengths, -1)
    return jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums[..., :-1]], -1)


def above(strengths: Float[Array, "*batch slots"]) -> Float[Array, "*batch slots"]:
    """The strength of all newer slots."""
    return jnp.flip(below(jnp.flip(strengths, (-1,))), (-1,))


def room(strength: Float[Array, "*#batch"], nearer: Float[Array, "*#batch slots"]) -> Float[Array, "*#batch slots"]:
    """max(0, strength - nearer): what is left for a slot once the nearer ones have given all they have."""
    rest = strength[..., None] - nearer
    return jnp.where(rest <= 0, 0, rest)


def remaining(
    strengths: Float[Array, "*#batch slots"], nearer: Float[Array, "*#batch slots"], strength: Float[Array, "*#batch"]
) -> Float[Array, "*#batch slots"]:
    """What a pop leaves: max(0, s[i] - room[i])."""
    left = strengths - room(strength, nearer)
    return jnp.where(left < 0, 0, left)


def least(
    strengths: Float[Array, "*#batch slots"], limit: Float[Array, "*#batch slots"]
) -> Float[Array, "*#batch slots"]:
    """min(s, room), which at a tie passes its gradient to both; to neither where there is no room."""
    # A comparison with NaN is false, so a NaN strength has to be asked for.
    smaller = jnp.where((strengths < limit) | jnp.isnan(strengths), strengths, limit)
    tied = (strengths == limit) & (limit > 0)
    return jnp.where(tied, limit + (strengths - lax.stop_gradient(strengths)), smaller)


def reading(
    values: Float[Array, "*batch slots dim"],
    strengths: Float[Array, "*batch slots"],
    nearer: Float[Array, "*batch slots"],
    strength: Float[Array, "*batch"],
) -> Float[Array, "*batch dim"]:
    """What a read sees, and what a pop takes: sum_i min(s[i], room[i]) v[i]."""
    weights = least(strengths, room(strength, nearer))
    dtype = np.promote_types(values.dtype, np.float32)
    weights, values, kept = weights.astype(dtype)[..., None, :], values.astype(dtype), values.dtype
    return jnp.matmul(weights, values, precision=lax.Precision.HIGHEST)[..., 0, :].astype(kept)


def resized(array: Array, axis: int, capacity: int) -> Array:
    """The newest slots along an axis, padded with zeros at the oldest end."""
    slots = array.shape[axis]
    if capacity <= slots:
        return lax.slice_in_dim(array, slots - capacity, slots, axis=axis)
    shape = (*array.shape[:axis], capacity - slots, *array.shape[axis + 1 :])
    return jnp.concatenate([jnp.zeros(shape, array.dtype), array], axis)
