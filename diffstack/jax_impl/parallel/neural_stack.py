"""The neural stack of a whole sequence, chunk by chunk.

Within a chunk of steps the stack is the elements that the chunk has pushed, on top of all that was there before. A pop
takes of the own elements first, and what it still wants then, of the older ones; a read does the same. So the chunk
runs by the definition on its own elements alone, from an empty stack, which is done for all chunks at once: with G_t
the total strength of the own elements,

    taken_t  = sum_{tau<=t} max(0, u_tau - G_{tau-1})         wanted_t = max(0, 1 - G_t)

is what it pops and wants to read of the older ones. `_neural.py` says what becomes of those.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffstack.actions import POP, PUSH
from diffstack.jax_impl._neural import above, feasible, least, remaining, room
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
    return time >= 16


def scan(
    values: Float[Array, "*batch slots dim"],
    strengths: Float[Array, "*batch slots"],
    actions: Float[Array, "*batch time 2"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[Float[Array, "*batch all dim"], Float[Array, "*batch all"], Float[Array, "*batch time dim"]]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    slots, time, rank = strengths.shape[-1], actions.shape[-2], actions.ndim - 2
    chunk = chunk_length(time)
    own = jax.checkpoint(_within)(chunked(feasible(actions), rank, chunk))
    new = chunked(elements, rank, chunk)
    values = jnp.concatenate([values, elements], -2)
    # The last chunk is filled with no-ops.
    padded = jnp.pad(values, [(0, 0)] * rank + [(0, len(new) * chunk - time), (0, 0)])
    left, reads, runs = feasible(strengths), [], segments(len(new))
    run = _segment if len(runs) == 1 else jax.checkpoint(_segment)
    for part in runs:
        stop = slots + chunk * part.stop
        left = jnp.pad(left, [(0, 0)] * rank + [(0, stop - left.shape[-1])])
        weights, kept, taken, wanted = (array[part] for array in own)
        left, read = run(left, padded[..., :stop, :], weights, kept, taken, wanted, new[part])
        reads.append(read)
    left = left[..., : slots + time].astype(strengths.dtype)
    return values, left, joined(jnp.concatenate(reads), rank, time).astype(values.dtype)


def _segment(
    left: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    weights: Float[Array, "chunks *batch steps steps"],
    kept: Float[Array, "chunks *batch steps"],
    taken: Float[Array, "chunks *batch steps"],
    wanted: Float[Array, "chunks *batch steps"],
    new: Float[Array, "chunks *batch steps dim"],
) -> tuple[Float[Array, "*batch slots"], Float[Array, "chunks *batch steps dim"]]:
    """What a run of chunks leaves of the older elements and of its own, in the last slots; and its reads."""
    chunks, *_, chunk = kept.shape

    def step(left: Array, inputs: Any) -> tuple[Array, Array]:
        start, weights, kept, taken, wanted, new = inputs
        left, read = jax.checkpoint(_older)(left, values, taken, wanted)
        return lax.dynamic_update_slice_in_dim(left, kept, start, -1), read + product(weights, new)

    starts = left.shape[-1] - chunk * jnp.arange(chunks, 0, -1)
    return lax.scan(step, left, (starts, weights, kept, taken, wanted, new))


def _older(
    strengths: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    taken: Float[Array, "*batch steps"],
    wanted: Float[Array, "*batch steps"],
) -> tuple[Float[Array, "*batch slots"], Float[Array, "*batch steps dim"]]:
    """What a chunk leaves of the older elements, and its reads of them."""
    rest = between(above(parts(strengths)), jnp.cumsum(parts(taken), -1))
    left = cut(strengths[..., None, :], rest)
    return left[..., -1, :], product(seen(left, rest, wanted), values)


def _within(
    actions: Float[Array, "chunks *batch steps 2"],
) -> tuple[
    Float[Array, "chunks *batch steps steps"],
    Float[Array, "chunks *batch steps"],
    Float[Array, "chunks *batch steps"],
    Float[Array, "chunks *batch steps"],
]:
    """The own elements' weights in the reads, what is left of them; what each step takes and wants of older ones."""
    slot = jnp.arange(actions.shape[-2])
    one = jnp.ones_like(actions[..., 0, 0])

    def step(strengths: Array, inputs: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        place, action = inputs
        taken = room(action[..., POP], jnp.sum(strengths, -1, keepdims=True))[..., 0]
        strengths = remaining(strengths, above(strengths), action[..., POP])
        strengths = jnp.where(slot == place, action[..., PUSH, None], strengths)
        weights = least(strengths, room(one, above(strengths)))
        wanted = room(one, jnp.sum(strengths, -1, keepdims=True))[..., 0]
        return strengths, (weights, taken, wanted)

    kept, outcome = lax.scan(step, jnp.zeros_like(actions[..., 0]), (slot, jnp.moveaxis(actions, -2, 0)))
    weights, taken, wanted = (jnp.moveaxis(each, 0, actions.ndim - 2) for each in outcome)
    return weights, kept, taken, wanted
