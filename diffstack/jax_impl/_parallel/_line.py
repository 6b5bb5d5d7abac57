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

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl._line import feasible
from diffstack.jax_impl._parallel._chunking import pad
from diffstack.jax_impl._ties import block_at_zero, pass_at_zero, smaller


def chunk_length(time: int) -> int:
    """A chunk costs its square within, and a pass over all slots between; a short sequence is one chunk."""
    return min(1 << (time - 1).bit_length(), 32)


def into_chunks(array: Float[Array, "..."], rank: int, chunk: int) -> Float[Array, "..."]:
    """Chunks along the time axis, which follows `rank` batch axes; they come first, the last filled with no-ops."""
    time = array.shape[rank]
    chunks = -(-time // chunk)
    array = pad(array, rank - array.ndim, 0, chunks * chunk - time)
    array = array.reshape(*array.shape[:rank], chunks, chunk, *array.shape[rank + 1 :])
    return jnp.moveaxis(array, rank, 0)


def from_chunks(chunks: Float[Array, "..."], rank: int, time: int) -> Float[Array, "..."]:
    """The sequence that was cut into chunks."""
    array = jnp.moveaxis(chunks, 0, rank)
    array = array.reshape(*array.shape[:rank], math.prod(array.shape[rank : rank + 2]), *array.shape[rank + 2 :])
    return lax.slice_in_dim(array, 0, time, axis=rank)


def over_runs(
    run: Callable[..., tuple[Array, ...]],
    strengths: Float[Array, "*batch slots"],
    values: Float[Array, "*batch all dim"],
    inputs: tuple[Float[Array, "chunks ..."], ...],
    time: int,
    ends: int = 1,
) -> tuple[Float[Array, "*batch all"], tuple[Float[Array, "*batch time dim"], ...]]:
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
    run = jax.checkpoint(run) if chunks > longest else run
    left, reads = feasible(strengths), []
    for first in range(0, chunks, longest):
        part = slice(first, min(first + longest, chunks))
        more, stop = chunk * (part.stop - first), chunk * part.stop
        left = pad(left, -1, more if ends == 2 else 0, more)
        oldest = length - stop if ends == 2 else 0
        there = padded[..., oldest : oldest + slots + ends * stop, :]
        left, *read = run(left, there, *(array[part] for array in inputs))
        reads.append(read)
    left = left[..., before : before + slots + ends * time].astype(strengths.dtype)
    joined = (from_chunks(jnp.concatenate(read), rank, time) for read in zip(*reads, strict=True))
    return left, tuple(read.astype(values.dtype) for read in joined)


def in_two_parts(strengths: Float[Array, "*shape"]) -> Float[Array, "2 *shape"]:
    """Coarse parts, whose sums are exact up to half of a float's digits, and fine parts, which have the gradient."""
    unit = 2.0 ** math.ceil(math.log2(jnp.finfo(strengths.dtype).eps) / 2)
    coarse = jnp.round(lax.stop_gradient(strengths) / unit) * unit
    # An infinite pop has no fine part.
    return jnp.stack([coarse, jnp.where(jnp.isinf(coarse), 0, strengths - coarse)])


def distance(
    nearer: Float[Array, "2 *batch slots"], taken: Float[Array, "2 *batch steps"]
) -> Float[Array, "*batch steps slots"]:
    """The strength between each slot and the end after each step; below 0, how far the end has cut into the slot."""
    nearer, taken = nearer[..., None, :], taken[..., None]
    return (nearer[0] - taken[0]) + (nearer[1] - taken[1])


def left_over(
    strengths: Float[Array, "*#batch slots"], distance: Float[Array, "*#batch slots"]
) -> Float[Array, "*#batch slots"]:
    """What pops have left of each slot."""
    return pass_at_zero(strengths - block_at_zero(-distance))


def read_weights(
    left: Float[Array, "*#batch slots"], distance: Float[Array, "*#batch slots"], wanted: Float[Array, "*#batch"]
) -> Float[Array, "*#batch slots"]:
    """The weights of a read that wants so much."""
    return smaller(left, block_at_zero(wanted[..., None] - pass_at_zero(distance)))


def product(
    weights: Float[Array, "*batch steps slots"], values: Float[Array, "*batch slots dim"]
) -> Float[Array, "*batch steps dim"]:
    """Reads, in float32 at least."""
    dtype = np.promote_types(values.dtype, np.float32)
    return matmul(weights.astype(dtype), values.astype(dtype))
