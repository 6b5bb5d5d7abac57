"""Backward passes that recompute instead of storing: what `jax.checkpoint` is to the JAX files."""

from collections.abc import Callable

import torch
from torch import Tensor


class _Recompute(torch.autograd.Function):
    """`torch.utils.checkpoint` fails under `torch.func`; this composes with vmap, jacfwd, jacrev and hessian."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function, *arrays):
        return function(*arrays)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.function, *arrays = inputs
        ctx.save_for_backward(*arrays)
        ctx.save_for_forward(*arrays)

    @staticmethod
    def backward(ctx, *cotangents):
        _, pull_back = torch.func.vjp(ctx.function, *ctx.saved_tensors)
        return None, *pull_back(cotangents)

    @staticmethod
    def jvp(ctx, _, *tangents):
        # PyTorch does not nest forward modes, so the tangent goes through the transpose of the transpose.
        output, pull_back = torch.func.vjp(ctx.function, *ctx.saved_tensors)
        _, push_forward = torch.func.vjp(pull_back, tuple(torch.zeros_like(array) for array in output))
        zeros = (torch.zeros_like(array) for array in ctx.saved_tensors)
        return push_forward(tuple(zero if t is None else t for zero, t in zip(zeros, tangents, strict=True)))[0]


def recompute(function: Callable[..., tuple[Tensor, ...]], *arrays: Tensor) -> tuple[Tensor, ...]:
    """`function(*arrays)`, keeping only `arrays` for the backward pass."""
    # A custom jvp cannot be compiled, and a compiler chooses what to recompute by itself.
    if torch.compiler.is_compiling():
        return function(*arrays)
    return _Recompute.apply(function, *arrays)
