"""Where `max` and `min` have two derivatives, and which of them is taken: the one place that says so.

Hard strengths (exactly 0 or 1) and empty slots sit on the corners of the equations, where the two sides have two
derivatives. Splitting the gradient evenly, as `maximum` and `minimum` do, halves it at every later step. The
derivative here is the one into the feasible region, where a strength can only grow from 0. So `max(0, s - ...)`, which
says what is left of a strength, passes its gradient at 0. `max(0, u - ...)` and `max(0, 1 - ...)`, which say what a pop
or a read still wants, block it there.

Where `min(s, room)` ties at 0, neither can grow alone, and it passes no gradient. Where it ties above 0, in a full
read, less of either gives less weight (`room` shrinks as a nearer push grows), and it passes the gradient to both. So
the gradient of a read with respect to the push that made it is 1 after any number of no-ops, and with respect to a push
of strength 0 it is the one-sided derivative.

Every function keeps NaN.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def pass_at_zero(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """max(0, x), which passes its gradient where x is 0."""
    return jnp.where(x < 0, 0, x)


def block_at_zero(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """max(0, x), which blocks its gradient where x is 0."""
    return jnp.where(x <= 0, 0, x)


def smaller(strengths: Float[Array, "*#shape"], room: Float[Array, "*#shape"]) -> Float[Array, "*#shape"]:
    """min(s, room), which at a tie passes its gradient to both; to neither where there is no room."""
    # A comparison with NaN is false, so a NaN strength has to be asked for.
    smallest = jnp.where((strengths < room) | jnp.isnan(strengths), strengths, room)
    tied = (strengths == room) & (room > 0)
    return jnp.where(tied, room + (strengths - lax.stop_gradient(strengths)), smallest)


def sum_blocked_at_zero(x: Float[Array, "2 *shape"]) -> Float[Array, "2 *shape"]:
    """A sum of at least 0, kept in two parts, which blocks its gradient where it is 0."""
    return jnp.where(jnp.sum(x, 0, keepdims=True) == 0, 0, x)


def smaller_sum(a: Float[Array, "2 *shape"], b: Float[Array, "2 *shape"]) -> Float[Array, "2 *shape"]:
    """The smaller of two sums, each kept in two parts; where they are equal the first, and with it the gradient."""
    difference = jnp.sum(a - b, 0, keepdims=True)
    return jnp.where((difference <= 0) | jnp.isnan(jnp.sum(a, 0, keepdims=True)), a, b)
