"""Cutting a sequence into chunks of steps, and chunks into segments.

A chunk is what one matrix product takes the state over. The matrices of all chunks of a segment are made together,
and its backward pass makes them again: what is kept is the sequence and one state a segment.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffstack._checks import is_symbolic
from diffstack.actions import NOOP

# A segment has about this many steps, those of the whole batch together. Short ones have few matrices alive at a time,
# long ones keep few states and start few operations, and starting one costs PyTorch more than JAX.
_SEGMENT = 512


def pad(array: Float[Array, "..."], axis: int, before: int, after: int) -> Float[Array, "..."]:
    """Zeros before and after; the axis counts from the end, as in -1."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (before, after)
    return jnp.pad(array, widths)


def halves(
    array: Float[Array, "*batch chunks m n"],
) -> tuple[Float[Array, "*batch chunks//2 m n"], Float[Array, "*batch chunks//2 m n"]]:
    """The first and the second matrix of every pair."""
    *batch, chunks, m, n = array.shape
    first, second = jnp.split(array.reshape(*batch, chunks // 2, 2, m, n), 2, axis=-3)
    return first[..., 0, :, :], second[..., 0, :, :]


def into_segments(
    actions: Float[Array, "*batch time 3"], elements: Float[Array, "*batch time dim"], longest: int
) -> tuple[Float[Array, "segments chunks *batch steps 3"], Float[Array, "segments chunks *batch steps dim"]]:
    """Chunks of `longest` steps (a shorter sequence: the next power of two), the last ones filled with no-ops."""
    *batch, time, dim = elements.shape
    steps = min(longest, 1 << (time - 1).bit_length())
    chunks = -(-time // steps)
    segments = -(-chunks // max(1, _SEGMENT // (steps * _sequences(batch))))
    chunks = -(-chunks // segments)
    rest = segments * chunks * steps - time
    noops = jnp.zeros_like(actions, shape=(*batch, rest, 3)).at[..., NOOP].set(1)
    actions = jnp.concatenate([actions, noops], axis=-2).reshape(*batch, segments, chunks, steps, 3)
    elements = pad(elements, -2, 0, rest).reshape(*batch, segments, chunks, steps, dim)
    return jnp.moveaxis(actions, (-4, -3), (0, 1)), jnp.moveaxis(elements, (-4, -3), (0, 1))


def from_segments(
    reads: Float[Array, "segments chunks *batch steps dim"], time: int
) -> Float[Array, "*batch {time} dim"]:
    """The sequence that was cut into segments."""
    segments, chunks, *batch, steps, dim = reads.shape
    reads = jnp.moveaxis(reads, (0, 1), (-4, -3)).reshape(*batch, segments * chunks * steps, dim)
    return reads[..., :time, :]


def _sequences(batch: list[int]) -> int:
    """How many sequences there are, as far as that is known."""
    return 1 if any(map(is_symbolic, batch)) else max(1, math.prod(batch))
