"""Reads as overlaps of intervals, in blocks of time.

Element i fills an interval of heights whose ends move towards each other as pops cut it, and a read sees what of the
interval lies in its window. With all lower ends negated, so that both ends are minima,

    weight[t, i] = max(0, upper[t, i] + lower[t, i]),       upper[t, i] = min(edge_i, min_{i<tau<=t} cut_tau, window_t),

and `lower` likewise. Steps are put in blocks. For an element of an earlier block than the read's, the minimum over
tau falls into the rest of the element's block, the blocks between, and the read's own block up to t,

    upper[t, i] = min(min(edge_i, rest of i's block, blocks between), min(own block up to t, window_t)),

one number for each element and block, one for each read: two minima, a sum and a clamp for each weight, then a matrix
product. Tiles of reads are taken one at a time and recomputed for the gradient, so memory grows as time times a tile.
Only for elements of the read's own block the running minimum is spelled out over pairs.

Heights become floats here, counted from a whole number near the window: floats are small where they matter.

Ties: where ends are equal, the gradient goes to the edge before a cut, to the earliest of equal cuts, and to the
window last; a weight passes its gradient at 0.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from diffstack.torch_impl.parallel._heights import (
    Height,
    difference,
    index,
    infinite,
    join,
    minimum,
    negative,
    relative,
    running,
    where,
)
from diffstack.torch_impl.parallel._recompute import recompute

# Reads taken at a time; not tuned.
TILE = 128


class Cuts(NamedTuple):
    """Minima over cuts, which stay within the block, or between the blocks, that they are named for."""

    steps: Height  # (*batch, blocks, block): the cuts themselves
    since: Height  # (*batch, blocks, block): from the start of the block up to a step
    until: Height  # (*batch, blocks, block): after a step up to the end of its block
    between: (
        Height  # (*batch, blocks + 1, blocks): over the blocks before the first index and after the second
    )


class Ends(NamedTuple):
    """The ends of intervals and windows on one side: the upper ones, or the lower ones negated."""

    edge: Height  # (*batch, blocks, elements), one or two elements a step
    cuts: Cuts | None
    window: Height | None  # (*batch, blocks, block)
    origin: Float[Tensor, "*batch blocks 1"]


def block_size(time: int) -> int:
    """Short blocks keep heights near their origin, and cost little; long sequences have many, which cost their square."""
    return 16 if time <= 512 else 32


def timeline(
    initial: Float[Tensor, "*a"], steps: Float[Tensor, "*b"], block: int, dim: int
) -> Float[Tensor, "*c"]:
    """Initial slots, then steps, each filled up to whole blocks with zeros, the slots in front."""
    widths = (-initial.shape[dim] % block, -steps.shape[dim] % block)
    return pad(torch.cat([initial, steps], dim=dim), (0, 0) * (-1 - dim) + widths)


def elements_in_blocks(
    initial: Float[Tensor, "*batch slots dim"], steps: Float[Tensor, "*batch time dim"], block: int
) -> Float[Tensor, "*batch blocks block dim"]:
    """In float32 at least."""
    elements = timeline(initial, steps, block, dim=-2)
    elements = elements.to(torch.promote_types(elements.dtype, torch.float32))
    *batch, time, dim = elements.shape
    return elements.reshape(*batch, time // block, block, dim)


def without_blocks(
    array: Float[Tensor, "*batch blocks block"], slots: int, time: int
) -> Float[Tensor, "*batch slots+time"]:
    """Initial slots and steps, without what filled up their blocks."""
    start = -slots % array.shape[-1]
    return _merge(array)[..., start : start + slots + time]


def _merge(array: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m*n"]:
    return array.flatten(-2)


def blocks(heights: Height, block: int) -> Height:
    return Height(*(limb.reshape(*limb.shape[:-1], limb.shape[-1] // block, block) for limb in heights))


def origins(heights: Height) -> Float[Tensor, "*batch blocks 1"]:
    """A whole number amid the heights of each block."""
    whole = heights.whole
    middle = whole[..., whole.shape[-1] // 2, None]
    # A NaN that comes with a later step is nothing to the first ones of the block.
    return torch.where(torch.isnan(middle), whole[..., :1], middle)


def cuts(steps: Height) -> Cuts:
    since = running(minimum, steps)
    until = running(minimum, steps, reverse=True)
    until = join(index(until, (..., slice(1, None))), infinite(index(until, (..., slice(None, 1)))))
    lowest = index(since, (..., None, slice(None), -1))
    count = lowest.whole.shape[-1]
    numbers = torch.arange(count, device=lowest.whole.device)
    after = numbers > numbers[:, None]
    between = running(minimum, where(after, lowest, infinite(lowest)))
    between = join(infinite(index(between, (..., slice(None, 1)))), between)
    return Cuts(steps, since, until, Height(*(torch.swapaxes(limb, -1, -2) for limb in between)))


def last(ends: Ends) -> Height:
    """The ends of elements after the last step."""
    if ends.cuts is None:
        return ends.edge
    return minimum(_until(ends), index(ends.cuts.between, (..., -1, slice(None), None)))


def lengths(upper: Height, lower: Height) -> Float[Tensor, "*batch blocks elements"]:
    """What is left between upper ends and negated lower ends."""
    left = difference(upper, negative(lower))
    return torch.where(left < 0, 0, left)


def reads(
    upper: Ends, lower: Ends, elements: Float[Tensor, "*batch blocks elements dim"], first: int
) -> Float[Tensor, "*batch reads dim"]:
    """What the steps of all blocks from `first` on read."""
    *batch, count, size, dim = elements.shape
    rows = _rows(upper, first), _rows(lower, first)
    block = rows[0].shape[-1]
    weights = _overlap(_inner(upper, first), _inner(lower, first))
    numbers = torch.arange(size, device=elements.device)
    seen = numbers[:block, None] >= numbers % block
    inner = _matmul(torch.where(seen, weights, 0), elements[..., first:, :, :]).flatten(-3, -2)

    numbers = torch.arange(count, device=elements.device)
    earlier = (numbers < numbers[first:, None]).repeat_interleave(size, dim=-1)
    columns = torch.where(earlier, _columns(upper, first), -torch.inf), _columns(lower, first)
    tile = TILE // block

    def read(
        left: Float[Tensor, "*batch tile seen"],
        right: Float[Tensor, "*batch tile seen"],
        up: Float[Tensor, "*batch tile block"],
        down: Float[Tensor, "*batch tile block"],
        elements: Float[Tensor, "*batch seen dim"],
    ) -> tuple[Float[Tensor, "*batch reads dim"]]:
        weights = _overlap(
            _min(left[..., None, :], up[..., None]), _min(right[..., None, :], down[..., None])
        )
        return (_matmul(weights.flatten(-3, -2), elements),)

    flat = elements.flatten(-3, -2)
    outer = []
    for start in range(0, count - first, tile):
        stop = min(start + tile, count - first)
        past = (first + stop - 1) * size
        ends = [end[..., start:stop, :past] for end in columns] + [end[..., start:stop, :] for end in rows]
        outer += recompute(read, *ends, flat[..., :past, :])
    return inner + torch.cat(outer, dim=-2)


def _columns(ends: Ends, first: int) -> Float[Tensor, "*batch reads time"]:
    """For each block of reads and each element of an earlier block, its end at the start of the block of reads."""
    origin = ends.origin[..., first:, :, None]
    edge = relative(index(_until(ends), (..., None, slice(None), slice(None))), origin)
    if ends.cuts is not None:
        between = index(ends.cuts.between, (..., slice(first, -1), slice(None), None))
        edge = _min(edge, relative(between, origin))
    return _merge(edge)


def _rows(ends: Ends, first: int) -> Float[Tensor, "*batch reads block"]:
    """For each read, what its own block and its window cut."""
    if ends.cuts is None:
        end = ends.window
    else:
        end = ends.cuts.since if ends.window is None else minimum(ends.cuts.since, ends.window)
    return relative(index(end, (..., slice(first, None), slice(None))), ends.origin[..., first:, :])


def _inner(ends: Ends, first: int) -> Float[Tensor, "*batch reads block elements"]:
    """For each read and each element of the same block, its end."""
    key = (..., slice(first, None), slice(None))
    origin = ends.origin[key]
    seen = relative(index(ends.edge, key), origin)[..., None, :]
    if ends.cuts is not None:
        steps = relative(index(ends.cuts.steps, key), origin)[..., None]
        numbers = torch.arange(steps.shape[-2], device=steps.device)
        after = numbers[:, None] > numbers
        lowest = _running_min(torch.where(after, steps, torch.inf))
        seen = _min(seen, torch.cat([lowest] * (seen.shape[-1] // lowest.shape[-1]), dim=-1))
    if ends.window is not None:
        seen = _min(seen, relative(index(ends.window, key), origin)[..., None])
    return seen


def _until(ends: Ends) -> Height:
    """The ends of elements when their own block is over."""
    if ends.cuts is None:
        return ends.edge
    until = ends.cuts.until
    return minimum(ends.edge, join(*[until] * (ends.edge.whole.shape[-1] // until.whole.shape[-1])))


def _running_min(array: Float[Tensor, "*batch block elements"]) -> Float[Tensor, "*batch block elements"]:
    shift = 1
    while shift < array.shape[-2]:
        met = _min(array[..., :-shift, :], array[..., shift:, :])
        array = torch.cat([array[..., :shift, :], met], dim=-2)
        shift *= 2
    return array


def _min(a: Float[Tensor, "*a"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*c"]:
    """a where they are equal, b where either is NaN."""
    return torch.where(a <= b, a, b)


def _overlap(upper: Float[Tensor, "*shape"], lower: Float[Tensor, "*other"]) -> Float[Tensor, "*out"]:
    weights = upper + lower
    return torch.where(weights < 0, 0, weights)


def _matmul(
    weights: Float[Tensor, "*batch m k"], elements: Float[Tensor, "*batch k n"]
) -> Float[Tensor, "*batch m n"]:
    return torch.matmul(weights.to(elements.dtype), elements)
