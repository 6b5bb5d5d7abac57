"""Sums of weights that are kept as logarithms, where minus infinity stands for nothing.

Where all weights of a sum are nothing, so is the sum, and no gradient goes through it: nothing is ever NaN.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def as_logs(*logs: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], ...]:
    """Logarithms in float32 at least, since a narrower dtype has too few digits for them; nothing has no gradient."""
    wide = (each.to(dtype_of_logs(each.dtype)) for each in logs)
    return tuple(each.masked_fill(each == -torch.inf, -torch.inf) for each in wide)


def dtype_of_logs(dtype: Any) -> Any:
    """The dtype of the logarithms that go with values of a dtype."""
    return dtype if torch.finfo(dtype).bits >= 32 else torch.float32


def logsumexp(logs: Float[Tensor, "..."], axes: tuple[int, ...]) -> Float[Tensor, "..."]:
    """The logarithm of the sum over some axes."""
    if 0 in [logs.shape[axis] for axis in axes]:
        return torch.full_like(torch.sum(logs, axes), -torch.inf)
    top = torch.amax(logs.detach(), axes, keepdim=True)
    # Where there is anything, the largest weight is 1.
    total = torch.clamp(torch.sum(torch.exp(logs - finite(top)), axes), 1)
    return torch.log(total) + torch.squeeze(top, axes)


def softmax(logs: Float[Tensor, "..."], axis: int) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """The shares of an axis, zeros where all of it is nothing, and the logarithm of its sum."""
    top = torch.amax(logs.detach(), axis, keepdim=True)
    weights = torch.exp(logs - finite(top))
    total = torch.clamp(torch.sum(weights, axis, keepdim=True), 1)
    return weights / total, torch.squeeze(torch.log(total) + top, axis)


def log(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The logarithm, which passes no gradient at 0."""
    nothing = x <= 0
    return torch.log(x.masked_fill(nothing, 1)).masked_fill(nothing, -torch.inf)


def share(x: Float[Tensor, "..."], total: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x / total, and 0 where the total is 0."""
    return x / total.masked_fill(total <= 0, torch.inf)


def finite(logs: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What can be subtracted from logarithms: 0 in place of minus infinity."""
    return torch.nan_to_num(logs, torch.nan, torch.inf, 0)


def divided(logs: Float[Tensor, "..."], total: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """logs - total, where nothing stays nothing and passes no gradient to the total."""
    return (logs - finite(total)).masked_fill(logs == -torch.inf, -torch.inf)
