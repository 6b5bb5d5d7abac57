"""Sequences of different lengths in one batch: what `scan` and `unroll` do with `lengths`."""

from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.utils import _pytree as tree

from diffstack.actions import NOOP
from diffstack.families import Family
from diffstack.torch_impl._arrays import numbered


def stopped(
    steps: Shaped[Tensor, "..."], lengths: Int[Tensor, "*batch"] | None, noop: Shaped[Tensor, "..."] | int = 0
) -> Shaped[Tensor, "..."]:
    """The steps as they are up to the end of each sequence, and `noop` from there on; time comes after the batch."""
    if lengths is None:
        return steps
    live = _live(steps, lengths)
    # Padding that is NaN must not reach the state, not even times 0.
    return torch.where(live, steps, torch.as_tensor(noop, dtype=steps.dtype, device=steps.device))


def _live(steps: Shaped[Tensor, "..."], lengths: Int[Tensor, "*batch"]) -> Bool[Tensor, "..."]:
    """Whether each step comes before the end of its sequence, in a shape that broadcasts against the steps."""
    rank = lengths.ndim
    ones = (1,) * (steps.ndim - rank - 1)
    step = torch.arange(steps.shape[rank], device=steps.device).reshape(*(1,) * rank, steps.shape[rank], *ones)
    return step < lengths.reshape(*lengths.shape, 1, *ones)


def where_live(live: Bool[Tensor, "*batch"], new: Any, old: Any = None) -> Any:
    """A tree of arrays (*batch, ...): `new` where a sequence goes on, and `old`, or zeros, where it has ended."""
    old = tree.tree_map(lambda leaf: leaf if leaf is None else torch.zeros_like(leaf), new) if old is None else old

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        # PyTorch takes None for a leaf.
        if new is None:
            return new
        return torch.where(live.reshape(*live.shape, *(1,) * (new.ndim - live.ndim)), new, old)

    return tree.tree_map(chosen, new, old)


def noop(family: Family, actions: Shaped[Tensor, "..."], state: Any) -> Shaped[Tensor, "..."]:
    """The actions, of the shape of these, that leave a stack as it is."""
    if family.automaton:
        states, symbols = state.tops.shape[-2:]
        n = states * symbols
        # Of the replacements, those of a state and top by itself.
        place = numbered(actions, -1) - n * (n + states)
        same = (place >= 0) & (place % (n + 1) == 0)
        return torch.where(same, 0.0, -torch.inf).to(actions.dtype).expand(actions.shape)
    if not family.action:
        return torch.full_like(actions, NOOP)
    if "noop" in family.action:
        where = numbered(actions, -1) == family.action.index("noop")
        return where.to(actions.dtype).expand(actions.shape)
    return torch.zeros_like(actions)
