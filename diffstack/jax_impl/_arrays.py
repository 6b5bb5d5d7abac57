"""What every family does to its arguments before it hands them to a kernel."""

import math
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
    """Integer codes, from an array or from a list."""
    array = jnp.asarray(codes if len(np.shape(codes)) != 1 or len(codes) else np.zeros(0, np.int32))
    errors.check_codes("codes", array)
    return array


def floating_dtype(dtype: Any) -> Any:
    """The dtype asked for, which must be floating; the default float where none is."""
    dtype = jnp.dtype(dtype if dtype is not None else jnp.result_type(float))
    errors.check_kind("dtype", dtype, errors.FLOATING, "a floating dtype")
    return dtype


def flatten(array: Array, rank: int) -> Array:
    """Everything behind the first `rank` axes as one axis."""
    return array.reshape(*array.shape[:rank], math.prod(array.shape[rank:]))
