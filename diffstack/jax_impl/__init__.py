"""Differentiable stacks as pure functions in JAX."""

from diffstack.jax_impl import _requires as _requires
from diffstack.jax_impl import (
    controller,
    discrete,
    inverse,
    layers,
    neural_deque,
    neural_queue,
    neural_stack,
    nondeterministic,
    pointer,
    reversal,
    superposition,
)
from diffstack.jax_impl.controller import unroll
from diffstack.jax_impl.inverse import learn_input
from diffstack.jax_impl.reversal import reverse

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
    "pointer",
    "reversal",
    "reverse",
    "superposition",
    "unroll",
]
