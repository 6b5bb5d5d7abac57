"""The neural stack over a whole sequence, as matrix products.

Think of the stack as a pile with a height. A pop lowers it to L_t = max(0, H_{t-1} - u_t), a push raises it again to
H_t = L_t + d_t, and the pushed element fills what lies between. Later pops can only cut it from above, so after step t
element i fills the heights from L_i to min(H_i, min_{i<tau<=t} L_tau). A read sees the topmost strength of 1, the
heights from H_t - 1 on:

    weight[t, i] = max(0, min(H_i, min_{i<tau<=t} L_tau) - max(L_i, H_t - 1)),          reads = weights @ elements.

Initial slots are pushes before the first step. `_heights` finds H, exactly; `_intervals` makes weights and reads, and
says where the gradient goes at ties.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffstack.actions import POP, PUSH
from diffstack.jax_impl.parallel._heights import feasible, height, negative, raised, sizes, subtract
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
    actions: Float[Array, "*batch time 2"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[
    Float[Array, "*batch slots+time dim"], Float[Array, "*batch slots+time"], Float[Array, "*batch time dim"]
]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    slots, time = strengths.shape[-1], elements.shape[-2]
    if time == 0:
        return values, strengths, elements
    block = block_size(time)
    pushes = height(feasible(timeline(strengths, actions[..., PUSH], block, axis=-1)))
    pops = height(feasible(timeline(jnp.zeros_like(strengths), actions[..., POP], block, axis=-1)))
    high = sizes(pushes, pops)
    low = subtract(high, pushes)

    high, low = blocks(high, block), blocks(low, block)
    origin = origins(low)
    upper = Ends(high, cuts(low), None, origin)
    lower = Ends(negative(low), None, negative(raised(high, -1)), -origin)

    left = without_blocks(lengths(last(upper), last(lower)), slots, time)
    read = reads(upper, lower, elements_in_blocks(values, elements, block), first=-(-slots // block))[
        ..., :time, :
    ]
    values = jnp.concatenate([values, elements], axis=-2)
    return values, left.astype(strengths.dtype), read.astype(values.dtype)
