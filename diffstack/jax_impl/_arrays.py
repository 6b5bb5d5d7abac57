"""What every family does to its arguments before it hands them to a kernel."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from diffstack import errors


def as_array(name: str, value: Any, like: Array | None = None) -> Array:
    """`value` as a strongly typed array; a Python number gets the dtype of `like`."""
    if like is not None and type(value) in (bool, int, float, complex):
        errors.check_number(name, value, like.dtype)
        return jnp.asarray(value, like.dtype)
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        errors.bad_type(name, "a JAX or NumPy array", type(value).__name__)
    # A weakly typed array would compile every kernel a second time.
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(value.dtype))


def as_codes(codes: Any) -> Array:
    """Integer codes, from an array or from lists."""
    errors.check_code_list(codes)
    if not isinstance(codes, Array):
        codes = jnp.asarray(codes) if np.size(codes) else jnp.zeros(np.shape(codes), jnp.int32)
    errors.check_codes("codes", codes)
    return codes


def as_dtype(dtype: Any, kinds: Sequence[str], what: str) -> Any:
    """The dtype asked for, one of `kinds`; the default float where none is."""
    # What is no dtype at all is named by the check.
    with suppress(TypeError):
        dtype = jnp.dtype(dtype if dtype is not None else jnp.result_type(float))
    errors.check_kind("dtype", dtype, kinds, what)
    return dtype


def floating_dtype(dtype: Any) -> Any:
    """The dtype asked for, which must be floating; the default float where none is."""
    return as_dtype(dtype, errors.FLOATING, "a floating dtype")


def flatten(array: Array, rank: int) -> Array:
    """Everything behind the first `rank` axes as one axis."""
    return array.reshape(*array.shape[:rank], math.prod(array.shape[rank:]))
