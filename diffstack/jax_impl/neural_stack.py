"""The neural stack: every element has a strength, and actions move strength.

With d the strength that is pushed with element v_t, u the strength that is popped, and elements i from oldest to
newest (Grefenstette et al. 2015, equations 1 to 3),

    s_t[i] = max(0, s_{t-1}[i] - max(0, u_t - sum_{j>i} s_{t-1}[j]))   for i < t,       s_t[t] = d_t
    r_t    = sum_i min(s_t[i], max(0, 1 - sum_{j>i} s_t[j])) v_i

so a step pops, pushes, and reads total strength 1 from the top. A pop of more than is there takes what is there.

Every push takes a slot, one of strength 0 included. The capacity is the number of most recent slots that a state
keeps: `push` and `step` drop the oldest slot, whatever its strength. A controller that calls `step` itself needs as
much capacity as it takes steps between a push and its pop. `scan` drops nothing on its way: it makes room for its T
steps first, and goes back to the capacity of the state when it is done.

Strengths are usually in [0, 1]. Below 0 they count as 0, above 1 they are taken as they are, and NaN makes every
read NaN from its step on, for as long as the slots it reached are kept: to the end of a `scan`, but not for ever
through `step`, which drops slots. The gradient at ties, which hard strengths always are, is that of `_neural.py`: the
derivative into the feasible region.
"""

from functools import partial
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffstack import errors
from diffstack.actions import POP, PUSH
from diffstack.jax_impl import sequential
from diffstack.jax_impl._arrays import as_array, flatten, floating_dtype
from diffstack.jax_impl._neural import above as nearer
from diffstack.jax_impl._neural import as_strength, feasible, hard_actions, reading, remaining, resized
from diffstack.jax_impl.parallel import neural_stack as parallel

IS_STACK: Final = True


class NeuralStackState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        values: the elements, (*batch, N, *element), oldest first.
        strengths: how much of each is there, (*batch, N).
    """

    values: Array
    strengths: Array


def empty(
    capacity: int, element_shape: tuple[int, ...] = (), *, dtype: Any = None, batch_shape: tuple[int, ...] = ()
) -> NeuralStackState:
    """An empty stack: slots of strength 0.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for values and strengths; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.

    Returns:
        A `NeuralStackState`.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.empty(3).strengths.tolist()
        [0.0, 0.0, 0.0]
    """
    layout = errors.check_empty(capacity, element_shape, batch_shape)
    values = jnp.zeros((*layout.batch, layout.slots, *layout.element), floating_dtype(dtype))
    return NeuralStackState(values, jnp.zeros((*layout.batch, layout.slots), values.dtype))


def from_buffer(buffer: Array) -> NeuralStackState:
    """One full stack, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element), floating.

    Returns:
        A `NeuralStackState` of N elements of strength 1.

    Raises:
        TypeError, ValueError: a buffer that is not as said above.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.peek(neural_stack.from_buffer(jnp.asarray([1.0, 2.0]))).item()
        2.0
    """
    buffer = as_array("buffer", buffer)
    layout = errors.check_buffer(buffer)
    errors.check_kind("buffer", buffer.dtype, errors.FLOATING, "a floating dtype")
    return NeuralStackState(buffer, jnp.ones_like(buffer, shape=(layout.slots,)))


def actions(codes: Any, *, dtype: Any = None) -> Array:
    """Integer codes as strengths, 1 for what is done and 0 for what is not.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, any shape; any other code counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Returns:
        The strengths of push and pop, (*codes, 2).

    Raises:
        TypeError: codes that are not integers, a dtype that is not floating.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.actions([PUSH, NOOP]).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    return hard_actions(codes, dtype)


def push(state: NeuralStackState, element: Array, strength: Array | float = 1.0) -> NeuralStackState:
    """Put an element on the stack.

    Args:
        state: the stack.
        element: (*batch, *element), of the dtype of the values.
        strength: a number, or (*batch,), of the dtype of the strengths; usually in [0, 1].

    Returns:
        The stack with the element in its newest slot, and without its oldest slot.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.push(neural_stack.empty(2), 5.0, 0.5).strengths.tolist()
        [0.0, 0.5]
    """
    return _push(state, _checked_element(state, element), as_strength(strength, state))


