"""What the library is compared with: the notebook's way, plain loops, and the limits."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import torch
from jax import Array, lax, nn
from stack_attention import Stack, combine_superpositions
from torch import Tensor

from diffstack.actions import NOOP, POP, PUSH


class NotebookStack:
    """The notebook's stack in eager PyTorch: every operation writes or reads the whole buffer."""

    def __init__(self, shape: tuple[int, int], like: Tensor) -> None:
        self.buffer = like.new_zeros(shape)
        self.index = torch.nn.functional.one_hot(torch.tensor(0, device=like.device), shape[0]).to(like.dtype)

    def push(self, element: Tensor) -> None:
        self.buffer = self.buffer + self.index[:, None] * (element[None, :] - self.buffer)
        self.index = torch.roll(self.index, 1)

    def pop(self) -> Tensor:
        self.index = torch.roll(self.index, -1)
        return self.index @ self.buffer


def notebook_reverse(sequence: Tensor) -> Tensor:
    """The notebook's ListReverser: n pushes on one stack, n pops from it onto another."""
    first, second = NotebookStack(sequence.shape, sequence), NotebookStack(sequence.shape, sequence)
    for element in sequence:
        first.push(element)
    for _ in range(len(sequence)):
        second.push(first.pop())
    return second.buffer


def scan_reverse(sequence: Array) -> Array:
    """The notebook's operations in JAX, each loop a `lax.scan`."""

    def push(state: tuple[Array, Array], element: Array) -> tuple[tuple[Array, Array], None]:
        buffer, index = state
        return (buffer + index[:, None] * (element - buffer), jnp.roll(index, 1)), None

    def pop_push(states: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        (buffer, index), second = states
        index = jnp.roll(index, -1)
        return ((buffer, index), push(second, index @ buffer)[0]), None

    empty = jnp.zeros_like(sequence), nn.one_hot(0, len(sequence), dtype=sequence.dtype)
    first, _ = lax.scan(push, empty, sequence)
    (_, (buffer, _)), _ = lax.scan(pop_push, (first, empty), None, len(sequence))
    return buffer


def superposition_scan(slots: int, actions: Array, elements: Array) -> Array:
    """A `lax.scan` over the superposition stack's equation, for a batch."""

    def step(stack: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        action, element = inputs
        pushed = jnp.concatenate([element[:, None], stack[:, :-1]], 1)
        popped = jnp.concatenate([stack[:, 1:], jnp.zeros_like(stack[:, :1])], 1)
        a = action[:, :, None, None]
        stack = a[:, PUSH] * pushed + a[:, POP] * popped + a[:, NOOP] * stack
        return stack, stack[:, 0]

    batch, _, dim = elements.shape
    empty = jnp.zeros((batch, slots, dim), elements.dtype)
    inputs = jnp.moveaxis(actions, 1, 0), jnp.moveaxis(elements, 1, 0)
    return jnp.moveaxis(lax.scan(step, empty, inputs)[1], 0, 1)


def superposition_loop(slots: int, actions: Tensor, elements: Tensor) -> Tensor:
    """A Python loop over the superposition stack's equation, for a batch."""
    stack, reads = elements.new_zeros(len(elements), slots, elements.shape[-1]), []
    for action, element in zip(actions.unbind(1), elements.unbind(1), strict=True):
        pushed = torch.cat([element[:, None], stack[:, :-1]], 1)
        popped = torch.cat([stack[:, 1:], torch.zeros_like(stack[:, :1])], 1)
        a = action[:, :, None, None]
        stack = a[:, PUSH] * pushed + a[:, POP] * popped + a[:, NOOP] * stack
        reads.append(stack[:, 0])
    return torch.stack(reads, 1)


def stack_attention(slots: int, actions: Tensor, elements: Tensor) -> Tensor:
    """The superposition stack of the public library stack-attention-pytorch, driven step by step, for a batch."""
    batch, _, dim = elements.shape
    stack = Stack(depth=slots, dim=dim).compile(validate=False)
    state, reads = stack.init_state(batch, 1, elements.device, elements.dtype), []
    for action, element in zip(actions.unbind(1), elements.unbind(1), strict=True):
        state = combine_superpositions(stack.transition(state, element[:, None]), action[:, None])
        reads.append(stack.readout(state)[:, 0])
    return torch.stack(reads, 1)


def pointer_scan(slots: int, actions: Array, elements: Array) -> Array:
    """A `lax.scan` over the pointer stack's equations, for a batch."""

    def step(state: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (buffer, index), (action, element) = state, inputs
        push, pop, noop = (action[:, code, None] for code in (PUSH, POP, NOOP))
        weight = (push * index)[..., None]
        buffer = (1 - weight) * buffer + weight * element[:, None]
        index = push * jnp.roll(index, 1, -1) + pop * jnp.roll(index, -1, -1) + noop * index
        return (buffer, index), jnp.einsum("bn,bnd->bd", jnp.roll(index, -1, -1), buffer)

    inputs = jnp.moveaxis(actions, 1, 0), jnp.moveaxis(elements, 1, 0)
    batch, _, dim = elements.shape
    index = nn.one_hot(jnp.zeros(batch, jnp.int32), slots, dtype=elements.dtype)
    return jnp.moveaxis(lax.scan(step, (jnp.zeros((batch, slots, dim), elements.dtype), index), inputs)[1], 0, 1)


def pointer_loop(slots: int, actions: Tensor, elements: Tensor) -> Tensor:
    """A Python loop over the pointer stack's equations, for a batch."""
    buffer = elements.new_zeros(len(elements), slots, elements.shape[-1])
    index, reads = elements.new_zeros(len(elements), slots), []
    index[:, 0] = 1
    for action, element in zip(actions.unbind(1), elements.unbind(1), strict=True):
        push, pop, noop = (action[:, code, None] for code in (PUSH, POP, NOOP))
        weight = (push * index)[..., None]
        buffer = (1 - weight) * buffer + weight * element[:, None]
        index = push * torch.roll(index, 1, -1) + pop * torch.roll(index, -1, -1) + noop * index
        reads.append(torch.einsum("bn,bnd->bd", torch.roll(index, -1, -1), buffer))
    return torch.stack(reads, 1)


def discrete_loop(slots: int, actions: Tensor, elements: Tensor) -> Tensor:
    """A Python list of the rows on each stack."""
    reads = []
    for codes, rows in zip(actions.tolist(), elements.unbind(0), strict=True):
        stack = [torch.zeros_like(rows[0])]
        for code, row in zip(codes, rows.unbind(0), strict=True):
            if code == PUSH and len(stack) <= slots:
                stack.append(row)
            elif code == POP and len(stack) > 1:
                stack.pop()
            reads.append(stack[-1])
    return torch.stack(reads).reshape(elements.shape)


def _neural_loop(nearest_first: Callable[[int], range]) -> Callable[[int, Tensor, Tensor], Tensor]:
    """A neural stack or queue as its paper writes it: at every step a loop over the elements, for a batch."""

    def run(slots: int, actions: Tensor, elements: Tensor) -> Tensor:
        del slots  # it grows
        strengths: list[Tensor] = []
        values = elements.unbind(1)
        reads = []
        for t, action in enumerate(actions.unbind(1)):
            to_pop = action[:, POP]
            for i in nearest_first(t):
                before = strengths[i]
                strengths[i] = torch.relu(before - to_pop)
                to_pop = torch.relu(to_pop - before)
            strengths.append(action[:, PUSH])
            to_read = torch.ones_like(to_pop)
            read = torch.zeros_like(values[0])
            for i in nearest_first(t + 1):
                read = read + torch.minimum(strengths[i], to_read)[:, None] * values[i]
                to_read = torch.relu(to_read - strengths[i])
            reads.append(read)
        return torch.stack(reads, 1)

    return run


neural_stack_loop = _neural_loop(lambda count: range(count - 1, -1, -1))
neural_queue_loop = _neural_loop(range)
