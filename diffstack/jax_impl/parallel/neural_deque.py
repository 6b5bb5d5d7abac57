"""The neural deque of a whole sequence, chunk by chunk.

Within a chunk of steps the deque is what the chunk has pushed at the top, all that was there before, and what the
chunk has pushed at the bottom. The chunk runs by the definition on its own elements, with all the older ones as a
single slot between them: that says what each step takes of the older ones at both ends, and what its reads still want
of them. They are only cut from both ends, so that after step t

    left[t, i] = max(0, s[i] - max(0, taken_t - above[i]) - max(0, taken'_t - below[i]))

and where slot i has something left, nothing above it is cut from below. So the weights in the reads of both ends are
those of `_neural.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffstack.jax_impl._neural import above, below, feasible, least, remaining, room
from diffstack.jax_impl.parallel._neural import (
    between,
    chunk_length,
    chunked,
    cut,
    joined,
    parts,
    product,
    seen,
    segments,
)


def is_faster(time: int) -> bool:
    """Whether this is faster than stepping, as measured forward and backward on a CPU: see docs/parallel.md."""
    return time >= 32


def scan(
    values: Float[Array, "*batch slots dim"],
    strengths: Float[Array, "*batch slots"],
    actions: Float[Array, "*batch time 4"],
    elements: tuple[Float[Array, "*batch time dim"], Float[Array, "*batch time dim"]],
) -> tuple[
    Float[Array, "*batch all dim"],
    Float[Array, "*batch all"],
    tuple[Float[Array, "*batch time dim"], Float[Array, "*batch time dim"]],
]:
    """All slots after the last step, from the bottom to the top, their strengths, and the reads of both ends.

    The slots are the bottom pushes, the latest first; the initial slots; and the top pushes, the latest last.
    """
    slots, time, rank = strengths.shape[-1], actions.shape[-2], actions.ndim - 2
    chunk = chunk_length(time)
    actions = chunked(feasible(actions), rank, chunk)
    values = jnp.concatenate([jnp.flip(elements[1], -2), values, elements[0]], -2)
    # The last chunk is filled with no-ops.
    length = len(actions) * chunk
    padded = jnp.pad(values, [(0, 0)] * rank + [(length - time, length - time), (0, 0)])
    left, reads, runs = feasible(strengths), [], segments(len(actions))
    run = _segment if len(runs) == 1 else jax.checkpoint(_segment)
    for part in runs:
        start, stop = chunk * part.start, chunk * part.stop
        left = jnp.pad(left, [(0, 0)] * rank + [(stop - start, stop - start)])
        left, *read = run(left, padded[..., length - stop : length + slots + stop, :], actions[part])
        reads.append(read)
    left = left[..., length - time : length + slots + time].astype(strengths.dtype)
    read_top, read_bottom = (
        joined(jnp.concatenate(read), rank, time).astype(values.dtype) for read in zip(*reads, strict=True)
    )
    return values, left, (read_top, read_bottom)


def _segment(
    left: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    actions: Float[Array, "chunks *batch steps 4"],
) -> tuple[
    Float[Array, "*batch slots"], Float[Array, "chunks *batch steps dim"], Float[Array, "chunks *batch steps dim"]
]:
    """What a run of chunks leaves of the older elements and of its own, in the outermost slots; and its reads."""
    chunks, *_, chunk, _ = actions.shape

    def step(left: Array, inputs: Any) -> tuple[Array, tuple[Array, Array]]:
        # The chunk's own slots: its bottom pushes stand below all older ones, its top pushes above.
        bottom, actions = inputs
        top = left.shape[-1] - bottom - chunk
        new = jnp.concatenate([lax.dynamic_slice_in_dim(values, at, chunk, -2) for at in (bottom, top)], -2)
        left, kept, *reads = jax.checkpoint(_chunk)(left, values, actions, new)
        left = lax.dynamic_update_slice_in_dim(left, kept[..., :chunk], bottom, -1)
        return lax.dynamic_update_slice_in_dim(left, kept[..., chunk:], top, -1), tuple(reads)

    left, reads = lax.scan(step, left, (chunk * jnp.arange(chunks - 1, -1, -1), actions))
    return left, *reads


def _chunk(
    strengths: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    actions: Float[Array, "*batch steps 4"],
    new: Float[Array, "*batch own dim"],
) -> tuple[
    Float[Array, "*batch slots"],
    Float[Array, "*batch own"],
    Float[Array, "*batch steps dim"],
    Float[Array, "*batch steps dim"],
]:
    """What a chunk leaves of the older elements and of its own, and its reads at both ends."""
    kept, weights, taken, wanted = _within(actions, jnp.sum(strengths, -1))
    rest_top, rest_bottom = (
        between(nearer(parts(strengths)), jnp.cumsum(parts(each), -1))
        for nearer, each in zip((above, below), taken, strict=True)
    )
    left = cut(strengths[..., None, :] + jnp.where(rest_bottom >= 0, 0, rest_bottom), rest_top)
    read_top, read_bottom = (
        product(seen(left, rest, want), values) + product(own, new)
        for rest, want, own in zip((rest_top, rest_bottom), wanted, weights, strict=True)
    )
    return left[..., -1, :], kept, read_top, read_bottom


def _within(
    actions: Float[Array, "*batch steps 4"], older: Float[Array, "*batch"]
) -> tuple[
    Float[Array, "*batch own"],
    tuple[Float[Array, "*batch steps own"], Float[Array, "*batch steps own"]],
    tuple[Float[Array, "*batch steps"], Float[Array, "*batch steps"]],
    tuple[Float[Array, "*batch steps"], Float[Array, "*batch steps"]],
]:
    """What is left of the own elements, their weights in both reads; what each step takes and wants of older ones.

    Slots stand from the bottom to the top: the bottom pushes, the latest first, the older elements, the top pushes.
    """
    steps = actions.shape[-2]
    slot = jnp.arange(2 * steps + 1)
    one = jnp.ones_like(older)

    def step(strengths: Array, inputs: Any) -> tuple[Array, tuple[Array, ...]]:
        place, action = inputs
        push_top, pop_top, push_bottom, pop_bottom = (action[..., each, None] for each in range(4))
        sums = above(strengths)
        taken_top = room(pop_top[..., 0], sums)[..., steps]
        strengths = remaining(strengths, sums, pop_top[..., 0])
        sums = below(strengths)
        taken_bottom = room(pop_bottom[..., 0], sums)[..., steps]
        strengths = remaining(strengths, sums, pop_bottom[..., 0])
        strengths = jnp.where(slot == steps + 1 + place, push_top, strengths)
        strengths = jnp.where(slot == steps - 1 - place, push_bottom, strengths)
        room_top, room_bottom = room(one, above(strengths)), room(one, below(strengths))
        weights = least(strengths, room_top), least(strengths, room_bottom)
        return strengths, (*weights, taken_top, taken_bottom, room_top[..., steps], room_bottom[..., steps])

    strengths = jnp.where(slot == steps, older[..., None], 0)
    strengths, outcome = lax.scan(step, strengths, (jnp.arange(steps), jnp.moveaxis(actions, -2, 0)))
    top, bottom, *rest = (jnp.moveaxis(each, 0, older.ndim) for each in outcome)
    kept, top, bottom = (
        jnp.concatenate([each[..., :steps], each[..., steps + 1 :]], -1) for each in (strengths, top, bottom)
    )
    return kept, (top, bottom), (rest[0], rest[1]), (rest[2], rest[3])
