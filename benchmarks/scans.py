"""The `scan` of every family and method, beside plain loops, a public library, and one matrix product.

"auto" is not measured: it is one of the two methods, by the shapes.
"""

import itertools
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


SLOTS = Shape(8, 512, 64, 64), {"T": (64, 512, 2048, 8192), "N": (8, 64, 256), "D": (16, 64, 256), "B": (1, 8, 32)}
# Where elements have strengths, a scan keeps every push, whatever the capacity.
PILE = Shape(8, 256, 1, 32), {"T": (64, 256, 1024, 4096), "D": (8, 32, 128), "B": (1, 8, 32)}
# From so many steps on only "parallel" runs, to show how its time and its memory grow.
LONG = 4096
QUICK = Shape(2, 8, 4, 3)
# Plain loops over a family's equations, by framework.
LOOPS: dict[str, dict[str, Callable[..., Any]]] = {
    "pointer": {"jax": baselines.pointer_scan, "torch": baselines.pointer_loop},
    "discrete": {"torch": baselines.discrete_loop},
    "superposition": {"jax": baselines.superposition_scan, "torch": baselines.superposition_loop},
    "neural_stack": {"torch": baselines.neural_stack_loop},
    "neural_queue": {"torch": baselines.neural_queue_loop},
}
PLAIN = {"jax": "plain lax.scan (JAX)", "torch": "plain loop (PyTorch)"}
LIBRARY = "stack-attention-pytorch"
LIMIT = "one product (JAX)"


def works(name: str, device: str, quick: bool) -> Iterator[Work]:
    """A family's works, axis by axis: plain loops, and the forward pass alone, only over the number of steps."""
    base, axes = PILE if FAMILIES[name].strengths else SLOTS
    axes = {"T": (QUICK.T,)} if quick else axes
    for mode, axis in itertools.product((BACKWARD, FORWARD), axes):
        for length in axes[axis]:
            if mode == FORWARD and (axis != "T" or length >= LONG):
                continue
            shape = QUICK if quick else base._replace(**{axis: length})
            competitors = tuple(_competitors(name, shape, device, plain=axis == "T"))
            reference = PLAIN["torch"] if name in LOOPS and axis == "T" else "sequential (PyTorch)"
            title = f"{name} over {axis}, {mode}"
            yield Work(name, title, shape._asdict(), axis, mode, competitors, LIMIT, reference, _drawn(name))


def _drawn(name: str) -> tuple[str, ...]:
    """Three lines and a baseline.

    The baseline is the public library, where there is one, or else a plain loop. Stepping is shown in JAX alone: there
    it is the faster one, and in PyTorch it takes about as long as a plain loop.
    """
    baselines = [LIBRARY] if name == "superposition" else [PLAIN["torch"]] if name in LOOPS else []
    parallel = ("parallel (PyTorch)", "parallel (JAX)") if FAMILIES[name].parallel else ()
    return (*(baselines or ["sequential (PyTorch)"]), "sequential (JAX)", *parallel)


def _competitors(name: str, shape: Shape, device: str, plain: bool) -> Iterator[Competitor]:
    family = FAMILIES[name]
    inputs, long = _inputs(family, shape), shape.T >= LONG
    if plain and not long:
        for framework, loop in LOOPS.get(name, {}).items():
            yield Competitor(PLAIN[framework], partial(loop, shape.N), inputs, framework)
        if name == "superposition":
            yield Competitor(LIBRARY, partial(baselines.stack_attention, shape.N), inputs, "torch")
    for framework, implementation in IMPLEMENTATIONS.items():
        options = {"device": device} if framework == "torch" else {}
        for method in family.methods[-1:] if long else family.methods:
            scan = partial(_scan, getattr(implementation, name), method, shape, options)
            yield Competitor(f"{method} ({TITLES[framework]})", scan, inputs, framework)
    # Its weights grow with the square of the time.
    if not long:
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
