"""The pointer stack in chunks: the index steps, the buffer is read at every step and written once a chunk.

After some steps of a chunk, slot n holds what it held at the start times `decay[n]`, plus the chunk's element k times
`written[k, n]`. A write of weight w at the slots makes both (1 - w) times as large and adds the row w for the new
element. So with the slots `look` that a step reads,

    read = (look decay) @ buffer + (look written^T) @ elements          new buffer = decay buffer + written^T @ elements

and nothing as large as the buffer is made at a step. A ring has no end that stays empty: this form uses no promise.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack._plan import Plan
from diffstack.actions import PUSH
from diffstack.torch_impl._arrays import matmul, with_row
from diffstack.torch_impl.pointer import PointerState, _turned


class Window(NamedTuple):
    """What a chunk has done so far: (*batch, N), (*batch, N), (*batch, C, N) and the elements, (*batch, C, D)."""

    elements: Tensor
    pointer: Tensor
    decay: Tensor
    written: Tensor


def fit(state: PointerState, *, plan: Plan) -> PointerState:
    """The stack as it is."""
    return state


def open(state: PointerState, *, steps: int) -> tuple[tuple[Float[Tensor, "*batch slots dim"]], Window]:
    """The buffer, and nothing done yet."""
    buffer, index = state
    elements = buffer.new_zeros((*buffer.shape[:-2], steps, buffer.shape[-1]))
    written = index.new_zeros((*index.shape[:-1], steps, index.shape[-1]))
    return (buffer,), Window(elements, index, torch.ones_like(index), written)


def tick(
    window: Window,
    fixed: tuple[Float[Tensor, "*batch slots dim"]],
    place: int,
    actions: Float[Tensor, "*batch 3"],
    element: Float[Tensor, "*batch dim"],
) -> tuple[Window, Float[Tensor, "*batch dim"]]:
    """One step of the index, its write and its read."""
    elements, index, decay, written = window
    (buffer,) = fixed
    write = actions[..., PUSH, None] * index
    decay, written = (1 - write) * decay, (1 - write)[..., None, :] * written
    written = with_row(written, write, place)
    elements = with_row(elements, element, place)
    index = _turned(index, actions)
    look = torch.roll(index, -1, -1)[..., None, :]
    relay = matmul(look, torch.swapaxes(written, -1, -2))
    read = matmul(look * decay[..., None, :], buffer) + matmul(relay, elements)
    return Window(elements, index, decay, written), read[..., 0, :]


def close(
    state: PointerState,
    fixed: tuple[Float[Tensor, "*batch slots dim"]],
    window: Window,
    first: int,
    *,
    plan: Plan,
) -> PointerState:
    """The stack after the chunk."""
    (buffer,) = fixed
    buffer = window.decay[..., None] * buffer + matmul(torch.swapaxes(window.written, -1, -2), window.elements)
    return PointerState(buffer, window.pointer)


def end(state: PointerState, lengths: Any, *, plan: Plan) -> PointerState:
    """The stack as it is."""
    return state
