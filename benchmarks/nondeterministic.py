"""The nondeterministic stack: `scan`, and a controller's loop, beside what the public code does.

DuSell & Chiang's code is no package, so its algorithm is restated here in PyTorch: a loop over steps of sums in a log
semiring, gamma of all pairs of steps, and zeta, which is gamma times a vector, where symbols carry vectors. Those have
positive numbers there, which are kept as logarithms.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.measure import BACKWARD, FORWARD, Competitor, Work
from benchmarks.scans import IMPLEMENTATIONS, TITLES

NAME = "nondeterministic"
PUBLIC = "log semiring (PyTorch)"
LIMIT = "the table once (JAX)"
NEVER = -1e30


class Shape(NamedTuple):
    """B sequences of T steps, of an automaton of Q states and S symbols that carry vectors of D numbers; 0 for none."""

    B: int
    T: int
    Q: int
    S: int
    D: int

    @property
    def n(self) -> int:
        """How many tops there are."""
        return self.Q * self.S

    @property
    def weights(self) -> int:
        """How many log weights an action has."""
        return self.n * (2 * self.n + self.Q)


SHAPES = (Shape(10, 60, 2, 3, 0), Shape(10, 60, 3, 3, 0), Shape(10, 60, 2, 3, 5), Shape(4, 150, 2, 3, 0))
QUICK = (Shape(2, 5, 2, 2, 3),)


def works(device: str, quick: bool) -> Iterator[Work]:
    """`scan` at every shape, and a controller's loop at the first."""
    drawn = (PUBLIC, "sequential (JAX)", "parallel (JAX)", "parallel (PyTorch)")
    for shape in QUICK if quick else SHAPES:
        inputs = _inputs(shape)
        competitors = [
            Competitor(PUBLIC, partial(_public, shape), inputs, "torch"),
            *(
                Competitor(
                    f"{method} ({TITLES[framework]})", partial(_scanned, framework, method, shape), inputs, framework
                )
                for framework in IMPLEMENTATIONS
                for method in ("sequential", "parallel")
            ),
            Competitor(LIMIT, partial(_table, shape), inputs, "jax"),
        ]
        for mode in (BACKWARD, FORWARD) if quick or shape is SHAPES[0] else (BACKWARD,):
            title = f"{NAME} with {shape.Q} states, {shape.S} symbols, vectors of {shape.D}, {mode}"
            yield Work(NAME, title, shape._asdict(), "T", mode, tuple(competitors), LIMIT, PUBLIC, drawn)
    shape = (QUICK if quick else SHAPES)[0]
    inputs = (*_inputs(shape), _map(shape))
    competitors = [
        Competitor(PUBLIC, partial(_public_controller, shape), inputs, "torch"),
        *(
            Competitor(
                f"{method} ({TITLES[framework]})", partial(_unrolled, framework, method, shape), inputs, framework
            )
            for framework in IMPLEMENTATIONS
            for method in ("sequential", "chunked")
        ),
        Competitor(LIMIT, partial(_table, shape), inputs, "jax"),
    ]
    drawn = (PUBLIC, "sequential (JAX)", "chunked (JAX)", "chunked (PyTorch)")
    title = f"{NAME} of a controller, {BACKWARD}"
    yield Work(
        f"{NAME} of a controller", title, shape._asdict(), "T", BACKWARD, tuple(competitors), LIMIT, PUBLIC, drawn
    )


def _inputs(shape: Shape) -> tuple[np.ndarray, ...]:
    """Log weights; and vectors if there are any, whose numbers are positive, as those of the public code are."""
    rng = np.random.default_rng(0)
    actions = rng.standard_normal((shape.B, shape.T, shape.weights), np.float32)
    return (actions, np.exp(rng.standard_normal((shape.B, shape.T, shape.D), np.float32))) if shape.D else (actions,)


