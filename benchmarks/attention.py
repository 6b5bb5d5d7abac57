"""Stack attention over time: the layer beside a public library's, and beside what the paper's code does.

DuSell & Chiang's code is no package, so its algorithm is restated here: at every step the rows that have been written
and can still be read.
"""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from jax import Array
from stack_attention import DataStructureTransLayer, Stack
from torch import Tensor
from torch.func import functional_call

from benchmarks.measure import BACKWARD, Competitor, Work
from benchmarks.scans import IMPLEMENTATIONS, LIBRARY, TITLES, Shape
from diffstack.actions import NOOP, POP, PUSH

NAME = "attention"
SHAPE, QUICK = Shape(8, 512, 64, 64), Shape(2, 8, 4, 3)
ROWS = "rows that are read (PyTorch)"
LIMIT = "projections alone (JAX)"


def works(device: str, quick: bool) -> Iterator[Work]:
    """The layer at one shape: a model of D numbers, with one head of N slots of D."""
    shape = QUICK if quick else SHAPE
    inputs = _inputs(shape)
    competitors = [
        Competitor(LIBRARY, partial(_library, shape), inputs, "torch"),
        Competitor(ROWS, partial(_rows, shape), inputs, "torch"),
        *(
            Competitor(f"{method} ({TITLES[framework]})", partial(_layer, framework, shape, method), inputs, framework)
            for framework in IMPLEMENTATIONS
            for method in ("sequential", "parallel")
        ),
        Competitor(LIMIT, _projections, inputs, "jax"),
    ]
    drawn = (LIBRARY, ROWS, "parallel (PyTorch)", "parallel (JAX)")
    title = f"stack attention, {BACKWARD}"
    yield Work(NAME, title, shape._asdict(), "T", BACKWARD, tuple(competitors), LIMIT, LIBRARY, drawn)


def _inputs(shape: Shape) -> tuple[np.ndarray, ...]:
    """The sequence, and the maps to actions, to vectors, and to the output."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((size, shape.D), np.float32) / np.float32(shape.D) for size in (3, shape.D, shape.D)]
    return rng.standard_normal((shape.B, shape.T, shape.D), np.float32), *weights


@cache
def _made(framework: str, shape: Shape) -> Any:
    return IMPLEMENTATIONS[framework].layers.StackAttention(shape.D, shape.D, capacity=shape.N)


def _layer(framework: str, shape: Shape, method: str, sequence: Any, *weights: Any) -> Any:
    layer = _made(framework, shape)
    parameters = dict(zip(("actions.weight", "vectors.weight", "output.weight"), weights, strict=True))
    if framework == "jax":
        return layer.scan(parameters, sequence, method=method)[0]
    return functional_call(layer, parameters, (sequence,), {"method": method})[0]


@cache
def _of_library(shape: Shape) -> DataStructureTransLayer:
    stack = Stack(depth=shape.N, dim=shape.D)
    return DataStructureTransLayer(shape.D, data_structure=stack, num_heads=1, add_residual=False)


def _library(shape: Shape, sequence: Tensor, *weights: Tensor) -> Tensor:
    """The recurrent layer of stack-attention-pytorch, with a stack and without its residual."""
    names = ("to_action_logits.weight", "to_inputs.weight", "combine.weight")
    layer = _of_library(shape).to(sequence.device)
    return functional_call(layer, dict(zip(names, weights, strict=True)), (sequence,), {"recurrent": True})[0]


def _rows(shape: Shape, sequence: Tensor, *weights: Tensor) -> Tensor:
    """DuSell & Chiang's: at step t the rows that have been written and can still be read."""
    to_actions, to_vectors, to_output = weights
    actions, vectors = torch.softmax(sequence @ to_actions.T, -1), sequence @ to_vectors.T
    stack, reads = sequence.new_zeros((shape.B, 1, shape.D)), []
    zero = torch.zeros_like(stack)
    for t, (action, vector) in enumerate(zip(actions.unbind(1), vectors.unbind(1), strict=True)):
        a = action[:, :, None, None]
        pushed, same = torch.cat([vector[:, None], stack], 1), torch.cat([stack, zero], 1)
        popped = torch.cat([stack[:, 1:], zero, zero], 1)
        rows = min(t + 2, shape.T - t, shape.N)
        stack = (a[:, PUSH] * pushed + a[:, POP] * popped + a[:, NOOP] * same)[:, :rows]
        reads.append(stack[:, 0])
    return torch.stack(reads, 1) @ to_output.T


def _projections(sequence: Array, to_actions: Array, to_vectors: Array, to_output: Array) -> Array:
    """What the layer costs without a stack."""
    logits, vectors = sequence @ to_actions.T, sequence @ to_vectors.T
    return (vectors + logits.sum(-1, keepdims=True)) @ to_output.T
