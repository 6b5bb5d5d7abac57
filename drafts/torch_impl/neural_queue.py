"""The neural queue over a whole sequence, as matrix products.

Lay the pushed strengths end to end: element i fills the places from D_i - d_i to D_i, where D is the sum of all
strengths so far. A pop moves the front forward, F_t = min(D_{t-1}, F_{t-1} + u_t), and everything behind the front is
gone. So the front lies the total strength H_t behind the end, F_t = D_t - H_t, and H is that of the stack. A read sees
the first strength of 1, the places from F_t to F_t + 1, of what is there by then:

    weight[t, i] = max(0, min(D_i, F_t + 1) - max(D_i - d_i, F_t)) for i <= t,          reads = weights @ elements.

Initial slots are pushes before the first step. `_heights` finds D and H, exactly; `_intervals` makes weights and
reads, and says where the gradient goes at ties.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.actions import POP, PUSH
from diffstack.torch_impl.parallel._heights import (
    add,
    feasible,
    height,
    index,
    minimum,
    negative,
    raised,
    running,
    sizes,
    subtract,
)
from diffstack.torch_impl.parallel._intervals import (
    Ends,
    block_size,
    blocks,
    elements_in_blocks,
    lengths,
    origins,
    reads,
    timeline,
    without_blocks,
)


def scan(
    values: Float[Tensor, "*batch slots dim"],
    strengths: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "*batch time 2"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[
    Float[Tensor, "*batch slots+time dim"],
    Float[Tensor, "*batch slots+time"],
    Float[Tensor, "*batch time dim"],
]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    slots, time = strengths.shape[-1], elements.shape[-2]
    if time == 0:
        return values, strengths, elements
    block = block_size(time)
    pushes = height(feasible(timeline(strengths, actions[..., PUSH], block, dim=-1)))
    pops = height(feasible(timeline(torch.zeros_like(strengths), actions[..., POP], block, dim=-1)))
    ends = running(add, pushes)
    front = blocks(subtract(ends, sizes(pushes, pops)), block)
    starts = blocks(subtract(ends, pushes), block)
    ends = blocks(ends, block)

    origin = origins(front)
    upper = Ends(ends, None, raised(front, 1), origin)
    lower = Ends(negative(starts), None, negative(front), -origin)

    gone = minimum(lower.edge, index(lower.window, (..., slice(-1, None), slice(-1, None))))
    left = without_blocks(lengths(ends, gone), slots, time)
    read = reads(upper, lower, elements_in_blocks(values, elements, block), first=-(-slots // block))[
        ..., :time, :
    ]
    values = torch.cat([values, elements], dim=-2)
    return values, left.to(strengths.dtype), read.to(values.dtype)
