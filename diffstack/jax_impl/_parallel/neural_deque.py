"""The neural deque of a whole sequence, chunk by chunk.

Within a chunk of steps the deque is what the chunk has pushed at the top, all that was there before, and what the
chunk has pushed at the bottom. The chunk runs by the definition on its own elements, with all the older ones as a
single slot between them: that says what each step takes of the older ones at both ends, and what its reads still want
of them. They are only cut from both ends, so that after step t

    left[t, i] = max(0, s[i] - max(0, taken_t - above[i]) - max(0, taken'_t - below[i]))

and where slot i has something left, nothing above it is cut from below. So the weights in the reads of both ends are
those of `_line.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack.jax_impl._arrays import numbered
from diffstack.jax_impl._line import above, below, feasible, remaining, room
from diffstack.jax_impl._parallel._line import (
    chunk_length,
    distance,
    in_two_parts,
    into_chunks,
    left_over,
    over_runs,
    product,
    read_weights,
)
from diffstack.jax_impl._ties import block_at_zero, smaller


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
    time, rank = actions.shape[-2], actions.ndim - 2
    values = jnp.concatenate([jnp.flip(elements[1], -2), values, elements[0]], -2)
    chunks = into_chunks(feasible(actions), rank, chunk_length(time))
    left, (read_top, read_bottom) = over_runs(_run, strengths, values, (chunks,), time, ends=2)
    return values, left, (read_top, read_bottom)


def _run(
    left: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    actions: Float[Array, "chunks *batch steps 4"],
) -> tuple[
    Float[Array, "*batch slots"], Float[Array, "chunks *batch steps dim"], Float[Array, "chunks *batch steps dim"]
]:
    """What a run of chunks leaves of the older elements and of its own, and its reads."""
    chunks, *_, chunk, _ = actions.shape

    def step(left: Array, inputs: Any) -> tuple[Array, tuple[Array, Array]]:
        # The chunk's own slots: its bottom pushes lie below all older ones, its top pushes above.
        bottom, actions = inputs
        top = left.shape[-1] - bottom - chunk
        new = jnp.concatenate([lax.dynamic_slice_in_dim(values, at, chunk, -2) for at in (bottom, top)], -2)
        left, kept, *reads = jax.checkpoint(_chunk)(left, values, actions, new)
        left = lax.dynamic_update_slice_in_dim(left, kept[..., :chunk], bottom, -1)
        return lax.dynamic_update_slice_in_dim(left, kept[..., chunk:], top, -1), tuple(reads)

    left, reads = lax.scan(step, left, (chunk * jnp.arange(chunks - 1, -1, -1, dtype=jnp.int32), actions))
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
        distance(nearer(in_two_parts(strengths)), jnp.cumsum(in_two_parts(each), -1))
        for nearer, each in zip((above, below), taken, strict=True)
    )
    left = left_over(strengths[..., None, :] - block_at_zero(-rest_bottom), rest_top)
    read_top, read_bottom = (
        product(read_weights(left, rest, want), values) + product(own, new)
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
    """What is left of the chunk's own elements, their weights in both reads; what steps take and want of older ones.

    From the bottom to the top, slots are the bottom pushes, the latest first, the older elements, and the top pushes.
    """

    def step(strengths: Array, inputs: Any) -> tuple[Array, tuple[Array, ...]]:
        strengths, weights, taken, wanted = own_step(strengths, *inputs)
        return strengths, (*weights, *taken, *wanted)

    steps = actions.shape[-2]
    strengths = own_slots(older, steps=steps)
    strengths, outcome = lax.scan(step, strengths, (jnp.arange(steps, dtype=jnp.int32), jnp.moveaxis(actions, -2, 0)))
    top, bottom, *rest = (jnp.moveaxis(each, 0, older.ndim) for each in outcome)
    kept, top, bottom = (without_older(each) for each in (strengths, top, bottom))
    return kept, (top, bottom), (rest[0], rest[1]), (rest[2], rest[3])


def own_slots(older: Float[Array, "*batch"], *, steps: int) -> Float[Array, "*batch {2*steps+1}"]:
    """Slots for the pushes of a chunk at both ends, and between them all older elements as one."""
    slots = jnp.zeros_like(older, shape=(*older.shape, 2 * steps + 1))
    return jnp.where(numbered(slots, -1) == steps, older[..., None], slots)


def without_older(slots: Float[Array, "*batch slots"]) -> Float[Array, "*batch slots-1"]:
    """Own slots without the one in the middle."""
    steps = slots.shape[-1] // 2
    return jnp.concatenate([slots[..., :steps], slots[..., steps + 1 :]], -1)


def own_step(
    strengths: Float[Array, "*batch slots"], place: Int[Array, ""], action: Float[Array, "*batch 4"]
) -> tuple[
    Float[Array, "*batch slots"],
    tuple[Float[Array, "*batch slots"], Float[Array, "*batch slots"]],
    tuple[Float[Array, "*batch"], Float[Array, "*batch"]],
    tuple[Float[Array, "*batch"], Float[Array, "*batch"]],
]:
    """One step on own slots: what is left, the weights of both reads; what it takes and wants of older elements."""
    slot, steps = numbered(strengths, -1), strengths.shape[-1] // 2
    push_top, pop_top, push_bottom, pop_bottom = (action[..., each] for each in range(4))
    one = jnp.ones_like(push_top)
    sums = above(strengths)
    taken_top = room(pop_top, sums)[..., steps]
    strengths = remaining(strengths, sums, pop_top)
    sums = below(strengths)
    taken_bottom = room(pop_bottom, sums)[..., steps]
    strengths = remaining(strengths, sums, pop_bottom)
    strengths = jnp.where(slot == steps + 1 + place, push_top[..., None], strengths)
    strengths = jnp.where(slot == steps - 1 - place, push_bottom[..., None], strengths)
    room_top, room_bottom = room(one, above(strengths)), room(one, below(strengths))
    weights = smaller(strengths, room_top), smaller(strengths, room_bottom)
    return strengths, weights, (taken_top, taken_bottom), (room_top[..., steps], room_bottom[..., steps])
