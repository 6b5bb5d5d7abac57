"""Sequences of different lengths in one batch: what `scan` does with `lengths`."""

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


def stopped(
    steps: Shaped[Tensor, "..."], lengths: Int[Tensor, "*batch"] | None, noop: Shaped[Tensor, "..."] | int = 0
) -> Shaped[Tensor, "..."]:
    """What happens at every step, and from the end of its sequence on `noop`; time comes after the batch."""
    if lengths is None:
        return steps
    live = _live(steps, lengths)
    # A padding that is NaN must not reach the state, not even times 0.
    return torch.where(live, steps, torch.as_tensor(noop, dtype=steps.dtype, device=steps.device))


def _live(steps: Shaped[Tensor, "..."], lengths: Int[Tensor, "*batch"]) -> Bool[Tensor, "..."]:
    """Whether each step comes before the end of its sequence, in a shape that broadcasts against the steps."""
    rank = lengths.ndim
    ones = (1,) * (steps.ndim - rank - 1)
    step = torch.arange(steps.shape[rank], device=steps.device).reshape(*(1,) * rank, steps.shape[rank], *ones)
    return step < lengths.reshape(*lengths.shape, 1, *ones)
