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

The index does not depend on the buffer. A step convolves it around the ring with three taps, (pop, noop, push), and
so does the beginning of a chunk, up to its step t, with 2t + 1. Taps are doubled too: in the second of two chunks
they are convolved with the last taps of the first. One product with all taps of a chunk then gives every w and q in it,
and the last q is all that the next chunk needs, as index_t = roll(q_t, 1).

Where all steps are pushes, or all pops, there is no path to find: the index only turns. Seen from the index, which
then stands still, it is the buffer that turns, and every chunk of c steps is one and the same product and a turn by c:

    c pushes: buffer <- roll(diag(decay) buffer + write^T @ elements, -c)
    c pops:   elements = look @ buffer;  buffer <- roll(buffer, c)

Push t = 0 .. c - 1 of a chunk writes at v_t = roll(index, t), so decay = prod_t (1 - v_t) and write_t = v_t prod_{s>t}
(1 - v_s), which are made from the last push to the first. Pop t takes the element at look_t = roll(index, -t - 1), the
slot that it moves to. After all chunks the buffer is turned back by the number of pushes; pops leave it as it was.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffstack.actions import NOOP, POP, PUSH
from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl._parallel._chunking import from_segments, halves, into_segments, pad

# Longer chunks need fewer passes over the buffer, but more taps and one doubling more.
_CHUNK = 16

# For pushes alone and pops alone. With 16 the reversal of 1024 elements took half as long again, with 64 about as long.
_RUN = 32


def _windows(array: Float[Array, "*batch length"], rows: int, size: int) -> Float[Array, "*batch {rows} {size}"]:
    """Windows of an array that goes on from its beginning: the first at entry rows - 1, each one entry before."""
    *batch, length = array.shape
    # Repeat the array in rows, then cut them one entry shorter.
    tiled = jnp.broadcast_to(array[..., None, :], (*batch, rows, length)).reshape(*batch, rows * length)
    return tiled[..., rows - 1 : rows * length - 1].reshape(*batch, rows, length - 1)[..., :size]


def _taps(actions: Float[Array, "*batch steps 3"]) -> Float[Array, "*batch steps 2*steps+1"]:
    """What a single 1 on an endless tape has become after every step of a chunk; it was in the middle."""
    taps = jnp.stack([actions[..., code] for code in (POP, NOOP, PUSH)], axis=-1)[..., None, :]
    while taps.shape[-3] > 1:
        taps1, taps2 = halves(taps)
        steps = taps.shape[-2]
        later = matmul(taps2, _windows(pad(taps1[..., -1, :], -1, 2 * steps, 1), 2 * steps + 1, 4 * steps + 1))
        taps = jnp.concatenate([pad(taps1, -1, steps, steps), later], axis=-2)
    return taps[..., 0, :, :]


def _path(
    look: Float[Array, "*batch slots"], actions: Float[Array, "chunks *batch steps 3"]
) -> tuple[Float[Array, "chunks *batch steps slots"], Float[Array, "chunks *batch steps slots"]]:
    """Where every step writes and where it reads; the step before the first read at `look`."""
    slots, (*batch, steps, _) = look.shape[-1], actions.shape
    after = _taps(actions)
    start = jnp.broadcast_to(jax.nn.one_hot(steps, 2 * steps + 1, dtype=look.dtype), (*batch, 1, 2 * steps + 1))
    before = jnp.concatenate([start, after[..., :-1, :]], axis=-2)
    # A step writes one slot above the one where the step before it read. No 1 has got to the tap that this drops.
    write = actions[..., PUSH, None] * pad(before[..., :-1], -1, 1, 0)
    taps = jnp.concatenate([write, after], axis=-2)
    first, turns = -steps % slots, 2 - -2 * steps // slots

    def step(look: Array, taps: Array) -> tuple[Array, Array]:
        around = jnp.concatenate([look] * turns, axis=-1)[..., first : first + slots + 2 * steps]
        path = matmul(taps, _windows(around, 2 * steps + 1, slots))
        return path[..., -1, :], path

    _, path = lax.scan(step, look, taps)
    write, look = jnp.split(path, (steps,), axis=-2)
    return write, look


