"""The exact stack: a buffer and an integer depth, for programs whose actions are integers.

It only moves bits. A push writes row `depth` of the buffer and adds one to the depth, a pop subtracts one, and the
top is row `depth - 1`. What is read is what was pushed, in every bit, and the gradient of what is read goes to the
push that made it and to nothing else. (XLA on the CPU computes bfloat16 in float32, even when it only moves it: NaN
payloads of that dtype change there, and some processors flush its subnormals to zero.)

A push onto a full stack and a pop from an empty one leave the stack as it was; the latter pops zeros, as `peek` and
`read` of an empty stack are zeros. A code that is not PUSH, POP or NOOP acts as NOOP. Each sets `fault`, and the
first fault stays: 1 is an overflow, 2 an underflow, 3 an unknown code. Inside `jit` and `vmap` nothing is raised;
outside, `raise_if_fault` does.
"""

from functools import partial
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int8, Int32, Integer, Shaped

from diffstack import errors
from diffstack.actions import NOOP, POP, PUSH
from diffstack.jax_impl import sequential
from diffstack.jax_impl._arrays import as_array, as_codes, as_dtype, flatten
from diffstack.jax_impl.parallel import discrete as parallel

IS_STACK: Final = True
# Where elements go does not depend on them, so an algorithm may run on their addresses instead.
ONLY_MOVES: Final = True


