"""The neural queue: the neural stack, popped and read at its oldest end, the front.

With d the strength that is pushed with element v_t, u the strength that is popped, and elements i from oldest to
newest (Grefenstette et al. 2015, equations 4 and 5),

    s_t[i] = max(0, s_{t-1}[i] - max(0, u_t - sum_{j<i} s_{t-1}[j]))   for i < t,       s_t[t] = d_t
    r_t    = sum_i min(s_t[i], max(0, 1 - sum_{j<i} s_t[j])) v_i

so a step pops the front, pushes at the back, and reads total strength 1 from the front. A pop of more than is there
takes what is there.

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
from diffstack.jax_impl._neural import as_strength, feasible, hard_actions, reading, remaining, resized
from diffstack.jax_impl._neural import below as nearer
from diffstack.jax_impl.parallel import neural_queue as parallel

IS_STACK: Final = False


class NeuralQueueState(NamedTuple):
    """A queue, or a batch of them.

    Attributes:
        values: the elements, (*batch, N, *element), oldest first.
        strengths: how much of each is there, (*batch, N).
    """

    values: Array
    strengths: Array


def empty(
    capacity: int, element_shape: tuple[int, ...] = (), *, dtype: Any = None, batch_shape: tuple[int, ...] = ()
) -> NeuralQueueState:
    """An empty queue: slots of strength 0.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for values and strengths; the default float where none is given.
        batch_shape: the leading axes, one queue for each of their entries.

    Returns:
        A `NeuralQueueState`.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> from diffstack.jax_impl import neural_queue
        >>> neural_queue.empty(3).strengths.tolist()
        [0.0, 0.0, 0.0]
    """
    layout = errors.check_empty(capacity, element_shape, batch_shape)
    values = jnp.zeros((*layout.batch, layout.slots, *layout.element), floating_dtype(dtype))
    return NeuralQueueState(values, jnp.zeros((*layout.batch, layout.slots), values.dtype))


def from_buffer(buffer: Array) -> NeuralQueueState:
    """One full queue, whose front is the first row of a buffer.

    Args:
        buffer: (N, *element), floating.

    Returns:
        A `NeuralQueueState` of N elements of strength 1.

    Raises:
        TypeError, ValueError: a buffer that is not as said above.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_queue
        >>> neural_queue.peek(neural_queue.from_buffer(jnp.asarray([1.0, 2.0]))).item()
        1.0
    """
    buffer = as_array("buffer", buffer)
    layout = errors.check_buffer(buffer)
    errors.check_kind("buffer", buffer.dtype, errors.FLOATING, "a floating dtype")
    return NeuralQueueState(buffer, jnp.ones_like(buffer, shape=(layout.slots,)))


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
        >>> from diffstack.jax_impl import neural_queue
        >>> neural_queue.actions([PUSH, NOOP]).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    return hard_actions(codes, dtype)


def push(state: NeuralQueueState, element: Array, strength: Array | float = 1.0) -> NeuralQueueState:
    """Put an element at the back of the queue.

    Args:
        state: the queue.
        element: (*batch, *element), of the dtype of the values.
        strength: a number, or (*batch,), of the dtype of the strengths; usually in [0, 1].

    Returns:
        The queue with the element in its newest slot, and without its oldest slot.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import neural_queue
        >>> neural_queue.push(neural_queue.empty(2), 5.0, 0.5).strengths.tolist()
        [0.0, 0.5]
    """
    return _push(state, _checked_element(state, element), as_strength(strength, state))


def pop(state: NeuralQueueState, strength: Array | float = 1.0) -> tuple[NeuralQueueState, Array]:
    """Take strength off the front of the queue.

    Args:
        state: the queue.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The queue with what is left; and what was taken, the sum of the elements weighted by the strength that each
        lost, (*batch, *element). More than is there takes what is there.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import neural_queue
        >>> state = neural_queue.push(neural_queue.push(neural_queue.empty(2), 1.0), 4.0, 0.5)
        >>> state, element = neural_queue.pop(state, 0.75)
        >>> element.item(), state.strengths.tolist()
        (0.75, [0.25, 0.5])
    """
    errors.check_neural(state, NeuralQueueState)
    return _pop(state, as_strength(strength, state))


def peek(state: NeuralQueueState, strength: Array | float = 1.0) -> Array:
    """Read strength from the front of the queue.

    Args:
        state: the queue, which stays as it is.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The sum of the elements nearest to the front, weighted by strengths that add up to `strength`, or to what is
        there if that is less, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import neural_queue
        >>> state = neural_queue.push(neural_queue.push(neural_queue.empty(2), 1.0), 4.0, 0.5)
        >>> neural_queue.peek(state, 1.5).item()
        3.0
    """
    errors.check_neural(state, NeuralQueueState)
    return _peek(state, as_strength(strength, state))


def step(state: NeuralQueueState, actions: Array, element: Array) -> tuple[NeuralQueueState, Array]:
    """One time step of a controller: pop, push, then read total strength 1.

    Args:
        state: the queue.
        actions: (*batch, 2), the strengths of push and pop, of the dtype of the strengths; usually in [0, 1].
        element: (*batch, *element), what is pushed, of the dtype of the values.

    Returns:
        The queue afterwards, without its oldest slot; and the read, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_queue
        >>> state = neural_queue.push(neural_queue.empty(2), 1.0)
        >>> state, read = neural_queue.step(state, jnp.asarray([0.25, 0.5]), 4.0)
        >>> read.item(), state.strengths.tolist()
        (1.5, [0.5, 0.25])

    References:
        Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, equations 4 and 5.
    """
    element = _checked_element(state, element)
    actions = as_array("actions", actions)
    errors.check_weights(actions, (*state.strengths.shape[:-1], 2), state.strengths.dtype)
    return _step(state, actions, element)


def scan(
    state: NeuralQueueState,
    actions: Array,
    elements: Array,
    *,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NeuralQueueState, Array]:
    """Run a whole sequence of steps.

    Args:
        state: the queue before the first step.
        actions: (*batch, T, 2), the strengths of push and pop, of the dtype of the strengths.
        elements: (*batch, T, *element), of the dtype of the values.
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, one pop and one read of all
            slots each. They agree to rounding, also in the gradients at ties. With "parallel", an element that is
            not finite may also spoil the reads before it. "auto" takes the faster one, by the rule in docs/parallel.md.

    Returns:
        The queue after the last step, of the same capacity, and the read of each step, like `elements`. Nothing is
        dropped on the way.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit, an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.jax_impl import neural_queue
        >>> program = neural_queue.actions([PUSH, PUSH, POP])
        >>> neural_queue.scan(neural_queue.empty(1), program, jnp.asarray([1.0, 2.0, 0.0]))[1].tolist()
        [1.0, 1.0, 2.0]
    """
    layout = errors.check_neural(state, NeuralQueueState)
    actions, elements = as_array("actions", actions), as_array("elements", elements)
    time = errors.check_elements("elements", elements, layout, state.values.dtype)
    errors.check_weights(actions, (*layout.batch, time, 2), state.strengths.dtype)
    chosen = errors.check_method(method, time, parallel.is_faster(time))
    return _scan(state, actions, elements, chosen)


def contents(state: NeuralQueueState) -> Array:
    """What is in the queue: the elements times their strengths, oldest first.

    Args:
        state: the queue.

    Returns:
        (*batch, N, *element).

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import neural_queue
        >>> neural_queue.contents(neural_queue.push(neural_queue.empty(2), 5.0, 0.5)).tolist()
        [0.0, 2.5]
    """
    errors.check_neural(state, NeuralQueueState)
    return _contents(state)


def size(state: NeuralQueueState) -> Array:
    """How much is in the queue: the total strength.

    Args:
        state: the queue.

    Returns:
        (*batch,), in float32 at least.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import neural_queue
        >>> neural_queue.size(neural_queue.push(neural_queue.empty(2), 5.0, 0.5)).item()
        0.5
    """
    errors.check_neural(state, NeuralQueueState)
    return _size(state)


def resize(state: NeuralQueueState, capacity: int) -> NeuralQueueState:
    """The same queue with another number of slots.

    Args:
        state: the queue.
        capacity: how many slots it is to have, at least 1.

    Returns:
        The queue, padded with slots of strength 0 at the oldest end, or without its oldest slots.

    Raises:
        TypeError, ValueError: a capacity below 1, a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import neural_queue
        >>> neural_queue.resize(neural_queue.push(neural_queue.empty(1), 5.0), 3).values.tolist()
        [0.0, 0.0, 5.0]
    """
    errors.check_neural(state, NeuralQueueState)
    capacity, axis = errors.check_count("capacity", capacity, 1), state.strengths.ndim - 1
    return NeuralQueueState(*(resized(array, axis, capacity) for array in state))


def _checked_element(state: NeuralQueueState, element: Any) -> Array:
    layout = errors.check_neural(state, NeuralQueueState)
    element = as_array("element", element, state.values)
    errors.check_element("element", element, layout, state.values.dtype)
    return element


@jax.jit
def _push(state: NeuralQueueState, element: Array, strength: Array) -> NeuralQueueState:
    rank = state.strengths.ndim
    values = jnp.concatenate([state.values, jnp.expand_dims(element, rank - 1)], rank - 1)
    strength = feasible(strength).astype(state.strengths.dtype)
    strengths = jnp.concatenate([state.strengths, strength[..., None]], -1)
    return resize(NeuralQueueState(values, strengths), state.strengths.shape[-1])


@jax.jit
def _pop(state: NeuralQueueState, strength: Array) -> tuple[NeuralQueueState, Array]:
    strengths = feasible(state.strengths)
    left = remaining(strengths, nearer(strengths), feasible(strength))
    return NeuralQueueState(state.values, left.astype(state.strengths.dtype)), _peek(state, strength)


@jax.jit
def _peek(state: NeuralQueueState, strength: Array) -> Array:
    strengths, rank = feasible(state.strengths), state.strengths.ndim
    read = reading(flatten(state.values, rank), strengths, nearer(strengths), feasible(strength))
    return read.reshape(state.values.shape[: rank - 1] + state.values.shape[rank:])


@jax.jit
def _step(state: NeuralQueueState, actions: Array, element: Array) -> tuple[NeuralQueueState, Array]:
    state = _pop(state, actions[..., POP])[0]
    state = _push(state, element, actions[..., PUSH])
    return state, _peek(state, jnp.ones_like(actions[..., PUSH]))


@partial(jax.jit, static_argnames="method")
def _scan(state: NeuralQueueState, actions: Array, elements: Array, method: str) -> tuple[NeuralQueueState, Array]:
    rank, capacity = state.strengths.ndim - 1, state.strengths.shape[-1]
    if method == "sequential":
        state = resize(state, capacity + actions.shape[rank])
        state, reads = sequential.scan(step, state, actions, elements, rank)
    else:
        values, strengths, reads = parallel.scan(
            flatten(state.values, rank + 1), state.strengths, actions, flatten(elements, rank + 1)
        )
        shape = (*strengths.shape, *state.values.shape[rank + 1 :])
        state, reads = NeuralQueueState(values.reshape(shape), strengths), reads.reshape(elements.shape)
    return resize(state, capacity), reads


@jax.jit
def _contents(state: NeuralQueueState) -> Array:
    strengths = feasible(state.strengths).astype(state.values.dtype)
    return state.values * strengths.reshape(strengths.shape + (1,) * (state.values.ndim - strengths.ndim))


@jax.jit
def _size(state: NeuralQueueState) -> Array:
    return jnp.sum(feasible(state.strengths), -1)
