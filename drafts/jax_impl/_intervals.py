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

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from diffstack.jax_impl.parallel._heights import (
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
    origin: Float[Array, "*batch blocks 1"]


def block_size(time: int) -> int:
    """Short blocks keep heights near their origin, and cost little; long sequences have many, which cost their square."""
    return 16 if time <= 512 else 32


def timeline(
    initial: Float[Array, "*a"], steps: Float[Array, "*b"], block: int, axis: int
) -> Float[Array, "*c"]:
    """Initial slots, then steps, each filled up to whole blocks with zeros, the slots in front."""
    widths = [(0, 0)] * steps.ndim
    widths[axis] = (-initial.shape[axis] % block, -steps.shape[axis] % block)
    return jnp.pad(jnp.concatenate([initial, steps], axis=axis), widths)


def elements_in_blocks(
    initial: Float[Array, "*batch slots dim"], steps: Float[Array, "*batch time dim"], block: int
) -> Float[Array, "*batch blocks block dim"]:
    """In float32 at least."""
    elements = timeline(initial, steps, block, axis=-2)
    elements = elements.astype(np.promote_types(elements.dtype, np.float32))
    *batch, time, dim = elements.shape
    return elements.reshape(*batch, time // block, block, dim)


def without_blocks(
    array: Float[Array, "*batch blocks block"], slots: int, time: int
) -> Float[Array, "*batch slots+time"]:
    """Initial slots and steps, without what filled up their blocks."""
    start = -slots % array.shape[-1]
    return _merge(array)[..., start : start + slots + time]


def _merge(array: Float[Array, "*batch m n"]) -> Float[Array, "*batch m*n"]:
    return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1])


