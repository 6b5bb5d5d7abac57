"""The notebook's stack: a buffer and a soft one-hot index.

The index is a distribution over the slots of the buffer, one-hot at the slot that the next push writes. A push
writes there and moves the index up; a pop moves it down and reads there. With `w` the weight that is written,

    buffer' = (1 - w) * buffer + w * element              w = a_push * index
    index'  = a_push roll(index, +1) + a_pop roll(index, -1) + a_noop index
    read'   = sum_i roll(index', -1)_i buffer'_i

so that everything is linear in the elements and multilinear in the actions, and gradients reach all of them. The
convex form of the write is lossless: with a one-hot index, what is popped is what was pushed, bit for bit, for every
normal value and zero (its sign aside), whatever the slot held before, as long as that was finite. XLA flushes
subnormals to zero in arithmetic on the CPU.

The buffer is a ring. A stack of capacity N that is pushed a further time overwrites its oldest element, and a stack
that is popped when empty reads the slot under its bottom; full and empty have the same index. The family
`discrete` tells them apart.
"""

import math
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from diffstack import errors
from diffstack.actions import NOOP, POP, PUSH
from diffstack.jax_impl import sequential
from diffstack.jax_impl._arrays import as_array, as_codes, flatten, floating_dtype
from diffstack.jax_impl.parallel import _auto
from diffstack.jax_impl.parallel import pointer as parallel

IS_STACK: Final = True


