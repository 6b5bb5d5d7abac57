"""Cutting a sequence into chunks of steps, and chunks into segments.

A chunk is what one matrix product takes the state over. The matrices of all chunks of a segment are made together,
and its backward pass makes them again: what is kept is the sequence and one state a segment.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.actions import NOOP

# A segment has about this many steps, those of the whole batch together. Short ones have few matrices alive at a time,
# long ones keep few states and start few operations, and starting one costs PyTorch more than JAX.
_SEGMENT = 2048


def pad(array: Float[Tensor, "..."], axis: int, before: int, after: int) -> Float[Tensor, "..."]:
    """Zeros before and after; the axis counts from the end, as in -1."""
    return torch.nn.functional.pad(array, (0, 0) * (-axis - 1) + (before, after))


def halves(
    array: Float[Tensor, "*batch chunks m n"],
) -> tuple[Float[Tensor, "*batch chunks//2 m n"], Float[Tensor, "*batch chunks//2 m n"]]:
    """The first and the second matrix of every pair."""
    *batch, chunks, m, n = array.shape
    first, second = torch.unbind(array.reshape(*batch, chunks // 2, 2, m, n), dim=-3)
    return first, second


def into_segments(
    actions: Float[Tensor, "*batch time 3"], elements: Float[Tensor, "*batch time dim"], longest: int
) -> tuple[Float[Tensor, "segments chunks *batch steps 3"], Float[Tensor, "segments chunks *batch steps dim"]]:
    """Chunks of `longest` steps (a shorter sequence: the next power of two), the last ones filled with no-ops."""
    *batch, time, dim = elements.shape
    steps = min(longest, 1 << (time - 1).bit_length())
    chunks = -(-time // steps)
    segments = -(-chunks // max(1, _SEGMENT // (steps * _sequences(batch))))
    chunks = -(-chunks // segments)
    rest = segments * chunks * steps - time
    noops = actions.new_zeros((*batch, rest, 3))
    noops[..., NOOP] = 1
    actions = torch.cat([actions, noops], dim=-2).reshape(*batch, segments, chunks, steps, 3)
    elements = pad(elements, -2, 0, rest).reshape(*batch, segments, chunks, steps, dim)
    return torch.movedim(actions, (-4, -3), (0, 1)), torch.movedim(elements, (-4, -3), (0, 1))


def from_segments(
    reads: Float[Tensor, "segments chunks *batch steps dim"], time: int
) -> Float[Tensor, "*batch {time} dim"]:
    """The sequence that was cut into segments."""
    segments, chunks, *batch, steps, dim = reads.shape
    reads = torch.movedim(reads, (0, 1), (-4, -3)).reshape(*batch, segments * chunks * steps, dim)
    return reads[..., :time, :]


def _sequences(batch: list[int]) -> int:
    """How many sequences there are, as far as that is known."""
    # A compiler chooses by itself what to keep, and one graph is to serve many batches.
    return 1 if torch.compiler.is_compiling() else max(1, math.prod(batch))
