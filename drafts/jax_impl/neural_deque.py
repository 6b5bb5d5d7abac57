"""The neural deque over a whole sequence, as matrix products.

Measure places along the deque upwards from bottom to top. It reaches from Q_t to P_t and holds z_t = P_t - Q_t, and

    z_t = max(0, z_{t-1} - u_t) + d_t,                 d and u summed over both ends, gives what pops really take:
    x_t = min(u_top, z_{t-1}) at the top, then y_t = min(u_bottom, z_{t-1} - x_t) at the bottom, so that
    P_t = P_{t-1} - x_t + d_top,                       Q_t = Q_{t-1} + y_t - d_bottom.

Step t cuts everything there down to A_t = P_{t-1} - x_t from above and up to B_t = Q_{t-1} + y_t from below. It pushes
a top element, which fills A_t to P_t, and a bottom element, which fills Q_t to B_t. With [lo, hi] the place where
element i was pushed, after step t it fills

    from max(lo_i, max_{i<tau<=t} B_tau) to min(hi_i, min_{i<tau<=t} A_tau),

and the top reads what of it is above P_t - 1, the bottom what is below Q_t + 1: weights, and reads = weights @ elements.

Initial slots are pushed on the top before the first step, with empty bottom elements beside them. `_heights` finds
all places, exactly; `_intervals` makes weights and reads, and says where the gradient goes at ties.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffstack.jax_impl.parallel._heights import (
    add,
    feasible,
    height,
    index,
    join,
    minimum,
    negative,
    raised,
    running,
    sizes,
    subtract,
    zero,
)
from diffstack.jax_impl.parallel._intervals import (
    Ends,
    block_size,
    blocks,
    cuts,
    elements_in_blocks,
    last,
    lengths,
    origins,
    reads,
    timeline,
    without_blocks,
)


def scan(
    values: Float[Array, "*batch slots dim"],
    strengths: Float[Array, "*batch slots"],
    actions: Float[Array, "*batch time 4"],
    elements: tuple[Float[Array, "*batch time dim"], Float[Array, "*batch time dim"]],
) -> tuple[
    Float[Array, "*batch slots+2*time dim"],
    Float[Array, "*batch slots+2*time"],
    tuple[Float[Array, "*batch time dim"], Float[Array, "*batch time dim"]],
]:
    """All slots after the last step, bottom to top, their strengths, and the reads of the top and of the bottom.

    The slots are the bottom pushes, the latest first; the initial slots; and the top pushes, the latest last.
    """
    top, bottom = elements
    slots, time = strengths.shape[-1], top.shape[-2]
    if time == 0:
        return values, strengths, elements
    block = block_size(time)
    nothing = jnp.zeros_like(strengths)
    push_top, pop_top, push_bottom, pop_bottom = (
        height(
            feasible(timeline(strengths if action == 0 else nothing, actions[..., action], block, axis=-1))
        )
        for action in range(4)
    )
    size = sizes(add(push_top, push_bottom), add(pop_top, pop_bottom))
    before = join(zero(index(size, (..., slice(None, 1)))), index(size, (..., slice(None, -1))))
    pop_top = minimum(pop_top, before)
    pop_bottom = minimum(pop_bottom, subtract(before, pop_top))
    # Zero, or NaN from the first NaN at either end on.
    poison = subtract(size, size)
    top_end = add(running(add, subtract(push_top, pop_top)), poison)
    bottom_end = add(running(add, subtract(pop_bottom, push_bottom)), poison)
    top_cut, bottom_cut = subtract(top_end, push_top), add(bottom_end, push_bottom)

    top_end, top_cut, bottom_end, bottom_cut = (
        blocks(h, block) for h in (top_end, top_cut, bottom_end, bottom_cut)
    )
    upper = Ends(join(top_end, bottom_cut), cuts(top_cut), None, origins(top_end))
    lower = Ends(negative(join(top_cut, bottom_end)), cuts(negative(bottom_cut)), None, -upper.origin)

    left = lengths(last(upper), last(lower))
    left_top, left_bottom = (
        without_blocks(half, slots, time) for half in (left[..., :block], left[..., block:])
    )
    left = jnp.concatenate([left_bottom[..., slots:][..., ::-1], left_top], axis=-1)

    pushed = jnp.concatenate(
        [elements_in_blocks(values, top, block), elements_in_blocks(jnp.zeros_like(values), bottom, block)],
        axis=-2,
    )
    first = -(-slots // block)
    read_top = reads(upper, lower._replace(window=negative(raised(top_end, -1))), pushed, first)
    origin = origins(bottom_end)
    upper = upper._replace(window=raised(bottom_end, 1), origin=origin)
    read_bottom = reads(upper, lower._replace(origin=-origin), pushed, first)
    read_top, read_bottom = (read[..., :time, :].astype(values.dtype) for read in (read_top, read_bottom))
    values = jnp.concatenate([bottom[..., ::-1, :], values, top], axis=-2)
    return values, left.astype(strengths.dtype), (read_top, read_bottom)
