"""Learn the input whose output under a program is a given target, by descending the mean squared error."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from diffstack import _checks
from diffstack.jax_impl._arrays import as_array
from diffstack.jax_impl.reversal import reverse

# One object, since a new one would compile `advance` again.
_ADAM = optax.adam(0.1)


class Learned(NamedTuple):
    """What `learn_input` found.

    Attributes:
        sequence: the learned input.
        output: what the program makes of it.
        losses: (steps,), `losses[k]` being the mean squared error before update k.
    """

    sequence: Array
    output: Array
    losses: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LearnState:
    """A learning run between two steps: the input so far, and what the optimizer carries along."""

    sequence: Array
    optimizer_state: Any
    program: Callable[[Array], Array] = field(metadata={"static": True})
    optimizer: Any = field(metadata={"static": True})


def init(
    target: Array,
    *,
    initial: Array | None = None,
    program: Callable[[Array], Array] = reverse,
    optimizer: optax.GradientTransformation | None = None,
) -> LearnState:
    """The state before the first step.

    Args:
        target: what the program is to give, of any shape, floating.
        initial: the input to start from, of the target's dtype; ones like the target where none is given.
        program: a differentiable function from the input to an array like the target.
        optimizer: an optax optimizer; `optax.adam(0.1)` where none is given.

    Returns:
        A `LearnState`, for `advance`.

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import inverse
        >>> inverse.init(jnp.asarray([3.0, 2.0])).sequence.tolist()
        [1.0, 1.0]
    """
    target = as_array("target", target)
    _checks.check_target(target)
    sequence = jnp.ones_like(target) if initial is None else as_array("initial", initial, target)
    _checks.check_dtype("initial", sequence.dtype, target.dtype, "the target")
    optimizer = _ADAM if optimizer is None else optimizer
    _checks.check_learning(program, optimizer, hasattr(optimizer, "init") and hasattr(optimizer, "update"))
    return LearnState(sequence, optimizer.init(sequence), program, optimizer)


def advance(state: LearnState, target: Array, steps: int) -> tuple[LearnState, Array]:
    """Take some steps of a learning run.

    Args:
        state: the run so far, which stays as it is.
        target: what the program is to give.
        steps: how many updates, 0 or more.

    Returns:
        The run afterwards, and the mean squared error before each update, (steps,).

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape, or a program whose output is not like the
            target.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import inverse
        >>> target = jnp.asarray([3.0, 1.0])
        >>> state, losses = inverse.advance(inverse.init(target), target, 2)
        >>> [round(loss, 3) for loss in losses.tolist()]
        [2.0, 1.805]
    """
    _checks.check_state(state, LearnState)
    target = as_array("target", target)
    _checks.check_target(target)
    return _advance(state, target, _checks.check_count("steps", steps, 0))


def learn_input(
    target: Array,
    *,
    initial: Array | None = None,
    program: Callable[[Array], Array] = reverse,
    optimizer: optax.GradientTransformation | None = None,
    steps: int = 100,
) -> Learned:
    """Learn the input whose output under a program is the target.

    Args:
        target: what the program is to give, of any shape, floating.
        initial: the input to start from, of the target's dtype; ones like the target where none is given.
        program: a differentiable function from the input to an array like the target.
        optimizer: an optax optimizer; `optax.adam(0.1)` where none is given.
        steps: how many updates, 0 or more.

    Returns:
        A `Learned`: the input, the program's output for it, and the mean squared error before each update.

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape, or a program whose output is not like the
            target.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl.inverse import learn_input
        >>> learn_input(jnp.asarray([3.0, 2.0, 1.0])).sequence.round().tolist()
        [1.0, 2.0, 3.0]
    """
    steps = _checks.check_count("steps", steps, 0)
    state = init(target, initial=initial, program=program, optimizer=optimizer)
    state, losses = advance(state, target, steps)
    return Learned(state.sequence, program(state.sequence), losses)


@partial(jax.jit, static_argnames="steps")
def _advance(state: LearnState, target: Array, steps: int) -> tuple[LearnState, Array]:
    def update(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        sequence, optimizer_state = carry
        loss, gradient = jax.value_and_grad(_loss)(sequence, target, state.program)
        updates, optimizer_state = state.optimizer.update(gradient, optimizer_state, sequence)
        return (optax.apply_updates(sequence, updates), optimizer_state), loss

    carry, losses = lax.scan(update, (state.sequence, state.optimizer_state), None, length=steps)
    return LearnState(*carry, state.program, state.optimizer), losses


def _loss(sequence: Array, target: Array, program: Callable[[Array], Array]) -> Array:
    output = program(sequence)
    _checks.check_output(output, target)
    return jnp.mean((output - target) ** 2)