class DiscreteState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        buffer: the slots, (*batch, N, *element), bottom first; rows from `depth` on are stale.
        depth: the number of elements on the stack, (*batch,), int32.
        fault: 0, or the first fault, (*batch,), int8: 1 overflow, 2 underflow, 3 unknown code.
    """

    buffer: Array
    depth: Array
    fault: Array


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
) -> DiscreteState:
    """An empty stack.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: that of the elements: floating, integer (uint8, int8 to int64), bool or complex; the default float
            where none is given.
        batch_shape: the leading axes, one stack for each of their entries.

    Returns:
        A `DiscreteState` of depth 0.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> discrete.empty(3, dtype="int32").buffer.tolist()
        [0, 0, 0]
    """
    layout = errors.check_empty(capacity, element_shape, batch_shape)
    dtype = as_dtype(dtype, errors.MOVABLE, "a dtype that both frameworks can move")
    return _state(jnp.zeros((*layout.batch, layout.slots, *layout.element), dtype), layout.batch, depth=0)


def from_buffer(buffer: Array) -> DiscreteState:
    """One full stack, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element).

    Returns:
        A `DiscreteState` of depth N.

    Raises:
        TypeError, ValueError: a buffer that is not as said above.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import discrete
        >>> discrete.peek(discrete.from_buffer(jnp.asarray([1, 2, 3]))).item()
        3
    """
    buffer = as_array("buffer", buffer)
    layout = errors.check_buffer(buffer)
    errors.check_kind("buffer", buffer.dtype, errors.MOVABLE, "a dtype that both frameworks can move")
    return _state(buffer, layout.batch, depth=layout.slots)


def actions(codes: Any, *, dtype: Any = None) -> Array:
    """Integer codes, as they are: they are this family's actions.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, any shape.
        dtype: without meaning here; the other families' actions have the dtype of their state.

    Returns:
        The codes, an integer array.

    Raises:
        TypeError: codes that are not integers.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.jax_impl import discrete
        >>> discrete.actions([PUSH, NOOP]).tolist()
        [0, 2]
    """
    del dtype
    return as_codes(codes)


def push(state: DiscreteState, element: Array) -> DiscreteState:
    """Put an element on the stack.

    Args:
        state: the stack.
        element: (*batch, *element), of the state's dtype.

    Returns:
        The stack with the element on top; a full stack as it was, with fault 1.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> discrete.push(discrete.empty(2), 5.0).buffer.tolist()
        [5.0, 0.0]
    """
    return _act(state, PUSH, _checked_element(state, element))[0]


def pop(state: DiscreteState) -> tuple[DiscreteState, Array]:
    """Take the top element off the stack.

    Args:
        state: the stack.

    Returns:
        The stack without its top, and the element that was there, (*batch, *element); of an empty stack, the stack
        as it was, with fault 2, and zeros.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> state, element = discrete.pop(discrete.push(discrete.empty(2), 5.0))
        >>> element.item(), state.depth.item()
        (5.0, 0)
    """
    element = peek(state)
    return _act(state, POP, element)[0], element


def peek(state: DiscreteState) -> Array:
    """Read the top element.

    Args:
        state: the stack, which stays as it is.

    Returns:
        The element, (*batch, *element); zeros where the stack is empty.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> discrete.peek(discrete.push(discrete.empty(2), 5.0)).item()
        5.0
    """
    errors.check_discrete(state, DiscreteState)
    return _peek(state)


def step(state: DiscreteState, actions: Array, element: Array) -> tuple[DiscreteState, Array]:
    """One time step of a program: push, pop or leave, then read the top.

    Args:
        state: the stack.
        actions: (*batch,), integer codes PUSH, POP and NOOP.
        element: (*batch, *element), what a push puts on the stack.

    Returns:
        The stack afterwards, and its top, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.actions import PUSH
        >>> from diffstack.jax_impl import discrete
        >>> state, read = discrete.step(discrete.empty(2), discrete.actions(PUSH), 4.0)
        >>> read.item(), state.depth.item()
        (4.0, 1)
    """
    element = _checked_element(state, element)
    actions = as_array("actions", actions, state.depth)
    errors.check_codes("actions", actions, state.depth.shape)
    return _step(state, actions, element)


def scan(
    state: DiscreteState,
    actions: Array,
    elements: Array,
    *,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[DiscreteState, Array]:
    """Run a whole sequence of steps.

    Args:
        state: the stack before the first step.
        actions: (*batch, T), integer codes PUSH, POP and NOOP.
        elements: (*batch, T, *element).
        method: "sequential" runs `step` T times; "parallel" runs the stack on the addresses of the elements, and
            gathers the elements once; both give the same bits. "auto" is "parallel".

    Returns:
        The stack after the last step, and the top after each, like `elements`.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit, an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.jax_impl import discrete
        >>> program = discrete.actions([PUSH, PUSH, POP])
        >>> state, reads = discrete.scan(discrete.empty(2), program, jnp.asarray([1.0, 2.0, 0.0]))
        >>> reads.tolist()
        [1.0, 2.0, 1.0]
    """
    layout = errors.check_discrete(state, DiscreteState)
    actions, elements = as_array("actions", actions), as_array("elements", elements)
    time = errors.check_elements("elements", elements, layout, state.buffer.dtype)
    errors.check_codes("actions", actions, (*layout.batch, time))
    return _scan(state, actions, elements, errors.check_method(method, time, parallel_is_faster=True))


def contents(state: DiscreteState) -> Array:
    """What is on the stack, the top in the last row.

    Args:
        state: the stack.

    Returns:
        The elements, (*batch, N, *element), behind as many rows of zeros as there are unused slots.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> discrete.contents(discrete.push(discrete.push(discrete.empty(3), 1.0), 2.0)).tolist()
        [0.0, 1.0, 2.0]
    """
    errors.check_discrete(state, DiscreteState)
    return _contents(state)


def size(state: DiscreteState) -> Array:
    """The number of elements on the stack.

    Args:
        state: the stack.

    Returns:
        Its depth, (*batch,), int32.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> discrete.size(discrete.push(discrete.empty(3), 1.0)).item()
        1
    """
    errors.check_discrete(state, DiscreteState)
    return state.depth


def fault(state: DiscreteState) -> Array:
    """The first fault that a stack has met.

    Args:
        state: the stack.

    Returns:
        (*batch,), int8: 0 none, 1 overflow, 2 underflow, 3 unknown code.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> discrete.fault(discrete.pop(discrete.empty(3))[0]).item()
        2
    """
    errors.check_discrete(state, DiscreteState)
    return state.fault


def raise_if_fault(state: DiscreteState) -> None:
    """Raise the fault of the first stack of a batch that has one.

    It looks at values, so it is for use outside `jit`, `vmap` and `grad`.

    Args:
        state: the stack.

    Raises:
        StackOverflowError, StackUnderflowError, ValueError: fault 1, 2, 3, with the batch index.
        TypeError: a state that has no values yet, inside a transformation.

    Example:
        >>> from diffstack.jax_impl import discrete
        >>> discrete.raise_if_fault(discrete.pop(discrete.empty(3))[0])
        Traceback (most recent call last):
            ...
        diffstack.errors.StackUnderflowError: state: a pop from an empty stack
    """
    layout = errors.check_discrete(state, DiscreteState)
    if isinstance(state.fault, jax.core.Tracer):
        errors.bad_type("state", "values, outside jit, vmap and grad", "a state inside a transformation")
    faults = np.asarray(state.fault)
    if faults.any():
        first = np.argwhere(faults)[0]
        errors.raise_fault(first.tolist(), int(faults[tuple(first)]), layout.slots)


def _state(buffer: Array, batch: tuple[int, ...], depth: int) -> DiscreteState:
    full = jnp.full(batch, depth, jnp.int32)
    return DiscreteState(buffer, full, jnp.zeros_like(full, jnp.int8))


def _checked_element(state: DiscreteState, element: Any) -> Array:
    layout = errors.check_discrete(state, DiscreteState)
    element = as_array("element", element, state.buffer)
    errors.check_element("element", element, layout, state.buffer.dtype)
    return element


def _act(state: DiscreteState, code: int, element: Array) -> tuple[DiscreteState, Array]:
    return _step(state, jnp.full_like(state.depth, code), element)


@jax.jit
def _peek(state: DiscreteState) -> Array:
    rank = state.depth.ndim
    element = _top(flatten(state.buffer, rank + 1), state.depth)
    return element.reshape(state.buffer.shape[:rank] + state.buffer.shape[rank + 1 :])


@jax.jit
def _step(state: DiscreteState, actions: Array, element: Array) -> tuple[DiscreteState, Array]:
    rank = state.depth.ndim
    writes, depth, fault = _moved(state.depth, state.fault, actions, state.buffer.shape[rank])
    buffer = _written(flatten(state.buffer, rank + 1), state.depth, writes, flatten(element, rank))
    state = DiscreteState(buffer.reshape(state.buffer.shape), depth, fault)
    return state, _peek(state)


@partial(jax.jit, static_argnames="method")
def _scan(state: DiscreteState, actions: Array, elements: Array, method: str) -> tuple[DiscreteState, Array]:
    rank = state.depth.ndim
    if method == "sequential":
        return sequential.scan(step, state, actions, elements, rank)
    buffer, depth, fault, reads = parallel.scan(
        flatten(state.buffer, rank + 1), state.depth, state.fault, actions, flatten(elements, rank + 1)
    )
    return DiscreteState(buffer.reshape(state.buffer.shape), depth, fault), reads.reshape(elements.shape)


@jax.jit
def _contents(state: DiscreteState) -> Array:
    return _raised(flatten(state.buffer, state.depth.ndim + 1), state.depth).reshape(state.buffer.shape)


def _moved(
    depth: Int32[Array, "*batch"], fault: Int8[Array, "*batch"], codes: Integer[Array, "*batch"], slots: int
) -> tuple[Bool[Array, "*batch"], Int32[Array, "*batch"], Int8[Array, "*batch"]]:
    push, pop = codes == PUSH, codes == POP
    overflow, underflow = push & (depth == slots), pop & (depth == 0)
    unknown = ~push & ~pop & (codes != NOOP)
    writes, erases = push & ~overflow, pop & ~underflow
    # At most one of the three can be true.
    met = overflow.astype(jnp.int8) + 2 * underflow.astype(jnp.int8) + 3 * unknown.astype(jnp.int8)
    depth = depth + writes.astype(jnp.int32) - erases.astype(jnp.int32)
    return writes, depth, jnp.where(fault == 0, met, fault)


def _written(
    buffer: Shaped[Array, "*batch slots dim"],
    depth: Int32[Array, "*batch"],
    writes: Bool[Array, "*batch"],
    element: Shaped[Array, "*batch dim"],
) -> Shaped[Array, "*batch slots dim"]:
    row = jnp.arange(buffer.shape[-2], dtype=depth.dtype) == depth[..., None]
    return jnp.where((row & writes[..., None])[..., None], element[..., None, :], buffer)


def _top(buffer: Shaped[Array, "*batch slots dim"], depth: Int32[Array, "*batch"]) -> Shaped[Array, "*batch dim"]:
    row = jnp.maximum(depth - 1, 0)[..., None, None]
    element = jnp.take_along_axis(buffer, row, -2)[..., 0, :]
    return jnp.where(depth[..., None] > 0, element, jnp.zeros_like(element))


def _raised(
    buffer: Shaped[Array, "*batch slots dim"], depth: Int32[Array, "*batch"]
) -> Shaped[Array, "*batch slots dim"]:
    slot = jnp.arange(buffer.shape[-2], dtype=depth.dtype)
    unused = (buffer.shape[-2] - depth)[..., None]
    rows = jnp.take_along_axis(buffer, ((slot - unused) % len(slot))[..., None], -2)
    return jnp.where((slot >= unused)[..., None], rows, jnp.zeros_like(rows))
