"""The few words in which the frameworks differ, so that a test of what they share is written once."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

from controllers import unrolled
from families import FULL, Case, Family, floats, is_floating, some, with_floats


class Backend:
    """JAX or PyTorch."""

    name: str
    array_type: type

    def __repr__(self) -> str:
        return self.name

    def module(self, name: str) -> Any:
        return importlib.import_module(f"diffstack.{self.name}_impl.{name}")

    def array(self, array: Any) -> Any:
        """A NumPy array as one of the framework, bit for bit."""
        raise NotImplementedError

    def numpy(self, array: Any) -> Any:
        """An array of the framework as a NumPy array, bit for bit."""
        raise NotImplementedError

    def dtype(self, name: str) -> Any:
        """The framework's object for a dtype."""
        raise NotImplementedError

    def x64(self) -> AbstractContextManager[Any]:
        """Where 64-bit dtypes exist."""
        raise NotImplementedError

    def vjp(self, function: Callable[..., Any], arguments: Any, cotangents: Any) -> list[Any]:
        """The gradients of the floating arguments, for cotangents of the floating results."""
        raise NotImplementedError

    def outcome(
        self, function: Callable[..., Any], arguments: Any, cotangents: list[Any] | None = None
    ) -> tuple[list[Any], list[Any]]:
        """The floating results, and the gradients of the floating arguments; under random cotangents by default."""
        raise NotImplementedError

    def computed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The results alone; in JAX of one program, not of one for each operation."""
        return function(*arguments)

    def arrays(self, tree: Any, family: Family | None = None) -> Any:
        """A tree of NumPy arrays as one of the framework's; states become the family's own."""
        if hasattr(tree, "_fields"):
            kind = getattr(self.module(family.name), type(tree).__name__)
            return kind(*(self.arrays(leaf, family) for leaf in tree))
        if isinstance(tree, tuple):
            return tuple(self.arrays(leaf, family) for leaf in tree)
        return self.array(tree)

    def numpys(self, tree: Any) -> list[Any]:
        """The leaves of a tree of the framework's arrays as NumPy arrays."""
        return [self.numpy(leaf) for leaf in jax.tree.leaves(tree)]

    @cache  # noqa: B019  # there are two backends
    def function(self, case: Case) -> Callable[..., Any]:
        """The function of a case, always the same one."""
        if case.verb.name == "unroll":
            return unrolled(self, case)
        verb = getattr(self.module(case.family.name), case.verb.name)

        def function(*arguments: Any) -> Any:
            return verb(*arguments, **case.options)

        return function

    def arguments(self, case: Case, *args: Any, **options: Any) -> tuple[Any, ...]:
        """The arguments of a case."""
        return self.arrays(tuple(case.arguments(*args, **options)), case.family)

    def with_room(self, family: Family, state: Any, time: int) -> Any:
        """A state from which `step` drops nothing for so many steps; `scan` makes room by itself."""
        resize = getattr(self.module(family.name), "resize", None)
        if resize is None:
            return state
        slots = state.strengths.shape[-1] if family.strengths else state.edges.shape[-3]
        return resize(state, slots + 2 * time)


class Jax(Backend):
    name = "jax"
    array_type = jax.Array

    def array(self, array: Any) -> Any:
        # `jnp.asarray` would compile a program for every shape.
        return jax.device_put(array)

    def numpy(self, array: Any) -> Any:
        return np.asarray(array)

    def dtype(self, name: str) -> Any:
        return jnp.dtype(name)

    def x64(self) -> AbstractContextManager[Any]:
        return jax.enable_x64(True)

    def vjp(self, function: Callable[..., Any], arguments: Any, cotangents: Any) -> list[Any]:
        _, pull_back = jax.vjp(lambda *leaves: floats(function(*with_floats(arguments, leaves))), *floats(arguments))
        return list(pull_back(list(cotangents)))

    def outcome(
        self, function: Callable[..., Any], arguments: Any, cotangents: list[Any] | None = None
    ) -> tuple[list[Any], list[Any]]:
        given = None if cotangents is None else list(map(self.array, cotangents))
        outputs, gradients = differentiated(function)(arguments, given)
        return self.numpys(outputs), self.numpys(gradients)

    def computed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return compiled(function)(*arguments)


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


