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

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl._parallel._chunking import from_segments, halves, into_segments, pad

# Longer chunks need fewer products with the buffer, but more work for their matrices.
_CHUNK = 16
_FIRST_CHUNK = 4
_WINDOW = 96


def _taller(a: Float[Array, "*batch rows n"], chunk: int, slots: int) -> Float[Array, "*batch rows+{slots}-n {slots}"]:
    """The matrix A of a stack with more slots."""
    *batch, _, n = a.shape
    more = slots - n
    if more == 0:
        return a
    top, inner, bottom = jnp.split(a, (2 * chunk, 2 * chunk + 1), axis=-2)
    # The inner row, one column further right in every row: repeat it, then cut the rows one column shorter.
    tiled = pad(jnp.broadcast_to(inner, (*batch, more + 1, n)), -1, 0, more + 1)
    flat = tiled.reshape(*batch, (more + 1) * (slots + 1))[..., : (more + 1) * slots]
    shifted = flat.reshape(*batch, more + 1, slots)
    return jnp.concatenate([pad(top, -1, 0, more), shifted, pad(bottom, -1, more, 0)], axis=-2)


def _first_chunks(
    actions: Float[Array, "*batch chunk 3"], slots: int
) -> tuple[Float[Array, "*batch rows n"], Float[Array, "*batch written chunk"]]:
    """A and B by the definition: its columns are the rows of the buffer and the elements of the chunk."""
    *batch, chunk, _ = actions.shape
    n = min(slots, 2 * chunk + 1)
    lanes = math.prod(batch)
    # The chunks are the last axis, where a CPU has its vectors.
    actions = jnp.moveaxis(actions.reshape(lanes, chunk, 3, 1, 1), 0, -1)
    # Made from the actions, so that inside `shard_map` it varies as they do.
    identity = (
        jnp.zeros_like(actions, shape=(n + chunk, n + chunk, lanes))
        + jnp.eye(n + chunk, dtype=actions.dtype)[..., None]
    )
    buffer, elements = identity[:n], identity[n:]

    def step(buffer: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        (push, pop, noop), element = inputs
        above = jnp.concatenate([element[None], buffer[:-1]])
        below = pad(buffer[1:], -3, 0, 1)
        buffer = push * above + pop * below + noop * buffer
        return buffer, buffer[0]

    buffer, reads = lax.scan(step, buffer, (actions, elements))
    outcome = jnp.moveaxis(jnp.concatenate([reads, buffer]), -1, 0).reshape(*batch, chunk + n, n + chunk)
    a, b = jnp.split(outcome, (n,), axis=-1)
    return a, b[..., : 2 * chunk, :]


def _doubled(
    a: Float[Array, "*batch chunks rows n"], b: Float[Array, "*batch chunks written chunk"], slots: int
) -> tuple[Float[Array, "*batch chunks//2 rows2 n2"], Float[Array, "*batch chunks//2 written2 chunk*2"]]:
    """A and B of chunks twice as long."""
    chunk = b.shape[-1]
    n = min(slots, 4 * chunk + 1)
    (a1, a2), (b1, b2) = halves(_taller(a, chunk, n)), halves(b)
    reads_a1, buffer_a1 = jnp.split(a1, (chunk,), axis=-2)
    reads_b1, buffer_b1 = jnp.split(b1, (chunk,), axis=-2)
    written = chunk + min(n, 2 * chunk)
    later_b1 = matmul(a2[..., :written, : buffer_b1.shape[-2]], buffer_b1)
    later_b = jnp.concatenate([later_b1, pad(b2, -2, 0, written - b2.shape[-2])], axis=-1)
    return (
        jnp.concatenate([reads_a1, matmul(a2, buffer_a1)], axis=-2),
        jnp.concatenate([pad(reads_b1, -1, 0, chunk), later_b], axis=-2),
    )


def _matrices(
    actions: Float[Array, "chunks *batch steps 3"], slots: int
) -> tuple[Float[Array, "chunks *batch rows n"], Float[Array, "chunks *batch written steps"]]:
    """A and B of all chunks."""
    *batch, steps, _ = actions.shape
    first = min(steps, _FIRST_CHUNK)
    a, b = _first_chunks(actions.reshape(*batch, steps // first, first, 3), slots)
    while b.shape[-1] < steps:
        a, b = _doubled(a, b, slots)
    return _taller(a[..., 0, :, :], steps, min(slots, _WINDOW)), b[..., 0, :, :]


def _over_chunk(
    a: Float[Array, "*batch rows n"], buffer: Float[Array, "*batch slots dim"], chunk: int
) -> Float[Array, "*batch {chunk}+slots dim"]:
    """A @ buffer, window by window."""
    *batch, slots, dim = buffer.shape
    rows, n = a.shape[-2:]
    if n == slots:
        return matmul(a, buffer)
    starts = [*range(0, slots - n, n - 2 * chunk), slots - n]
    windows = jnp.stack([buffer[..., start : start + n, :] for start in starts], axis=-2)
    outcome = matmul(a, windows.reshape(*batch, n, len(starts) * dim)).reshape(*batch, rows, len(starts), dim)
    # The row of an outcome that belongs to row r of the buffer is r - start + chunk; the reads count from row -chunk.
    ends = [-chunk, *(start + chunk for start in starts[1:]), slots]
    kept = [slice(ends[i] - start + chunk, ends[i + 1] - start + chunk) for i, start in enumerate(starts)]
    return jnp.concatenate([outcome[..., rows, i, :] for i, rows in enumerate(kept)], axis=-2)


def _segment(
    buffer: Float[Array, "*batch slots dim"],
    inputs: tuple[Float[Array, "chunks *batch steps 3"], Float[Array, "chunks *batch steps dim"]],
) -> tuple[Float[Array, "*batch slots dim"], Float[Array, "chunks *batch steps dim"]]:
    actions, elements = inputs
    slots, chunk = buffer.shape[-2], actions.shape[-2]
    a, b = _matrices(actions, slots)
    unwritten = chunk + slots - b.shape[-2]

    # XLA keeps the buffers of a segment, and not the outcomes, which are larger.
    @jax.checkpoint
    def step(buffer: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        a, from_elements = inputs
        outcome = _over_chunk(a, buffer, chunk) + pad(from_elements, -2, 0, unwritten)
        reads, buffer = jnp.split(outcome, (chunk,), axis=-2)
        return buffer, reads

    return lax.scan(step, buffer, (a, matmul(b, elements)))


def scan(
    buffer: Float[Array, "*batch slots dim"],
    actions: Float[Array, "*batch time 3"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch time dim"]]:
    """The buffer after the last step, and the read after every step."""
    time = actions.shape[-2]
    buffer, reads = lax.scan(jax.checkpoint(_segment), buffer, into_segments(actions, elements, _CHUNK))
    return buffer, from_segments(reads, time)
