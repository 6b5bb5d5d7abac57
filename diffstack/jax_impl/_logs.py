"""Sums of weights that are kept as logarithms, where minus infinity stands for nothing.

Where all weights of a sum are nothing, so is the sum, and no gradient goes through it: nothing is ever NaN.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def as_logs(*logs: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """Logarithms in float32 at least, since a narrower dtype has too few digits for them; nothing has no gradient."""
    wide = (each.astype(dtype_of_logs(each.dtype)) for each in logs)
    return tuple(jnp.where(each == -jnp.inf, -jnp.inf, each) for each in wide)


def dtype_of_logs(dtype: Any) -> Any:
    """The dtype of the logarithms that go with values of a dtype."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def logsumexp(logs: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    """The logarithm of the sum over some axes."""
    top = finite(lax.stop_gradient(jnp.max(logs, axes, keepdims=True, initial=-jnp.inf)))
    return log(jnp.sum(jnp.exp(logs - top), axes)) + jnp.squeeze(top, axes)


def softmax(logs: Float[Array, "..."], axis: int) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The shares of an axis, zeros where all of it is nothing, and the logarithm of its sum."""
    top = finite(lax.stop_gradient(jnp.max(logs, axis, keepdims=True)))
    weights = jnp.exp(logs - top)
    total = jnp.sum(weights, axis, keepdims=True)
    return share(weights, total), jnp.squeeze(log(total) + top, axis)


def log(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm, which passes no gradient at 0."""
    return jnp.where(x <= 0, -jnp.inf, jnp.log(jnp.where(x <= 0, 1, x)))


def share(x: Float[Array, "..."], total: Float[Array, "..."]) -> Float[Array, "..."]:
    """x / total, and 0 where the total is 0."""
    return jnp.where(total <= 0, 0, x / jnp.where(total <= 0, 1, total))


def finite(logs: Float[Array, "..."]) -> Float[Array, "..."]:
    """What can be subtracted from logarithms: 0 in place of minus infinity."""
    return jnp.where(logs == -jnp.inf, 0, logs)


def divided(logs: Float[Array, "..."], total: Float[Array, "..."]) -> Float[Array, "..."]:
    """logs - total, where nothing stays nothing and passes no gradient to the total."""
    return jnp.where(logs == -jnp.inf, -jnp.inf, logs - finite(total))
