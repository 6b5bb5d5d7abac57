"""Differentiable stacks as pure functions in PyTorch."""

from diffstack.torch_impl import _requires as _requires  # isort: split

import torch

from diffstack.torch_impl import (
    controller,
    discrete,
    inverse,
    layers,
    neural_deque,
    neural_queue,
    neural_stack,
    nondeterministic,
    notebook,
    pointer,
    reversal,
    superposition,
)
from diffstack.torch_impl.controller import unroll
from diffstack.torch_impl.inverse import learn_input
from diffstack.torch_impl.reversal import reverse

__all__ = [
    "controller",
    "discrete",
    "inverse",
    "layers",
    "learn_input",
    "neural_deque",
    "neural_queue",
    "neural_stack",
    "nondeterministic",
    "notebook",
    "pointer",
    "reversal",
    "reverse",
    "superposition",
    "unroll",
]

# So that `torch.load` takes a saved state with its safe default, `weights_only=True`.
torch.serialization.add_safe_globals(
    [
        discrete.DiscreteState,
        neural_deque.NeuralDequeState,
        neural_queue.NeuralQueueState,
        neural_stack.NeuralStackState,
        nondeterministic.NondeterministicState,
        pointer.PointerState,
        superposition.SuperpositionState,
    ]
)