@cache
def differentiated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Results and gradients in one program, since compiling is what takes the time; cotangents that are not given are
    drawn when their shapes are known.
    """

    @jax.jit
    def both(arguments: Any, cotangents: list[Any] | None) -> tuple[list[Any], list[Any]]:
        outputs, pull_back = jax.vjp(
            lambda *leaves: floats(function(*with_floats(arguments, leaves))), *floats(arguments)
        )
        given = drawn(outputs) if cotangents is None else cotangents
        return outputs, list(pull_back([jnp.asarray(a, out.dtype) for a, out in zip(given, outputs, strict=True)]))

    return both


class Torch(Backend):
    name = "torch"
    array_type = torch.Tensor

    def array(self, array: Any) -> Any:
        array = np.array(array)
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    def numpy(self, array: Any) -> Any:
        array = array.detach().resolve_conj()
        if array.dtype == torch.bfloat16:
            return array.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return array.numpy()

    def dtype(self, name: str) -> Any:
        return getattr(torch, name)

    def x64(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def vjp(self, function: Callable[..., Any], arguments: Any, cotangents: Any) -> list[Any]:
        return pulled(*followed(function, arguments), cotangents)

    def outcome(
        self, function: Callable[..., Any], arguments: Any, cotangents: list[Any] | None = None
    ) -> tuple[list[Any], list[Any]]:
        outputs, leaves = followed(function, arguments)
        made = [self.array(each) for each in (drawn(outputs) if cotangents is None else cotangents)]
        return self.numpys(outputs), self.numpys(pulled(outputs, leaves, made))


def followed(function: Callable[..., Any], arguments: Any) -> tuple[list[Any], list[Any]]:
    """The floating results, and the arguments that they can be differentiated by."""
    leaves = [leaf.detach().requires_grad_() for leaf in floats(arguments)]
    return floats(function(*with_floats(arguments, leaves))), leaves


def pulled(outputs: list[Any], leaves: list[Any], cotangents: Any) -> list[Any]:
    """An output that is cut off from the arguments has a gradient of zero, which is then compared."""
    attached = [(out, cot) for out, cot in zip(outputs, cotangents, strict=True) if out.requires_grad]
    if not attached:
        return [torch.zeros_like(leaf) for leaf in leaves]
    outputs, cotangents = zip(*attached, strict=True)
    return list(torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True, materialize_grads=True))


def drawn(outputs: list[Any]) -> list[Any]:
    """Random cotangents, always the same ones."""
    generator = np.random.default_rng(15)
    return [generator.normal(size=tuple(output.shape)) for output in outputs]


JAX, TORCH = BACKENDS = (Jax(), Torch())


def witnesses(of: Sequence[Any], options: Sequence[Any], first: int = 0) -> list[tuple[Backend, Any, Any]]:
    """Framework, family and option. PyTorch takes every option; JAX, which compiles each, takes one for each family,
    by turns, and all of them when the full product is asked for.
    """
    return [
        (backend, each, option)
        for backend in BACKENDS
        for place, each in enumerate(of)
        for turn, option in enumerate(options)
        if FULL or backend is TORCH or (place + first) % len(options) == turn
    ]


def dear(of: Sequence[Any], *turns: int) -> list[tuple[Backend, Any]]:
    """Framework, and family or case. PyTorch takes all of them; JAX, which compiles each, those whose turn it is."""
    return [(backend, each) for backend in BACKENDS for each in (of if backend is TORCH else some(of, *turns))]


def bits(array: Any) -> Any:
    """The bytes of an array."""
    array = np.ascontiguousarray(array)
    return array.reshape(*array.shape, 1).view(np.uint8)


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Equal shapes, dtypes and bytes."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(bits(actual), bits(expected))


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """max|a - b| <= tolerance max|b|; integers must be equal, and infinities where they are expected."""
    assert actual.shape == expected.shape
    if not is_floating(actual):
        np.testing.assert_array_equal(actual, expected)
    elif actual.size:
        actual, expected = actual.astype(np.float64), expected.astype(np.float64)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(actual[~finite], expected[~finite])
        actual, expected = actual[finite], expected[finite]
        assert np.isfinite(actual).all()
        assert np.abs(actual - expected).max(initial=0) <= tolerance * np.abs(expected).max(initial=0)
