"""Reverse a sequence with two stacks: what the first pops, the second is pushed."""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from diffstack import _checks
from diffstack.actions import POP, PUSH
from diffstack.torch_impl import pointer
from diffstack.torch_impl._arrays import as_array, run


def reverse(
    sequence: Tensor, *, stack: Any = pointer, method: Literal["auto", "sequential", "parallel"] = "auto"
) -> Tensor:
    """Reverse a sequence by pushing it on a stack, popping it, and pushing what was popped on a second stack.

    Args:
        sequence: (n, *element); `vmap` for batches.
        stack: a family that is a stack, such as `diffstack.torch_impl.pointer`; it says which dtypes it takes.
        method: that of the family's `scan`; for the pointer, of its `push_all` and `pop_all`.

    Returns:
        The sequence, last element first, the same bits for normal values. Its gradient is the reversal's too.

    Raises:
        TypeError: a family that is not a stack or of the other framework, a dtype that the family does not take.
        ValueError: a scalar, an unknown method.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.reversal import reverse
        >>> reverse(torch.tensor([1.0, 2.0, 3.0])).tolist()
        [3.0, 2.0, 1.0]
    """
    sequence = as_array("sequence", sequence)
    family = _checks.check_stack(stack, "diffstack.torch_impl")
    _checks.check_sequence("sequence", sequence, family)
    _checks.check_choice("method", method, ("auto", *family.methods))
    if not len(sequence):
        return sequence
    return run(_reverse, sequence, stack=stack, method=method, only_moves=family.only_moves)


def _reverse(sequence: Tensor, stack: Any, method: str, only_moves: bool) -> Tensor:
    rows = sequence.reshape(len(sequence), math.prod(sequence.shape[1:]))
    if not only_moves:
        return _by_two_stacks(rows, stack, method).reshape(sequence.shape)
    # Where an element goes does not depend on it, so the stacks carry addresses, and each element moves once.
    addresses = torch.arange(len(rows), dtype=torch.int32, device=rows.device)[:, None]
    order = _by_two_stacks(addresses, stack, method)[:, 0]
    return rows.index_select(0, order).reshape(sequence.shape)


def _by_two_stacks(rows: Tensor, stack: Any, method: str) -> Tensor:
    n, dim = rows.shape
    empty = stack.empty(n, (dim,), dtype=rows.dtype, device=rows.device)
    # Some families run pushes alone and pops alone faster than a scan that can do both.
    if hasattr(stack, "push_all"):
        _, popped = stack.pop_all(stack.push_all(empty, rows, method=method), n, method=method)
        return stack.contents(stack.push_all(empty, popped, method=method))
    # The read after the last push is the last element: n pushes and n - 1 pops read every element once.
    elements = torch.cat([rows, torch.zeros_like(rows[1:])])
    _, reads = stack.scan(empty, _program(stack, rows, n, n - 1), elements, method=method)
    second, _ = stack.scan(empty, _program(stack, rows, n, 0), reads[n - 1 :], method=method)
    return stack.contents(second)


def _program(stack: Any, rows: Tensor, pushes: int, pops: int) -> Tensor:
    codes = torch.tensor([PUSH] * pushes + [POP] * pops, dtype=torch.int32, device=rows.device)
    return stack.encode(codes, dtype=rows.dtype)
