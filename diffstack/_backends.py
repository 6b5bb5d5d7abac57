"""What the command line needs from a framework, under the same names for both."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from diffstack import _report

NAMES = ("jax", "torch")


class Backend(NamedTuple):
    """An implementation and its framework."""

    title: str
    version: str
    implementation: Any  # diffstack.jax_impl or diffstack.torch_impl
    asarray: Callable[[np.ndarray], Any]
    grad: Callable[..., Any]
    adam: Callable[[float], Any]  # makes an optimizer for `learn_input` from a learning rate
    wide: Callable[[], AbstractContextManager[Any]]  # enables 64-bit numbers, as they always are in PyTorch


def load(name: str) -> Backend:
    """Import "jax" or "torch". The ImportError of a missing one says how to install it."""
    implementation, framework = import_module(f"diffstack.{name}_impl"), import_module(name)
    version = framework.__version__
    if name == "jax":
        adam, wide = import_module("optax").adam, partial(framework.enable_x64, True)
        # `jax.numpy.asarray` compiles a program for every shape.
        return Backend("JAX", version, implementation, framework.device_put, framework.grad, adam, wide)
    tensor, grad, adam = framework.tensor, framework.func.grad, framework.optim.Adam
    return Backend("PyTorch", version, implementation, tensor, grad, lambda rate: partial(adam, lr=rate), nullcontext)


class Run(NamedTuple):
    """A learning run."""

    losses: np.ndarray  # (steps,), before each update
    snapshots: dict[int, np.ndarray]  # by the number of updates, the input: at the start, twice later, and at the end
    output: np.ndarray  # what the program makes of the learned input


def learn(backend: Backend, target: np.ndarray, program: Callable[[Any], Any], optimizer: Any, steps: int) -> Run:
    """Run `learn_input` with a progress bar."""
    inverse = backend.implementation.inverse
    # The bar moves, and Ctrl-C is heard, between two calls of `advance`. JAX compiles it for every number of steps.
    size = max(1, min(10, steps // 10))
    kept = {steps // 10 // size * size, 3 * steps // 10 // size * size, steps}
    # Even for float32 targets, optax needs 64 bits to correct Adam's bias as PyTorch does.
    with backend.wide(), _report.progress("learning") as update:
        wanted = backend.asarray(target)
        state = inverse.init(wanted, program=program, optimizer=optimizer)
        losses, snapshots = [np.empty(0, target.dtype)], {0: np.asarray(state.sequence)}
        for start in range(0, steps, size):
            done = min(start + size, steps)
            state, latest = inverse.advance(state, wanted, done - start)
            losses.append(np.asarray(latest))
            if done in kept:
                snapshots[done] = np.asarray(state.sequence)
            update(done, steps)
        return Run(np.concatenate(losses), snapshots, np.asarray(program(state.sequence)))
