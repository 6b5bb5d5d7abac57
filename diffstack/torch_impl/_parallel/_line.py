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
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl._arrays import matmul
from diffstack.torch_impl._line import feasible
from diffstack.torch_impl._parallel._chunking import pad
from diffstack.torch_impl._parallel._recompute import recompute
from diffstack.torch_impl._ties import block_at_zero, pass_at_zero, smaller


def chunk_length(time: int) -> int:
    """A chunk costs its square within, and a pass over all slots between; a short sequence is one chunk."""
    return min(1 << (time - 1).bit_length(), 32)


def into_chunks(array: Float[Tensor, "..."], rank: int, chunk: int) -> Float[Tensor, "..."]:
    """Chunks along the time axis, which follows `rank` batch axes; they come first, the last filled with no-ops."""
    time = array.shape[rank]
    chunks = -(-time // chunk)
    array = pad(array, rank - array.ndim, 0, chunks * chunk - time)
    array = array.reshape(*array.shape[:rank], chunks, chunk, *array.shape[rank + 1 :])
    return torch.movedim(array, rank, 0)


def from_chunks(chunks: Float[Tensor, "..."], rank: int, time: int) -> Float[Tensor, "..."]:
    """The sequence that was cut into chunks."""
    array = torch.movedim(chunks, 0, rank)
    array = array.reshape(*array.shape[:rank], math.prod(array.shape[rank : rank + 2]), *array.shape[rank + 2 :])
    return array.narrow(rank, 0, time)


def over_runs(
    run: Callable[..., tuple[Tensor, ...]],
    strengths: Float[Tensor, "*batch slots"],
    values: Float[Tensor, "*batch all dim"],
    inputs: tuple[Float[Tensor, "chunks ..."], ...],
    time: int,
    ends: int = 1,
) -> tuple[Float[Tensor, "*batch all"], tuple[Float[Tensor, "*batch time dim"], ...]]:
    """Take `run` over a few runs of chunks: the strengths of all slots after the last step, and the reads.

    Slots are made for one run at a time, and its backward pass keeps no other's strengths. New slots come in at the
    newest end, and where there are two `ends` at the oldest as well. `values` has those of all steps already.
    """
    chunks, chunk, rank = len(inputs[0]), inputs[0].shape[strengths.ndim], strengths.ndim - 1
    slots, length = strengths.shape[-1], chunks * chunk
    before = length - time if ends == 2 else 0
    # The last chunk is filled with no-ops.
    padded = pad(values, -2, before, length - time)
    longest = max(8, -(-chunks // 4))
    run = partial(recompute, run) if chunks > longest else run
    left, reads = feasible(strengths), []
    for first in range(0, chunks, longest):
        part = slice(first, min(first + longest, chunks))
        stop = chunk * part.stop
        oldest = length - stop if ends == 2 else 0
        there = padded[..., oldest : oldest + slots + ends * stop, :]
        left, *read = run(left, there, *(array[part] for array in inputs))
        reads.append(read)
    left = left[..., before : before + slots + ends * time].to(strengths.dtype)
    joined = (from_chunks(torch.cat(read), rank, time) for read in zip(*reads, strict=True))
    return left, tuple(read.to(values.dtype) for read in joined)


def in_two_parts(strengths: Float[Tensor, "*shape"]) -> Float[Tensor, "2 *shape"]:
    """Coarse parts, whose sums are exact up to half of a float's digits, and fine parts, which have the gradient."""
    unit = 2.0 ** math.ceil(math.log2(torch.finfo(strengths.dtype).eps) / 2)
    coarse = torch.round(strengths.detach() / unit) * unit
    # An infinite pop has no fine part.
    return torch.stack([coarse, torch.where(torch.isinf(coarse), 0, strengths - coarse)])


def distance(
    nearer: Float[Tensor, "2 *batch slots"], taken: Float[Tensor, "2 *batch steps"]
) -> Float[Tensor, "*batch steps slots"]:
    """The strength between each slot and the end after each step; below 0, how far the end has cut into the slot."""
    nearer, taken = nearer[..., None, :], taken[..., None]
    return (nearer[0] - taken[0]) + (nearer[1] - taken[1])


def left_over(
    strengths: Float[Tensor, "*#batch slots"], distance: Float[Tensor, "*#batch slots"]
) -> Float[Tensor, "*#batch slots"]:
    """What pops have left of each slot."""
    return pass_at_zero(strengths - block_at_zero(-distance))


def read_weights(
    left: Float[Tensor, "*#batch slots"], distance: Float[Tensor, "*#batch slots"], wanted: Float[Tensor, "*#batch"]
) -> Float[Tensor, "*#batch slots"]:
    """The weights of a read that wants so much."""
    return smaller(left, block_at_zero(wanted[..., None] - pass_at_zero(distance)))


def product(
    weights: Float[Tensor, "*batch steps slots"], values: Float[Tensor, "*batch slots dim"]
) -> Float[Tensor, "*batch steps dim"]:
    """Reads, in float32 at least."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return matmul(weights.to(dtype), values.to(dtype))
