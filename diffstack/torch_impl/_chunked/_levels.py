"""The neural stack and queue as levels, in few operations: a step of a chunk costs PyTorch by the operation.

Put the elements on a line, the end that is popped and read at the level `end`, and let a slot reach from one boundary
down to the next: its strength is what lies between. The pushes of a chunk add boundaries, and a pop of u lowers the
end, and with it every boundary above it:

    end' = max(end - u, bottom)          boundary' = min(boundary, end')

A read of strength 1 sees what lies between the end and `low` = end - 1. What `_line.py` says of strengths and of
`room`, these say of boundaries, ties included: with `up` and `down` the boundaries of a slot,

    s = up - down          room = max(0, up - low)          weight = min(s, room)

where a tie of a boundary with the end keeps the boundary, as `_ties.py` decides. A level is a sum of strengths, which
would lose what is small in them, so levels are float64.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl._arrays import matmul
from diffstack.torch_impl._parallel._chunking import pad
from diffstack.torch_impl._ties import (
    block_at_zero,
    higher,
    is_cut,
    weight_cotangents,
    weight_of_levels,
    weight_tangent,
)


def lowered(
    boundaries: Float[Tensor, "*batch levels"],
    end: Float[Tensor, "*batch"],
    bottom: Float[Tensor, "*batch"],
    pop: Float[Tensor, "*batch"],
) -> tuple[Float[Tensor, "*batch levels"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Boundaries and end after a pop; and the level that it asked for, which may lie below the bottom."""
    # As in the definition, a pop of 0 has no gradient.
    asked = end - block_at_zero(pop)
    after = higher(asked, bottom)
    return torch.where(is_cut(boundaries, asked), after[..., None], boundaries), after, asked.detach()


def as_levels(strengths: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In the dtype of levels."""
    # Apple's GPUs have no float64.
    return strengths if strengths.device.type == "mps" else strengths.to(torch.float64)


def read(
    up: Float[Tensor, "*batch slots"],
    down: Float[Tensor, "*batch slots"],
    end: Float[Tensor, "*batch"],
    values: Float[Tensor, "*batch slots dim"],
) -> Float[Tensor, "*batch dim"]:
    """The read of the slots between these boundaries."""
    weigh = weight_of_levels if _is_traced() else _Weights.apply
    return _product(weigh(up, down, (end - 1)[..., None]), values)


def read_lowered(
    levels: Float[Tensor, "*batch levels"],
    asked: Float[Tensor, "*batch"],
    top: Float[Tensor, "*batch"],
    end: Float[Tensor, "*batch"],
    values: Float[Tensor, "*batch slots dim"],
) -> Float[Tensor, "*batch dim"]:
    """The read of slots whose boundaries were these levels until a pop asked for one of them: up to `top` now."""
    if _is_traced():
        older = _lowered(levels, asked, top)
        return read(older[..., 1:], older[..., :-1], end, values)
    return _ReadLowered.apply(levels, asked, top, end, values)


def _is_traced() -> bool:
    """Under `torch.func` and a compiler, plain operations do as well."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _lowered(levels: Tensor, asked: Tensor, top: Tensor) -> Tensor:
    return torch.where(is_cut(levels, asked), top[..., None], levels)


def _product(weights: Tensor, values: Tensor) -> Tensor:
    dtype = torch.promote_types(values.dtype, torch.float32)
    return matmul(weights.to(dtype)[..., None, :], values.to(dtype))[..., 0, :]


class _Weights(torch.autograd.Function):
    """`weight_of_levels`, whose derivatives are a few products with masks."""

    @staticmethod
    def forward(ctx: Any, up: Tensor, down: Tensor, low: Tensor) -> Tensor:
        ctx.save_for_backward(up, down, low)
        ctx.save_for_forward(up, down, low)
        return torch.maximum(up, low) - torch.maximum(down, low)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return weight_cotangents(cotangent, *ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return weight_tangent(*ctx.saved_tensors, *(0 if tangent is None else tangent for tangent in tangents))


class _ReadLowered(torch.autograd.Function):
    """`read_lowered`, which keeps nothing of the size of the slots for each step."""

    @staticmethod
    def forward(ctx: Any, levels: Tensor, asked: Tensor, top: Tensor, end: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(levels, asked, top, end, values)
        ctx.save_for_forward(levels, asked, top, end, values)
        return _product(_Weights.apply(*_bounds(levels, asked, top, end)), values)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        levels, asked, top, end, values = ctx.saved_tensors
        bounds = _bounds(levels, asked, top, end)
        weights = _Weights.apply(*bounds)
        of_values = matmul(weights.to(cotangent.dtype)[..., None], cotangent[..., None, :]).to(values.dtype)
        of_weights = matmul(cotangent[..., None, :], values.to(cotangent.dtype).mT)[..., 0, :]
        of_up, of_down, of_low = weight_cotangents(of_weights.to(levels.dtype), *bounds)
        of_older = pad(of_up, -1, 1, 0) + pad(of_down, -1, 0, 1)
        gone = is_cut(levels, asked)
        of_top = torch.sum(torch.where(gone, of_older, 0), -1)
        return torch.where(gone, 0, of_older), None, of_top, of_low[..., 0], of_values

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        levels, asked, top, end, values = ctx.saved_tensors
        moved = (torch.zeros_like(x) if t is None else t for x, t in zip(ctx.saved_tensors, tangents, strict=True))
        d_levels, _, d_top, d_end, d_values = moved
        bounds = _bounds(levels, asked, top, end)
        d_older = torch.where(is_cut(levels, asked), d_top[..., None], d_levels)
        d_weights = weight_tangent(*bounds, d_older[..., 1:], d_older[..., :-1], d_end[..., None])
        return _product(d_weights, values) + _product(_Weights.apply(*bounds), d_values)


def _bounds(levels: Tensor, asked: Tensor, top: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the weights are made of."""
    older = _lowered(levels, asked, top)
    return older[..., 1:], older[..., :-1], (end - 1)[..., None]
