"""What lies between a public function and the kernel that computes it: arguments, the modes of PyTorch, results.

A kernel takes arrays only, with the axes of an element flattened into one: `(*batch, slots, dim)`. A public function
checks its arguments, flattens them, calls `run`, and gives its result the shape of the user's elements again.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.families import FLOATING, MOVABLE


def as_array(name: str, value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor; a Python number gets the dtype of `like`, and all get or have its device."""
    if like is not None and type(value) in (bool, int, float, complex):
        _checks.check_number(name, value, like.dtype)
        return torch.full((), value, dtype=like.dtype, device=like.device)
    if not isinstance(value, Tensor):
        _checks.bad_type(name, "a PyTorch tensor", type(value).__name__)
    if like is not None and value.device != like.device:
        _checks.bad_value(name, f"device {like.device}, that of the other arrays", f"device {value.device}")
    return value


def as_wide(name: str, value: Any, like: Tensor) -> Tensor:
    """`as_array`, cast up to the floating dtype of `like` where that loses nothing."""
    array = as_array(name, value, like)
    return array.to(like.dtype) if _checks.is_narrower(array.dtype, like.dtype) else array


def as_state(state: Any, check: Callable[[Any, type], Layout], kind: type) -> tuple[Any, Layout]:
    """A checked state as a kernel takes it, and its layout."""
    layout = check(state, kind)
    for name, field in state._asdict().items():
        as_array(f"state.{name}", field)
    return flat(state, layout), layout


def as_codes(codes: Any, name: str = "codes") -> Tensor:
    """Integer codes, from a tensor, an array or from lists."""
    # PyTorch's compiler knows lists, but not the dtypes of NumPy.
    if not torch.compiler.is_compiling():
        _checks.check_code_list(codes, name)
    if not isinstance(codes, Tensor):
        codes = torch.as_tensor(codes)
        # PyTorch takes an empty list for floating numbers.
        codes = codes if codes.numel() else codes.to(torch.int32)
    _checks.check_codes(name, codes)
    return codes


def as_lengths(lengths: Any, batch: tuple[int, ...], like: Tensor) -> Tensor | None:
    """The lengths of ragged sequences, or None where all are whole."""
    if lengths is None:
        return None
    if not torch.compiler.is_compiling():
        _checks.check_code_list(lengths, "lengths", "integers")
    if isinstance(lengths, int | float | list | tuple | np.ndarray | np.generic):
        lengths = torch.as_tensor(lengths, device=like.device)
    lengths = as_array("lengths", lengths, like)
    _checks.check_lengths(lengths, batch)
    return lengths.to(torch.int64)


def floating_dtype(dtype: Any) -> Any:
    """The dtype asked for, which must be floating; the default float where none is."""
    return _as_dtype(dtype, FLOATING, "a floating dtype")


def movable_dtype(dtype: Any) -> Any:
    """The dtype asked for, one that both frameworks can move; the default float where none is."""
    return _as_dtype(dtype, MOVABLE, "a dtype that both frameworks can move")


def _as_dtype(dtype: Any, kinds: Sequence[str], what: str) -> Any:
    # As in JAX, the name of a dtype will do.
    dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    dtype = dtype if dtype is not None else torch.get_default_dtype()
    _checks.check_kind("dtype", dtype, kinds, what)
    return dtype


def flat(tree: Any, layout: Layout) -> Any:
    """A state, or elements, with the axes of an element flattened into one."""
    if hasattr(tree, "_fields"):
        return tree._replace(**{tree._fields[0]: flat(tree[0], layout)})
    if len(layout.element) == 1:
        return tree
    leading = tree.shape[: tree.ndim - len(layout.element)]
    return tree.reshape(*leading, math.prod(layout.element))


def shaped(tree: Any, layout: Layout) -> Any:
    """What a kernel returned, with the axes of an element restored."""
    if hasattr(tree, "_fields"):
        return tree._replace(**{tree._fields[0]: shaped(tree[0], layout)})
    if isinstance(tree, tuple):
        return tuple(shaped(each, layout) for each in tree)
    return tree if len(layout.element) == 1 else tree.reshape((*tree.shape[:-1], *layout.element))


def run(kernel: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """`kernel(*arguments, **options)`, whose products are as exact as the dtypes of its arrays, also under autocast.

    The batch axes of all arguments and of all results come first, and the first array is (*batch, slots, dim).
    """
    first = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
    with without_autocast(first):
        return kernel(*arguments, **options)


def without_autocast(array: Tensor) -> AbstractContextManager[Any]:
    """Where autocast rounds no product of such arrays."""
    kind = array.device.type
    # The device "meta" knows no autocast.
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product in full precision; `run` keeps autocast away."""
    return torch.matmul(a, b)


def numbered(array: Tensor, axis: int) -> Tensor:
    """The place of every entry along an axis, in the shape that broadcasts against the array."""
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    return torch.arange(array.shape[axis], device=array.device).reshape(shape)


def gathered(rows: Tensor, places: Tensor) -> Tensor:
    """The rows (*batch, rows, dim) at some places (*batch, reads), bit for bit."""
    # One index for whole rows: `torch.gather` needs one for every entry, and on the CPU it changes the NaNs of float16
    # and bfloat16. `torch.take_along_dim` would fix the size of the batch while compiling.
    batch, count = rows.shape[:-2], rows.shape[-2]
    first = torch.arange(math.prod(batch), device=rows.device).reshape(*batch, 1) * count
    found = rows.flatten(0, -2).index_select(0, (places + first).flatten())
    return found.reshape(*places.shape, rows.shape[-1])


def with_row(rows: Tensor, row: Tensor, place: int) -> Tensor:
    """The rows (*batch, rows, dim) with one of them, (*batch, dim), put in its place."""
    # Through `torch.vmap`, PyTorch 2.13 gives `torch.select_scatter` a wrong gradient; that of a slice is right.
    return torch.slice_scatter(rows, row[..., None, :], -2, place, place + 1)