def _matrices(
    write: Float[Array, "chunks *batch steps slots"], look: Float[Array, "chunks *batch steps slots"]
) -> tuple[
    Float[Array, "chunks *batch slots"],
    Float[Array, "chunks *batch steps slots"],
    Float[Array, "chunks *batch steps slots"],
    Float[Array, "chunks *batch steps steps"],
]:
    """Decay, write, recall and relay of all chunks."""
    write, look = write[..., None, :], look[..., None, :]
    decay = 1 - write
    recall = look * decay
    relay = matmul(look, jnp.swapaxes(write, -1, -2))
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
    state: tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch slots"]],
    inputs: tuple[Float[Array, "chunks *batch steps 3"], Float[Array, "chunks *batch steps dim"]],
) -> tuple[
    tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch slots"]], Float[Array, "chunks *batch steps dim"]
]:
    (buffer, look), (actions, elements) = state, inputs
    write, looks = _path(look, actions)
    decay, write, recall, relay = _matrices(write, looks)

    def step(buffer: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        decay, from_elements = inputs
        return decay[..., None] * buffer + from_elements, buffer

    buffer, buffers = lax.scan(step, buffer, (decay, matmul(jnp.swapaxes(write, -1, -2), elements)))
    return (buffer, looks[-1, ..., -1, :]), matmul(recall, buffers) + matmul(relay, elements)


def scan(
    buffer: Float[Array, "*batch slots dim"],
    index: Float[Array, "*batch slots"],
    actions: Float[Array, "*batch time 3"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch slots"], Float[Array, "*batch time dim"]]:
    """The buffer and the index after the last step, and the read after every step."""
    time = actions.shape[-2]
    state = buffer, jnp.roll(index, -1, axis=-1)
    (buffer, look), reads = lax.scan(jax.checkpoint(_segment), state, into_segments(actions, elements, _CHUNK))
    return buffer, jnp.roll(look, 1, axis=-1), from_segments(reads, time)


def _runs(time: int) -> list[tuple[int, int]]:
    """Chunks of `_RUN` steps and one of what remains: how many, and how long."""
    return [(chunks, steps) for chunks, steps in ((time // _RUN, _RUN), (1, time % _RUN)) if chunks and steps]


def _push_run(
    buffer: Float[Array, "*batch slots dim"],
    index: Float[Array, "*batch slots"],
    elements: Float[Array, "chunks *batch steps dim"],
) -> Float[Array, "*batch slots dim"]:
    """The buffer after chunks of pushes, as seen from the index."""
    steps = elements.shape[-2]

    def before(later: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        weight, decay = later
        return (jnp.roll(weight, -1, axis=-1), decay * (1 - weight)), decay * weight

    last = jnp.roll(index, steps - 1, axis=-1), jnp.ones_like(index)
    (_, decay), write = lax.scan(before, last, length=steps)
    write = jnp.moveaxis(jnp.flip(write, 0), 0, -1)

    def push(buffer: Array, elements: Array) -> tuple[Array, None]:
        return jnp.roll(decay[..., None] * buffer + matmul(write, elements), -steps, axis=-2), None

    return lax.scan(push, buffer, elements)[0]


def push_all(
    buffer: Float[Array, "*batch slots dim"],
    index: Float[Array, "*batch slots"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch slots"]]:
    """The buffer and the index after a push of every element."""
    *batch, time, dim = elements.shape
    start = 0
    for chunks, steps in _runs(time):
        run = elements[..., start : start + chunks * steps, :].reshape(*batch, chunks, steps, dim)
        buffer = _push_run(buffer, index, jnp.moveaxis(run, -3, 0))
        start += chunks * steps
    return jnp.roll(buffer, time, axis=-2), jnp.roll(index, time, axis=-1)


def _pop_run(
    buffer: Float[Array, "*batch slots dim"], index: Float[Array, "*batch slots"], chunks: int, steps: int
) -> tuple[Float[Array, "*batch slots dim"], Float[Array, "*batch {chunks*steps} dim"]]:
    """The buffer after chunks of pops, as seen from the index, and what they read."""

    def down(index: Array, _: None) -> tuple[Array, Array]:
        index = jnp.roll(index, -1, axis=-1)
        return index, index

    look = jnp.moveaxis(lax.scan(down, index, length=steps)[1], 0, -2)

    def pop(buffer: Array, _: None) -> tuple[Array, Array]:
        return jnp.roll(buffer, steps, axis=-2), matmul(look, buffer)

    buffer, reads = lax.scan(pop, buffer, length=chunks)
    return buffer, jnp.concatenate(reads, axis=-2)


def pop_all(
    buffer: Float[Array, "*batch slots dim"], index: Float[Array, "*batch slots"], time: int
) -> tuple[Float[Array, "*batch slots"], Float[Array, "*batch {time} dim"]]:
    """The index after as many pops, and what they read; the buffer stays."""
    reads = []
    for chunks, steps in _runs(time):
        buffer, read = _pop_run(buffer, index, chunks, steps)
        reads.append(read)
    return jnp.roll(index, -time, axis=-1), jnp.concatenate(reads, axis=-2)
