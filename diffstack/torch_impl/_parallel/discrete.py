"""The discrete stack of a whole sequence: run it on addresses, then gather the elements once.

Give every row that can ever be read an address: slot i of the initial buffer has address i, the element of step t
has address N + t. A stack of addresses needs no elements: run the program on it and note which address is on top
after every step, and which is in every slot at the end. The elements then move once, by one gather, and their
gradient is one scatter-add. That is O(T) integers and O(T d) values.

PyTorch pays for every step of a loop, so there is none. The depth is a clamped sum: each step is a function
x -> min(max(x + b, lo), hi), these compose into functions of the same form, and log2(T) rounds of composition give
every depth and with it every fault. Sorting the steps by the slot that is on top after them, and by time within it,
puts each read after the push that it sees: a running maximum of the positions of pushes away.
"""

import torch
from jaxtyping import Bool, Int8, Int32, Int64, Integer, Shaped
from torch import Tensor

from diffstack.actions import NOOP, POP, PUSH
from diffstack.torch_impl._arrays import gathered


def scan(
    buffer: Shaped[Tensor, "*batch slots dim"],
    depth: Int32[Tensor, "*batch"],
    fault: Int8[Tensor, "*batch"],
    codes: Integer[Tensor, "*batch time"],
    elements: Shaped[Tensor, "*batch time dim"],
) -> tuple[
    Shaped[Tensor, "*batch slots dim"],
    Int32[Tensor, "*batch"],
    Int8[Tensor, "*batch"],
    Shaped[Tensor, "*batch time dim"],
]:
    """The state after all steps, and the top after each; bit for bit what stepping gives."""
    slots = buffer.shape[-2]
    depths = _depths(depth, codes, slots)
    writes, fault = _faults(depths, fault, codes, slots)
    addresses = _addresses(depths[..., 1:], writes, slots)
    rows = gathered(torch.cat([buffer, elements], -2), addresses)
    reads, buffer = rows.split([codes.shape[-1], slots], -2)
    filled = depths[..., 1:, None] > 0
    return buffer, depths[..., -1], fault, torch.where(filled, reads, torch.zeros_like(reads))


def _depths(
    depth: Int32[Tensor, "*batch"], codes: Integer[Tensor, "*batch time"], slots: int
) -> Int32[Tensor, "*batch times"]:
    """The depth before the first step and after each."""
    shift = (codes == PUSH).to(torch.int32) - (codes == POP).to(torch.int32)
    low, high = torch.zeros_like(shift), torch.full_like(shift, slots)
    span = 1
    while span < shift.shape[-1]:
        # Compose each function with the one that covers the `span` steps before it; the first ones are complete.
        late, early = (slice(span, None), slice(None, -span))
        joined = (
            shift[..., early] + shift[..., late],
            torch.clamp(low[..., early] + shift[..., late], low[..., late], high[..., late]),
            torch.clamp(high[..., early] + shift[..., late], low[..., late], high[..., late]),
        )
        shift, low, high = (
            torch.cat([whole[..., :span], part], -1) for whole, part in zip((shift, low, high), joined, strict=True)
        )
        span *= 2
    before = depth[..., None]
    return torch.cat([before, torch.clamp(before + shift, low, high)], -1)


def _faults(
    depths: Int32[Tensor, "*batch times"],
    fault: Int8[Tensor, "*batch"],
    codes: Integer[Tensor, "*batch time"],
    slots: int,
) -> tuple[Bool[Tensor, "*batch time"], Int8[Tensor, "*batch"]]:
    """Which steps write, and the first fault."""
    before = depths[..., :-1]
    push, pop = codes == PUSH, codes == POP
    overflow, underflow = push & (before == slots), pop & (before == 0)
    unknown = ~push & ~pop & (codes != NOOP)
    met = overflow.to(torch.int8) + 2 * underflow.to(torch.int8) + 3 * unknown.to(torch.int8)
    met = torch.cat([fault[..., None], met], -1)
    first = torch.argmax((met != 0).to(torch.int8), -1, keepdim=True)
    return push & ~overflow, torch.gather(met, -1, first)[..., 0]


def _addresses(
    depths: Int32[Tensor, "*batch time"], writes: Bool[Tensor, "*batch time"], slots: int
) -> Int64[Tensor, "*batch reads"]:
    """The address read by each step (of the lowest slot if the stack is empty), then that in each slot at the end."""
    slot = torch.arange(slots, device=depths.device, dtype=torch.int32).expand(*depths.shape[:-1], slots)
    # Every slot is first written by the initial buffer and last read by the final one.
    visited = torch.cat([slot, torch.clamp(depths - 1, min=0), slot], -1)
    written = torch.cat([torch.ones_like(slot, dtype=torch.bool), writes, torch.zeros_like(slot, dtype=torch.bool)], -1)
    order = torch.sort(visited, dim=-1, stable=True).indices
    position = torch.arange(order.shape[-1], device=order.device)
    latest = torch.cummax(torch.where(torch.gather(written, -1, order), position, 0), -1).values
    address = torch.empty_like(order).scatter(-1, order, torch.gather(order, -1, latest))
    return address[..., slots:]
