"""The discrete stack in chunks: addresses step, elements are gathered once a chunk.

C steps read no deeper than C + 1 rows below the top. These rows, and after them the elements of the chunk, are the
pool of all that the chunk can read; a row or an element has its place in the pool as its address. A stack of addresses
steps, of 2C + 1 rows around the top, and a read is one row of the pool.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Int32, Integer, Shaped

from diffstack._plan import Plan
from diffstack.jax_impl._arrays import numbered
from diffstack.jax_impl.discrete import DiscreteState, _counted


class Window(NamedTuple):
    """The pool (*batch, 2C + 1, D); the address in each row around the top, (*batch, 2C + 1); depth and fault."""

    pool: Array
    addresses: Array
    depth: Array
    fault: Array


def fit(state: DiscreteState, *, plan: Plan) -> DiscreteState:
    """The stack as it is."""
    return state


def open(
    state: DiscreteState, *, steps: int
) -> tuple[tuple[Shaped[Array, "*batch slots dim"], Int32[Array, "*batch"]], Window]:
    """The pool with the rows around the top in their places, and the row that the first of them is."""
    buffer, depth, fault = state
    lowest = depth - 1 - steps
    pool = jnp.zeros_like(buffer, shape=(*buffer.shape[:-2], 2 * steps + 1, buffer.shape[-1]))
    addresses = numbered(pool, -2)[..., 0] + jnp.zeros_like(depth)[..., None]
    rows = jnp.clip(lowest[..., None] + addresses[..., : steps + 1], 0, buffer.shape[-2] - 1)
    there = jnp.take_along_axis(buffer, rows[..., None], -2, mode="promise_in_bounds")
    pool = lax.dynamic_update_slice_in_dim(pool, there, 0, -2)
    # Rows above the top are not read before they are written.
    return (buffer, lowest), Window(pool, jnp.minimum(addresses, steps), depth, fault)


def tick(
    window: Window,
    fixed: tuple[Shaped[Array, "*batch slots dim"], Int32[Array, "*batch"]],
    place: Int[Array, ""],
    actions: Integer[Array, "*batch"],
    element: Shaped[Array, "*batch dim"],
) -> tuple[Window, Shaped[Array, "*batch dim"]]:
    """One step of the addresses, and the row of the pool that is on top then."""
    (buffer, lowest), (pool, addresses, depth, fault) = fixed, window
    new = addresses.shape[-1] // 2 + 1 + place
    pool = lax.dynamic_update_index_in_dim(pool, element, new, -2)
    writes, after, fault = _counted(depth, fault, actions, buffer.shape[-2])
    row = (numbered(addresses, -1) == (depth - lowest)[..., None]) & writes[..., None]
    addresses = jnp.where(row, new, addresses)
    top = jnp.take_along_axis(addresses, (after - 1 - lowest)[..., None], -1, mode="promise_in_bounds")
    read = jnp.take_along_axis(pool, top[..., None], -2, mode="promise_in_bounds")[..., 0, :]
    read = jnp.where(after[..., None] > 0, read, jnp.zeros_like(read))
    return Window(pool, addresses, after, fault), read


def close(
    state: DiscreteState,
    fixed: tuple[Shaped[Array, "*batch slots dim"], Int32[Array, "*batch"]],
    window: Window,
    first: Int[Array, ""],
    *,
    plan: Plan,
) -> DiscreteState:
    """The stack after the chunk: every row that was written gets its element."""
    (buffer, lowest), steps, slots = fixed, window.pool.shape[-2] // 2, state.buffer.shape[-2]
    # Where row i of the buffer stands among the rows around the top.
    local = numbered(buffer[..., 0], -1) - lowest[..., None]
    known = jnp.take_along_axis(window.addresses, jnp.clip(local, 0, 2 * steps), -1, mode="promise_in_bounds")
    written = (local >= 0) & (local <= 2 * steps) & (known > steps)
    places = jnp.where(written, known - steps - 1 + slots, numbered(local, -1))
    rows = jnp.concatenate([buffer, window.pool[..., steps + 1 :, :]], -2)
    buffer = jnp.take_along_axis(rows, places[..., None], -2, mode="promise_in_bounds")
    return DiscreteState(buffer, window.depth, window.fault)


def end(state: DiscreteState, lengths: Any, *, plan: Plan) -> DiscreteState:
    """The stack as it is."""
    return state
