"""What every family does to its arguments before it hands them to a kernel."""

import math
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
    """Integer codes, from a tensor, an array or a list."""
    array = torch.as_tensor(codes if len(np.shape(codes)) != 1 or len(codes) else np.zeros(0, np.int32))
    errors.check_codes("codes", array)
    return array


def floating_dtype(dtype: Any) -> torch.dtype:
    """The dtype asked for, which must be floating; the default float where none is."""
    dtype = dtype if dtype is not None else torch.get_default_dtype()
    errors.check_kind("dtype", dtype, errors.FLOATING, "a floating dtype")
    return dtype


def flatten(array: Tensor, rank: int) -> Tensor:
    """Everything behind the first `rank` axes as one axis."""
    return array.reshape(*array.shape[:rank], math.prod(array.shape[rank:]))
