"""The neural stack of a whole sequence, chunk by chunk.

Within a chunk of steps the stack is the elements that the chunk has pushed, on top of all that was there before. A pop
takes from the chunk's own elements first, and from the older ones what it then still wants; a read does the same. So
the chunk runs by the definition on its own elements alone, from an empty stack, which is done for all chunks at once:
with G_t the total strength of these elements,

    taken_t  = sum_{tau<=t} max(0, u_tau - G_{tau-1})         wanted_t = max(0, 1 - G_t)

are what it pops and what it wants to read of the older ones. `_line.py` says what becomes of those.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack.actions import POP, PUSH
from diffstack.jax_impl._arrays import numbered
from diffstack.jax_impl._line import above, feasible, remaining, room
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
from diffstack.jax_impl._ties import smaller


def scan(
    values: Float[Array, "*batch slots dim"],
    strengths: Float[Array, "*batch slots"],
    actions: Float[Array, "*batch time 2"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[Float[Array, "*batch all dim"], Float[Array, "*batch all"], Float[Array, "*batch time dim"]]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    time, rank = actions.shape[-2], actions.ndim - 2
    chunk = chunk_length(time)
    own = jax.checkpoint(_within)(into_chunks(feasible(actions), rank, chunk))
    values = jnp.concatenate([values, elements], -2)
    left, (reads,) = over_runs(_run, strengths, values, (*own, into_chunks(elements, rank, chunk)), time)
    return values, left, reads


def _run(
    left: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    kept: Float[Array, "chunks *batch steps"],
    taken: Float[Array, "chunks *batch steps"],
    wanted: Float[Array, "chunks *batch steps"],
    weights: Float[Array, "chunks *batch steps steps"],
    new: Float[Array, "chunks *batch steps dim"],
) -> tuple[Float[Array, "*batch slots"], Float[Array, "chunks *batch steps dim"]]:
    """What a run of chunks leaves of the older elements and of its own, and its reads."""
    chunks, *_, chunk = kept.shape

    def step(left: Array, inputs: Any) -> tuple[Array, Array]:
        start, kept, taken, wanted, weights, new = inputs
        left, read = jax.checkpoint(_older)(left, values, taken, wanted)
        return lax.dynamic_update_slice_in_dim(left, kept, start, -1), read + product(weights, new)

    starts = left.shape[-1] - chunk * jnp.arange(chunks, 0, -1, dtype=jnp.int32)
    return lax.scan(step, left, (starts, kept, taken, wanted, weights, new))


def _older(
    strengths: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    taken: Float[Array, "*batch steps"],
    wanted: Float[Array, "*batch steps"],
) -> tuple[Float[Array, "*batch slots"], Float[Array, "*batch steps dim"]]:
    """What a chunk leaves of the older elements, and its reads of them."""
    rest = distance(above(in_two_parts(strengths)), jnp.cumsum(in_two_parts(taken), -1))
    left = left_over(strengths[..., None, :], rest)
    return left[..., -1, :], product(read_weights(left, rest, wanted), values)


def _within(
    actions: Float[Array, "chunks *batch steps 2"],
) -> tuple[
    Float[Array, "chunks *batch steps"],
    Float[Array, "chunks *batch steps"],
    Float[Array, "chunks *batch steps"],
    Float[Array, "chunks *batch steps steps"],
]:
    """What is left of the chunk's own elements; what steps take and want of older ones; the weights of its own."""

    def step(strengths: Array, inputs: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        strengths, weights, taken, wanted = own_step(strengths, *inputs)
        return strengths, (weights, taken, wanted)

    places, time_first = jnp.arange(actions.shape[-2], dtype=jnp.int32), jnp.moveaxis(actions, -2, 0)
    kept, outcome = lax.scan(step, jnp.zeros_like(actions[..., 0]), (places, time_first))
    weights, taken, wanted = (jnp.moveaxis(each, 0, actions.ndim - 2) for each in outcome)
    return kept, taken, wanted, weights


def own_step(
    strengths: Float[Array, "*batch steps"], place: Int[Array, ""], action: Float[Array, "*batch 2"]
) -> tuple[Float[Array, "*batch steps"], Float[Array, "*batch steps"], Float[Array, "*batch"], Float[Array, "*batch"]]:
    """One step on the chunk's own elements: what is left, their weights; what it takes and wants of older ones."""
    one = jnp.ones_like(action[..., PUSH])
    taken = room(action[..., POP], jnp.sum(strengths, -1, keepdims=True))[..., 0]
    strengths = remaining(strengths, above(strengths), action[..., POP])
    strengths = jnp.where(numbered(strengths, -1) == place, action[..., PUSH, None], strengths)
    weights = smaller(strengths, room(one, above(strengths)))
    wanted = room(one, jnp.sum(strengths, -1, keepdims=True))[..., 0]
    return strengths, weights, taken, wanted
