"""The neural stack and queue as levels, in few operations: a step of a chunk costs PyTorch by the operation.

Put the elements on a line, the end that is popped and read at the level `end`, and let a slot reach from one boundary
down to the next: its strength is what lies between. The own pushes of a chunk add boundaries, and a pop of u lowers the
end, and with it every boundary above it:

    end' = max(end - u, bottom)          boundary' = min(boundary, end')

A read of strength 1 sees what lies between the end and `low` = end - 1. What `_line.py` says of strengths and of
`room`, these say of boundaries, ties included: with `up` and `down` the boundaries of a slot,

    s = up - down          room = max(0, up - low)          weight = min(s, room)

where a tie of a boundary with the end keeps the boundary. A level is a sum of strengths, which would lose what is small
in them, so levels are float64.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl._arrays import matmul
from diffstack.torch_impl._ties import block_at_zero, smaller


def lowered(
    boundaries: Float[Tensor, "*batch levels"],
    end: Float[Tensor, "*batch"],
    bottom: Float[Tensor, "*batch"],
    pop: Float[Tensor, "*batch"],
) -> tuple[Float[Tensor, "*batch levels"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Boundaries and end after a pop; and the level that it asked for, which may lie below the bottom."""
    # As in the definition, a pop of 0 has no gradient.
    asked = end - block_at_zero(pop)
    after = torch.where(asked < bottom, bottom, asked)
    return torch.where(asked[..., None] < boundaries, after[..., None], boundaries), after, asked.detach()


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
    low = (end - 1)[..., None]
    weigh = _weights if _is_traced() else _Weights.apply
    weights = weigh(up, down, low)
    dtype = torch.promote_types(values.dtype, torch.float32)
    return matmul(weights.to(dtype)[..., None, :], values.to(dtype))[..., 0, :]


def _is_traced() -> bool:
    """Under `torch.func` and a compiler, plain operations do as well."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _weights(up: Tensor, down: Tensor, low: Tensor) -> Tensor:
    return smaller(up - down, block_at_zero(up - low))


class _Weights(torch.autograd.Function):
    """`_weights`, whose derivatives are a few products with masks."""

    @staticmethod
    def forward(ctx: Any, up: Tensor, down: Tensor, low: Tensor) -> Tensor:
        ctx.save_for_backward(up, down, low)
        ctx.save_for_forward(up, down, low)
        return torch.maximum(up, low) - torch.maximum(down, low)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        up, down, low = ctx.saved_tensors
        seen = cotangent * (up > low)
        of_strength, of_room = seen * (down >= low), seen * (down <= low)
        return of_strength + of_room, -of_strength, -torch.sum(of_room, -1, keepdim=True)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        up, down, low = ctx.saved_tensors
        d_up, d_down, d_low = (0 if tangent is None else tangent for tangent in tangents)
        seen = (up > low).to(up.dtype)
        return seen * (down >= low) * (d_up - d_down) + seen * (down <= low) * (d_up - d_low)
