"""The `scan` of every family and method, beside a plain loop and one matrix product of the reads' shape."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import baselines
from benchmarks.measure import BACKWARD, FORWARD, Competitor, Work
from diffstack import jax_impl, torch_impl
from diffstack.actions import NOOP

TITLES = {"jax": "JAX", "torch": "PyTorch"}
IMPLEMENTATIONS = {"jax": jax_impl, "torch": torch_impl}
METHODS = ("sequential", "parallel", "auto")


class Shape(NamedTuple):
    """B sequences of T elements of length D, on stacks of N slots."""

    B: int
    T: int
    N: int
    D: int


class Family(NamedTuple):
    """How to drive a family.

    Attributes:
        weights: the length of its action vectors; 0 for integer codes.
        base: the shape that grows along one axis at a time.
        axes: the lengths that each axis takes.
        loops: plain loops over its equations, by framework.
    """

    weights: int
    base: Shape
    axes: dict[str, tuple[int, ...]]
    loops: dict[str, Callable[..., Any]]


SLOTS = Shape(8, 512, 64, 64), {"T": (16, 64, 512, 2048, 8192), "N": (8, 64, 256), "D": (16, 64, 256), "B": (1, 8, 32)}
# These keep every push of a scan, whatever the capacity.
PILE = Shape(8, 256, 1, 32), {"T": (16, 64, 256, 1024, 4096, 8192), "D": (8, 32, 128), "B": (1, 8, 32)}
QUICK = Shape(2, 8, 4, 3)
FAMILIES = {
    "pointer": Family(3, *SLOTS, {"jax": baselines.pointer_scan, "torch": baselines.pointer_loop}),
    "discrete": Family(0, *SLOTS, {"torch": baselines.discrete_loop}),
    "superposition": Family(3, *SLOTS, {"jax": baselines.superposition_scan, "torch": baselines.superposition_loop}),
    "neural_stack": Family(2, *PILE, {"torch": baselines.neural_stack_loop}),
    "neural_queue": Family(2, *PILE, {"torch": baselines.neural_queue_loop}),
    "neural_deque": Family(4, *PILE, {}),
}
LIMIT = "one product (JAX)"


def works(name: str, device: str, quick: bool) -> Iterator[Work]:
    """A family's rows, axis by axis."""
    family = FAMILIES[name]
    reference = "plain loop (PyTorch)" if family.loops else "sequential (PyTorch)"
    axes = {"T": (QUICK.T,)} if quick else family.axes
    for mode, axis in itertools.product((BACKWARD, FORWARD), axes):
        for length in axes[axis]:
            shape = QUICK if quick else family.base._replace(**{axis: length})
            competitors = tuple(_competitors(name, family, shape, device))
            title = f"{name} over {axis}, {mode}"
            yield Work(name, title, shape._asdict(), axis, mode, competitors, LIMIT, reference)


def _competitors(name: str, family: Family, shape: Shape, device: str) -> Iterator[Competitor]:
    inputs = _inputs(family, shape)
    for framework, loop in family.loops.items():
        yield Competitor(f"plain loop ({TITLES[framework]})", partial(loop, shape.N), inputs, framework)
    if name == "superposition":
        yield Competitor("stack-attention-pytorch", partial(baselines.stack_attention, shape.N), inputs, "torch")
    for framework, implementation in IMPLEMENTATIONS.items():
        options = {"device": device} if framework == "torch" else {}
        for method in METHODS:
            scan = partial(_scan, getattr(implementation, name), method, shape, options)
            yield Competitor(f"{method} ({TITLES[framework]})", scan, inputs, framework)
    # Its weights grow with the square of the time.
    if shape.T <= 2048:
        weights = _random(shape.B, shape.T, shape.T)
        yield Competitor(LIMIT, lambda weights, elements: weights @ elements, (weights, inputs[1]), "jax")


def _scan(family: Any, method: str, shape: Shape, options: dict[str, Any], actions: Any, *elements: Any) -> Any:
    """The reads of a scan from an empty state, as one array."""
    state = family.empty(shape.N, (shape.D,), batch_shape=(shape.B,), dtype=elements[0].dtype, **options)
    _, reads = family.scan(state, actions, elements if len(elements) > 1 else elements[0], method=method)
    return reads[0] + reads[1] if len(elements) > 1 else reads


def _inputs(family: Family, shape: Shape) -> tuple[np.ndarray, ...]:
    """Actions, and one array of elements for each end."""
    if family.weights == 0:
        codes = np.random.default_rng(1).choice(NOOP + 1, (shape.B, shape.T), p=(0.5, 0.4, 0.1))
        return codes.astype(np.int32), _random(shape.B, shape.T, shape.D)
    actions = 1 / (1 + np.exp(-_random(shape.B, shape.T, family.weights)))
    if family.weights == 3:
        actions /= actions.sum(-1, keepdims=True)
    return actions, *[_random(shape.B, shape.T, shape.D)] * max(1, family.weights // 2)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)
