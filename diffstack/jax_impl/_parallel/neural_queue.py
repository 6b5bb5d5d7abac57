"""The neural queue of a whole sequence, chunk by chunk.

A pop takes from the front, of the older elements first. Lay the strengths of all elements end to end, those of the
chunk too: element i begins where `nearer[i]`, the sum of all older ones, ends. After step t of the chunk the front has
moved forward by `taken_t` from where it was before the chunk, and a pop takes no more than there is:

    taken_t = min(taken_{t-1} + u_t, nearer[the element that step t pushes])            wanted_t = 1

These steps x -> min(x + u, end) compose into functions of the same form, so log2(C) rounds of composition give every
front of a chunk of C steps. `_line.py` says what is left and read then; what is not pushed yet is not read.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack.actions import POP, PUSH
from diffstack.jax_impl._arrays import numbered
from diffstack.jax_impl._line import below, feasible
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
from diffstack.jax_impl._ties import smaller_sum, sum_blocked_at_zero


def scan(
    values: Float[Array, "*batch slots dim"],
    strengths: Float[Array, "*batch slots"],
    actions: Float[Array, "*batch time 2"],
    elements: Float[Array, "*batch time dim"],
) -> tuple[Float[Array, "*batch all dim"], Float[Array, "*batch all"], Float[Array, "*batch time dim"]]:
    """All slots after the last step, oldest first, their strengths, and the reads."""
    time, rank = actions.shape[-2], actions.ndim - 2
    values = jnp.concatenate([values, elements], -2)
    chunks = into_chunks(feasible(actions), rank, chunk_length(time))
    left, (reads,) = over_runs(_run, strengths, values, (chunks,), time)
    return values, left, reads


def _run(
    left: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    actions: Float[Array, "chunks *batch steps 2"],
) -> tuple[Float[Array, "*batch slots"], Float[Array, "chunks *batch steps dim"]]:
    """What a run of chunks leaves of the older elements and of its own, and its reads."""
    chunks, *_, chunk, _ = actions.shape

    def step(left: Array, inputs: Any) -> tuple[Array, Array]:
        start, actions = inputs
        left = lax.dynamic_update_slice_in_dim(left, actions[..., PUSH], start, -1)
        return jax.checkpoint(_over_chunk)(left, values, actions[..., POP], start)

    starts = left.shape[-1] - chunk * jnp.arange(chunks, 0, -1, dtype=jnp.int32)
    return lax.scan(step, left, (starts, actions))


def _over_chunk(
    strengths: Float[Array, "*batch slots"],
    values: Float[Array, "*batch slots dim"],
    pops: Float[Array, "*batch steps"],
    start: Int[Array, ""],
) -> tuple[Float[Array, "*batch slots"], Float[Array, "*batch steps dim"]]:
    """What a chunk leaves of all elements, its own from slot `start` on, and its reads of them."""
    nearer, steps = below(in_two_parts(strengths)), pops.shape[-1]
    taken, emptied = _taken(in_two_parts(pops), lax.dynamic_slice_in_dim(nearer, start, steps, -1))
    rest = distance(nearer, taken)
    left = left_over(strengths[..., None, :], rest)
    weights = read_weights(left, rest, jnp.ones_like(pops))
    # A pop of more than there is leaves nothing, so that later strengths cannot bring any of it back.
    slot = numbered(left, -1)
    there = slot >= jnp.where(emptied < 0, 0, start + emptied)[..., None]
    pushed = slot <= start + numbered(pops, -1)[..., None]
    left = jnp.where(there[..., -1, :], left[..., -1, :], 0)
    return left, product(jnp.where(there & pushed, weights, 0), values)


def _taken(
    pops: Float[Array, "2 *batch steps"], ends: Float[Array, "2 *batch steps"]
) -> tuple[Float[Array, "2 *batch steps"], Int[Array, "*batch steps"]]:
    """taken_t = min(taken_{t-1} + pop_t, end_t) from 0, and the last step up to t that asked for more, or -1."""
    # As in the definition, a pop of 0 has no gradient.
    pops = sum_blocked_at_zero(pops)
    shift, limit, span = pops, ends, 1
    while span < pops.shape[-1]:
        # Compose each function with the one that covers the `span` steps before it; the first ones are complete.
        late, early = (..., slice(span, None)), (..., slice(None, -span))
        met = smaller_sum(limit[early] + shift[late], limit[late])
        limit = jnp.concatenate([limit[..., :span], met], -1)
        shift = jnp.concatenate([shift[..., :span], shift[early] + shift[late]], -1)
        span *= 2
    taken = smaller_sum(shift, limit)
    before = jnp.concatenate([jnp.zeros_like(taken[..., :1]), taken[..., :-1]], -1)
    asked = jnp.sum(before + pops - ends, 0)
    emptied = jnp.where(asked > 0, numbered(asked, -1), -1)
    return taken, lax.cummax(emptied, axis=emptied.ndim - 1)
