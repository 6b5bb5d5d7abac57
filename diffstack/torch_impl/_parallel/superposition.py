"""The superposition stack over a whole sequence, as matrix products.

A step is linear in the stack. So is a chunk of c steps on n rows; its two matrices depend on its actions alone:

    [reads; new buffer] = A @ buffer + B @ elements          A (c + n, n), B (c + n, c)

Two chunks in a row are one of 2c steps: put the new buffer of the first, A1[c:] @ buffer + B1[c:] @ elements1,
into the second.

    A = [A1[:c]; A2 @ A1[c:]]          B = [[B1[:c], 0]; [A2 @ B1[c:], B2]]

The matrices of a few steps are the definition run on the identity. They are doubled, all chunks of a segment at
once; then one product takes the buffer over a chunk. Nothing is divided: hard actions are ordinary inputs.

In c steps nothing moves by more than c rows. So only the first c rows of the buffer receive elements (the rest of B
is zero, and not kept), and a stack of 2c + 1 rows tells A for every taller one: its first c rows see the top, its
last c rows see the bottom, and its middle row sees neither and holds the 2c + 1 weights that all inner rows share.

A tall stack is cut into windows that overlap by 2c rows. A row at least c rows away from an edge of its window does
not notice that edge, so one A serves all windows, and the work grows with the rows and not with their square.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl._parallel._chunking import from_segments, halves, into_segments, pad
from diffstack.torch_impl._parallel._recompute import recompute

# Longer chunks need fewer products with the buffer, but more work for their matrices.
_CHUNK = 16
_FIRST_CHUNK = 4
_WINDOW = 96


def _taller(
    a: Float[Tensor, "*batch rows n"], chunk: int, slots: int
) -> Float[Tensor, "*batch rows+{slots}-n {slots}"]:
    """The matrix A of a stack with more slots."""
    *batch, _, n = a.shape
    more = slots - n
    if more == 0:
        return a
    top, inner, bottom = torch.split(a, [2 * chunk, 1, chunk], dim=-2)
    # The inner row, one column further right in every row: repeat it, then cut the rows one column shorter.
    tiled = pad(inner.expand(*batch, more + 1, n), -1, 0, more + 1)
    flat = tiled.reshape(*batch, (more + 1) * (slots + 1))[..., : (more + 1) * slots]
    shifted = flat.reshape(*batch, more + 1, slots)
    return torch.cat([pad(top, -1, 0, more), shifted, pad(bottom, -1, more, 0)], dim=-2)


def _first_chunks(
    actions: Float[Tensor, "*batch chunk 3"], slots: int
) -> tuple[Float[Tensor, "*batch rows n"], Float[Tensor, "*batch written chunk"]]:
    """A and B by the definition: its columns are the rows of the buffer and the elements of the chunk."""
    *batch, chunk, _ = actions.shape
    n = min(slots, 2 * chunk + 1)
    lanes = math.prod(batch)
    # The chunks are the last axis, where a CPU has its vectors.
    actions = torch.movedim(actions.reshape(lanes, chunk, 3, 1, 1), 0, -1)
    identity = torch.eye(n + chunk, dtype=actions.dtype, device=actions.device)
    buffer = identity[:n, :, None].expand(n, n + chunk, lanes)
    elements = identity[n:, :, None].expand(chunk, n + chunk, lanes)
    reads = []
    for (push, pop, noop), element in zip(actions.unbind(), elements, strict=True):
        above = torch.cat([element[None], buffer[:-1]])
        below = pad(buffer[1:], -3, 0, 1)
        buffer = push * above + pop * below + noop * buffer
        reads.append(buffer[:1])
    outcome = torch.movedim(torch.cat([*reads, buffer]), -1, 0).reshape(*batch, chunk + n, n + chunk)
    a, b = torch.split(outcome, [n, chunk], dim=-1)
    return a, b[..., : 2 * chunk, :]


def _doubled(
    a: Float[Tensor, "*batch chunks rows n"], b: Float[Tensor, "*batch chunks written chunk"], slots: int
) -> tuple[Float[Tensor, "*batch chunks//2 rows2 n2"], Float[Tensor, "*batch chunks//2 written2 chunk*2"]]:
    """A and B of chunks twice as long."""
    chunk = b.shape[-1]
    n = min(slots, 4 * chunk + 1)
    (a1, a2), (b1, b2) = halves(_taller(a, chunk, n)), halves(b)
    reads_a1, buffer_a1 = torch.split(a1, [chunk, n], dim=-2)
    reads_b1, buffer_b1 = torch.split(b1, [chunk, b1.shape[-2] - chunk], dim=-2)
    written = chunk + min(n, 2 * chunk)
    later_b1 = a2[..., :written, : buffer_b1.shape[-2]] @ buffer_b1
    later_b = torch.cat([later_b1, pad(b2, -2, 0, written - b2.shape[-2])], dim=-1)
    return (
        torch.cat([reads_a1, a2 @ buffer_a1], dim=-2),
        torch.cat([pad(reads_b1, -1, 0, chunk), later_b], dim=-2),
    )


def _matrices(
    actions: Float[Tensor, "chunks *batch steps 3"], slots: int
) -> tuple[Float[Tensor, "chunks *batch rows n"], Float[Tensor, "chunks *batch written steps"]]:
    """A and B of all chunks."""
    *batch, steps, _ = actions.shape
    first = min(steps, _FIRST_CHUNK)
    a, b = _first_chunks(actions.reshape(*batch, steps // first, first, 3), slots)
    while b.shape[-1] < steps:
        a, b = _doubled(a, b, slots)
    return _taller(a[..., 0, :, :], steps, min(slots, _WINDOW)), b[..., 0, :, :]


def _over_chunk(
    a: Float[Tensor, "*batch rows n"], buffer: Float[Tensor, "*batch slots dim"], chunk: int
) -> Float[Tensor, "*batch {chunk}+slots dim"]:
    """A @ buffer, window by window."""
    *batch, slots, dim = buffer.shape
    rows, n = a.shape[-2:]
    if n == slots:
        return a @ buffer
    starts = [*range(0, slots - n, n - 2 * chunk), slots - n]
    windows = torch.stack([buffer[..., start : start + n, :] for start in starts], dim=-2)
    outcome = (a @ windows.reshape(*batch, n, len(starts) * dim)).reshape(*batch, rows, len(starts), dim)
    # The row of an outcome that belongs to row r of the buffer is r - start + chunk; the reads count from row -chunk.
    ends = [-chunk, *(start + chunk for start in starts[1:]), slots]
    kept = [slice(ends[i] - start + chunk, ends[i + 1] - start + chunk) for i, start in enumerate(starts)]
    return torch.cat([outcome[..., rows, i, :] for i, rows in enumerate(kept)], dim=-2)


def _segment(
    buffer: Float[Tensor, "*batch slots dim"],
    actions: Float[Tensor, "chunks *batch steps 3"],
    elements: Float[Tensor, "chunks *batch steps dim"],
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "chunks *batch steps dim"]]:
    slots, chunk = buffer.shape[-2], actions.shape[-2]
    a, b = _matrices(actions, slots)
    unwritten = chunk + slots - b.shape[-2]
    reads = []
    for chunk_a, from_elements in zip(a.unbind(), (b @ elements).unbind(), strict=True):
        outcome = _over_chunk(chunk_a, buffer, chunk) + pad(from_elements, -2, 0, unwritten)
        read, buffer = torch.split(outcome, [chunk, slots], dim=-2)
        reads.append(read)
    return buffer, torch.stack(reads)


def scan(
    buffer: Float[Tensor, "*batch slots dim"],
    actions: Float[Tensor, "*batch time 3"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "*batch time dim"]]:
    """The buffer after the last step, and the read after every step."""
    time = actions.shape[-2]
    reads = []
    for inputs in zip(*(array.unbind() for array in into_segments(actions, elements, _CHUNK)), strict=True):
        buffer, read = recompute(_segment, buffer, *inputs)
        reads.append(read)
    return buffer, from_segments(torch.stack(reads), time)
