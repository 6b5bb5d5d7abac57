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
    change = (codes == PUSH).astype(jnp.int32) - (codes == POP).astype(jnp.int32)
    address = slots + jnp.arange(len(codes), dtype=jnp.int32)

    def step(
        state: tuple[Array, Array], inputs: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        (addresses, before), (change, address) = state, inputs
        depth = jnp.clip(before + change, 0, slots)
        # What is not pushed is written to a spare row after the last slot.
        row = jnp.where(depth > before, depth, slots + 1)
        addresses = addresses.at[row].set(address, mode="promise_in_bounds")
        return (addresses, depth), (depth, addresses.at[depth].get(mode="promise_in_bounds"))

    # Row 0 is what lies on top of an empty stack, and row i + 1 is slot i.
    initial = jnp.zeros_like(depth, shape=(slots + 2,)) + jnp.arange(-1, slots + 1, dtype=jnp.int32)
    (addresses, last), (depths, sources) = lax.scan(step, (initial, depth), (change, address))
    fault = _first_fault(slots, jnp.concatenate([depth[None], depths])[:-1], fault, codes)
    return addresses[1:-1], last, fault, jnp.maximum(sources, 0), sources >= 0


def _first_fault(
    slots: int, before: Int32[Array, " time"], fault: Int8[Array, ""], codes: Integer[Array, " time"]
) -> Int8[Array, ""]:
    """The fault there was, or the first that a step met."""
    push, pop = codes == PUSH, codes == POP
    overflow, underflow = push & (before == slots), pop & (before == 0)
    unknown = ~push & ~pop & (codes != NOOP)
    met = overflow.astype(jnp.int8) + 2 * underflow.astype(jnp.int8) + 3 * unknown.astype(jnp.int8)
    met = jnp.concatenate([fault[None], met])
    return met[jnp.argmax(met != 0)]