def pop(state: NeuralStackState, strength: Array | float = 1.0) -> tuple[NeuralStackState, Array]:
    """Take strength off the top of the stack.

    Args:
        state: the stack.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The stack with what is left; and what was taken, the sum of the elements weighted by the strength that each
        lost, (*batch, *element). More than is there takes what is there.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> state = neural_stack.push(neural_stack.push(neural_stack.empty(2), 1.0), 4.0, 0.5)
        >>> state, element = neural_stack.pop(state, 0.75)
        >>> element.item(), state.strengths.tolist()
        (2.25, [0.75, 0.0])
    """
    errors.check_neural(state, NeuralStackState)
    return _pop(state, as_strength(strength, state))


def peek(state: NeuralStackState, strength: Array | float = 1.0) -> Array:
    """Read strength from the top of the stack.

    Args:
        state: the stack, which stays as it is.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The sum of the elements nearest to the top, weighted by strengths that add up to `strength`, or to what is
        there if that is less, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> state = neural_stack.push(neural_stack.push(neural_stack.empty(2), 1.0), 4.0, 0.5)
        >>> neural_stack.peek(state).item()
        2.5
    """
    errors.check_neural(state, NeuralStackState)
    return _peek(state, as_strength(strength, state))


def step(state: NeuralStackState, actions: Array, element: Array) -> tuple[NeuralStackState, Array]:
    """One time step of a controller: pop, push, then read total strength 1.

    Args:
        state: the stack.
        actions: (*batch, 2), the strengths of push and pop, of the dtype of the strengths; usually in [0, 1].
        element: (*batch, *element), what is pushed, of the dtype of the values.

    Returns:
        The stack afterwards, without its oldest slot; and the read, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_stack
        >>> state = neural_stack.push(neural_stack.empty(2), 1.0)
        >>> state, read = neural_stack.step(state, jnp.asarray([0.25, 0.5]), 4.0)
        >>> read.item(), state.strengths.tolist()
        (1.5, [0.5, 0.25])

    References:
        Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, equations 1 to 3.
    """
    element = _checked_element(state, element)
    actions = as_array("actions", actions)
    errors.check_weights(actions, (*state.strengths.shape[:-1], 2), state.strengths.dtype)
    return _step(state, actions, element)


def scan(
    state: NeuralStackState,
    actions: Array,
    elements: Array,
    *,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NeuralStackState, Array]:
    """Run a whole sequence of steps.

    Args:
        state: the stack before the first step.
        actions: (*batch, T, 2), the strengths of push and pop, of the dtype of the strengths.
        elements: (*batch, T, *element), of the dtype of the values.
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, one pop and one read of all
            older slots each. They agree to rounding, also in the gradients at ties. With "parallel", an element that is
            not finite may also spoil the reads before it. "auto" takes the faster one, by the rule in docs/parallel.md.

    Returns:
        The stack after the last step, of the same capacity, and the read of each step, like `elements`. Nothing is
        dropped on the way.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit, an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.jax_impl import neural_stack
        >>> program = neural_stack.actions([PUSH, PUSH, POP])
        >>> neural_stack.scan(neural_stack.empty(1), program, jnp.asarray([1.0, 2.0, 0.0]))[1].tolist()
        [1.0, 2.0, 1.0]
    """
    layout = errors.check_neural(state, NeuralStackState)
    actions, elements = as_array("actions", actions), as_array("elements", elements)
    time = errors.check_elements("elements", elements, layout, state.values.dtype)
    errors.check_weights(actions, (*layout.batch, time, 2), state.strengths.dtype)
    chosen = errors.check_method(method, time, parallel.is_faster(time))
    return _scan(state, actions, elements, chosen)


def contents(state: NeuralStackState) -> Array:
    """What is on the stack: the elements times their strengths, the top in the last row.

    Args:
        state: the stack.

    Returns:
        (*batch, N, *element).

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.contents(neural_stack.push(neural_stack.empty(2), 5.0, 0.5)).tolist()
        [0.0, 2.5]
    """
    errors.check_neural(state, NeuralStackState)
    return _contents(state)


