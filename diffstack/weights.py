"""Parameters of a layer in one file, from either framework and to either.

The file is in the safetensors format. The parameters of a layer have the same names and shapes in both frameworks, so
that what one has saved the other loads. The metadata says which layer they belong to, with its arguments.

Example:
    >>> import jax, tempfile
    >>> from pathlib import Path
    >>> from diffstack import jax_impl, torch_impl, weights
    >>> from diffstack.jax_impl.layers import Stack
    >>> ours, theirs = (each.layers.StackRNN(3, 8, Stack("neural_stack", 4)) for each in (jax_impl, torch_impl))
    >>> path = Path(tempfile.mkdtemp()) / "layer.safetensors"
    >>> weights.save(path, ours.init(jax.random.key(0)), layer=ours)
    >>> theirs.load_state_dict(weights.load(path, layer=theirs))
    <All keys matched successfully>
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffstack import _checkpoints, _checks

# What each layer was made with; the other attributes follow from these.
_ARGUMENTS = {
    "StackRNN": ("inputs", "hidden", "stacks", "cell"),
    "StackAttention": ("model", "dim", "heads", "stack", "capacity", "states", "symbols"),
    "StackTrans": ("model", "dim", "heads", "slots"),
}

# What may differ between a file and a layer that loads it.
_FREE = ("capacity", "pop_bias", "slots", "hard")


def save(path: str | os.PathLike[str], parameters: Any, *, layer: Any = None) -> None:
    """Write parameters to a file, as a whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        parameters: arrays or tensors by name, such as those of a JAX layer's `init`; or a PyTorch module.
        layer: the layer they belong to, whose arguments are written too.

    Raises:
        TypeError: a parameter that is not an array; a layer that is not one of diffstack's.
        ValueError: parameters that are not those of the layer.
        ImportError: safetensors is not installed.
        OSError: the file cannot be written.
    """
    _checks.require("safetensors", "weights")
    from safetensors.numpy import save as to_bytes  # noqa: PLC0415  # an optional dependency

    if hasattr(parameters, "state_dict"):
        parameters = parameters.state_dict()
    if not isinstance(parameters, Mapping):
        _checks.bad_type("parameters", "a mapping from names to arrays", type(parameters).__name__)
    arrays = {name: _as_numpy(name, array) for name, array in parameters.items()}
    metadata = {} if layer is None else {"diffstack": json.dumps(_described(layer))}
    if layer is not None:
        _check_shapes("parameters", arrays, layer)
    _checkpoints.write(Path(path), to_bytes(arrays, metadata))


def load(path: str | os.PathLike[str], *, layer: Any = None) -> dict[str, Any]:
    """Read the parameters in a file.

    Args:
        path: the file.
        layer: the layer they are for; what is in the file must then fit it.

    Returns:
        The parameters by name: of the layer's framework, or NumPy arrays where no layer is given.

    Raises:
        ValueError: a file that is not a safetensors file, is truncated, or holds the parameters of another layer.
        ImportError: safetensors is not installed.
        OSError: the file cannot be read.
    """
    _checks.require("safetensors", "weights")
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415  # an optional dependency

    # An error of the operating system says more than that of safetensors.
    with Path(path).open("rb"):
        pass
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, ValueError) as error:
        _refuse(path, f"a whole safetensors file, got {error}")
    if layer is None:
        return arrays
    _check(path, metadata, arrays, layer)
    return {name: _like(layer, array) for name, array in arrays.items()}


def _as_numpy(name: str, array: Any) -> np.ndarray:
    """The array on the host, in one piece."""
    if not hasattr(array, "dtype"):
        _checks.bad_type(f"parameters[{name!r}]", "an array", type(array).__name__)
    array = array.detach().cpu() if hasattr(array, "detach") else array
    if _checks.dtype_name(array.dtype) == "bfloat16":
        _checks.bad_type(f"parameters[{name!r}]", "a dtype that NumPy has, such as float32", "dtype bfloat16")
    return np.ascontiguousarray(np.asarray(array)).reshape(np.shape(array))


def _described(layer: Any) -> dict[str, Any]:
    """The kind of a layer and its arguments, as JSON has them."""
    kind = type(layer).__name__
    if kind not in _ARGUMENTS or not type(layer).__module__.startswith("diffstack."):
        _checks.bad_type("layer", f"one of {', '.join(_ARGUMENTS)}", kind)
    values = {
        name: getattr(layer, "kind" if hasattr(layer, "kind") and name == "cell" else name) for name in _ARGUMENTS[kind]
    }
    if "stacks" in values:
        values["stacks"] = [dataclasses.asdict(stack) for stack in values["stacks"]]
    return {"layer": kind, **values}


def _shapes(layer: Any) -> dict[str, tuple[int, ...]]:
    """The parameters of a layer, by name."""
    if hasattr(layer, "state_dict"):
        return {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    import jax  # noqa: PLC0415  # only one of the frameworks need be there

    shapes = jax.eval_shape(layer.init, jax.random.key(0))
    return {name: tuple(shape.shape) for name, shape in shapes.items()}


def _check(path: Any, metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray], layer: Any) -> None:
    """What is in the file must be for this layer; how many slots its stacks have does not matter."""
    ours, written = _flat(_described(layer)), metadata.get("diffstack")
    theirs = _flat(json.loads(written)) if written else ours
    for name in sorted({*ours, *theirs}, key=lambda name: (name != "layer", name)):
        if ours.get(name) != theirs.get(name):
            _refuse(path, f"parameters of a layer with {name} = {ours.get(name)!r}, got {theirs.get(name)!r}")
    _check_shapes(repr(str(path)), arrays, layer)


def _flat(described: dict[str, Any]) -> dict[str, Any]:
    """What decides the parameters of a layer, by name, such as "stacks[0].dim"."""
    flat = {name: value for name, value in described.items() if name not in ("stacks", *_FREE)}
    for i, stack in enumerate(described.get("stacks", ())):
        flat |= {f"stacks[{i}].{name}": value for name, value in stack.items() if name not in _FREE}
    return flat


def _check_shapes(name: str, arrays: Mapping[str, np.ndarray], layer: Any) -> None:
    """Every parameter of the layer, and no other."""
    shapes = _shapes(layer)
    for each in sorted({*shapes, *arrays}):
        shape = arrays[each].shape if each in arrays else None
        if shape != shapes.get(each):
            _checks.bad_value(name, _shown(each, shapes.get(each)), _shown(each, shape))


def _shown(name: str, shape: tuple[int, ...] | None) -> str:
    return f"no {name}" if shape is None else f"{name} of shape {shape}"


def _like(layer: Any, array: np.ndarray) -> Any:
    """An array of the layer's framework."""
    if hasattr(layer, "state_dict"):
        import torch  # noqa: PLC0415  # only one of the frameworks need be there

        return torch.from_numpy(array.copy())
    import jax.numpy as jnp  # noqa: PLC0415  # only one of the frameworks need be there

    return jnp.asarray(array)


def _refuse(path: Any, what: str) -> Any:
    raise ValueError(f"{str(path)!r}: expected {what}") from None
