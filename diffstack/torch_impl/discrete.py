"""The exact stack: a buffer and an integer depth, for programs whose actions are integers.

It only moves bits. A push writes row `depth` of the buffer and adds one to the depth, a pop subtracts one, and the
top is row `depth - 1`. What is read is what was pushed, in every bit, and the gradient of what is read goes to the
push that made it and to nothing else. (XLA on the CPU computes bfloat16 in float32, even when it only moves it: NaN
payloads of that dtype change there, and some processors flush its subnormals to zero.)

A push onto a full stack and a pop from an empty one leave the stack as it was. Such a pop gives zeros, as a read of an
empty stack does. A code that is not PUSH, POP or NOOP acts as NOOP. Each of the three sets `fault`, and the first fault
stays: 1 is an overflow, 2 an underflow, 3 an unknown code. None of these functions raises anything for it;
`raise_if_fault` does, outside `jit` and `vmap`.

**Shapes.** A state has a `buffer` (*batch, N, *element), a `depth` (*batch,) and a `fault` (*batch,). An element is
(*batch, *element); an action is one integer, (*batch,). In `scan` a time axis T follows the batch axes: actions
(*batch, T), elements and reads (*batch, T, *element).

**Dtypes.** Elements have the dtype of the buffer, exactly: floating, integer (uint8, int8 to int64), bool or complex.
Actions are integers of any dtype.

**Errors.** Every function raises `TypeError` or `ValueError` for an argument whose type, dtype or shape does not fit,
and names it.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Int8, Int32, Integer, Shaped
from torch import Tensor

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import MOVABLE
from diffstack.torch_impl import _methods, _sequential
from diffstack.torch_impl._arrays import (
    as_array,
    as_codes,
    as_lengths,
    as_state,
    flat,
    gathered,
    movable_dtype,
    numbered,
    run,
    shaped,
)
from diffstack.torch_impl._parallel import discrete as _parallel
from diffstack.torch_impl._ragged import stopped


class DiscreteState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        buffer: the slots, (*batch, N, *element), bottom first; rows from `depth` on are stale.
        depth: the number of elements on the stack, (*batch,), int32.
        fault: 0, or the first fault, (*batch,), int8: 1 overflow, 2 underflow, 3 unknown code.
    """

    buffer: Tensor
    depth: Tensor
    fault: Tensor


# The rules, on elements of one axis.


def _counted(
    depth: Int32[Tensor, "*batch"], fault: Int8[Tensor, "*batch"], codes: Integer[Tensor, "*batch"], slots: int
) -> tuple[Bool[Tensor, "*batch"], Int32[Tensor, "*batch"], Int8[Tensor, "*batch"]]:
    """Whether an element is written; depth and fault afterwards."""
    push, pop = codes == PUSH, codes == POP
    overflow, underflow = push & (depth == slots), pop & (depth == 0)
    unknown = ~push & ~pop & (codes != NOOP)
    writes, erases = push & ~overflow, pop & ~underflow
    # At most one of the three can be true.
    met = overflow.to(torch.int8) + 2 * underflow.to(torch.int8) + 3 * unknown.to(torch.int8)
    depth = depth + writes.to(torch.int32) - erases.to(torch.int32)
    return writes, depth, torch.where(fault == 0, met, fault)


def _step(
    state: DiscreteState, actions: Integer[Tensor, "*batch"], element: Shaped[Tensor, "*batch dim"]
) -> tuple[DiscreteState, Shaped[Tensor, "*batch dim"]]:
    buffer = state.buffer
    writes, depth, fault = _counted(state.depth, state.fault, actions, buffer.shape[-2])
    row = (numbered(buffer, -2) == state.depth[..., None, None]) & writes[..., None, None]
    state = DiscreteState(torch.where(row, element[..., None, :], buffer), depth, fault)
    return state, _peek(state)


def _peek(state: DiscreteState) -> Shaped[Tensor, "*batch dim"]:
    row = torch.clamp(state.depth - 1, min=0)[..., None]
    element = gathered(state.buffer, row.long())[..., 0, :]
    return torch.where(state.depth[..., None] > 0, element, torch.zeros_like(element))


def _push(state: DiscreteState, element: Shaped[Tensor, "*batch dim"]) -> DiscreteState:
    return _step(state, torch.full_like(state.depth, PUSH), element)[0]


