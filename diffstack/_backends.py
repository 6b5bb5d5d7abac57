"""What the command line needs of a framework, under the same names for both."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np

NAMES = ("jax", "torch")


class Backend(NamedTuple):
    """An implementation and its framework.

    Attributes:
        title: the framework's name.
        version: that of the framework.
        implementation: `diffstack.jax_impl` or `diffstack.torch_impl`.
        asarray: from a NumPy array to the framework's own; `np.asarray` goes back.
        grad: `jax.grad` or `torch.func.grad`.
        adam: from a learning rate to the optimizer that `learn_input` takes.
        wide: a context with 64-bit numbers on or off; PyTorch always has them.
    """

    title: str
    version: str
    implementation: Any
    asarray: Callable[[np.ndarray], Any]
    grad: Callable[..., Any]
    adam: Callable[[float], Any]
    wide: Callable[[bool], AbstractContextManager[Any]]


def load(name: str) -> Backend:
    """Import a framework.

    Args:
        name: "jax" or "torch".

    Returns:
        The framework as a `Backend`.

    Raises:
        ImportError: it is not installed, and which extra installs it.
    """
    implementation = importlib.import_module(f"diffstack.{name}_impl")
    framework = importlib.import_module(name)
    if name == "jax":
        return Backend(
            "JAX",
            framework.__version__,
            implementation,
            framework.numpy.asarray,
            framework.grad,
            importlib.import_module("optax").adam,
            framework.enable_x64,
        )
    return Backend(
        "PyTorch",
        framework.__version__,
        implementation,
        framework.tensor,
        framework.func.grad,
        lambda rate: partial(framework.optim.Adam, lr=rate),
        lambda _: nullcontext(),
    )


def chunk(steps: int) -> int:
    """How many steps of a learning run are taken at once: few enough to interrupt it and to see it move."""
    return max(1, min(10, steps // 10))


def moments(steps: int) -> set[int]:
    """The numbers of updates at which a picture of a learning run shows the input: all are ends of chunks."""
    size = chunk(steps)
    return {0, steps // 10 // size * size, 3 * steps // 10 // size * size, steps}


def learn(
    backend: Backend, target: np.ndarray, program: Callable[[Any], Any], optimizer: Any, steps: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """A learning run, a few steps at a time.

    Args:
        backend: where it runs.
        target: what the program is to give.
        program: a differentiable function from the input to an array like the target.
        optimizer: one that `learn_input` takes, or None.
        steps: how many updates.

    Yields:
        The number of updates so far, the input after them, and the losses since the last time.
    """
    inverse, wanted = backend.implementation.inverse, backend.asarray(target)
    state = inverse.init(wanted, program=program, optimizer=optimizer)
    yield 0, np.asarray(state.sequence), np.empty(0, target.dtype)
    done = 0
    while done < steps:
        size = min(chunk(steps), steps - done)
        state, losses = inverse.advance(state, wanted, size)
        done += size
        yield done, np.asarray(state.sequence), np.asarray(losses)
