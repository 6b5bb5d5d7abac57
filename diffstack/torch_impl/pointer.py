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

The buffer is a ring. A push onto a full stack overwrites its oldest element, and a pop from an empty one reads the slot
under its bottom: full and empty have the same index. The family `discrete` tells them apart.

**Shapes.** A state has a `buffer` (*batch, N, *element) and an `index` (*batch, N). An element is (*batch, *element);
an action is (*batch, 3), the weights of PUSH, POP and NOOP, which should sum to 1, though any numbers are taken. In
`scan` a time axis T follows the batch axes: actions (*batch, T, 3), elements and reads (*batch, T, *element).

**Dtypes.** A state has one floating dtype. An element or action of a narrower one is cast up to it. Where elements have
no axes, a Python number may be given for one.

**Errors.** Every function raises `TypeError` or `ValueError` for an argument whose type, dtype or shape does not fit,
and names it.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import FLOATING
from diffstack.torch_impl import _methods, _sequential
from diffstack.torch_impl._arrays import (
    as_array,
    as_codes,
    as_lengths,
    as_state,
    as_wide,
    flat,
    floating_dtype,
    matmul,
    numbered,
    run,
    shaped,
)
from diffstack.torch_impl._parallel import pointer as _parallel
from diffstack.torch_impl._ragged import stopped


