"""The pointer stack over a whole sequence, as matrix products.

With w_t = push_t index_{t-1} (where step t writes) and q_t = roll(index_t, -1) (where it reads), a step is

    buffer <- diag(1 - w_t) buffer + w_t element_t^T          read_t = q_t^T buffer

Over a chunk of c steps, with a row for every step and a column for every slot in `write` and `recall`, this is

    new buffer = diag(decay) buffer + write^T @ elements      reads = recall @ buffer + relay @ elements

where for one step decay = 1 - w, write = w, recall = q (1 - w), relay = q . w. Two chunks in a row are one of 2c:

    decay  = decay1 decay2                 write = [write1 decay2; write2]
    recall = [recall1; recall2 decay1]     relay = [[relay1, 0], [recall2 @ write1^T, relay2]]

so log2(C) doublings, all chunks of a segment at once, make chunks of C steps; the buffer then goes over a chunk by
one multiplication and one addition. Nothing is divided by decays: a hard push makes them zero.

The index does not depend on the buffer. A chunk convolves it around the ring with 2c + 1 taps: what a single 1 becomes
in the same steps on a ring of 2c + 1 slots, or of all slots where they are fewer. So the taps of all chunks take c
steps, the first index of every chunk one convolution after another, and every index in between c steps again.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffstack.actions import PUSH
from diffstack.jax_impl.parallel._chunking import cut, halves, join, matmul, pad

# Longer chunks need fewer convolutions of the index, but more taps and more steps within. Not tuned yet.
_CHUNK = 16


def _walk(
    index: Float[Array, "*batch slots"], actions: Float[Array, "steps 3 *batch 1"]
) -> tuple[
    Float[Array, "*batch slots"], tuple[Float[Array, "steps *batch slots"], Float[Array, "steps *batch slots"]]
]:
    """The index by its definition: after the last step, before every step, after every step."""

    def step(before, action):
        push, pop, noop = action
        after = push * jnp.roll(before, 1, axis=-1) + pop * jnp.roll(before, -1, axis=-1) + noop * before
        return after, (before, after)

    return lax.scan(step, index, actions)


def _convolve(index: Float[Array, "*batch slots"], taps: Float[Array, "*batch taps"]) -> Float[Array, "*batch slots"]:
    """Tap j weighs the index rolled by j - taps // 2."""
    *batch, slots = index.shape
    width = taps.shape[-1]
    behind = width // 2
    around = jnp.concatenate([index[..., slots - (width - 1 - behind) :], index, index[..., :behind]], axis=-1)
    # Window j starts at column j: repeat `around` in rows, cut them one longer.
    length = slots + width - 1
    tiled = jnp.broadcast_to(around[..., None, :], (*batch, width, length)).reshape(*batch, width * length)
    windows = pad(tiled, -1, 0, width).reshape(*batch, width, length + 1)[..., :slots]
    return matmul(jnp.flip(taps, -1)[..., None, :], windows)[..., 0, :]


def _path(
    index: Float[Array, "*batch slots"], actions: Float[Array, "chunks *batch steps 3"]
) -> tuple[
    Float[Array, "*batch slots"],
    Float[Array, "chunks *batch steps slots"],
    Float[Array, "chunks *batch steps slots"],
]:
    """The index after the last step, before every step, after every step."""
    chunks, *batch, steps, _ = actions.shape
    actions = jnp.moveaxis(actions, (-2, -1), (0, 1))[..., None]
    width = min(index.shape[-1], 2 * steps + 1)
    single = jax.nn.one_hot(width // 2, width, dtype=index.dtype)
    taps, _ = _walk(jnp.broadcast_to(single, (chunks, *batch, width)), actions)
    last, firsts = lax.scan(lambda index, taps: (_convolve(index, taps), index), index, taps)
    _, (before, after) = _walk(firsts, actions)
    return last, jnp.moveaxis(before, 0, -2), jnp.moveaxis(after, 0, -2)


def _matrices(
    written: Float[Array, "chunks *batch steps slots"], looked_up: Float[Array, "chunks *batch steps slots"]
) -> tuple[
    Float[Array, "chunks *batch slots"],
    Float[Array, "chunks *batch steps slots"],
    Float[Array, "chunks *batch steps slots"],
    Float[Array, "chunks *batch steps steps"],
]:
    """Decay, write, recall and relay of all chunks."""
    write, looked_up = written[..., None, :], looked_up[..., None, :]
    decay = 1 - write
    recall = looked_up * decay
    relay = jnp.sum(looked_up * write, axis=-1, keepdims=True)
    while relay.shape[-3] > 1:
        (decay1, decay2), (write1, write2) = halves(decay), halves(write)
        (recall1, recall2), (relay1, relay2) = halves(recall), halves(relay)
        later = jnp.concatenate([matmul(recall2, jnp.swapaxes(write1, -1, -2)), relay2], axis=-1)
        relay = jnp.concatenate([pad(relay1, -1, 0, relay1.shape[-1]), later], axis=-2)
        write = jnp.concatenate([write1 * decay2, write2], axis=-2)
        recall = jnp.concatenate([recall1, recall2 * decay1], axis=-2)
        decay = decay1 * decay2
    return decay[..., 0, 0, :], write[..., 0, :, :], recall[..., 0, :, :], relay[..., 0, :, :]


def _segment(
    buffer: Float[Array, "*batch slots dim"],
    inputs: tuple[
        Float[Array, "chunks *batch steps 3"],
        Float[Array, "chunks *batch steps slots"],
        Float[Array, "chunks *batch steps slots"],
        Float[Array, "chunks *batch steps dim"],
    ],
) -> tuple[Float[Array, "*batch slots dim"], Float[Array, "chunks *batch steps dim"]]:
    actions, before, after, elements = inputs
    decay, write, recall, relay = _matrices(actions[..., PUSH, None] * before, jnp.roll(after, -1, axis=-1))

    def step(buffer, inputs):
        decay, from_elements = inputs
        return decay[..., None] * buffer + from_elements, buffer

    buffer, buffers = lax.scan(step, buffer, (decay, matmul(jnp.swapaxes(write, -1, -2), elements)))
    return buffer, matmul(recall, buffers) + matmul(relay, elements)


def scan(
    buffer: Float[Array, "*batch slots dim"],
    index: Float[Array, "*batch slots"],
    actions: Float[Array, "*batch time 3"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch slots"], Float[Array, "*batch time dim"]]:
    """The buffer and the index after the last step, and the read after every step."""
    time = actions.shape[-2]
    if time == 0:
        return buffer, index, elements
    actions, elements = cut(actions, elements, _CHUNK)
    segments, chunks, *_ = actions.shape
    index, before, after = _path(index, actions.reshape(segments * chunks, *actions.shape[2:]))
    before, after = (path.reshape(segments, chunks, *path.shape[1:]) for path in (before, after))
    buffer, reads = lax.scan(jax.checkpoint(_segment), buffer, (actions, before, after, elements))
    return buffer, index, join(reads, time)
