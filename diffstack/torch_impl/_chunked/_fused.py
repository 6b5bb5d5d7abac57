"""One step of a few rows in few operations, forward and backward: what XLA's fusion is to the JAX files."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl.superposition import _superposed


class _Superposed(torch.autograd.Function):
    # Not `setup_context`, which costs as much as the step: `torch.func` never sees this.
    @staticmethod
    def forward(ctx: Any, buffer: Tensor, actions: Tensor, element: Tensor) -> Tensor:
        ctx.save_for_backward(buffer, actions, element)
        ctx.save_for_forward(buffer, actions, element)
        push, pop, noop = _weights(actions)
        stepped = noop * buffer[..., :-1, :]
        stepped.addcmul_(pop, buffer[..., 1:, :])
        stepped[..., 1:, :].addcmul_(push, buffer[..., :-2, :])
        stepped[..., 0, :].addcmul_(push[..., 0], element)
        return stepped

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        buffer, actions, element = ctx.saved_tensors
        push, pop, noop = _weights(actions)
        top, rest = cotangent[..., 0, :], cotangent[..., 1:, :]
        of_buffer = torch.nn.functional.pad(noop * cotangent, (0, 0, 0, 1))
        of_buffer[..., 1:, :].addcmul_(pop, cotangent)
        of_buffer[..., :-2, :].addcmul_(push, rest)
        of_push = _dot(rest, buffer[..., :-2, :]) + torch.sum(top * element, -1)
        of_actions = torch.stack(
            [of_push, _dot(cotangent, buffer[..., 1:, :]), _dot(cotangent, buffer[..., :-1, :])], -1
        )
        return of_buffer, of_actions, push[..., 0] * top

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        buffer, actions, element = ctx.saved_tensors
        zeros = (torch.zeros_like(each) for each in ctx.saved_tensors)
        d_buffer, d_actions, d_element = (z if t is None else t for z, t in zip(zeros, tangents, strict=True))
        moved = _superposed(d_buffer, actions, d_element) + _superposed(buffer, d_actions, element)
        return moved[..., :-1, :]


def _weights(actions: Tensor) -> tuple[Tensor, ...]:
    """Those of push, pop and noop, in this order, to multiply a buffer with."""
    return actions[..., None, None].unbind(-3)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the products of all entries of a buffer."""
    return torch.sum(a * b, (-2, -1))


def superposed(
    buffer: Float[Tensor, "*batch slots dim"], actions: Float[Tensor, "*batch 3"], element: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch slots-1 dim"]:
    """The definition's step without its last row, in the fewest operations."""
    # Under `torch.func` and a compiler the definition itself does as well.
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return _superposed(buffer, actions, element)[..., :-1, :]
    return _Superposed.apply(buffer, actions, element)
