"""Heights: sums of strengths that are exact, so that neither their order nor their number matters.

A float sum of strengths loses digits as it grows, and two sums that should be equal differ in their last bits; but
equal heights decide which way a gradient goes. So a height is three floats of decreasing weight,

    whole + coarse + fine,      whole an integer, 0 <= coarse < 1 a multiple of eps, 0 <= fine < eps one of eps^2,

with eps the distance from 1 to the next float. Adding two limbs of a kind needs no more digits than a float has, so
addition is exact, carries included, and equal heights have equal limbs. Only what a strength has below eps^2 is lost.
The derivative of a height rides on `fine`; `whole` and `coarse` are constants to it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Height(NamedTuple):
    """Limbs of one shape, computed in float32 at least."""

    whole: Float[Tensor, "*shape"]
    coarse: Float[Tensor, "*shape"]
    fine: Float[Tensor, "*shape"]


def feasible(strengths: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float32 at least, not below 0, and finite: an infinite pop takes what is there. NaN stays."""
    strengths = strengths.to(torch.promote_types(strengths.dtype, torch.float32))
    most = torch.finfo(strengths.dtype).max
    return torch.where(strengths < 0, 0, torch.where(strengths > most, most, strengths))


def height(strengths: Float[Tensor, "*shape"]) -> Height:
    """What a strength of at least 0 measures."""
    fixed = strengths.detach()
    eps = torch.finfo(fixed.dtype).eps
    whole = torch.floor(fixed)
    coarse = torch.floor((fixed - whole) / eps) * eps
    fine = torch.floor((fixed - whole - coarse) / eps**2) * eps**2
    return Height(whole, coarse, fine + (strengths - fixed))


def _carry(
    whole: Float[Tensor, "*shape"], coarse: Float[Tensor, "*shape"], fine: Float[Tensor, "*shape"]
) -> Height:
    eps = torch.finfo(fine.dtype).eps
    up = torch.floor(fine.detach() / eps) * eps
    coarse, fine = coarse + up, fine - up
    up = torch.floor(coarse)
    return Height(whole + up, coarse - up, fine)


def add(a: Height, b: Height) -> Height:
    return _carry(a.whole + b.whole, a.coarse + b.coarse, a.fine + b.fine)


def subtract(a: Height, b: Height) -> Height:
    return _carry(a.whole - b.whole, a.coarse - b.coarse, a.fine - b.fine)


def negative(a: Height) -> Height:
    return _carry(-a.whole, -a.coarse, -a.fine)


def difference(a: Height, b: Height) -> Float[Tensor, "*shape"]:
    """a - b as a float; its sign is right, and 0 means equal."""
    return ((a.whole - b.whole) + (a.coarse - b.coarse)) + (a.fine - b.fine)


def relative(a: Height, origin: Float[Tensor, "*integers"]) -> Float[Tensor, "*shape"]:
    """a - origin as a float, for a whole origin; equal heights give equal floats."""
    return (a.whole - origin) + (a.coarse + a.fine)


def raised(a: Height, by: int) -> Height:
    return a._replace(whole=a.whole + by)


def where(condition: Bool[Tensor, "*shape"], a: Height, b: Height) -> Height:
    return Height(*(torch.where(condition, x, y) for x, y in zip(a, b, strict=True)))


def minimum(a: Height, b: Height) -> Height:
    """The lower one; a where they are equal, b where either is NaN."""
    return where(difference(a, b) <= 0, a, b)


def zero(like: Height) -> Height:
    return Height(*(torch.zeros_like(limb) for limb in like))


def infinite(like: Height) -> Height:
    return Height(
        torch.full_like(like.whole, torch.inf), torch.zeros_like(like.coarse), torch.zeros_like(like.fine)
    )


def index(a: Height, key: object) -> Height:
    return Height(*(limb[key] for limb in a))


def join(*heights: Height) -> Height:
    """Concatenated along the last axis."""
    return Height(*(torch.cat(limbs, dim=-1) for limbs in zip(*heights, strict=True)))


def running(combine: Callable[[Height, Height], Height], heights: Height, reverse: bool = False) -> Height:
    """h[0], combine(h[0], h[1]), ... along the last axis, in a logarithm of its length; `reverse` starts at its end."""
    shift = 1
    while shift < heights.whole.shape[-1]:
        first, last = (..., slice(None, shift)), (..., slice(-shift, None))
        met = combine(index(heights, (..., slice(None, -shift))), index(heights, (..., slice(shift, None))))
        heights = join(met, index(heights, last)) if reverse else join(index(heights, first), met)
        shift *= 2
    return heights


def sizes(pushes: Height, pops: Height) -> Height:
    """The total strength after each step, H_t = max(0, H_{t-1} - u_t) + d_t from H_0 = 0.

    With S the sums of d - u this is S_t minus the running minimum of S_t - d_t = S_{t-1} - u_t: where H would go below
    0 it is lifted, and the lifts so far are what the lowest point lacked. A pop of all there is, to the digit, is no
    lift, so that the gradient passes there.
    """
    totals = running(add, subtract(pushes, pops))
    return subtract(totals, running(minimum, subtract(totals, pushes)))
