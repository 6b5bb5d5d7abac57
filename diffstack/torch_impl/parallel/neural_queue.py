"""The neural queue of a whole sequence, chunk by chunk.

A pop takes from the front, of the older elements first. Lay the strengths of all elements end to end, those of the
chunk too: element i begins where `nearer[i]`, the sum of all older ones, ends. After step t of the chunk the front has
moved forward by `taken_t` from where it was before the chunk, and a pop takes no more than there is:

    taken_t = min(taken_{t-1} + u_t, nearer[the element that step t pushes])            wanted_t = 1

These steps x -> min(x + u, end) compose into functions of the same form, so log2(C) rounds of composition give every
front of a chunk of C steps. `_neural.py` says what is left and read then; what is not pushed yet is not read.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack.actions import POP, PUSH
from diffstack.torch_impl._neural import below, feasible
from diffstack.torch_impl.parallel._neural import (
    between,
    chunk_length,
    chunked,
    cut,
    joined,
    parts,
    product,
    seen,
    segments,
)
from diffstack.torch_impl.parallel._recompute import recompute


def is_faster(time: int) -> bool:
    """Whether this is faster than stepping, as measured forward and backward on a CPU: see docs/parallel.md."""
    return time >= 8


def scan(
    values: Float[Tensor, "*batch slots dim"],
    strengths: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "*batch time 2"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[Float[Tensor, "*batch all dim"], Float[Tensor, "*batch all"], Float[Tensor, "*batch time dim"]]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    slots, time, rank = strengths.shape[-1], actions.shape[-2], actions.ndim - 2
    chunk = chunk_length(time)
    actions = chunked(feasible(actions), rank, chunk)
    values = torch.cat([values, elements], -2)
    # The last chunk is filled with no-ops.
    fill = values.new_zeros((*values.shape[:-2], len(actions) * chunk - time, values.shape[-1]))
    padded = torch.cat([values, fill], -2)
    left, reads, runs = feasible(strengths), [], segments(len(actions))
    run = _segment if len(runs) == 1 else partial(recompute, _segment)
    for part in runs:
        stop = slots + chunk * part.stop
        left, read = run(left, padded[..., :stop, :], actions[part])
        reads.append(read)
    left = left[..., : slots + time].to(strengths.dtype)
    return values, left, joined(torch.cat(reads), rank, time).to(values.dtype)


def _segment(
    left: Float[Tensor, "*batch older"],
    values: Float[Tensor, "*batch slots dim"],
    actions: Float[Tensor, "chunks *batch steps 2"],
) -> tuple[Float[Tensor, "*batch all"], Float[Tensor, "chunks *batch steps dim"]]:
    """What a run of chunks leaves of the older elements and of its own; and its reads."""
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
    nearer, steps = below(parts(strengths)), pops.shape[-1]
    start = strengths.shape[-1] - steps
    taken, emptied = _taken(parts(pops), nearer[..., start:])
    rest = between(nearer, taken)
    left = cut(strengths[..., None, :], rest)
    weights = seen(left, rest, torch.ones_like(pops))
    # A pop of more than there is leaves nothing, so that later strengths cannot bring any of it back.
    slot = torch.arange(strengths.shape[-1], device=strengths.device)
    there = slot >= torch.where(emptied < 0, 0, start + emptied)[..., None]
    pushed = slot <= slot[start:, None]
    left = torch.where(there[..., -1, :], left[..., -1, :], 0)
    return left, product(torch.where(there & pushed, weights, 0), values)


def _taken(
    pops: Float[Tensor, "2 *batch steps"], ends: Float[Tensor, "2 *batch steps"]
) -> tuple[Float[Tensor, "2 *batch steps"], Int[Tensor, "*batch steps"]]:
    """taken_t = min(taken_{t-1} + pop_t, end_t) from 0, and the last step up to t that asked for more, or -1."""
    # As in the definition, a pop of 0 has no gradient.
    pops = torch.where(torch.sum(pops, 0) == 0, 0, pops)
    shift, limit, span = pops, ends, 1
    while span < pops.shape[-1]:
        # Compose each function with the one that covers the `span` steps before it; the first ones are complete.
        late, early = (..., slice(span, None)), (..., slice(None, -span))
        met = _smaller(limit[early] + shift[late], limit[late])
        limit = torch.cat([limit[..., :span], met], -1)
        shift = torch.cat([shift[..., :span], shift[early] + shift[late]], -1)
        span *= 2
    taken = _smaller(shift, limit)
    before = torch.cat([torch.zeros_like(taken[..., :1]), taken[..., :-1]], -1)
    asked = torch.sum(before + pops - ends, 0)
    emptied = torch.where(asked > 0, torch.arange(pops.shape[-1], device=pops.device), -1)
    return taken, torch.cummax(emptied, -1).values


def _smaller(a: Float[Tensor, "2 *shape"], b: Float[Tensor, "2 *shape"]) -> Float[Tensor, "2 *shape"]:
    """The smaller sum; a where they are equal, NaN where either is."""
    difference = torch.sum(a - b, 0)
    return torch.where((difference <= 0) | torch.isnan(torch.sum(a, 0)), a, b)
