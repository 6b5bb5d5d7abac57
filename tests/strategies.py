"""Elements of every bit pattern, and programs that neither overflow nor underflow, for hypothesis."""

import math
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from diffstack.actions import POP, PUSH
from diffstack.families import FLOATING

_PARTS = {"complex64": "float32", "complex128": "float64"}


def numpy_dtype(name: str) -> Any:
    return np.dtype(getattr(ml_dtypes, name, name))


def _patterns(name: str) -> st.SearchStrategy[int]:
    """The bits of one number; for floating dtypes those of special numbers often."""
    if name == "bool":
        return st.integers(0, 1)
    dtype = numpy_dtype(name)
    width = 8 * dtype.itemsize
    anything = st.integers(0, 2**width - 1)
    if name not in FLOATING:
        return anything
    sign, mantissa = 1 << (width - 1), int(ml_dtypes.finfo(dtype).nmant)
    infinity = sign - (1 << mantissa)
    # Zero, the smallest and largest subnormals, the smallest and largest normals, infinity, and NaNs with payloads.
    special = [0, 1, (1 << mantissa) - 1, 1 << mantissa, infinity - 1, infinity, infinity + 1, sign - 1]
    return st.sampled_from([*special, *(sign + pattern for pattern in special)]) | anything


def arrays(name: str, shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    """Arrays of a dtype whose numbers may have any bits."""
    part = _PARTS.get(name, name)
    count = math.prod(shape) * (numpy_dtype(name).itemsize // numpy_dtype(part).itemsize)
    unsigned = np.dtype(f"u{numpy_dtype(part).itemsize}")

    def build(patterns: list[int]) -> Any:
        return np.array(patterns, unsigned).view(numpy_dtype(name)).reshape(shape)

    return st.lists(_patterns(part), min_size=count, max_size=count).map(build)


def finite(array: Any) -> Any:
    """One instead of infinity and NaN."""
    with np.errstate(invalid="ignore"):  # ml_dtypes warns of NaN
        return np.where(np.isfinite(array), array, np.ones_like(array))


def kept_by_xla(array: Any) -> Any:
    """One instead of the bfloat16 numbers that XLA on the CPU may change when it moves them."""
    with np.errstate(invalid="ignore"):
        lost = np.isnan(array) | ((np.abs(array) < ml_dtypes.finfo(array.dtype).tiny) & (array != 0))
        return np.where(lost, np.ones_like(array), array)


def normal(array: Any) -> Any:
    """One instead of what is neither a normal number nor zero."""
    array = finite(array)
    keep = (np.abs(array) >= ml_dtypes.finfo(array.dtype).tiny) | (array == 0)
    return np.where(keep, array, np.ones_like(array))


def programs(length: int, slots: int) -> st.SearchStrategy[list[int]]:
    """Codes of pushes and pops that stay within an empty stack's capacity."""

    def build(wishes: list[bool]) -> list[int]:
        codes, depth = [], 0
        for wish in wishes:
            push = depth == 0 or (wish and depth < slots)
            codes.append(PUSH if push else POP)
            depth += 1 if push else -1
        return codes

    return st.lists(st.booleans(), min_size=length, max_size=length).map(build)
