"""Differentiable stacks as pure functions in PyTorch."""

from diffstack.torch_impl import _requires as _requires
from diffstack.torch_impl import (
    discrete,
    inverse,
    modules,
    neural_deque,
    neural_queue,
    neural_stack,
    pointer,
    reversal,
    superposition,
)
from diffstack.torch_impl.inverse import learn_input
from diffstack.torch_impl.reversal import reverse

__all__ = [
    "discrete",
    "inverse",
    "learn_input",
    "modules",
    "neural_deque",
    "neural_queue",
    "neural_stack",
    "pointer",
    "reversal",
    "reverse",
    "superposition",
]
