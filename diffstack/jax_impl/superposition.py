"""The superposition stack of stack-augmented recurrent nets: every action is taken at once, each to its degree.

Row 0 is the top. With `v` the element that is pushed, and zeros below the bottom (Joulin & Mikolov 2015, eqs. 3, 4),

    S'_0 = a_push v       + a_pop S_1     + a_noop S_0        read' = S'_0
    S'_i = a_push S_{i-1} + a_pop S_{i+1} + a_noop S_i

so that the stack is a superposition of what it would be after each action. The capacity is the number of rows: what
is pushed past the last one falls off and does not come back. With one-hot actions every row is moved as it is, bit
for bit, for every normal value and zero (its sign aside), as long as its neighbours are finite. XLA flushes
subnormals to zero in arithmetic on the CPU.

Actions are usually a distribution, the softmax of a controller's output. Any numbers are taken, as the equations say:
rows that do not sum to 1 scale the whole stack, and NaN spreads from its row to its neighbours with every step.
"""

from functools import partial
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffstack import errors
from diffstack.actions import NOOP, POP, PUSH
from diffstack.jax_impl import pointer, sequential
from diffstack.jax_impl._arrays import as_array, floating_dtype
from diffstack.jax_impl.parallel import _auto
from diffstack.jax_impl.parallel import superposition as parallel

IS_STACK: Final = True


class SuperpositionState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        buffer: the rows, (*batch, N, D), the top first.
    """

    buffer: Array


def empty(
    capacity: int, element_shape: tuple[int, ...] = (), *, dtype: Any = None, batch_shape: tuple[int, ...] = ()
) -> SuperpositionState:
    """An empty stack: zeros.

    Args:
        capacity: the number of rows N, at least 1.
        element_shape: (D,); an element of this family is always a vector.
        dtype: a floating dtype; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.

    Returns:
        A `SuperpositionState`.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> from diffstack.jax_impl import superposition
        >>> superposition.empty(2, (3,)).buffer.tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    layout = errors.check_empty(capacity, element_shape, batch_shape)
    errors.check_vector("element_shape", layout.element)
    return SuperpositionState(jnp.zeros((*layout.batch, layout.slots, *layout.element), floating_dtype(dtype)))


def from_buffer(buffer: Array) -> SuperpositionState:
    """One full stack, whose top is the last row of a buffer.

    Args:
        buffer: (N, D), floating.

    Returns:
        A `SuperpositionState`, whose row 0 is the last row of the buffer.

    Raises:
        TypeError, ValueError: a buffer that is not as said above.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import superposition
        >>> superposition.peek(superposition.from_buffer(jnp.asarray([[1.0], [2.0]]))).tolist()
        [2.0]
    """
    buffer = as_array("buffer", buffer)
    layout = errors.check_buffer(buffer)
    errors.check_vector("the shape of a row of buffer", layout.element)
    errors.check_kind("buffer", buffer.dtype, errors.FLOATING, "a floating dtype")
    return SuperpositionState(jnp.flip(buffer, (0,)))