def _pop(state: DiscreteState) -> tuple[DiscreteState, Shaped[Tensor, "*batch dim"]]:
    element = _peek(state)
    return _step(state, torch.full_like(state.depth, POP), element)[0], element


def _contents(state: DiscreteState) -> Shaped[Tensor, "*batch slots dim"]:
    slots = state.buffer.shape[-2]
    slot, unused = numbered(state.buffer, -2)[..., 0], (slots - state.depth)[..., None]
    rows = gathered(state.buffer, (slot - unused) % slots)
    return torch.where((slot >= unused)[..., None], rows, torch.zeros_like(rows))


def _scan(
    state: DiscreteState,
    actions: Integer[Tensor, "*batch time"],
    elements: Shaped[Tensor, "*batch time dim"],
    lengths: Int[Tensor, "*batch"] | None,
    *,
    method: str,
) -> tuple[DiscreteState, Shaped[Tensor, "*batch time dim"]]:
    actions, elements = stopped(actions, lengths, NOOP), stopped(elements, lengths)
    if method == "sequential":
        state, reads = _sequential.scan(_step, state, actions, elements)
    else:
        buffer, depth, fault, reads = _parallel.scan(*state, actions, elements)
        state = DiscreteState(buffer, depth, fault)
    return state, stopped(reads, lengths)


# The public functions.


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
    device: Any = None,
) -> DiscreteState:
    """An empty stack, of depth 0.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: that of the elements; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.
        device: where the state lives; the default device where none is given.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> discrete.empty(3, dtype="int32").buffer.tolist()
        [0, 0, 0]
    """
    layout = _checks.check_empty(capacity, element_shape, batch_shape)
    buffer = torch.zeros((*layout.batch, layout.slots, *layout.element), dtype=movable_dtype(dtype), device=device)
    return _of_depth(buffer, layout.batch, 0)


def from_buffer(buffer: Tensor) -> DiscreteState:
    """One full stack, of depth N, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element).

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import discrete
        >>> discrete.peek(discrete.from_buffer(torch.tensor([1, 2, 3]))).item()
        3
    """
    buffer = as_array("buffer", buffer)
    layout = _checks.check_buffer(buffer)
    _checks.check_kind("buffer", buffer.dtype, MOVABLE, "a dtype that both frameworks can move")
    return _of_depth(buffer.clone(), layout.batch, layout.slots)


def encode(codes: Any, *, dtype: Any = None) -> Tensor:
    """Integer codes as they are, since they are this family's actions.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, of any shape.
        dtype: ignored; it is a parameter because the actions of other families have a floating dtype.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.torch_impl import discrete
        >>> discrete.encode([PUSH, NOOP]).tolist()
        [0, 2]
    """
    del dtype
    return as_codes(codes)


def push(state: DiscreteState, element: Tensor) -> DiscreteState:
    """Put an element on the stack; a full stack stays as it was, with fault 1.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> discrete.push(discrete.empty(2), 5.0).buffer.tolist()
        [5.0, 0.0]
    """
    state, layout = _opened(state)
    return shaped(run(_push, state, _element(element, state, layout)), layout)


def pop(state: DiscreteState) -> tuple[DiscreteState, Tensor]:
    """Take the top element off the stack; an empty stack stays as it was, with fault 2, and gives zeros.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> state, element = discrete.pop(discrete.push(discrete.empty(2), 5.0))
        >>> element.item(), state.depth.item()
        (5.0, 0)
    """
    state, layout = _opened(state)
    return shaped(run(_pop, state), layout)


def peek(state: DiscreteState) -> Tensor:
    """Read the top element, zeros where the stack is empty, and leave the stack as it is.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> discrete.peek(discrete.push(discrete.empty(2), 5.0)).item()
        5.0
    """
    state, layout = _opened(state)
    return shaped(run(_peek, state), layout)


def step(state: DiscreteState, actions: Tensor, element: Tensor) -> tuple[DiscreteState, Tensor]:
    """One time step of a program: push, pop or leave, then read the top.

    Example:
        >>> from diffstack.actions import PUSH
        >>> from diffstack.torch_impl import discrete
        >>> state, read = discrete.step(discrete.empty(2), discrete.encode(PUSH), 4.0)
        >>> read.item(), state.depth.item()
        (4.0, 1)
    """
    state, layout = _opened(state)
    return shaped(run(_step, state, *_inputs(actions, element, state, layout)), layout)


