"""Backward passes that recompute instead of storing: what `jax.checkpoint` is to the JAX files.

`torch.utils.checkpoint` fails under `torch.func`. This composes with vmap, jacfwd, jacrev and hessian.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffstack.torch_impl._arrays import without_autocast


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
        needed, arrays = ctx.needs_input_grad[1:], ctx.saved_tensors

        def of_wanted(*wanted: Tensor) -> tuple[Tensor, ...]:
            rest = iter(wanted)
            return ctx.function(*(next(rest) if need else array for array, need in zip(arrays, needed, strict=True)))

        wanted = [array for array, need in zip(arrays, needed, strict=True) if need]
        gradients = iter(_pull_back(of_wanted, wanted, cotangents))
        return None, *(next(gradients) if need else None for need in needed)

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


def _pull_back(
    function: Callable[..., tuple[Tensor, ...]], arrays: list[Tensor], cotangents: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients of `arrays`, which can be differentiated again where grad mode is on."""
    twice = torch.is_grad_enabled()
    with torch.enable_grad():
        copies = [array.view_as(array) for array in arrays]
    # Under `torch.func` they are not, and need its own, slower way.
    if not all(copy.requires_grad for copy in copies):
        return torch.func.vjp(function, *arrays)[1](cotangents)
    with torch.enable_grad():
        pairs = zip(function(*copies), cotangents, strict=True)
    outputs, cotangents = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
    return torch.autograd.grad(outputs, copies, cotangents, create_graph=twice, allow_unused=True)


def recompute(function: Callable[..., tuple[Tensor, ...]], *arrays: Tensor) -> tuple[Tensor, ...]:
    """`function(*arrays)`, keeping only `arrays` for the backward pass."""

    def run(*arrays: Tensor) -> tuple[Tensor, ...]:
        # Autocast would round products, where stepping has none; and here also in the backward pass.
        with without_autocast(arrays[0]):
            return function(*arrays)

    # A custom jvp cannot be compiled, and a compiler chooses what to recompute by itself.
    if torch.compiler.is_compiling():
        return run(*arrays)
    return _Recompute.apply(run, *arrays)
