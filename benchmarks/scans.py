"""The `scan` of every family and method, beside a plain loop and one matrix product of the reads' shape."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import baselines
from benchmarks.measure import BACKWARD, FORWARD, Competitor, Work
from diffstack import jax_impl, torch_impl
from diffstack.actions import NOOP
from diffstack.families import FAMILIES, Family

TITLES = {"jax": "JAX", "torch": "PyTorch"}
IMPLEMENTATIONS = {"jax": jax_impl, "torch": torch_impl}


class Shape(NamedTuple):
    """B sequences of T elements of length D, on stacks of N slots."""

    B: int
    T: int
    N: int
    D: int


# The shape that grows along one axis at a time, and the lengths that each axis takes.
SLOTS = Shape(8, 512, 64, 64), {"T": (64, 512, 2048, 8192), "N": (8, 256), "D": (16, 256), "B": (1, 32)}
# Where there are strengths, a scan keeps every push, whatever the capacity.
PILE = Shape(8, 256, 1, 32), {"T": (64, 256, 1024, 4096), "D": (8, 128), "B": (1, 32)}
QUICK = Shape(2, 8, 4, 3)
# Beyond this time only the parallel forms run, to see how they grow.
LONGEST = 2048
# Plain loops over a family's equations, by framework.
LOOPS: dict[str, dict[str, Callable[..., Any]]] = {
    "pointer": {"jax": baselines.pointer_scan, "torch": baselines.pointer_loop},
    "discrete": {"torch": baselines.discrete_loop},
    "superposition": {"jax": baselines.superposition_scan, "torch": baselines.superposition_loop},
    "neural_stack": {"torch": baselines.neural_stack_loop},
    "neural_queue": {"torch": baselines.neural_queue_loop},
}
LIMIT, PUBLIC = "one product (JAX)", "stack-attention-pytorch"


def works(name: str, device: str, quick: bool) -> Iterator[Work]:
    """A family's rows, axis by axis; forward alone over time only."""
    family = FAMILIES[name]
    base, axes = PILE if family.strengths else SLOTS
    axes = {"T": (QUICK.T,)} if quick else axes
    reference = "plain loop (PyTorch)" if name in LOOPS else "sequential (PyTorch)"
    baseline = PUBLIC if name == "superposition" else reference
    for mode, axis in [*((BACKWARD, axis) for axis in axes), (FORWARD, "T")]:
        for length in axes[axis]:
            shape = QUICK if quick else base._replace(**{axis: length})
            competitors = tuple(_competitors(family, shape, device))
            title = f"{name} over {axis}, {mode}"
            shown = baseline, "sequential (JAX)", "parallel (JAX)", "parallel (PyTorch)"
            yield Work(name, title, shape._asdict(), axis, mode, competitors, LIMIT, reference, shown)


def _competitors(family: Family, shape: Shape, device: str) -> Iterator[Competitor]:
    inputs, methods = _inputs(family, shape), family.methods if shape.T <= LONGEST else family.methods[-1:]
    if shape.T <= LONGEST:
        for framework, loop in LOOPS.get(family.name, {}).items():
            yield Competitor(f"plain loop ({TITLES[framework]})", partial(loop, shape.N), inputs, framework)
        if family.name == "superposition":
            yield Competitor(PUBLIC, partial(baselines.stack_attention, shape.N), inputs, "torch")
    for framework, implementation in IMPLEMENTATIONS.items():
        options = {"device": device} if framework == "torch" else {}
        for method in methods:
            scan = partial(_scan, getattr(implementation, family.name), method, shape, options)
            yield Competitor(f"{method} ({TITLES[framework]})", scan, inputs, framework)
    # Its weights grow with the square of the time.
    if shape.T <= LONGEST:
        weights = _random(shape.B, shape.T, shape.T)
        yield Competitor(LIMIT, lambda weights, elements: weights @ elements, (weights, inputs[1]), "jax")


def _scan(family: Any, method: str, shape: Shape, options: dict[str, Any], actions: Any, *elements: Any) -> Any:
    """The reads of a scan from an empty state, as one array."""
    state = family.empty(shape.N, (shape.D,), batch_shape=(shape.B,), dtype=elements[0].dtype, **options)
    _, reads = family.scan(state, actions, elements if len(elements) > 1 else elements[0], method=method)
    return reads[0] + reads[1] if len(elements) > 1 else reads


def _inputs(family: Family, shape: Shape) -> tuple[np.ndarray, ...]:
    """Actions, and one array of elements for each end."""
    elements = [_random(shape.B, shape.T, shape.D)] * len(family.ends)
    if not family.action:
        codes = np.random.default_rng(1).choice(NOOP + 1, (shape.B, shape.T), p=(0.5, 0.4, 0.1))
        return codes.astype(np.int32), *elements
    actions = 1 / (1 + np.exp(-_random(shape.B, shape.T, len(family.action))))
    return actions if family.strengths else actions / actions.sum(-1, keepdims=True), *elements


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)