class PointerState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        buffer: the slots, (*batch, N, *element).
        index: the slot that the next push writes, as a distribution over slots, (*batch, N).
    """

    buffer: Array
    index: Array  # type: ignore[assignment]  # hides tuple.index, as the field's own name does


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
) -> PointerState:
    """An empty stack: zeros, and the index at the first slot.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for buffer and index; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.

    Returns:
        A `PointerState`.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> from diffstack.jax_impl import pointer
        >>> pointer.empty(3, (2,)).index.tolist()
        [1.0, 0.0, 0.0]
    """
    layout = errors.check_empty(capacity, element_shape, batch_shape)
    buffer = jnp.zeros((*layout.batch, layout.slots, *layout.element), floating_dtype(dtype))
    return PointerState(buffer, _first_slot(layout, buffer))


def from_buffer(buffer: Array) -> PointerState:
    """One full stack, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element), floating.

    Returns:
        A `PointerState` whose index is at slot 0: one past the last, as the buffer is a ring.

    Raises:
        TypeError, ValueError: a buffer that is not as said above.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import pointer
        >>> pointer.peek(pointer.from_buffer(jnp.asarray([1.0, 2.0, 3.0]))).item()
        3.0
    """
    buffer = as_array("buffer", buffer)
    layout = errors.check_buffer(buffer)
    errors.check_kind("buffer", buffer.dtype, errors.FLOATING, "a floating dtype")
    return PointerState(buffer, _first_slot(layout, buffer))


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
        >>> from diffstack.jax_impl import pointer
        >>> pointer.actions([PUSH, NOOP]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    codes = as_codes(codes)[..., None]
    weights = jnp.concatenate([codes == PUSH, codes == POP, (codes != PUSH) & (codes != POP)], axis=-1)
    return weights.astype(floating_dtype(dtype))


def soft_assign(buffer: Array, index: Array, element: Array) -> Array:
    """Write an element to the slots of a buffer, each to the degree that an index gives it.

    Args:
        buffer: (*batch, N, *element), floating.
        index: (*batch, N), the weight of each slot, usually in [0, 1].
        element: (*batch, *element).

    Returns:
        `(1 - index) * buffer + index * element`, like `buffer`.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import pointer
        >>> pointer.soft_assign(jnp.zeros(3), jnp.asarray([0.0, 0.5, 1.0]), 4.0).tolist()
        [0.0, 2.0, 4.0]
    """
    state = PointerState(as_array("buffer", buffer), as_array("index", index))
    return _assign(state, _checked_element(state, element))


def soft_lookup(buffer: Array, index: Array) -> Array:
    """Read the slots of a buffer, each to the degree that an index gives it.

    Args:
        buffer: (*batch, N, *element), floating.
        index: (*batch, N), the weight of each slot, usually in [0, 1].

    Returns:
        `sum_i index_i buffer_i`, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import pointer
        >>> pointer.soft_lookup(jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([0.0, 0.5, 0.5])).item()
        2.5
    """
    state = PointerState(as_array("buffer", buffer), as_array("index", index))
    errors.check_pointer(state, PointerState)
    return _lookup(state)


def push(state: PointerState, element: Array) -> PointerState:
    """Put an element on the stack.

    Args:
        state: the stack.
        element: (*batch, *element), of the state's dtype.

    Returns:
        The stack with the element written at its index, and the index one slot up. A full stack overwrites its
        oldest element.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.jax_impl import pointer
        >>> pointer.push(pointer.empty(2), 5.0).buffer.tolist()
        [5.0, 0.0]
    """
    return _push(state, _checked_element(state, element))


def pop(state: PointerState) -> tuple[PointerState, Array]:
    """Take the top element off the stack.

    Args:
        state: the stack.

    Returns:
        The stack with the index one slot down, the buffer as it was; and the element there, (*batch, *element).

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import pointer
        >>> state, element = pointer.pop(pointer.push(pointer.empty(2), 5.0))
        >>> element.item(), state.index.tolist()
        (5.0, [1.0, 0.0])
    """
    errors.check_pointer(state, PointerState)
    return _pop(state)


def peek(state: PointerState) -> Array:
    """Read the top element.

    Args:
        state: the stack, which stays as it is.

    Returns:
        The element one slot below the index, (*batch, *element).

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import pointer
        >>> pointer.peek(pointer.push(pointer.empty(2), 5.0)).item()
        5.0
    """
    errors.check_pointer(state, PointerState)
    return _pop(state)[1]


def step(state: PointerState, actions: Array, element: Array) -> tuple[PointerState, Array]:
    """One time step of a controller: push, pop and noop, each to its degree, then read the top.

    Args:
        state: the stack.
        actions: (*batch, 3), the weights of PUSH, POP and NOOP; a distribution, though any numbers are taken.
        element: (*batch, *element), what is pushed.

    Returns:
        The stack afterwards, and its top, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import pointer
        >>> state, read = pointer.step(pointer.empty(2), jnp.asarray([0.5, 0.0, 0.5]), 4.0)
        >>> read.item(), state.index.tolist()
        (1.0, [0.5, 0.5])
    """
    element = _checked_element(state, element)
    actions = as_array("actions", actions, state.buffer)
    errors.check_weights(actions, (*state.index.shape[:-1], 3), state.buffer.dtype)
    return _step(state, actions, element)


def scan(
    state: PointerState,
    actions: Array,
    elements: Array,
    *,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[PointerState, Array]:
    """Run a whole sequence of steps.

    Args:
        state: the stack before the first step.
        actions: (*batch, T, 3), the weights of PUSH, POP and NOOP.
        elements: (*batch, T, *element).
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
        >>> from diffstack.jax_impl import pointer
        >>> program = pointer.actions([PUSH, PUSH, POP])
        >>> state, reads = pointer.scan(pointer.empty(2), program, jnp.asarray([1.0, 2.0, 0.0]))
        >>> reads.tolist()
        [1.0, 2.0, 1.0]
    """
    layout = errors.check_pointer(state, PointerState)
    actions, elements = (
        as_array("actions", actions, state.buffer),
        as_array("elements", elements, state.buffer),
    )
    time = errors.check_elements("elements", elements, layout, state.buffer.dtype)
    errors.check_weights(actions, (*layout.batch, time, 3), state.buffer.dtype)
    chosen = errors.check_method(method, time, parallel.is_faster(time, layout.slots * math.prod(layout.element)))
    if (method, chosen) == ("auto", "parallel"):
        return _auto.scan(_scan, state, actions, elements)
    return _scan(state, actions, elements, chosen)


def push_all(
    state: PointerState,
    elements: Array,
    *,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> PointerState:
    """Push a whole sequence, where nobody reads on the way.

    Args:
        state: the stack before the first push.
        elements: (*batch, T, *element), the first at the bottom.
        method: "sequential" runs `push` T times; "parallel" takes chunks of steps, with a matrix that all chunks share.
            They agree to rounding, and in the bits of what a one-hot index writes. "auto" takes the faster one.

    Returns:
        The stack after the last push, as `scan` with T pushes returns it. A full stack overwrites its oldest element.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit, an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import pointer
        >>> pointer.push_all(pointer.empty(3), jnp.asarray([1.0, 2.0])).buffer.tolist()
        [1.0, 2.0, 0.0]
    """
    layout = errors.check_pointer(state, PointerState)
    elements = as_array("elements", elements, state.buffer)
    time = errors.check_elements("elements", elements, layout, state.buffer.dtype)
    return _push_all(state, elements, errors.check_method(method, time, parallel.runs_are_faster(time)))


def pop_all(
    state: PointerState, count: int, *, method: Literal["auto", "sequential", "parallel"] = "auto"
) -> tuple[PointerState, Array]:
    """Pop a number of elements.

    Args:
        state: the stack before the first pop.
        count: how many pops, at least 0; a number that `jit` knows, as it shapes what is returned.
        method: "sequential" runs `pop` so many times; "parallel" reads chunks of steps, with a matrix that all chunks
            share. They agree to rounding, and in the bits of what a one-hot index reads. "auto" takes the faster one.

    Returns:
        The stack after the last pop, and what was popped, (*batch, count, *element), the top first.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together, a count that is no integer or is
            below 0, an unknown method.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import pointer
        >>> state, elements = pointer.pop_all(pointer.from_buffer(jnp.asarray([1.0, 2.0, 3.0])), 2)
        >>> elements.tolist()
        [3.0, 2.0]
    """
    errors.check_pointer(state, PointerState)
    count = errors.check_count("count", count, 0)
    return _pop_all(state, count, errors.check_method(method, count, parallel.runs_are_faster(count)))


def contents(state: PointerState) -> Array:
    """The buffer turned so that the top is in the last row.

    Args:
        state: the stack.

    Returns:
        `sum_k index_k roll(buffer, -k)`, (*batch, N, *element).

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.jax_impl import pointer
        >>> pointer.contents(pointer.push(pointer.push(pointer.empty(3), 1.0), 2.0)).tolist()
        [0.0, 1.0, 2.0]
    """
    errors.check_pointer(state, PointerState)
    return _contents(state)


def _first_slot(layout: errors.Layout, buffer: Array) -> Array:
    """The index of an empty stack, and of a full one."""
    index = jnp.zeros((*layout.batch, layout.slots), buffer.dtype)
    return index.at[..., 0].set(1)


def _checked_element(state: PointerState, element: Any) -> Array:
    layout = errors.check_pointer(state, PointerState)
    element = as_array("element", element, state.buffer)
    errors.check_element("element", element, layout, state.buffer.dtype)
    return element


@jax.jit
def _assign(state: PointerState, element: Array) -> Array:
    rank = state.index.ndim
    buffer = _soft_assign(flatten(state.buffer, rank), state.index, flatten(element, rank - 1))
    return buffer.reshape(state.buffer.shape)


@jax.jit
def _lookup(state: PointerState) -> Array:
    rank = state.index.ndim
    element = _soft_lookup(flatten(state.buffer, rank), state.index)
    return element.reshape(state.buffer.shape[: rank - 1] + state.buffer.shape[rank:])


@jax.jit
def _push(state: PointerState, element: Array) -> PointerState:
    return PointerState(_assign(state, element), jnp.roll(state.index, 1, -1))


@jax.jit
def _pop(state: PointerState) -> tuple[PointerState, Array]:
    state = PointerState(state.buffer, jnp.roll(state.index, -1, -1))
    return state, _lookup(state)


@jax.jit
def _step(state: PointerState, actions: Array, element: Array) -> tuple[PointerState, Array]:
    buffer, index = state
    a_push, a_pop, a_noop = actions[..., PUSH, None], actions[..., POP, None], actions[..., NOOP, None]
    buffer = _assign(PointerState(buffer, a_push * index), element)
    index = a_push * jnp.roll(index, 1, -1) + a_pop * jnp.roll(index, -1, -1) + a_noop * index
    state = PointerState(buffer, index)
    return state, _pop(state)[1]


@partial(jax.jit, static_argnames="method")
def _scan(state: PointerState, actions: Array, elements: Array, method: str) -> tuple[PointerState, Array]:
    rank = state.index.ndim - 1
    if method == "sequential":
        return sequential.scan(step, state, actions, elements, rank)
    buffer, index, reads = parallel.scan(
        flatten(state.buffer, rank + 1), state.index, actions, flatten(elements, rank + 1)
    )
    return PointerState(buffer.reshape(state.buffer.shape), index), reads.reshape(elements.shape)


@partial(jax.jit, static_argnames="method")
def _push_all(state: PointerState, elements: Array, method: str) -> PointerState:
    rank = state.index.ndim - 1
    if method == "sequential":
        return lax.scan(lambda state, element: (_push(state, element), None), state, jnp.moveaxis(elements, rank, 0))[0]
    buffer, index = parallel.push_all(flatten(state.buffer, rank + 1), state.index, flatten(elements, rank + 1))
    return PointerState(buffer.reshape(state.buffer.shape), index)


@partial(jax.jit, static_argnames=("count", "method"))
def _pop_all(state: PointerState, count: int, method: str) -> tuple[PointerState, Array]:
    rank = state.index.ndim - 1
    if method == "sequential":
        state, elements = lax.scan(lambda state, _: _pop(state), state, length=count)
        return state, jnp.moveaxis(elements, 0, rank)
    index, elements = parallel.pop_all(flatten(state.buffer, rank + 1), state.index, count)
    shape = state.buffer.shape
    return PointerState(state.buffer, index), elements.reshape(*shape[:rank], count, *shape[rank + 1 :])


@jax.jit
def _contents(state: PointerState) -> Array:
    buffer = _turned(flatten(state.buffer, state.index.ndim), state.index)
    return buffer.reshape(state.buffer.shape)


def _soft_assign(
    buffer: Float[Array, "*batch slots dim"],
    index: Float[Array, "*batch slots"],
    element: Float[Array, "*batch dim"],
) -> Float[Array, "*batch slots dim"]:
    weight = index[..., None]
    return (1 - weight) * buffer + weight * element[..., None, :]


def _soft_lookup(
    buffer: Float[Array, "*batch slots dim"], index: Float[Array, "*batch slots"]
) -> Float[Array, "*batch dim"]:
    # XLA's sum over the slots takes up to 40 times as long on a CPU.
    return jnp.matmul(index[..., None, :], buffer, precision=lax.Precision.HIGHEST)[..., 0, :]


def _turned(
    buffer: Float[Array, "*batch slots dim"], index: Float[Array, "*batch slots"]
) -> Float[Array, "*batch slots dim"]:
    slot = jnp.arange(index.shape[-1])
    turn = index[..., (slot[None, :] - slot[:, None]) % len(slot)]
    return jnp.matmul(turn, buffer, precision=lax.Precision.HIGHEST)
