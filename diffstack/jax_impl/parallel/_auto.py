"""Values by stepping and derivatives at once, where XLA is the faster at each.

On a CPU a loop that keeps nothing for a backward pass stays in the caches, and a step costs it a few microseconds. A
loop that is differentiated keeps every state, and that is what the parallel forms are there for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.flatten_util import ravel_pytree


@partial(jax.jit, static_argnums=0)
def scan(by_method: Callable[..., tuple[Any, Array]], state: Any, actions: Array, elements: Array) -> tuple[Any, Array]:
    """The values of `by_method(..., "sequential")` on a CPU, and everywhere the derivatives of "parallel"."""
    arguments, structure = jax.tree.flatten((state, actions, elements))
    # The outcome travels as one vector: of several outputs, some may have a batch axis in the rule and none in the
    # function, and JAX 0.10 then returns wrong shapes from jvp(vmap(checkpoint)). State and elements have the shapes of
    # state and reads.
    _, unravel = ravel_pytree((state, elements))

    def packed(method: str, *arguments: Array) -> Array:
        return ravel_pytree(by_method(*jax.tree.unflatten(structure, arguments), method))[0]

    @jax.custom_jvp
    def values(*arguments: Array) -> Array:
        return lax.platform_dependent(
            *arguments, cpu=partial(packed, "sequential"), default=partial(packed, "parallel")
        )

    @partial(values.defjvp, symbolic_zeros=True)
    def derivative(arguments: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
        moves = [not isinstance(tangent, SymbolicZero) for tangent in tangents]

        def of_moved(*moved: Array) -> Array:
            rest = iter(moved)
            return packed("parallel", *(next(rest) if m else a for a, m in zip(arguments, moves, strict=True)))

        moved = [argument for argument, m in zip(arguments, moves, strict=True) if m]
        directions = [tangent for tangent, m in zip(tangents, moves, strict=True) if m]
        return jax.jvp(of_moved, moved, directions)

    return unravel(values(*arguments))
