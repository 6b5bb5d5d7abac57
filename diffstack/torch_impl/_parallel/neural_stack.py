"""The neural stack of a whole sequence, chunk by chunk.

Within a chunk of steps the stack is the elements that the chunk has pushed, on top of all that was there before. A pop
takes from the chunk's own elements first, and from the older ones what it then still wants; a read does the same. So
the chunk runs by the definition on its own elements alone, from an empty stack, which is done for all chunks at once:
with G_t the total strength of these elements,

    taken_t  = sum_{tau<=t} max(0, u_tau - G_{tau-1})         wanted_t = max(0, 1 - G_t)

are what it pops and what it wants to read of the older ones. `_line.py` says what becomes of those.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.actions import POP, PUSH
from diffstack.torch_impl._arrays import numbered
from diffstack.torch_impl._line import above, feasible, remaining, room
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
from diffstack.torch_impl._ties import smaller


def scan(
    values: Float[Tensor, "*batch slots dim"],
    strengths: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "*batch time 2"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[Float[Tensor, "*batch all dim"], Float[Tensor, "*batch all"], Float[Tensor, "*batch time dim"]]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    time, rank = actions.shape[-2], actions.ndim - 2
    chunk = chunk_length(time)
    own = recompute(_within, into_chunks(feasible(actions), rank, chunk))
    values = torch.cat([values, elements], -2)
    left, (reads,) = over_runs(_run, strengths, values, (*own, into_chunks(elements, rank, chunk)), time)
    return values, left, reads


def _run(
    left: Float[Tensor, "*batch older"],
    values: Float[Tensor, "*batch slots dim"],
    kept: Float[Tensor, "chunks *batch steps"],
    taken: Float[Tensor, "chunks *batch steps"],
    wanted: Float[Tensor, "chunks *batch steps"],
    weights: Float[Tensor, "chunks *batch steps steps"],
    new: Float[Tensor, "chunks *batch steps dim"],
) -> tuple[Float[Tensor, "*batch all"], Float[Tensor, "chunks *batch steps dim"]]:
    """What a run of chunks leaves of the older elements and of its own, and its reads."""
    reads = []
    for own, take, want, weight, each in zip(*(a.unbind() for a in (kept, taken, wanted, weights, new)), strict=True):
        left, read = recompute(_older, left, values[..., : left.shape[-1], :], take, want)
        left = torch.cat([left, own], -1)
        reads.append(read + product(weight, each))
    return left, torch.stack(reads)


def _older(
    strengths: Float[Tensor, "*batch slots"],
    values: Float[Tensor, "*batch slots dim"],
    taken: Float[Tensor, "*batch steps"],
    wanted: Float[Tensor, "*batch steps"],
) -> tuple[Float[Tensor, "*batch slots"], Float[Tensor, "*batch steps dim"]]:
    """What a chunk leaves of the older elements, and its reads of them."""
    rest = distance(above(in_two_parts(strengths)), torch.cumsum(in_two_parts(taken), -1))
    left = left_over(strengths[..., None, :], rest)
    return left[..., -1, :], product(read_weights(left, rest, wanted), values)


def _within(
    actions: Float[Tensor, "chunks *batch steps 2"],
) -> tuple[
    Float[Tensor, "chunks *batch steps"],
    Float[Tensor, "chunks *batch steps"],
    Float[Tensor, "chunks *batch steps"],
    Float[Tensor, "chunks *batch steps steps"],
]:
    """What is left of the chunk's own elements; what steps take and want of older ones; the weights of its own."""
    strengths = torch.zeros_like(actions[..., 0])
    outcome = []
    for place, action in enumerate(actions.unbind(-2)):
        strengths, *each = own_step(strengths, place, action)
        outcome.append(each)
    weights, taken, wanted = (torch.stack(each, actions.ndim - 2) for each in zip(*outcome, strict=True))
    return strengths, taken, wanted, weights


def own_step(
    strengths: Float[Tensor, "*batch steps"], place: int, action: Float[Tensor, "*batch 2"]
) -> tuple[
    Float[Tensor, "*batch steps"], Float[Tensor, "*batch steps"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]
]:
    """One step on the chunk's own elements: what is left, their weights; what it takes and wants of older ones."""
    one = torch.ones_like(action[..., PUSH])
    taken = room(action[..., POP], torch.sum(strengths, -1, keepdim=True))[..., 0]
    strengths = remaining(strengths, above(strengths), action[..., POP])
    strengths = torch.where(numbered(strengths, -1) == place, action[..., PUSH, None], strengths)
    weights = smaller(strengths, room(one, above(strengths)))
    wanted = room(one, torch.sum(strengths, -1, keepdim=True))[..., 0]
    return strengths, weights, taken, wanted
