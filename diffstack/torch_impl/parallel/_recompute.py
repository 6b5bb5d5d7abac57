"""Backward passes that recompute instead of storing: what `jax.checkpoint` is to the JAX files.

`torch.utils.checkpoint` fails under `torch.func`. This composes with vmap, jacfwd, jacrev and hessian.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(function: Callable[..., tuple[Tensor, ...]], *arrays: Tensor) -> tuple[Tensor, ...]:
        return function(*arrays)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, *arrays = inputs
        ctx.save_for_backward(*arrays)
        ctx.save_for_forward(*arrays)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        pull_back: Any = torch.func.vjp(ctx.function, *ctx.saved_tensors)[1]
        return None, *pull_back(cotangents)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        # PyTorch does not nest forward modes, so the tangent goes through the transpose of the transpose.
        output, pull_back = torch.func.vjp(ctx.function, *ctx.saved_tensors)[:2]
        push_forward: Any = torch.func.vjp(pull_back, tuple(torch.zeros_like(array) for array in output))[1]
        zeros = (torch.zeros_like(array) for array in ctx.saved_tensors)
        return push_forward(tuple(zero if t is None else t for zero, t in zip(zeros, tangents, strict=True)))[0]

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], function: Callable[..., tuple[Tensor, ...]], *arrays: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        # Not `generate_vmap_rule`: where an output has no batch, it adds up that output's gradient once for every
        # entry of the batch.
        output = _Recompute.apply(torch.vmap(function, in_dims=in_dims[1:]), *arrays)
        return output, (0,) * len(output)


def recompute(function: Callable[..., tuple[Tensor, ...]], *arrays: Tensor) -> tuple[Tensor, ...]:
    """`function(*arrays)`, keeping only `arrays` for the backward pass."""

    def run(*arrays: Tensor) -> tuple[Tensor, ...]:
        # Autocast would round products, where stepping has none; and here also in the backward pass.
        with torch.autocast(arrays[0].device.type, enabled=False):
            return function(*arrays)

    # A custom jvp cannot be compiled, and a compiler chooses what to recompute by itself.
    if torch.compiler.is_compiling():
        return run(*arrays)
    return _Recompute.apply(run, *arrays)
