"""What every family does to its arguments before it hands them to a kernel."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffstack import errors


def as_array(name: str, value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor; a Python number gets the dtype and the device of `like`."""
    if like is not None and type(value) in (bool, int, float, complex):
        errors.check_number(name, value, like.dtype)
        return torch.full((), value, dtype=like.dtype, device=like.device)
    if not isinstance(value, Tensor):
        errors.bad_type(name, "a PyTorch tensor", type(value).__name__)
    return value


def as_codes(codes: Any) -> Tensor:
    """Integer codes, from a tensor, an array or from lists."""
    errors.check_code_list(codes)
    if not isinstance(codes, Tensor):
        codes = torch.as_tensor(codes) if np.size(codes) else torch.zeros(np.shape(codes), dtype=torch.int32)
    errors.check_codes("codes", codes)
    return codes


def as_dtype(dtype: Any, kinds: Sequence[str], what: str) -> Any:
    """The dtype asked for, one of `kinds`; the default float where none is."""
    # As in JAX, the name of a dtype will do.
    dtype = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype
    dtype = dtype if dtype is not None else torch.get_default_dtype()
    errors.check_kind("dtype", dtype, kinds, what)
    return dtype


def floating_dtype(dtype: Any) -> Any:
    """The dtype asked for, which must be floating; the default float where none is."""
    return as_dtype(dtype, errors.FLOATING, "a floating dtype")


def flatten(array: Tensor, rank: int) -> Tensor:
    """Everything behind the first `rank` axes as one axis."""
    return array.reshape(*array.shape[:rank], math.prod(array.shape[rank:]))


def without_autocast(array: Tensor) -> AbstractContextManager[Any]:
    """Where products are as exact as the dtype of `array`."""
    return torch.autocast(array.device.type, enabled=False)
