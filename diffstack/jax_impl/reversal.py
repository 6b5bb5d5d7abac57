"""Reverse a sequence with two stacks: what the first pops, the second is pushed."""

import math
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffstack import _checks
from diffstack.actions import POP, PUSH
from diffstack.jax_impl import pointer
from diffstack.jax_impl._arrays import as_array, sharded_like


def reverse(
    sequence: Array, *, stack: Any = pointer, method: Literal["auto", "sequential", "parallel"] = "auto"
) -> Array:
    """Reverse a sequence by pushing it on a stack, popping it, and pushing what was popped on a second stack.

    Args:
        sequence: (n, *element); `vmap` for batches.
        stack: a family that is a stack, such as `diffstack.jax_impl.pointer`; it says which dtypes it takes.
        method: that of the family's `scan`; for the pointer, of its `push_all` and `pop_all`.

    Returns:
        The sequence, last element first, the same bits for normal values. Its gradient is the reversal's too.

    Raises:
        TypeError: a family that is not a stack or of the other framework, a dtype that the family does not take.
        ValueError: a scalar, an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl.reversal import reverse
        >>> reverse(jnp.asarray([1.0, 2.0, 3.0])).tolist()
        [3.0, 2.0, 1.0]
    """
    sequence = as_array("sequence", sequence)
    family = _checks.check_stack(stack, "diffstack.jax_impl")
    _checks.check_sequence("sequence", sequence, family)
    _checks.check_choice("method", method, ("auto", *family.methods))
    return _reverse(sequence, stack, method, family.only_moves) if len(sequence) else sequence


@partial(jax.jit, static_argnames=("stack", "method", "only_moves"))
def _reverse(sequence: Array, stack: Any, method: str, only_moves: bool) -> Array:
    # On a mesh with explicit axes a sequence that is in parts would have to say where each of its parts goes.
    sequence = sharded_like(sequence, sequence, 0)
    rows = sequence.reshape(len(sequence), math.prod(sequence.shape[1:]))
    if not only_moves:
        return _by_two_stacks(rows, stack, method).reshape(sequence.shape)
    # Where an element goes does not depend on it, so the stacks carry addresses, once, while this is compiled, and each
    # element moves once. The transpose of a scatter is a gather; that of a gather would be a sum.
    places = _places(len(rows), stack, method)
    moved = jnp.zeros_like(rows).at[places].set(rows, mode="promise_in_bounds", unique_indices=True)
    return moved.reshape(sequence.shape)


@cache
def _places(n: int, stack: Any, method: str) -> np.ndarray:
    """Where each element goes, by a program that is compiled apart, whatever is traced around it."""
    addresses = np.arange(n, dtype=np.int32)[:, None]
    carry = jax.jit(_by_two_stacks, static_argnums=(1, 2)).lower(addresses, stack, method).compile()
    return np.argsort(np.asarray(carry(addresses))[:, 0]).astype(np.int32)


def _by_two_stacks(rows: Array, stack: Any, method: str) -> Array:
    n, dim = rows.shape
    empty = stack.empty(n, (dim,), dtype=rows.dtype)
    # Some families run pushes alone and pops alone faster than a scan that can do both.
    if hasattr(stack, "push_all"):
        _, popped = stack.pop_all(stack.push_all(empty, rows, method=method), n, method=method)
        return stack.contents(stack.push_all(empty, popped, method=method))
    # The read after the last push is the last element: n pushes and n - 1 pops read every element once.
    elements = jnp.concatenate([rows, jnp.zeros_like(rows[1:])])
    _, reads = stack.scan(empty, _program(stack, rows, n, n - 1), elements, method=method)
    second, _ = stack.scan(empty, _program(stack, rows, n, 0), reads[n - 1 :], method=method)
    return stack.contents(second)


def _program(stack: Any, rows: Array, pushes: int, pops: int) -> Array:
    codes = jnp.asarray([PUSH] * pushes + [POP] * pops, jnp.int32)
    return stack.encode(codes, dtype=rows.dtype)
