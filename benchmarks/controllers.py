"""A recurrent controller with a stack: `unroll` beside what the public codes do, and the controller without a stack.

The public codes are no packages, so their algorithms are restated here: DuSell & Chiang's superposition stack in
PyTorch, which keeps only the rows that a read can still see; a Haiku-like `lax.scan` over the whole buffer, as
DeepMind's Chomsky hierarchy benchmark has it; and a loop over the elements for the neural stack.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax
from torch import Tensor

from benchmarks.measure import BACKWARD, Competitor, Work
from benchmarks.scans import IMPLEMENTATIONS, TITLES, Shape
from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import FAMILIES, Family

NAME = "controllers"
UNITS, INPUTS = 20, 8
SHAPES = (Shape(10, 60, 60, 8), Shape(64, 100, 100, 16), Shape(32, 400, 400, 32), Shape(8, 1000, 1000, 64))
QUICK = (Shape(2, 40, 40, 32),)
PUBLIC = {"torch": "rows that are read (PyTorch)", "jax": "whole buffer (JAX)"}
ALONE = ("LSTM alone (JAX)", "LSTM alone (PyTorch)")
LIMIT = ALONE[0]
PROMISED = {"starts_empty": True, "final_states": False}


def works(device: str, quick: bool) -> Iterator[Work]:
    """Superposition at every shape; the other families with differentiable actions at one."""
    for name, family in FAMILIES.items():
        if not family.action or family.automaton:
            continue
        shapes = SHAPES if name == "superposition" else SHAPES[2:3]
        for shape in QUICK if quick else shapes:
            competitors = tuple(_competitors(family, shape, device))
            reference = PUBLIC["torch"] if name == "superposition" else "step (PyTorch)"
            drawn = ("step (JAX)", "chunked (JAX)", "both promises (JAX)", "both promises (PyTorch)")
            title = f"{name} of a controller, {BACKWARD}"
            yield Work(
                f"{NAME} with {name}", title, shape._asdict(), "T", BACKWARD, competitors, LIMIT, reference, drawn
            )


def _competitors(family: Family, shape: Shape, device: str) -> Iterator[Competitor]:
    inputs = _inputs(family, shape)
    if family.name == "superposition":
        yield Competitor(PUBLIC["torch"], partial(_rows, shape), inputs, "torch")
        yield Competitor(PUBLIC["jax"], partial(_whole_buffer, shape), inputs, "jax")
    if family.name == "neural_stack":
        yield Competitor("loop over elements (PyTorch)", partial(_elements, shape), inputs, "torch")
    for framework in IMPLEMENTATIONS:
        options = {"device": device} if framework == "torch" else {}
        run = partial(_unrolled, framework, family, shape, options)
        for title, more in (
            ("step", {"method": "sequential"}),
            ("chunked", {"method": "chunked"}),
            ("both promises", {"method": "chunked", **PROMISED}),
        ):
            yield Competitor(f"{title} ({TITLES[framework]})", partial(run, more), inputs, framework)
    for name, framework in zip(ALONE, IMPLEMENTATIONS, strict=True):
        yield Competitor(name, partial(_alone, framework, family, shape), inputs, framework)


def _inputs(family: Family, shape: Shape) -> tuple[np.ndarray, ...]:
    """The sequence, the weights of the cell, and those of the head."""
    rng, read = np.random.default_rng(0), len(family.ends) * shape.D
    sizes = ((INPUTS + read + UNITS, 4 * UNITS), (UNITS, len(family.action)), (UNITS, read))
    weights = [rng.standard_normal(size, np.float32) / np.sqrt(np.float32(size[0])) for size in sizes]
    return rng.standard_normal((shape.B, shape.T, INPUTS), np.float32), *weights


def _cell(xp: Any, family: Family, weights: Any, hidden: Any, input: Any, reads: Any) -> Any:
    """An LSTM, its action and what it pushes: the same words in both frameworks."""
    sigmoid = jax.nn.sigmoid if xp is jnp else torch.sigmoid
    cell, to_actions, to_vectors = weights
    h, c = hidden
    gates = xp.concatenate([input, *reads, h], -1) @ cell
    i, f, g, o = (gates[:, n * UNITS : (n + 1) * UNITS] for n in range(4))
    c = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
    h = sigmoid(o) * xp.tanh(c)
    logits, vectors = h @ to_actions, xp.tanh(h @ to_vectors)
    if family.strengths:
        return (h, c), sigmoid(logits), vectors
    return (h, c), jax.nn.softmax(logits, -1) if xp is jnp else torch.softmax(logits, -1), vectors


def _start(xp: Any, sequence: Any) -> Any:
    """Zeros for h and c."""
    return (xp.concatenate([xp.zeros_like(sequence[:, 0, :1])] * UNITS, -1),) * 2


def _unrolled(
    framework: str,
    family: Family,
    shape: Shape,
    options: dict[str, Any],
    more: dict[str, Any],
    sequence: Any,
    *weights: Any,
) -> Any:
    xp, implementation, ends = jnp if framework == "jax" else torch, IMPLEMENTATIONS[framework], len(family.ends)
    module = getattr(implementation, family.name)
    state = module.empty(shape.N, (shape.D,), batch_shape=(shape.B,), dtype=sequence.dtype, **options)

    def controller(hidden: Any, input: Any, read: Any) -> Any:
        hidden, actions, vectors = _cell(xp, family, weights, hidden, input, read if ends > 1 else (read,))
        pair = tuple(vectors[:, n * shape.D : (n + 1) * shape.D] for n in range(ends))
        return hidden, actions, pair if ends > 1 else vectors, hidden[0]

    return implementation.unroll(controller, _start(xp, sequence), state, sequence, **more)[1]


def _alone(framework: str, family: Family, shape: Shape, sequence: Any, *weights: Any) -> Any:
    """The controller, which reads zeros."""
    if framework == "torch":
        hidden, outputs = _start(torch, sequence), []
        nothing = [sequence.new_zeros((shape.B, shape.D))] * len(family.ends)
        for input in sequence.unbind(1):
            hidden, actions, vectors = _cell(torch, family, weights, hidden, input, nothing)
            outputs.append(hidden[0] + 0 * (actions.sum() + vectors.sum()))
        return torch.stack(outputs, 1)
    empty = [jnp.zeros((shape.B, shape.D))] * len(family.ends)

    def step(hidden: Any, input: Array) -> Any:
        hidden, actions, vectors = _cell(jnp, family, weights, hidden, input, empty)
        return hidden, hidden[0] + 0 * (actions.sum() + vectors.sum())

    return jnp.moveaxis(lax.scan(step, _start(jnp, sequence), jnp.moveaxis(sequence, 1, 0))[1], 0, 1)


def _rows(shape: Shape, sequence: Tensor, *weights: Tensor) -> Tensor:
    """DuSell & Chiang's: at step t the min(t, T - t) rows that have been written and can still be read."""
    hidden, stack, outputs = _start(torch, sequence), sequence.new_zeros((shape.B, 1, shape.D)), []
    zero = torch.zeros_like(stack)
    for t, input in enumerate(sequence.unbind(1)):
        hidden, actions, vectors = _cell(torch, FAMILIES["superposition"], weights, hidden, input, (stack[:, 0],))
        a = actions[:, :, None, None]
        pushed, same = torch.cat([vectors[:, None], stack], 1), torch.cat([stack, zero], 1)
        popped = torch.cat([stack[:, 1:], zero, zero], 1)
        rows = min(t + 2, shape.T - t)
        stack = (a[:, PUSH] * pushed + a[:, POP] * popped + a[:, NOOP] * same)[:, :rows]
        outputs.append(hidden[0])
    return torch.stack(outputs, 1)