def _map(shape: Shape) -> np.ndarray:
    """From a read to what is added to the next log weights."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((shape.n * max(shape.D, 1), shape.weights), np.float32)


def _empty(framework: str, shape: Shape, like: Any) -> Any:
    """A stack with the bottom alone; `scan` and `unroll` make room for their steps."""
    options = {} if framework == "jax" else {"device": like.device}
    sizes = {"states": shape.Q, "symbols": shape.S, "batch_shape": (shape.B,), "dtype": like.dtype}
    return IMPLEMENTATIONS[framework].nondeterministic.empty(1, (shape.D,), **sizes, **options)


def _scanned(framework: str, method: str, shape: Shape, actions: Any, elements: Any = None) -> Any:
    module = IMPLEMENTATIONS[framework].nondeterministic
    return module.scan(_empty(framework, shape, actions), actions, elements, method=method)[1]


def _unrolled(framework: str, method: str, shape: Shape, *inputs: Any) -> Any:
    """A controller whose log weights depend on the read before."""
    xp, (*inputs, weight) = jnp if framework == "jax" else torch, inputs

    def controller(carry: Any, inputs: Any, read: Any) -> Any:
        action, *element = inputs
        action = action + xp.tanh(read.reshape(shape.B, -1) @ weight)
        return carry, action, element[0] if element else None, read

    state, carry = _empty(framework, shape, inputs[0]), xp.zeros_like(inputs[0][:, 0, 0])
    promises = {"starts_empty": True, "final_states": False}
    unroll = IMPLEMENTATIONS[framework].unroll
    return unroll(controller, carry, state, tuple(inputs), method=method, **promises)[1]


def _table(shape: Shape, actions: Array, *_: Array) -> Array:
    """As many numbers as W has, made by one product of each batch entry."""
    x = actions[..., : shape.n].reshape(shape.B, shape.T * shape.n, 1)
    return x @ jnp.swapaxes(x, 1, 2)


def _public(shape: Shape, actions: Tensor, elements: Tensor | None = None) -> Tensor:
    """The loop over steps."""
    stack, steps = _LogSemiring(shape, actions), _steps(shape, elements)
    return torch.stack([stack.step(*each) for each in zip(actions.unbind(1), steps, strict=True)], 1)


def _public_controller(shape: Shape, *inputs: Tensor) -> Tensor:
    """The loop over steps of the same controller, which has seen the read of the step before."""
    actions, *elements, weight = inputs
    stack = _LogSemiring(shape, actions)
    reads = [stack.read_of_bottom()]
    for action, element in zip(actions.unbind(1), _steps(shape, *elements), strict=True):
        reads.append(stack.step(action + torch.tanh(reads[-1].reshape(shape.B, -1) @ weight), element))
    return torch.stack(reads[:-1], 1)


def _steps(shape: Shape, elements: Tensor | None = None) -> Any:
    return [None] * shape.T if elements is None else elements.unbind(1)


class _LogSemiring:
    """Gamma and zeta by the step they lead to: (B, i, Q, S, Q, S), i from the bottom's -1 on."""

    def __init__(self, shape: Shape, like: Tensor) -> None:
        self.shape, (b, _, q, s, d) = shape, shape
        first = like.new_full((b, 1, q, s, q, s), NEVER)
        first[:, :, 0, 0, 0, 0] = 0
        self.gamma, self.zeta = [first], [first.new_full((*first.shape, d), NEVER)]
        bottom = like.new_full((b, q, s), NEVER)
        bottom[:, 0, 0] = 0
        self.alpha = [bottom, bottom]

    def read_of_bottom(self) -> Tensor:
        likely = torch.exp(self.alpha[0])
        return likely if not self.shape.D else 0 * likely[..., None].expand(*likely.shape, self.shape.D)

    def step(self, action: Tensor, element: Any) -> Tensor:
        b, _, q, s, d = self.shape
        n = q * s
        push, pop, replace = action.split((n * n, n * q, n * n), -1)
        push, replace = (each.reshape(b, 1, q, s, q, s) for each in (push, replace))
        last, pop = self.gamma[-1], pop.reshape(b, 1, 1, 1, q, s, q)
        gone = torch.logsumexp(last[:, 1:, ..., None] + pop, (4, 5))
        self.gamma.append(_next(self.gamma, push, replace, gone))
        joint = torch.stack(self.alpha, 1)[..., None, None] + self.gamma[-1]
        self.alpha.append(torch.logsumexp(joint, (1, 2, 3)))
        total = torch.logsumexp(self.alpha[-1], (1, 2))[:, None, None]
        if not d:
            return torch.exp(self.alpha[-1] - total)
        pushed = push[..., None] + torch.log(element)[:, None, None, None, None, None]
        self.zeta.append(_next(self.zeta, pushed, replace[..., None], gone[..., None]))
        joint = torch.stack(self.alpha[:-1], 1)[..., None, None, None] + self.zeta[-1]
        return torch.exp(torch.logsumexp(joint, (1, 2, 3)) - total[..., None])


def _next(table: list[Tensor], push: Tensor, replace: Tensor, gone: Tensor) -> Tensor:
    """Gamma or zeta of one more step, for every earlier one; zeta has one more axis."""
    last = table[-1]
    replaced = torch.logsumexp(last[:, :, :, :, :, :, None, None] + replace[:, :, None, None], (4, 5))
    if not gone.shape[1]:
        return torch.cat([replaced, push], 1)
    widths = (0, 0) * (last.ndim - 2)
    below = [pad(each, (*widths, 0, last.shape[1] - each.shape[1]), value=NEVER) for each in table[:-1]]
    # (B, i, k, Q, S, u, y, r)
    popped = torch.stack(below, 2)[:, :, :, :, :, :, :, None] + gone[:, None, :, None, None]
    popped = torch.logsumexp(popped, (2, 5)).transpose(4, 5)
    return torch.cat([torch.logaddexp(replaced, popped), push], 1)
