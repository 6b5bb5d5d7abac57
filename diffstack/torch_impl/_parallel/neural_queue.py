"""The neural queue of a whole sequence, chunk by chunk.

A pop takes from the front, of the older elements first. Lay the strengths of all elements end to end, those of the
chunk too: element i begins where `nearer[i]`, the sum of all older ones, ends. After step t of the chunk the front has
moved forward by `taken_t` from where it was before the chunk, and a pop takes no more than there is:

    taken_t = min(taken_{t-1} + u_t, nearer[the element that step t pushes])            wanted_t = 1

These steps x -> min(x + u, end) compose into functions of the same form, so log2(C) rounds of composition give every
front of a chunk of C steps. `_line.py` says what is left and read then; what is not pushed yet is not read.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack.actions import POP, PUSH
from diffstack.torch_impl._arrays import numbered
from diffstack.torch_impl._line import below, feasible
from diffstack.torch_impl._parallel._line import (
    chunk_length,
    distance,
    in_two_parts,
    into_chunks,
    left_over,
    over_runs,
    product,
    read_weights,
)
from diffstack.torch_impl._parallel._recompute import recompute
from diffstack.torch_impl._ties import smaller_sum, sum_blocked_at_zero


def scan(
    values: Float[Tensor, "*batch slots dim"],
    strengths: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "*batch time 2"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[Float[Tensor, "*batch all dim"], Float[Tensor, "*batch all"], Float[Tensor, "*batch time dim"]]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    time, rank = actions.shape[-2], actions.ndim - 2
    values = torch.cat([values, elements], -2)
    chunks = into_chunks(feasible(actions), rank, chunk_length(time))
    left, (reads,) = over_runs(_run, strengths, values, (chunks,), time)
    return values, left, reads


def _run(
    left: Float[Tensor, "*batch older"],
    values: Float[Tensor, "*batch slots dim"],
    actions: Float[Tensor, "chunks *batch steps 2"],
) -> tuple[Float[Tensor, "*batch all"], Float[Tensor, "chunks *batch steps dim"]]:
    """What a run of chunks leaves of the older elements and of its own, and its reads."""
    reads = []
    for action in actions.unbind():
        left = torch.cat([left, action[..., PUSH]], -1)
        left, read = recompute(_over_chunk, left, values[..., : left.shape[-1], :], action[..., POP])
        reads.append(read)
    return left, torch.stack(reads)


def _over_chunk(
    strengths: Float[Tensor, "*batch slots"],
    values: Float[Tensor, "*batch slots dim"],
    pops: Float[Tensor, "*batch steps"],
) -> tuple[Float[Tensor, "*batch slots"], Float[Tensor, "*batch steps dim"]]:
    """What a chunk leaves of all elements, its own in the last slots, and its reads of them."""
    nearer, steps = below(in_two_parts(strengths)), pops.shape[-1]
    start = strengths.shape[-1] - steps
    taken, emptied = _taken(in_two_parts(pops), nearer[..., start:])
    rest = distance(nearer, taken)
    left = left_over(strengths[..., None, :], rest)
    weights = read_weights(left, rest, torch.ones_like(pops))
    # A pop of more than there is leaves nothing, so that later strengths cannot bring any of it back.
    slot = numbered(left, -1)
    there = slot >= torch.where(emptied < 0, 0, start + emptied)[..., None]
    pushed = slot <= start + numbered(pops, -1)[..., None]
    left = torch.where(there[..., -1, :], left[..., -1, :], 0)
    return left, product(torch.where(there & pushed, weights, 0), values)


def _taken(
    pops: Float[Tensor, "2 *batch steps"], ends: Float[Tensor, "2 *batch steps"]
) -> tuple[Float[Tensor, "2 *batch steps"], Int[Tensor, "*batch steps"]]:
    """taken_t = min(taken_{t-1} + pop_t, end_t) from 0, and the last step up to t that asked for more, or -1."""
    # As in the definition, a pop of 0 has no gradient.
    pops = sum_blocked_at_zero(pops)
    shift, limit, span = pops, ends, 1
    while span < pops.shape[-1]:
        # Compose each function with the one that covers the `span` steps before it; the first ones are complete.
        late, early = (..., slice(span, None)), (..., slice(None, -span))
        met = smaller_sum(limit[early] + shift[late], limit[late])
        limit = torch.cat([limit[..., :span], met], -1)
        shift = torch.cat([shift[..., :span], shift[early] + shift[late]], -1)
        span *= 2
    taken = smaller_sum(shift, limit)
    before = torch.cat([torch.zeros_like(taken[..., :1]), taken[..., :-1]], -1)
    asked = torch.sum(before + pops - ends, 0)
    emptied = torch.where(asked > 0, numbered(asked, -1), -1)
    return taken, torch.cummax(emptied, -1).values