def _whole_buffer(shape: Shape, sequence: Array, *weights: Array) -> Array:
    """DeepMind's: the three stacks that the actions lead to, weighted and added, in a `lax.scan`."""

    def step(state: Any, input: Array) -> Any:
        hidden, stack = state
        hidden, actions, vectors = _cell(jnp, FAMILIES["superposition"], weights, hidden, input, (stack[:, 0],))
        pushed = jnp.concatenate([vectors[:, None], stack[:, :-1]], 1)
        popped = jnp.concatenate([stack[:, 1:], jnp.zeros_like(stack[:, :1])], 1)
        stack = jnp.einsum("ba,abnd->bnd", actions, jnp.stack([pushed, popped, stack]))
        return (hidden, stack), hidden[0]

    empty = jnp.zeros((shape.B, shape.N, shape.D), sequence.dtype)
    _, outputs = lax.scan(step, (_start(jnp, sequence), empty), jnp.moveaxis(sequence, 1, 0))
    return jnp.moveaxis(outputs, 0, 1)


def _elements(shape: Shape, sequence: Tensor, *weights: Tensor) -> Tensor:
    """The neural stack as its paper writes it: at every step a loop over the elements."""
    hidden, read, outputs = _start(torch, sequence), sequence.new_zeros((shape.B, shape.D)), []
    strengths: list[Tensor] = []
    values: list[Tensor] = []
    for input in sequence.unbind(1):
        hidden, actions, vectors = _cell(torch, FAMILIES["neural_stack"], weights, hidden, input, (read,))
        left = actions[:, POP]
        for i in range(len(strengths) - 1, -1, -1):
            before = strengths[i]
            strengths[i] = torch.relu(before - left)
            left = torch.relu(left - before)
        strengths.append(actions[:, PUSH])
        values.append(vectors)
        wanted, read = torch.ones_like(left), torch.zeros_like(read)
        for strength, value in zip(reversed(strengths), reversed(values), strict=True):
            read = read + torch.minimum(strength, wanted)[:, None] * value
            wanted = torch.relu(wanted - strength)
        outputs.append(hidden[0])
    return torch.stack(outputs, 1)