class PointerState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        buffer: the slots, (*batch, N, *element).
        index: the slot that the next push writes, as a distribution over slots, (*batch, N).
    """

    buffer: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, as the field's own name does


# The equations, on elements of one axis.


def _soft_assign(
    buffer: Float[Tensor, "*batch slots dim"],
    index: Float[Tensor, "*batch slots"],
    element: Float[Tensor, "*batch dim"],
) -> Float[Tensor, "*batch slots dim"]:
    weight = index[..., None]
    return (1 - weight) * buffer + weight * element[..., None, :]


def _soft_lookup(
    buffer: Float[Tensor, "*batch slots dim"], index: Float[Tensor, "*batch slots"]
) -> Float[Tensor, "*batch dim"]:
    return torch.sum(index[..., None] * buffer, -2)


def _push(state: PointerState, element: Float[Tensor, "*batch dim"]) -> PointerState:
    return PointerState(_soft_assign(*state, element), torch.roll(state.index, 1, -1))


def _pop(state: PointerState) -> tuple[PointerState, Float[Tensor, "*batch dim"]]:
    state = PointerState(state.buffer, torch.roll(state.index, -1, -1))
    return state, _soft_lookup(*state)


def _peek(state: PointerState) -> Float[Tensor, "*batch dim"]:
    return _pop(state)[1]


def _step(
    state: PointerState, actions: Float[Tensor, "*batch 3"], element: Float[Tensor, "*batch dim"]
) -> tuple[PointerState, Float[Tensor, "*batch dim"]]:
    buffer, index = state
    buffer = _soft_assign(buffer, actions[..., PUSH, None] * index, element)
    state = PointerState(buffer, _turned(index, actions))
    return state, _peek(state)


def _turned(index: Float[Tensor, "*batch slots"], actions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch slots"]:
    a_push, a_pop, a_noop = (actions[..., code, None] for code in (PUSH, POP, NOOP))
    return a_push * torch.roll(index, 1, -1) + a_pop * torch.roll(index, -1, -1) + a_noop * index


def _contents(state: PointerState) -> Float[Tensor, "*batch slots dim"]:
    slot = torch.arange(state.index.shape[-1], device=state.index.device)
    turn = state.index[..., (slot[None, :] - slot[:, None]) % len(slot)]
    return matmul(turn, state.buffer)


def _scan(
    state: PointerState,
    actions: Float[Tensor, "*batch time 3"],
    elements: Float[Tensor, "*batch time dim"],
    lengths: Int[Tensor, "*batch"] | None,
    *,
    method: str,
) -> tuple[PointerState, Float[Tensor, "*batch time dim"]]:
    actions, elements = stopped(actions, lengths, numbered(actions, -1) == NOOP), stopped(elements, lengths)
    if method == "sequential":
        state, reads = _sequential.scan(_step, state, actions, elements)
    else:
        buffer, index, reads = _parallel.scan(*state, actions, elements)
        state = PointerState(buffer, index)
    return state, stopped(reads, lengths)


def _push_all(state: PointerState, elements: Float[Tensor, "*batch time dim"], *, method: str) -> PointerState:
    if method == "parallel":
        return PointerState(*_parallel.push_all(*state, elements))
    for element in elements.unbind(-2):
        state = _push(state, element)
    return state


def _pop_all(
    state: PointerState, *, count: int, method: str
) -> tuple[PointerState, Float[Tensor, "*batch {count} dim"]]:
    if method == "parallel":
        index, elements = _parallel.pop_all(*state, count)
        return PointerState(state.buffer, index), elements
    popped = [state.buffer[..., :0, :]]
    for _ in range(count):
        state, element = _pop(state)
        popped.append(element[..., None, :])
    return state, torch.cat(popped, -2)


# The public functions.


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
    device: Any = None,
) -> PointerState:
    """An empty stack: zeros, and the index at the first slot.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for buffer and index; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.
        device: where the state lives; the default device where none is given.

    Example:
        >>> from diffstack.torch_impl import pointer
        >>> pointer.empty(3, (2,)).index.tolist()
        [1.0, 0.0, 0.0]
    """
    layout = _checks.check_empty(capacity, element_shape, batch_shape)
    buffer = torch.zeros((*layout.batch, layout.slots, *layout.element), dtype=floating_dtype(dtype), device=device)
    return PointerState(buffer.clone(), _first_slot(layout, buffer))


def from_buffer(buffer: Tensor) -> PointerState:
    """One full stack, whose top is the last row of a buffer.

    The index is at slot 0, one past the last, since the buffer is a ring.

    Args:
        buffer: (N, *element), floating.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import pointer
        >>> pointer.peek(pointer.from_buffer(torch.tensor([1.0, 2.0, 3.0]))).item()
        3.0
    """
    buffer = as_array("buffer", buffer)
    layout = _checks.check_buffer(buffer)
    _checks.check_kind("buffer", buffer.dtype, FLOATING, "a floating dtype")
    return PointerState(buffer.clone(), _first_slot(layout, buffer))


def encode(codes: Any, *, dtype: Any = None) -> Tensor:
    """Integer codes as one-hot weights of push, pop and noop, (*codes, 3).

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, of any shape; any other code counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.torch_impl import pointer
        >>> pointer.encode([PUSH, NOOP]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    codes = as_codes(codes)[..., None]
    weights = torch.cat([codes == PUSH, codes == POP, (codes != PUSH) & (codes != POP)], dim=-1)
    return weights.to(floating_dtype(dtype))


def soft_assign(buffer: Tensor, index: Tensor, element: Tensor) -> Tensor:
    """Write an element to the slots of a buffer, each to the degree that an index gives it.

    Args:
        buffer: (*batch, N, *element), floating.
        index: (*batch, N), the weight of each slot, usually in [0, 1].
        element: (*batch, *element).

    Returns:
        `(1 - index) * buffer + index * element`, like `buffer`.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import pointer
        >>> pointer.soft_assign(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]), 4.0).tolist()
        [0.0, 2.0, 4.0]
    """
    state, layout = _opened(PointerState(as_array("buffer", buffer), as_array("index", index)))
    return shaped(run(_soft_assign, *state, _element(element, state, layout)), layout)


def soft_lookup(buffer: Tensor, index: Tensor) -> Tensor:
    """Read the slots of a buffer, each to the degree that an index gives it.

    Args:
        buffer: (*batch, N, *element), floating.
        index: (*batch, N), the weight of each slot, usually in [0, 1].

    Returns:
        `sum_i index_i buffer_i`, (*batch, *element).

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import pointer
        >>> pointer.soft_lookup(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.5, 0.5])).item()
        2.5
    """
    state, layout = _opened(PointerState(as_array("buffer", buffer), as_array("index", index)))
    return shaped(run(_soft_lookup, *state), layout)


def push(state: PointerState, element: Tensor) -> PointerState:
    """Put an element on the stack: write it at the index, and move the index one slot up.

    A full stack overwrites its oldest element.

    Example:
        >>> from diffstack.torch_impl import pointer
        >>> pointer.push(pointer.empty(2), 5.0).buffer.tolist()
        [5.0, 0.0]
    """
    state, layout = _opened(state)
    return shaped(run(_push, state, _element(element, state, layout)), layout)


def pop(state: PointerState) -> tuple[PointerState, Tensor]:
    """Take the top element off the stack: move the index one slot down, and read there.

    The buffer stays as it was.

    Example:
        >>> from diffstack.torch_impl import pointer
        >>> state, element = pointer.pop(pointer.push(pointer.empty(2), 5.0))
        >>> element.item(), state.index.tolist()
        (5.0, [1.0, 0.0])
    """
    state, layout = _opened(state)
    return shaped(run(_pop, state), layout)


def peek(state: PointerState) -> Tensor:
    """Read the top element, one slot below the index, and leave the stack as it is.

    Example:
        >>> from diffstack.torch_impl import pointer
        >>> pointer.peek(pointer.push(pointer.empty(2), 5.0)).item()
        5.0
    """
    state, layout = _opened(state)
    return shaped(run(_peek, state), layout)


def step(state: PointerState, actions: Tensor, element: Tensor) -> tuple[PointerState, Tensor]:
    """One time step of a controller: push, pop and noop, each to its degree, then read the top.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import pointer
        >>> state, read = pointer.step(pointer.empty(2), torch.tensor([0.5, 0.0, 0.5]), 4.0)
        >>> read.item(), state.index.tolist()
        (1.0, [0.5, 0.5])
    """
    state, layout = _opened(state)
    return shaped(run(_step, state, *_inputs(actions, element, state, layout)), layout)


def scan(
    state: PointerState,
    actions: Tensor,
    elements: Tensor,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[PointerState, Tensor]:
    """Run a whole sequence of steps: the stack after the last one, and the top after each.

    Args:
        state: the stack before the first step.
        actions: (*batch, T, 3).
        elements: (*batch, T, *element).
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. The reads after a sequence's end are zero, and the final state is that of the sequence
            without its padding.
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, a few matrix products each.
            They agree to rounding, and in the bits of what hard actions read. With "parallel", an element that is not
            finite may also spoil the reads before it. "auto" takes the faster one, by the rule in
            docs/understand/parallel.md.

    Example:
        >>> import torch
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.torch_impl import pointer
        >>> program = pointer.encode([PUSH, PUSH, POP])
        >>> state, reads = pointer.scan(pointer.empty(2), program, torch.tensor([1.0, 2.0, 0.0]))
        >>> reads.tolist()
        [1.0, 2.0, 1.0]
    """
    state, layout = _opened(state)
    actions, elements = as_wide("actions", actions, state.index), as_wide("elements", elements, state.buffer)
    time = _checks.check_elements("elements", elements, layout, state.buffer.dtype)
    _checks.check_weights(actions, (*layout.batch, time, 3), state.index.dtype)
    lengths = as_lengths(lengths, layout.batch, state[0])
    method = _methods.choose(method, "pointer", time, layout)
    return shaped(run(_scan, state, actions, flat(elements, layout), lengths, method=method), layout)


def push_all(
    state: PointerState, elements: Tensor, *, method: Literal["auto", "sequential", "parallel"] = "auto"
) -> PointerState:
    """Push a whole sequence, the first element at the bottom, without reading in between.

    Args:
        state: the stack before the first push.
        elements: (*batch, T, *element).
        method: "sequential" runs `push` T times; "parallel" takes chunks of steps, with a matrix that all chunks share.
            They agree to rounding, and in the bits of what a one-hot index writes. "auto" takes the faster one.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import pointer
        >>> pointer.push_all(pointer.empty(3), torch.tensor([1.0, 2.0])).buffer.tolist()
        [1.0, 2.0, 0.0]
    """
    state, layout = _opened(state)
    elements = as_wide("elements", elements, state.buffer)
    time = _checks.check_elements("elements", elements, layout, state.buffer.dtype)
    method = _methods.choose(method, "pointer.push_all", time, layout)
    return shaped(run(_push_all, state, flat(elements, layout), method=method), layout)


def pop_all(
    state: PointerState, count: int, *, method: Literal["auto", "sequential", "parallel"] = "auto"
) -> tuple[PointerState, Tensor]:
    """Pop a number of elements: the stack after the last pop, and what was popped, the top first.

    Args:
        state: the stack before the first pop.
        count: how many pops, at least 0; it must be known while compiling, since it shapes what is returned.
        method: "sequential" runs `pop` so many times; "parallel" reads chunks of steps, with a matrix that all chunks
            share. They agree to rounding, and in the bits of what a one-hot index reads. "auto" takes the faster one.

    Returns:
        The stack, and the elements, (*batch, count, *element).

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import pointer
        >>> state, elements = pointer.pop_all(pointer.from_buffer(torch.tensor([1.0, 2.0, 3.0])), 2)
        >>> elements.tolist()
        [3.0, 2.0]
    """
    state, layout = _opened(state)
    count = _checks.check_count("count", count, 0)
    method = _methods.choose(method, "pointer.pop_all", count, layout)
    return shaped(run(_pop_all, state, count=count, method=method), layout)


def contents(state: PointerState) -> Tensor:
    """The buffer turned so that the top is in the last row: `sum_k index_k roll(buffer, -k)`, (*batch, N, *element).

    Example:
        >>> from diffstack.torch_impl import pointer
        >>> pointer.contents(pointer.push(pointer.push(pointer.empty(3), 1.0), 2.0)).tolist()
        [0.0, 1.0, 2.0]
    """
    state, layout = _opened(state)
    return shaped(run(_contents, state), layout)


def _first_slot(layout: Layout, buffer: Tensor) -> Tensor:
    """The index of an empty stack, and of a full one."""
    index = buffer.new_zeros((*layout.batch, layout.slots))
    index[..., 0] = 1
    return index


def _opened(state: PointerState) -> tuple[PointerState, Layout]:
    return as_state(state, _checks.check_pointer, PointerState)


def _element(element: Any, state: PointerState, layout: Layout) -> Tensor:
    element = as_wide("element", element, state.buffer)
    _checks.check_element("element", element, layout, state.buffer.dtype)
    return flat(element, layout)


def _inputs(actions: Any, element: Any, state: PointerState, layout: Layout) -> tuple[Tensor, Tensor]:
    """The checked actions and element of a step."""
    actions = as_wide("actions", actions, state.index)
    _checks.check_weights(actions, (*layout.batch, 3), state.index.dtype)
    return actions, _element(element, state, layout)
