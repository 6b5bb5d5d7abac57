"""What the layers share: actions out of logits, and stacks that are as large as they need to be."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.families import FAMILIES
from diffstack.torch_impl import discrete, neural_deque, neural_queue, neural_stack, pointer, superposition

_MODULES = {
    "pointer": pointer,
    "discrete": discrete,
    "superposition": superposition,
    "neural_stack": neural_stack,
    "neural_queue": neural_queue,
    "neural_deque": neural_deque,
}


def module_of(family: str) -> Any:
    """The family's module."""
    return _MODULES[family]


def actions_of(family: str, logits: Float[Tensor, "*batch actions"]) -> Tensor:
    """A softmax, sigmoid strengths, or the code of the largest logit."""
    table = FAMILIES[family]
    if not table.action:
        return torch.argmax(logits, -1).to(torch.int32)
    return torch.sigmoid(logits) if table.strengths else torch.softmax(logits, -1)


def start(family: str, dim: int, slots: int, batch: tuple[int, ...], like: Tensor) -> Any:
    """An empty stack."""
    return module_of(family).empty(max(slots, 1), (dim,), dtype=like.dtype, batch_shape=batch, device=like.device)


def grown(family: str, state: Any, steps: int) -> Any:
    """The stack with room for more steps."""
    if FAMILIES[family].strengths:
        return module_of(family).resize(state, state.strengths.shape[-1] + len(FAMILIES[family].ends) * steps)
    space = state.buffer.new_zeros((*state.buffer.shape[:-2], steps, state.buffer.shape[-1]))
    return state._replace(buffer=torch.cat([state.buffer, space], -2))