def scan(
    state: DiscreteState,
    actions: Tensor,
    elements: Tensor,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[DiscreteState, Tensor]:
    """Run a whole sequence of steps: the stack after the last one, and the top after each.

    Args:
        state: the stack before the first step.
        actions: (*batch, T), integer codes PUSH, POP and NOOP.
        elements: (*batch, T, *element).
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. The reads after a sequence's end are zero, and the final state is that of the sequence
            without its padding.
        method: "sequential" runs `step` T times; "parallel" runs the stack on the addresses of the elements, and
            gathers the elements once; both give the same bits. "auto" is "parallel".

    Example:
        >>> import torch
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.torch_impl import discrete
        >>> program = discrete.encode([PUSH, PUSH, POP])
        >>> state, reads = discrete.scan(discrete.empty(2), program, torch.tensor([1.0, 2.0, 0.0]))
        >>> reads.tolist()
        [1.0, 2.0, 1.0]
    """
    state, layout = _opened(state)
    actions, elements = as_array("actions", actions, state.depth), as_array("elements", elements, state.buffer)
    time = _checks.check_elements("elements", elements, layout, state.buffer.dtype)
    _checks.check_codes("actions", actions, (*layout.batch, time))
    lengths = as_lengths(lengths, layout.batch, state[0])
    method = _methods.choose(method, "discrete", time, layout)
    return shaped(run(_scan, state, actions, flat(elements, layout), lengths, method=method), layout)


def contents(state: DiscreteState) -> Tensor:
    """What is on the stack, the top in the last row, (*batch, N, *element); unused slots are zeros and come first.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> discrete.contents(discrete.push(discrete.push(discrete.empty(3), 1.0), 2.0)).tolist()
        [0.0, 1.0, 2.0]
    """
    state, layout = _opened(state)
    return shaped(run(_contents, state), layout)


def size(state: DiscreteState) -> Tensor:
    """The number of elements on the stack, (*batch,), int32.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> discrete.size(discrete.push(discrete.empty(3), 1.0)).item()
        1
    """
    return _opened(state)[0].depth


def fault(state: DiscreteState) -> Tensor:
    """The first fault that a stack has met, (*batch,), int8: 0 none, 1 overflow, 2 underflow, 3 unknown code.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> discrete.fault(discrete.pop(discrete.empty(3))[0]).item()
        2
    """
    return _opened(state)[0].fault


def raise_if_fault(state: DiscreteState) -> None:
    """Raise the fault of the first stack of a batch that has one.

    It looks at values, so it is for use outside `jit`, `vmap` and `grad`.

    Raises:
        StackOverflowError, StackUnderflowError, ValueError: fault 1, 2, 3, with the batch index.
        TypeError: a state that has no values yet, inside a transformation.

    Example:
        >>> from diffstack.torch_impl import discrete
        >>> discrete.raise_if_fault(discrete.pop(discrete.empty(3))[0])
        Traceback (most recent call last):
            ...
        diffstack.errors.StackUnderflowError: state: a pop from an empty stack
    """
    state, layout = _opened(state)
    try:
        faults = state.fault.numpy(force=True)
    except RuntimeError:
        _checks.bad_type("state", "values, outside jit, vmap and grad", "a state inside a transformation")
    if faults.any():
        first = np.argwhere(faults)[0]
        _checks.raise_fault(first.tolist(), int(faults[tuple(first)]), layout.slots)


def _of_depth(buffer: Tensor, batch: tuple[int, ...], depth: int) -> DiscreteState:
    full = torch.full(batch, depth, dtype=torch.int32, device=buffer.device)
    return DiscreteState(buffer, full, torch.zeros_like(full, dtype=torch.int8))


def _opened(state: DiscreteState) -> tuple[DiscreteState, Layout]:
    return as_state(state, _checks.check_discrete, DiscreteState)


def _element(element: Any, state: DiscreteState, layout: Layout) -> Tensor:
    element = as_array("element", element, state.buffer)
    _checks.check_element("element", element, layout, state.buffer.dtype)
    return flat(element, layout)


def _inputs(actions: Any, element: Any, state: DiscreteState, layout: Layout) -> tuple[Tensor, Tensor]:
    """The checked actions and element of a step."""
    actions = as_array("actions", actions, state.depth)
    _checks.check_codes("actions", actions, layout.batch)
    return actions, _element(element, state, layout)
