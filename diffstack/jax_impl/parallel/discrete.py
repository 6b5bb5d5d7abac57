"""The discrete stack of a whole sequence: run it on addresses, then gather the elements once.

Give every row that can ever be read an address: slot i of the initial buffer has address i, the element of step t
has address N + t. A stack of addresses needs no elements: run the program on it and note which address is on top
after every step, and which is in every slot at the end. The elements then move once, by one gather, and their
gradient is one scatter-add. That is O(T) integers and O(T d) values.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Int8, Int32, Integer, Shaped

from diffstack.actions import NOOP, POP, PUSH


def scan(
    buffer: Shaped[Array, "*batch slots dim"],
    depth: Int32[Array, "*batch"],
    fault: Int8[Array, "*batch"],
    codes: Integer[Array, "*batch time"],
    elements: Shaped[Array, "*batch time dim"],
) -> tuple[
    Shaped[Array, "*batch slots dim"],
    Int32[Array, "*batch"],
    Int8[Array, "*batch"],
    Shaped[Array, "*batch time dim"],
]:
    """The state after all steps, and the top after each; bit for bit what stepping gives."""
    slots = buffer.shape[-2]
    addresses = _addresses
    for _ in depth.shape:
        addresses = jax.vmap(addresses, in_axes=(None, 0, 0, 0))
    kept, depth, fault, sources, filled = addresses(slots, depth, fault, codes)
    rows = jnp.concatenate([buffer, elements], -2)
    rows = jnp.take_along_axis(rows, jnp.concatenate([kept, sources], -1)[..., None], -2, mode="promise_in_bounds")
    buffer, reads = rows[..., :slots, :], rows[..., slots:, :]
    return buffer, depth, fault, jnp.where(filled[..., None], reads, jnp.zeros_like(reads))


def _addresses(
    slots: int, depth: Int32[Array, ""], fault: Int8[Array, ""], codes: Integer[Array, " time"]
) -> tuple[Int32[Array, " slots"], Int32[Array, ""], Int8[Array, ""], Int32[Array, " time"], Bool[Array, " time"]]:
    """The address in each slot at the end, depth and fault; the address read by each step, and whether there is one."""

    def step(
        state: tuple[Array, Array, Array], inputs: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array, Array], Array]:
        addresses, depth, fault = state
        code, address = inputs
        push, pop = code == PUSH, code == POP
        overflow, underflow = push & (depth == slots), pop & (depth == 0)
        unknown = ~push & ~pop & (code != NOOP)
        row = jnp.minimum(depth, slots - 1)
        addresses = addresses.at[row].set(jnp.where(push & ~overflow, address, addresses[row]))
        depth = depth + (push & ~overflow).astype(jnp.int32) - (pop & ~underflow).astype(jnp.int32)
        met = overflow.astype(jnp.int8) + 2 * underflow.astype(jnp.int8) + 3 * unknown.astype(jnp.int8)
        fault = jnp.where(fault == 0, met, fault)
        return (addresses, depth, fault), jnp.where(depth > 0, addresses[depth - 1], -1)

    initial = jnp.arange(slots, dtype=jnp.int32)
    pushed = slots + jnp.arange(codes.shape[0], dtype=jnp.int32)
    (kept, depth, fault), sources = lax.scan(step, (initial, depth, fault), (codes, pushed))
    return kept, depth, fault, jnp.maximum(sources, 0), sources >= 0
