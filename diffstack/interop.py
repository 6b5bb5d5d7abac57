"""States and arrays from one framework to the other, over DLPack.

The two sides share memory where layout and device allow it. Neither side may then write to it: JAX arrays never
change, and a PyTorch operation in place on a shared tensor would change one.
"""

import importlib
from collections.abc import Callable
from typing import Any

from diffstack import _checks

WIDE = ("int64", "uint64", "float64", "complex128")


def to_torch(tree: Any) -> Any:
    """JAX arrays, and states and containers of them, as PyTorch tensors.

    Args:
        tree: a JAX array; a state of `diffstack.jax_impl`, which becomes the same state of `diffstack.torch_impl`; or
            a tuple, named tuple, list or dict of such, or None.

    Returns:
        The same tree of detached tensors of the same dtypes, on the same device, sharing memory where possible. Do
        not write to them.

    Raises:
        TypeError: a leaf that is not a JAX array, or that has no values yet, inside a transformation.

    Example:
        >>> from diffstack import interop, jax_impl
        >>> interop.to_torch(jax_impl.pointer.empty(2)).index
        tensor([1., 0.])
    """
    return _convert(tree, _leaf_to_torch, ".jax_impl.", ".torch_impl.")


def to_jax(tree: Any) -> Any:
    """PyTorch tensors, and states and containers of them, as JAX arrays.

    Args:
        tree: a PyTorch tensor; a state of `diffstack.torch_impl`, which becomes the same state of
            `diffstack.jax_impl`; or a tuple, named tuple, list or dict of such, or None.

    Returns:
        The same tree of JAX arrays of the same dtypes, on the same device, sharing memory where possible. Do not
        write to the tensors afterwards. Gradients do not cross.

    Raises:
        TypeError: a leaf that is not a dense PyTorch tensor, or that has no values, inside a transformation; a 64-bit
            leaf while JAX's 64-bit mode is off.

    Example:
        >>> from diffstack import interop, torch_impl
        >>> interop.to_jax(torch_impl.pointer.empty(2)).index.tolist()
        [1.0, 0.0]
    """
    return _convert(tree, _leaf_to_jax, ".torch_impl.", ".jax_impl.")


def _convert(tree: Any, leaf: Callable[[Any], Any], here: str, there: str) -> Any:
    def convert(node: Any) -> Any:
        if node is None:
            return None
        if isinstance(node, dict):
            return {key: convert(value) for key, value in node.items()}
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            return _counterpart(type(node), here, there)(*map(convert, node))
        if type(node) in (tuple, list):
            return type(node)(map(convert, node))
        return leaf(node)

    return convert(tree)


def _counterpart(kind: type, here: str, there: str) -> Any:
    """The same class in the other implementation; a named tuple that is not ours stays what it is."""
    if not kind.__module__.startswith(f"diffstack{here}"):
        return kind
    return getattr(importlib.import_module(kind.__module__.replace(here, there)), kind.__name__)


def _leaf_to_torch(array: Any) -> Any:
    import jax  # noqa: PLC0415  # a framework is imported when it is asked for
    import torch  # noqa: PLC0415

    if isinstance(array, jax.core.Tracer):
        _checks.bad_type("tree", "arrays that have values", "a tracer, inside a JAX transformation")
    if not isinstance(array, jax.Array):
        _checks.bad_type("tree", "JAX arrays", type(array).__name__)
    if len(array.devices()) > 1:
        array = jax.device_put(array, min(array.devices(), key=lambda device: device.id))
    return torch.from_dlpack(array)


def _leaf_to_jax(tensor: Any) -> Any:
    import jax  # noqa: PLC0415
    import jax.numpy as jnp  # noqa: PLC0415
    import torch  # noqa: PLC0415

    if not isinstance(tensor, torch.Tensor):
        _checks.bad_type("tree", "PyTorch tensors", type(tensor).__name__)
    if tensor.layout != torch.strided:
        _checks.bad_type("tree", "dense tensors", f"layout {tensor.layout}")
    name = _checks.dtype_name(tensor.dtype)
    if name in WIDE and jax.dtypes.canonicalize_dtype(name).name != name:
        _checks.bad_type(
            "tree", f"at most 32 bits an entry while jax_enable_x64 is off (it would lose bits of {name})", name
        )
    try:
        return jnp.from_dlpack(tensor.detach().resolve_conj().resolve_neg().contiguous())
    except (RuntimeError, NotImplementedError, ValueError) as error:
        expected = "tree: expected tensors that have values, outside transformations and on a device that JAX shares"
        raise TypeError(f"{expected}, got {type(tensor).__name__} on {tensor.device}") from error
