"""What the layers share: actions out of logits, and stacks that are as large as they need to be."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from diffstack._layers import Stack
from diffstack.families import FAMILIES
from diffstack.torch_impl.controller import MODULES


def actions_of(family: str, logits: Float[Tensor, "*batch actions"], *, hard: bool = False) -> Tensor:
    """A softmax, sigmoid strengths or hard ones, log weights, or the code of the largest logit."""
    table = FAMILIES[family]
    if table.automaton:
        return logits
    if not table.action:
        return torch.argmax(logits, -1).to(torch.int32)
    if hard:
        return (logits > 0).to(logits.dtype)
    return torch.sigmoid(logits) if table.strengths else torch.softmax(logits, -1)


def start(stack: Stack, steps: int, batch: tuple[int, ...], like: Tensor) -> Any:
    """An empty stack, with the slots that so many steps need."""
    more = {"states": stack.states, "symbols": stack.symbols} if stack.table.automaton else {}
    slots, device = stack.slots(steps), like.device
    return MODULES[stack.family].empty(slots, (stack.dim,), dtype=like.dtype, batch_shape=batch, device=device, **more)


def as_vector(stack: Stack, read: Float[Tensor, "..."]) -> Float[Tensor, "*batch read"]:
    """A read as one vector: an automaton reads one for each state and top."""
    if not stack.table.automaton:
        return read
    return read.reshape(*read.shape[: read.ndim - (3 if stack.dim else 2)], stack.read)


def grown(stack: Stack, state: Any, steps: int) -> Any:
    """The stack with room for more steps."""
    if stack.table.strengths:
        return MODULES[stack.family].resize(state, state.strengths.shape[-1] + stack.ends * steps)
    if stack.table.automaton:
        return MODULES[stack.family].resize(state, state.edges.shape[-3] + steps)
    slots, *others = state
    return type(state)(pad(slots, (0, 0, 0, steps)), *others)
