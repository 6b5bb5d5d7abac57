"""What the parallel forms of the neural families share: a chunk of steps against all the slots that came before it.

Whatever a chunk of steps does, the slots from before it are only cut from their ends: after step t of the chunk,
`taken_t` in total has been popped of them. So all its steps see the same strengths s and sums `nearer`, and

    left[t, i]   = max(0, s[i] - max(0, taken_t - nearer[i]))
    weight[t, i] = min(left[t, i], max(0, wanted_t - max(0, nearer[i] - taken_t)))

where `wanted_t` is what the read of step t still wants when it comes to them. That is one pop and one read of the
definition, for all steps at once, with the same ties; reads are one product of weights and elements. The strengths
then go from chunk to chunk. The backward pass recomputes the weights of a chunk, and the strengths of a run of chunks.

A float that sums many strengths loses what is small in them. So a sum is kept in two parts, and a difference of two
sums is the difference of their coarse parts, which are exact up to 2^13 in float32, plus that of their fine parts,
which are small.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl._neural import least


def chunk_length(time: int) -> int:
    """A chunk costs its square within, and a pass over all slots between; a short sequence is one chunk."""
    return min(1 << (time - 1).bit_length(), 32)


def segments(chunks: int) -> list[slice]:
    """A few runs of chunks: slots are made for one run at a time, and its backward pass keeps no other's strengths."""
    longest = max(8, -(-chunks // 4))
    return [slice(first, min(first + longest, chunks)) for first in range(0, chunks, longest)]


def chunked(array: Float[Tensor, "..."], rank: int, chunk: int) -> Float[Tensor, "..."]:
    """The time axis, behind `rank` batch axes, in chunks that stand first; the last one is filled with no-ops."""
    time = array.shape[rank]
    chunks = -(-time // chunk)
    fill = array.new_zeros((*array.shape[:rank], chunks * chunk - time, *array.shape[rank + 1 :]))
    array = torch.cat([array, fill], rank).reshape(*array.shape[:rank], chunks, chunk, *array.shape[rank + 1 :])
    return torch.movedim(array, rank, 0)


def joined(chunks: Float[Tensor, "..."], rank: int, time: int) -> Float[Tensor, "..."]:
    """The way back."""
    array = torch.movedim(chunks, 0, rank)
    array = array.flatten(rank, rank + 1)
    return array.narrow(rank, 0, time)


def parts(strengths: Float[Tensor, "*shape"]) -> Float[Tensor, "2 *shape"]:
    """Coarse parts, whose sums are exact up to half of a float's digits, and fine parts, which have the gradient."""
    unit = 2.0 ** math.ceil(math.log2(torch.finfo(strengths.dtype).eps) / 2)
    coarse = torch.round(strengths.detach() / unit) * unit
    # An infinite pop has no fine part.
    return torch.stack([coarse, torch.where(torch.isinf(coarse), 0, strengths - coarse)])


def between(
    nearer: Float[Tensor, "2 *batch slots"], taken: Float[Tensor, "2 *batch steps"]
) -> Float[Tensor, "*batch steps slots"]:
    """What stands between each slot and the end after each step; below 0, how far the end has cut in."""
    nearer, taken = nearer[..., None, :], taken[..., None]
    return (nearer[0] - taken[0]) + (nearer[1] - taken[1])


def cut(
    strengths: Float[Tensor, "*#batch slots"], rest: Float[Tensor, "*#batch slots"]
) -> Float[Tensor, "*#batch slots"]:
    """What a pop leaves, as in the definition: the outer max passes its gradient at 0, the inner one blocks it."""
    left = strengths + torch.where(rest >= 0, 0, rest)
    return torch.where(left < 0, 0, left)


def seen(
    left: Float[Tensor, "*#batch slots"], rest: Float[Tensor, "*#batch slots"], wanted: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch slots"]:
    """The weights of a read that wants so much."""
    room = wanted[..., None] - torch.where(rest < 0, 0, rest)
    return least(left, torch.where(room <= 0, 0, room))


def product(
    weights: Float[Tensor, "*batch steps slots"], values: Float[Tensor, "*batch slots dim"]
) -> Float[Tensor, "*batch steps dim"]:
    """Reads, in float32 at least."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return torch.matmul(weights.to(dtype), values.to(dtype))
