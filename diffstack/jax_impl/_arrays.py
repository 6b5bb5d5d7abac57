"""What lies between a public function and the kernel that computes it: arguments, the modes of JAX, results.

A kernel takes arrays only, with the axes of an element flattened into one: `(*batch, slots, dim)`. A public function
checks its arguments, flattens them, calls `run`, and gives its result the shape of the user's elements again.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, PartitionSpec

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.families import FLOATING, MOVABLE

_LONGEST = np.iinfo(np.int32).max


def as_array(name: str, value: Any, like: Array | None = None) -> Array:
    """`value` as a strongly typed array; a Python number gets the dtype of `like`."""
    if like is not None and type(value) in (bool, int, float, complex):
        _checks.check_number(name, value, like.dtype)
        return jnp.asarray(value, like.dtype)
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        _checks.bad_type(name, "a JAX or NumPy array", type(value).__name__)
    if jnp.issubdtype(value.dtype, jax.dtypes.extended):
        _checks.bad_type(name, "an array of numbers", f"dtype {value.dtype}")
    if isinstance(value, jax.Array):
        _check_width(name, value.dtype)
    # A weakly typed array would compile every kernel a second time.
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(value.dtype))


def _check_width(name: str, dtype: Any) -> None:
    """JAX would silently lose bits of a wide array."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        _checks.bad_type(name, "at most 32 bits an entry while jax_enable_x64 is off", f"dtype {dtype}")


def as_wide(name: str, value: Any, like: Array) -> Array:
    """`as_array`, cast up to the floating dtype of `like` where that loses nothing."""
    array = as_array(name, value, like)
    return array.astype(like.dtype) if _checks.is_narrower(array.dtype, like.dtype) else array


def as_state(state: Any, check: Callable[[Any, type], Layout], kind: type) -> tuple[Any, Layout]:
    """A checked state as a kernel takes it, and its layout."""
    layout = check(state, kind)
    for name, field in state._asdict().items():
        _check_width(f"state.{name}", field.dtype)
    return flat(kind(*(as_array(f"state.{name}", field) for name, field in state._asdict().items())), layout), layout


def as_codes(codes: Any, name: str = "codes") -> Array:
    """Integer codes, from an array or from lists."""
    _checks.check_code_list(codes, name)
    if not hasattr(codes, "dtype"):
        codes = jnp.asarray(codes) if np.size(codes) else jnp.zeros(np.shape(codes), jnp.int32)
    _checks.check_codes(name, codes)
    return as_array(name, codes)


def as_lengths(lengths: Any, batch: tuple[int, ...]) -> Array | None:
    """The lengths of ragged sequences, or None where all are whole."""
    if lengths is None:
        return None
    _checks.check_code_list(lengths, "lengths", "integers")
    lengths = lengths if hasattr(lengths, "dtype") else np.asarray(lengths)
    if isinstance(lengths, np.ndarray | np.generic) and lengths.dtype == np.int64:
        # Before JAX narrows them, to the lower half of their bits.
        lengths = np.clip(lengths, -1, _LONGEST)
    lengths = as_array("lengths", lengths)
    _checks.check_lengths(lengths, batch)
    return (jnp.clip(lengths, -1, _LONGEST) if lengths.dtype == jnp.int64 else lengths).astype(jnp.int32)


def floating_dtype(dtype: Any) -> Any:
    """The dtype asked for, which must be floating; the default float where none is."""
    return _as_dtype(dtype, FLOATING, "a floating dtype")


def movable_dtype(dtype: Any) -> Any:
    """The dtype asked for, one that both frameworks can move; the default float where none is."""
    return _as_dtype(dtype, MOVABLE, "a dtype that both frameworks can move")


def _as_dtype(dtype: Any, kinds: Sequence[str], what: str) -> Any:
    # What is no dtype at all is named by the check.
    with suppress(TypeError):
        dtype = jnp.dtype(dtype if dtype is not None else jnp.result_type(float))
    _checks.check_kind("dtype", dtype, kinds, what)
    if not isinstance(dtype, np.dtype):
        _checks.bad_type("dtype", "a dtype of JAX or NumPy", str(dtype))
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
    """`kernel(*arguments, **options)`, compiled, under whatever mesh of devices its arrays live on.

    The batch axes of all arguments and of all results come first, and the first array is (*batch, slots, dim).
    """
    compiled = _compiled(kernel, tuple(options))
    arguments = varying_alike(arguments)
    leaves = jax.tree.leaves(arguments)
    batch = _explicit(leaves, leaves[0].ndim - 2)
    if batch is not None:
        # Where axes of a mesh are explicit, every operation would have to say how its result is sharded. All that is
        # sharded here is the batch, so inside a kernel the compiler can find that out by itself.
        compiled = jax.sharding.auto_axes(partial(compiled, **options), out_sharding=PartitionSpec(*batch))
        return compiled(*arguments)
    return compiled(*arguments, **options)


def varying_alike(tree: Any) -> Any:
    """The arrays of a tree, made to vary over the same axes of a mesh inside `shard_map`."""
    leaves, structure = jax.tree.flatten(tree)
    varying = frozenset().union(*map(_varying, leaves))
    if not varying:
        return tree
    # A state that was made inside `shard_map` varies over no axis yet, and a loop needs that it does.
    return jax.tree.unflatten(
        structure, [lax.pcast(leaf, tuple(varying - _varying(leaf)), to="varying") for leaf in leaves]
    )


def sharded_like(tree: Any, like: Any, rank: int) -> Any:
    """The arrays of a tree, (*batch, ...), sharded over an explicit mesh as those of `like` are."""
    batch = _explicit([leaf for leaf in jax.tree.leaves((tree, like)) if leaf.ndim >= rank], rank)
    if batch is None:
        return tree
    return jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, PartitionSpec(*batch)), tree)


@cache
def _compiled(kernel: Callable[..., Any], options: tuple[str, ...]) -> Callable[..., Any]:
    return jax.jit(kernel, static_argnames=options)


def _varying(array: Array) -> frozenset[Any]:
    """The axes of a mesh that an array varies over inside `shard_map`."""
    kind = jax.typeof(array)
    # JAX 0.10 moved `vma` there.
    return kind.mat.varying if hasattr(kind, "mat") else kind.vma


def _explicit(arrays: Sequence[Array], rank: int) -> list[Any] | None:
    """The axes of an explicit mesh that the first `rank` axes are sharded over; None where no mesh is explicit."""
    found, batch = False, [None] * rank
    for array in arrays:
        sharding = jax.typeof(array).sharding
        if AxisType.Explicit in sharding.mesh.axis_types:
            found = True
            # A scalar, such as the place of a step, has no batch.
            found_here = [*sharding.spec, *[None] * rank][:rank]
            batch = [mine or other for mine, other in zip(batch, found_here, strict=True)]
    return batch if found else None


def matmul(a: Array, b: Array) -> Array:
    """The product in full precision, also on a GPU."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def numbered(array: Array, axis: int) -> Array:
    """The place of every entry along an axis, in the shape that broadcasts against the array."""
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    return lax.broadcasted_iota(jnp.int32, shape, axis % array.ndim)