def actions(codes: Any, *, dtype: Any = None) -> Array:
    """Integer codes as one-hot weights of push, pop and noop.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, any shape; any other code counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Returns:
        Weights, (*codes, 3).

    Raises:
        TypeError: codes that are not integers, a dtype that is not floating.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.jax_impl import superposition
        >>> superposition.actions([PUSH, NOOP]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return pointer.actions(codes, dtype=dtype)


def push(state: SuperpositionState, element: Array) -> SuperpositionState:
    """Put an element on the stack: `step` with a one-hot action.

    Args:
        state: the stack.
        element: (*batch, D), of the state's dtype.

    Returns:
        The stack with every row one further down, and the element on top. The last row falls off.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import superposition
        >>> superposition.push(superposition.empty(2, (1,)), jnp.ones(1)).buffer.tolist()
        [[1.0], [0.0]]
    """
    element = _checked_element(state, element)
    return _act(state, PUSH, element)


def pop(state: SuperpositionState) -> tuple[SuperpositionState, Array]:
    """Take the top element off the stack: `step` with a one-hot action.

    Args:
        state: the stack.

    Returns:
        The stack with every row one further up, and zeros in the last; and the row that was the top, (*batch, D).

    Raises:
        TypeError, ValueError: a state that is not (*batch, N, D).

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import superposition
        >>> state, element = superposition.pop(superposition.from_buffer(jnp.asarray([[1.0], [2.0]])))
        >>> element.tolist(), state.buffer.tolist()
        ([2.0], [[1.0], [0.0]])
    """
    element = peek(state)
    return _act(state, POP, element), element


def peek(state: SuperpositionState) -> Array:
    """Read the top element.

    Args:
        state: the stack, which stays as it is.

    Returns:
        Row 0, (*batch, D).

    Raises:
        TypeError, ValueError: a state that is not (*batch, N, D).

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import superposition
        >>> superposition.peek(superposition.from_buffer(jnp.asarray([[1.0], [2.0]]))).tolist()
        [2.0]
    """
    errors.check_superposition(state, SuperpositionState)
    return state.buffer[..., 0, :]


def step(state: SuperpositionState, actions: Array, element: Array) -> tuple[SuperpositionState, Array]:
    """One time step of a controller: push, pop and noop, each to its degree, then read the top.

    Args:
        state: the stack.
        actions: (*batch, 3), the weights of PUSH, POP and NOOP; a distribution, though any numbers are taken.
        element: (*batch, D), what is pushed.

    Returns:
        The stack afterwards, and its top, (*batch, D).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import superposition
        >>> state = superposition.from_buffer(jnp.asarray([[1.0], [2.0]]))
        >>> state, read = superposition.step(state, jnp.asarray([0.5, 0.5, 0.0]), jnp.asarray([4.0]))
        >>> read.tolist(), state.buffer.tolist()
        ([2.5], [[2.5], [1.0]])

    References:
        Joulin & Mikolov 2015, Inferring Algorithmic Patterns with Stack-Augmented Recurrent Nets, equations 3 and 4.
    """
    element = _checked_element(state, element)
    actions = as_array("actions", actions, state.buffer)
    errors.check_weights(actions, (*state.buffer.shape[:-2], 3), state.buffer.dtype)
    return _step(state, actions, element)


def scan(
    state: SuperpositionState,
    actions: Array,
    elements: Array,
    *,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[SuperpositionState, Array]:
    """Run a whole sequence of steps.

    Args:
        state: the stack before the first step.
        actions: (*batch, T, 3), the weights of PUSH, POP and NOOP.
        elements: (*batch, T, D).
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, a few matrix products each.
            They agree to rounding, and in the bits of what hard actions read. With "parallel", an element that is not
            finite may also spoil the reads before it. "auto" takes the faster one, by the rule in docs/parallel.md.

    Returns:
        The stack after the last step, and the top after each, like `elements`.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit, an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.jax_impl import superposition
        >>> program = superposition.actions([PUSH, PUSH, POP])
        >>> elements = jnp.asarray([[1.0], [2.0], [0.0]])
        >>> superposition.scan(superposition.empty(2, (1,)), program, elements)[1].tolist()
        [[1.0], [2.0], [1.0]]
    """
    layout = errors.check_superposition(state, SuperpositionState)
    actions, elements = as_array("actions", actions, state.buffer), as_array("elements", elements, state.buffer)
    time = errors.check_elements("elements", elements, layout, state.buffer.dtype)
    errors.check_weights(actions, (*layout.batch, time, 3), state.buffer.dtype)
    chosen = errors.check_method(method, time, parallel.is_faster(time, layout.slots * layout.element[0]))
    if (method, chosen) == ("auto", "parallel") and parallel.steps_forward(state.buffer.size):
        return _auto.scan(_scan, state, actions, elements)
    return _scan(state, actions, elements, chosen)


def contents(state: SuperpositionState) -> Array:
    """What is on the stack, the top in the last row.

    Args:
        state: the stack.

    Returns:
        The rows, last one first, (*batch, N, D).

    Raises:
        TypeError, ValueError: a state that is not (*batch, N, D).

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import superposition
        >>> superposition.contents(superposition.push(superposition.empty(2, (1,)), jnp.ones(1))).tolist()
        [[0.0], [1.0]]
    """
    errors.check_superposition(state, SuperpositionState)
    return jnp.flip(state.buffer, (-2,))


def _checked_element(state: SuperpositionState, element: Any) -> Array:
    layout = errors.check_superposition(state, SuperpositionState)
    element = as_array("element", element, state.buffer)
    errors.check_element("element", element, layout, state.buffer.dtype)
    return element


@jax.jit
def _step(state: SuperpositionState, actions: Array, element: Array) -> tuple[SuperpositionState, Array]:
    state = SuperpositionState(_superposed(state.buffer, actions, element))
    return state, peek(state)


def _act(state: SuperpositionState, code: int, element: Array) -> SuperpositionState:
    codes = jnp.full(state.buffer.shape[:-2], code, jnp.int32)
    return _step(state, actions(codes, dtype=state.buffer.dtype), element)[0]


@partial(jax.jit, static_argnames="method")
def _scan(state: SuperpositionState, actions: Array, elements: Array, method: str) -> tuple[SuperpositionState, Array]:
    if method == "sequential":
        return sequential.scan(step, state, actions, elements, state.buffer.ndim - 2)
    buffer, reads = parallel.scan(state.buffer, actions, elements)
    return SuperpositionState(buffer), reads


def _superposed(
    buffer: Float[Array, "*batch slots dim"], actions: Float[Array, "*batch 3"], element: Float[Array, "*batch dim"]
) -> Float[Array, "*batch slots dim"]:
    a_push, a_pop, a_noop = (actions[..., code, None, None] for code in (PUSH, POP, NOOP))
    pushed = jnp.concatenate([element[..., None, :], buffer[..., :-1, :]], -2)
    popped = jnp.concatenate([buffer[..., 1:, :], jnp.zeros_like(buffer[..., :1, :])], -2)
    return a_push * pushed + a_pop * popped + a_noop * buffer