def size(state: NeuralStackState) -> Array:
    """How much is on the stack: the total strength.

    Args:
        state: the stack.

    Returns:
        (*batch,), in float32 at least.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.size(neural_stack.push(neural_stack.empty(2), 5.0, 0.5)).item()
        0.5
    """
    errors.check_neural(state, NeuralStackState)
    return _size(state)


def resize(state: NeuralStackState, capacity: int) -> NeuralStackState:
    """The same stack with another number of slots.

    Args:
        state: the stack.
        capacity: how many slots it is to have, at least 1.

    Returns:
        The stack, padded with slots of strength 0 at the oldest end, or without its oldest slots.

    Raises:
        TypeError, ValueError: a capacity below 1, a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.resize(neural_stack.push(neural_stack.empty(1), 5.0), 3).values.tolist()
        [0.0, 0.0, 5.0]
    """
    errors.check_neural(state, NeuralStackState)
    capacity, axis = errors.check_count("capacity", capacity, 1), state.strengths.ndim - 1
    return NeuralStackState(*(resized(array, axis, capacity) for array in state))


def _checked_element(state: NeuralStackState, element: Any) -> Array:
    layout = errors.check_neural(state, NeuralStackState)
    element = as_array("element", element, state.values)
    errors.check_element("element", element, layout, state.values.dtype)
    return element


@jax.jit
def _push(state: NeuralStackState, element: Array, strength: Array) -> NeuralStackState:
    rank = state.strengths.ndim
    values = jnp.concatenate([state.values, jnp.expand_dims(element, rank - 1)], rank - 1)
    strength = feasible(strength).astype(state.strengths.dtype)
    strengths = jnp.concatenate([state.strengths, strength[..., None]], -1)
    return resize(NeuralStackState(values, strengths), state.strengths.shape[-1])


@jax.jit
def _pop(state: NeuralStackState, strength: Array) -> tuple[NeuralStackState, Array]:
    strengths = feasible(state.strengths)
    left = remaining(strengths, nearer(strengths), feasible(strength))
    return NeuralStackState(state.values, left.astype(state.strengths.dtype)), _peek(state, strength)


@jax.jit
def _peek(state: NeuralStackState, strength: Array) -> Array:
    strengths, rank = feasible(state.strengths), state.strengths.ndim
    read = reading(flatten(state.values, rank), strengths, nearer(strengths), feasible(strength))
    return read.reshape(state.values.shape[: rank - 1] + state.values.shape[rank:])


@jax.jit
def _step(state: NeuralStackState, actions: Array, element: Array) -> tuple[NeuralStackState, Array]:
    state = _pop(state, actions[..., POP])[0]
    state = _push(state, element, actions[..., PUSH])
    return state, _peek(state, jnp.ones_like(actions[..., PUSH]))


@partial(jax.jit, static_argnames="method")
def _scan(state: NeuralStackState, actions: Array, elements: Array, method: str) -> tuple[NeuralStackState, Array]:
    rank, capacity = state.strengths.ndim - 1, state.strengths.shape[-1]
    if method == "sequential":
        state = resize(state, capacity + actions.shape[rank])
        state, reads = sequential.scan(step, state, actions, elements, rank)
    else:
        values, strengths, reads = parallel.scan(
            flatten(state.values, rank + 1), state.strengths, actions, flatten(elements, rank + 1)
        )
        shape = (*strengths.shape, *state.values.shape[rank + 1 :])
        state, reads = NeuralStackState(values.reshape(shape), strengths), reads.reshape(elements.shape)
    return resize(state, capacity), reads


@jax.jit
def _contents(state: NeuralStackState) -> Array:
    strengths = feasible(state.strengths).astype(state.values.dtype)
    return state.values * strengths.reshape(strengths.shape + (1,) * (state.values.ndim - strengths.ndim))


@jax.jit
def _size(state: NeuralStackState) -> Array:
    return jnp.sum(feasible(state.strengths), -1)
