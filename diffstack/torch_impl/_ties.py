"""Where `max` and `min` have two derivatives, and which of them is taken: the one place that says so.

Hard strengths (exactly 0 or 1) and empty slots sit on the corners of the equations, where the two sides have two
derivatives. Splitting the gradient evenly, as `maximum` and `minimum` do, halves it at every later step. The
derivative here is the one into the feasible region, where a strength can only grow from 0. So `max(0, s - ...)`, which
says what is left of a strength, passes its gradient at 0. `max(0, u - ...)` and `max(0, 1 - ...)`, which say what a pop
or a read still wants, block it there.

Where `min(s, room)` ties at 0, neither can grow alone, and it passes no gradient. Where it ties above 0, in a full
read, less of either gives less weight (`room` shrinks as a nearer push grows), and it passes the gradient to both. So
the gradient of a read with respect to the push that made it is 1 after any number of no-ops, and with respect to a push
of strength 0 it is the one-sided derivative.

Every function keeps NaN.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pass_at_zero(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """max(0, x), which passes its gradient where x is 0."""
    return torch.where(x < 0, 0, x)


def block_at_zero(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """max(0, x), which blocks its gradient where x is 0."""
    return torch.where(x <= 0, 0, x)


def smaller(strengths: Float[Tensor, "*#shape"], room: Float[Tensor, "*#shape"]) -> Float[Tensor, "*#shape"]:
    """min(s, room), which at a tie passes its gradient to both; to neither where there is no room."""
    # A comparison with NaN is false, so a NaN strength has to be asked for.
    smallest = torch.where((strengths < room) | torch.isnan(strengths), strengths, room)
    tied = (strengths == room) & (room > 0)
    return torch.where(tied, room + (strengths - strengths.detach()), smallest)


def sum_blocked_at_zero(x: Float[Tensor, "2 *shape"]) -> Float[Tensor, "2 *shape"]:
    """A sum of at least 0, kept in two parts, which blocks its gradient where it is 0."""
    return torch.where(torch.sum(x, 0, keepdim=True) == 0, 0, x)


def smaller_sum(a: Float[Tensor, "2 *shape"], b: Float[Tensor, "2 *shape"]) -> Float[Tensor, "2 *shape"]:
    """The smaller of two sums, each kept in two parts; where they are equal the first, and with it the gradient."""
    difference = torch.sum(a - b, 0, keepdim=True)
    return torch.where((difference <= 0) | torch.isnan(torch.sum(a, 0, keepdim=True)), a, b)


# Ties of levels, in which PyTorch's chunks keep the neural stack; `_chunked/_levels.py` says what they are.


def higher(level: Float[Tensor, "*batch"], bottom: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """max(level, bottom), which at a tie passes its gradient to the level."""
    return torch.where(level < bottom, bottom, level)


def is_cut(levels: Float[Tensor, "*batch levels"], asked: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch levels"]:
    """Whether a pop that asks for a level cuts these; one that ties with it stays, and keeps its gradient."""
    return asked[..., None] < levels


def weight_of_levels(up: Tensor, down: Tensor, low: Tensor) -> Tensor:
    """The weight of a slot between two levels in a read down to `low`."""
    return smaller(up - down, block_at_zero(up - low))


def weight_cotangents(cotangent: Tensor, up: Tensor, down: Tensor, low: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Those of up, down and low, from that of `weight_of_levels`, ties included."""
    reached = cotangent * (up > low)
    of_strength, of_room = reached * (down >= low), reached * (down <= low)
    return of_strength + of_room, -of_strength, -torch.sum(of_room, -1, keepdim=True)


def weight_tangent(up: Tensor, down: Tensor, low: Tensor, d_up: Any, d_down: Any, d_low: Any) -> Tensor:
    """That of `weight_of_levels`, ties included."""
    reached = (up > low).to(up.dtype)
    return reached * (down >= low) * (d_up - d_down) + reached * (down <= low) * (d_up - d_low)