def blocks(heights: Height, block: int) -> Height:
    return Height(*(limb.reshape(*limb.shape[:-1], limb.shape[-1] // block, block) for limb in heights))


def origins(heights: Height) -> Float[Array, "*batch blocks 1"]:
    """A whole number amid the heights of each block."""
    whole = heights.whole
    middle = whole[..., whole.shape[-1] // 2, None]
    # A NaN that comes with a later step is nothing to the first ones of the block.
    return jnp.where(jnp.isnan(middle), whole[..., :1], middle)


def cuts(steps: Height) -> Cuts:
    since = running(minimum, steps)
    until = running(minimum, steps, reverse=True)
    until = join(index(until, (..., slice(1, None))), infinite(index(until, (..., slice(None, 1)))))
    lowest = index(since, (..., None, slice(None), -1))
    count = lowest.whole.shape[-1]
    after = np.arange(count) > np.arange(count)[:, None]
    between = running(minimum, where(after, lowest, infinite(lowest)))
    between = join(infinite(index(between, (..., slice(None, 1)))), between)
    return Cuts(steps, since, until, Height(*(jnp.swapaxes(limb, -1, -2) for limb in between)))


def last(ends: Ends) -> Height:
    """The ends of elements after the last step."""
    if ends.cuts is None:
        return ends.edge
    return minimum(_until(ends), index(ends.cuts.between, (..., -1, slice(None), None)))


def lengths(upper: Height, lower: Height) -> Float[Array, "*batch blocks elements"]:
    """What is left between upper ends and negated lower ends."""
    left = difference(upper, negative(lower))
    return jnp.where(left < 0, 0, left)


def reads(
    upper: Ends, lower: Ends, elements: Float[Array, "*batch blocks elements dim"], first: int
) -> Float[Array, "*batch reads dim"]:
    """What the steps of all blocks from `first` on read."""
    *batch, count, size, dim = elements.shape
    rows = _rows(upper, first), _rows(lower, first)
    block = rows[0].shape[-1]
    weights = _overlap(_inner(upper, first), _inner(lower, first))
    seen = np.arange(block)[:, None] >= np.arange(size) % block
    inner = _matmul(jnp.where(seen, weights, 0), elements[..., first:, :, :]).reshape(
        *batch, (count - first) * block, dim
    )

    past = elements.reshape(*batch, count * size, dim)
    earlier = np.repeat(np.arange(count) < np.arange(first, count)[:, None], size, axis=-1)
    columns = jnp.where(earlier, _columns(upper, first), -jnp.inf), _columns(lower, first)
    # Two tiles at least: the compiler unrolls a loop of one, and makes the ends anew for every weight.
    tile = min(TILE // block, -(-(count - first) // 2))
    tiles = -(-(count - first) // tile)

    @jax.checkpoint
    def read(ends):
        (left, right), (up, down) = ends
        weights = _overlap(
            _min(left[..., None, :], up[..., None]), _min(right[..., None, :], down[..., None])
        )
        return _matmul(weights.reshape(*batch, tile * block, count * size), past)

    def split(array):
        array = jnp.pad(array, [(0, 0)] * len(batch) + [(0, tiles * tile - array.shape[-2]), (0, 0)])
        return jnp.moveaxis(array.reshape(*batch, tiles, tile, array.shape[-1]), len(batch), 0)

    outer = lax.map(read, jax.tree.map(split, (columns, rows)))
    outer = jnp.moveaxis(outer, 0, len(batch)).reshape(*batch, tiles * tile * block, dim)
    return inner + outer[..., : inner.shape[-2], :]


def _columns(ends: Ends, first: int) -> Float[Array, "*batch reads time"]:
    """For each block of reads and each element of an earlier block, its end at the start of the block of reads."""
    origin = ends.origin[..., first:, :, None]
    edge = relative(index(_until(ends), (..., None, slice(None), slice(None))), origin)
    if ends.cuts is not None:
        between = index(ends.cuts.between, (..., slice(first, -1), slice(None), None))
        edge = _min(edge, relative(between, origin))
    return _merge(edge)


def _rows(ends: Ends, first: int) -> Float[Array, "*batch reads block"]:
    """For each read, what its own block and its window cut."""
    if ends.cuts is None:
        end = ends.window
    else:
        end = ends.cuts.since if ends.window is None else minimum(ends.cuts.since, ends.window)
    return relative(index(end, (..., slice(first, None), slice(None))), ends.origin[..., first:, :])


def _inner(ends: Ends, first: int) -> Float[Array, "*batch reads block elements"]:
    """For each read and each element of the same block, its end."""
    key = (..., slice(first, None), slice(None))
    origin = ends.origin[key]
    seen = relative(index(ends.edge, key), origin)[..., None, :]
    if ends.cuts is not None:
        steps = relative(index(ends.cuts.steps, key), origin)[..., None]
        block = steps.shape[-2]
        after = np.arange(block)[:, None] > np.arange(block)
        lowest = _running_min(jnp.where(after, steps, jnp.inf))
        seen = _min(seen, jnp.concatenate([lowest] * (seen.shape[-1] // lowest.shape[-1]), axis=-1))
    if ends.window is not None:
        seen = _min(seen, relative(index(ends.window, key), origin)[..., None])
    return seen


def _until(ends: Ends) -> Height:
    """The ends of elements when their own block is over."""
    if ends.cuts is None:
        return ends.edge
    until = ends.cuts.until
    return minimum(ends.edge, join(*[until] * (ends.edge.whole.shape[-1] // until.whole.shape[-1])))


def _running_min(array: Float[Array, "*batch block elements"]) -> Float[Array, "*batch block elements"]:
    shift = 1
    while shift < array.shape[-2]:
        met = _min(array[..., :-shift, :], array[..., shift:, :])
        array = jnp.concatenate([array[..., :shift, :], met], axis=-2)
        shift *= 2
    return array


def _min(a: Float[Array, "*a"], b: Float[Array, "*b"]) -> Float[Array, "*c"]:
    """a where they are equal, b where either is NaN."""
    return jnp.where(a <= b, a, b)


def _overlap(upper: Float[Array, "*shape"], lower: Float[Array, "*other"]) -> Float[Array, "*out"]:
    weights = upper + lower
    return jnp.where(weights < 0, 0, weights)


def _matmul(
    weights: Float[Array, "*batch m k"], elements: Float[Array, "*batch k n"]
) -> Float[Array, "*batch m n"]:
    return jnp.matmul(weights.astype(elements.dtype), elements, precision=lax.Precision.HIGHEST)
