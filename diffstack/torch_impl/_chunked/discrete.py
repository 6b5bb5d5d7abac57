"""The discrete stack in chunks: addresses step, elements are gathered once a chunk.

C steps read no deeper than C + 1 rows below the top. These rows, and after them the elements of the chunk, are the
pool of all that the chunk can read; a row or an element has its place in the pool as its address. A stack of addresses
steps, of 2C + 1 rows around the top, and a read is one row of the pool.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Int32, Integer, Shaped
from torch import Tensor

from diffstack._plan import Plan
from diffstack.torch_impl._arrays import gathered, numbered, with_row
from diffstack.torch_impl.discrete import DiscreteState, _counted


class Window(NamedTuple):
    """The pool (*batch, 2C + 1, D); the address in each row around the top, (*batch, 2C + 1); depth and fault."""

    pool: Tensor
    addresses: Tensor
    depth: Tensor
    fault: Tensor


def fit(state: DiscreteState, *, plan: Plan) -> DiscreteState:
    """The stack as it is."""
    return state


def open(
    state: DiscreteState, *, steps: int
) -> tuple[tuple[Shaped[Tensor, "*batch slots dim"], Int32[Tensor, "*batch"]], Window]:
    """The pool with the rows around the top in their places, and the row that the first of them is."""
    buffer, depth, fault = state
    lowest = depth - 1 - steps
    pool = buffer.new_zeros((*buffer.shape[:-2], 2 * steps + 1, buffer.shape[-1]))
    addresses = numbered(pool, -2)[..., 0] + torch.zeros_like(depth)[..., None]
    rows = torch.clamp(lowest[..., None] + addresses[..., : steps + 1], 0, buffer.shape[-2] - 1)
    there = gathered(buffer, rows)
    pool = torch.slice_scatter(pool, there, -2, 0, steps + 1)
    # Rows above the top are not read before they are written.
    return (buffer, lowest), Window(pool, torch.clamp(addresses, max=steps), depth, fault)


def tick(
    window: Window,
    fixed: tuple[Shaped[Tensor, "*batch slots dim"], Int32[Tensor, "*batch"]],
    place: int,
    actions: Integer[Tensor, "*batch"],
    element: Shaped[Tensor, "*batch dim"],
) -> tuple[Window, Shaped[Tensor, "*batch dim"]]:
    """One step of the addresses, and the row of the pool that is on top then."""
    (buffer, lowest), (pool, addresses, depth, fault) = fixed, window
    new = addresses.shape[-1] // 2 + 1 + place
    pool = with_row(pool, element, new)
    writes, after, fault = _counted(depth, fault, actions, buffer.shape[-2])
    row = (numbered(addresses, -1) == (depth - lowest)[..., None]) & writes[..., None]
    addresses = torch.where(row, new, addresses)
    top = torch.gather(addresses, -1, (after - 1 - lowest)[..., None].to(torch.int64))
    read = gathered(pool, top)[..., 0, :]
    read = torch.where(after[..., None] > 0, read, torch.zeros_like(read))
    return Window(pool, addresses, after, fault), read


def close(
    state: DiscreteState,
    fixed: tuple[Shaped[Tensor, "*batch slots dim"], Int32[Tensor, "*batch"]],
    window: Window,
    first: int,
    *,
    plan: Plan,
) -> DiscreteState:
    """The stack after the chunk: every row that was written gets its element."""
    (buffer, lowest), steps, slots = fixed, window.pool.shape[-2] // 2, state.buffer.shape[-2]
    # Where row i of the buffer stands among the rows around the top.
    local = numbered(buffer[..., 0], -1) - lowest[..., None]
    known = torch.gather(window.addresses, -1, torch.clamp(local, 0, 2 * steps))
    written = (local >= 0) & (local <= 2 * steps) & (known > steps)
    places = torch.where(written, known - steps - 1 + slots, numbered(local, -1))
    rows = torch.cat([buffer, window.pool[..., steps + 1 :, :]], -2)
    buffer = gathered(rows, places)
    return DiscreteState(buffer, window.depth, window.fault)


def end(state: DiscreteState, lengths: Any, *, plan: Plan) -> DiscreteState:
    """The stack as it is."""
    return state
