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

**Shapes.** A state has a `buffer` (*batch, N, D), the top first. An element is a vector, (*batch, D); an action is
(*batch, 3), the weights of PUSH, POP and NOOP. In `scan` a time axis T follows the batch axes: actions (*batch, T, 3),
elements and reads (*batch, T, D).

**Dtypes.** A state has one floating dtype. An element or action of a narrower one is cast up to it.

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
from diffstack.torch_impl import _methods, _sequential, pointer
from diffstack.torch_impl._arrays import as_array, as_lengths, as_state, as_wide, floating_dtype, numbered, run
from diffstack.torch_impl._parallel import superposition as _parallel
from diffstack.torch_impl._ragged import stopped


class SuperpositionState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        buffer: the rows, (*batch, N, D), the top first.
    """

    buffer: Tensor


# The equations.


def _superposed(
    buffer: Float[Tensor, "*batch slots dim"], actions: Float[Tensor, "*batch 3"], element: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch slots dim"]:
    a_push, a_pop, a_noop = (actions[..., code, None, None] for code in (PUSH, POP, NOOP))
    pushed = torch.cat([element[..., None, :], buffer[..., :-1, :]], -2)
    popped = torch.cat([buffer[..., 1:, :], torch.zeros_like(buffer[..., :1, :])], -2)
    return a_push * pushed + a_pop * popped + a_noop * buffer


def _peek(state: SuperpositionState) -> Float[Tensor, "*batch dim"]:
    # A copy, since a view would let what is done to the read in place reach the stack.
    return state.buffer[..., 0, :].clone()


def _step(
    state: SuperpositionState, actions: Float[Tensor, "*batch 3"], element: Float[Tensor, "*batch dim"]
) -> tuple[SuperpositionState, Float[Tensor, "*batch dim"]]:
    state = SuperpositionState(_superposed(state.buffer, actions, element))
    return state, _peek(state)


def _push(state: SuperpositionState, element: Float[Tensor, "*batch dim"]) -> SuperpositionState:
    return _step(state, _one_hot(PUSH, element), element)[0]


def _pop(state: SuperpositionState) -> tuple[SuperpositionState, Float[Tensor, "*batch dim"]]:
    element = _peek(state)
    return _step(state, _one_hot(POP, element), element)[0], element


def _one_hot(code: int, element: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch 3"]:
    actions = element.new_zeros((*element.shape[:-1], 3))
    actions[..., code] = 1
    return actions


def _contents(state: SuperpositionState) -> Float[Tensor, "*batch slots dim"]:
    return torch.flip(state.buffer, (-2,))


def _scan(
    state: SuperpositionState,
    actions: Float[Tensor, "*batch time 3"],
    elements: Float[Tensor, "*batch time dim"],
    lengths: Int[Tensor, "*batch"] | None,
    *,
    method: str,
) -> tuple[SuperpositionState, Float[Tensor, "*batch time dim"]]:
    actions, elements = stopped(actions, lengths, numbered(actions, -1) == NOOP), stopped(elements, lengths)
    if method == "sequential":
        state, reads = _sequential.scan(_step, state, actions, elements)
    else:
        buffer, reads = _parallel.scan(*state, actions, elements)
        state = SuperpositionState(buffer)
    return state, stopped(reads, lengths)


# The public functions.


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
    device: Any = None,
) -> SuperpositionState:
    """An empty stack: zeros.

    Args:
        capacity: the number of rows N, at least 1.
        element_shape: (D,), since an element of this family is always a vector.
        dtype: a floating dtype; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.
        device: where the state lives; the default device where none is given.

    Example:
        >>> from diffstack.torch_impl import superposition
        >>> superposition.empty(2, (3,)).buffer.tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    layout = _checks.check_empty(capacity, element_shape, batch_shape)
    _checks.check_vector("element_shape", layout.element)
    return SuperpositionState(
        torch.zeros((*layout.batch, layout.slots, *layout.element), dtype=floating_dtype(dtype), device=device)
    )


def from_buffer(buffer: Tensor) -> SuperpositionState:
    """One full stack, whose top is the last row of a buffer.

    Args:
        buffer: (N, D), floating. Its last row becomes row 0 of the state.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import superposition
        >>> superposition.peek(superposition.from_buffer(torch.tensor([[1.0], [2.0]]))).tolist()
        [2.0]
    """
    buffer = as_array("buffer", buffer)
    layout = _checks.check_buffer(buffer)
    _checks.check_vector("the shape of a row of buffer", layout.element)
    _checks.check_kind("buffer", buffer.dtype, FLOATING, "a floating dtype")
    return SuperpositionState(torch.flip(buffer, (0,)))


def encode(codes: Any, *, dtype: Any = None) -> Tensor:
    """Integer codes as one-hot weights of push, pop and noop, (*codes, 3).

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, of any shape; any other code counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.torch_impl import superposition
        >>> superposition.encode([PUSH, NOOP]).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    return pointer.encode(codes, dtype=dtype)


def push(state: SuperpositionState, element: Tensor) -> SuperpositionState:
    """Put an element on the stack: every row moves one further down, and the last one falls off.

    It is `step` with a one-hot action.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import superposition
        >>> superposition.push(superposition.empty(2, (1,)), torch.ones(1)).buffer.tolist()
        [[1.0], [0.0]]
    """
    state, layout = _opened(state)
    return run(_push, state, _element(element, state, layout))


def pop(state: SuperpositionState) -> tuple[SuperpositionState, Tensor]:
    """Take the top element off the stack: every row moves one further up, and zeros come in below.

    It is `step` with a one-hot action, and the row that was the top.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import superposition
        >>> state, element = superposition.pop(superposition.from_buffer(torch.tensor([[1.0], [2.0]])))
        >>> element.tolist(), state.buffer.tolist()
        ([2.0], [[1.0], [0.0]])
    """
    state, _ = _opened(state)
    return run(_pop, state)


def peek(state: SuperpositionState) -> Tensor:
    """Read the top element, row 0, and leave the stack as it is.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import superposition
        >>> superposition.peek(superposition.from_buffer(torch.tensor([[1.0], [2.0]]))).tolist()
        [2.0]
    """
    state, _ = _opened(state)
    return run(_peek, state)


def step(state: SuperpositionState, actions: Tensor, element: Tensor) -> tuple[SuperpositionState, Tensor]:
    """One time step of a controller: push, pop and noop, each to its degree, then read the top.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import superposition
        >>> state = superposition.from_buffer(torch.tensor([[1.0], [2.0]]))
        >>> state, read = superposition.step(state, torch.tensor([0.5, 0.5, 0.0]), torch.tensor([4.0]))
        >>> read.tolist(), state.buffer.tolist()
        ([2.5], [[2.5], [1.0]])

    References:
        Joulin & Mikolov 2015, Inferring Algorithmic Patterns with Stack-Augmented Recurrent Nets, equations 3 and 4.
    """
    state, layout = _opened(state)
    return run(_step, state, *_inputs(actions, element, state, layout))


def scan(
    state: SuperpositionState,
    actions: Tensor,
    elements: Tensor,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[SuperpositionState, Tensor]:
    """Run a whole sequence of steps: the stack after the last one, and the top after each.

    Args:
        state: the stack before the first step.
        actions: (*batch, T, 3).
        elements: (*batch, T, D).
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
        >>> from diffstack.torch_impl import superposition
        >>> program = superposition.encode([PUSH, PUSH, POP])
        >>> elements = torch.tensor([[1.0], [2.0], [0.0]])
        >>> superposition.scan(superposition.empty(2, (1,)), program, elements)[1].tolist()
        [[1.0], [2.0], [1.0]]
    """
    state, layout = _opened(state)
    actions, elements = as_wide("actions", actions, state.buffer), as_wide("elements", elements, state.buffer)
    time = _checks.check_elements("elements", elements, layout, state.buffer.dtype)
    _checks.check_weights(actions, (*layout.batch, time, 3), state.buffer.dtype)
    lengths = as_lengths(lengths, layout.batch, state[0])
    method = _methods.choose(method, "superposition", time, layout)
    return run(_scan, state, actions, elements, lengths, method=method)


def contents(state: SuperpositionState) -> Tensor:
    """What is on the stack, the top in the last row, (*batch, N, D).

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import superposition
        >>> superposition.contents(superposition.push(superposition.empty(2, (1,)), torch.ones(1))).tolist()
        [[0.0], [1.0]]
    """
    state, _ = _opened(state)
    return run(_contents, state)


def _opened(state: SuperpositionState) -> tuple[SuperpositionState, Layout]:
    return as_state(state, _checks.check_superposition, SuperpositionState)


def _element(element: Any, state: SuperpositionState, layout: Layout) -> Tensor:
    element = as_wide("element", element, state.buffer)
    _checks.check_element("element", element, layout, state.buffer.dtype)
    return element


def _inputs(actions: Any, element: Any, state: SuperpositionState, layout: Layout) -> tuple[Tensor, Tensor]:
    """The checked actions and element of a step."""
    actions = as_wide("actions", actions, state.buffer)
    _checks.check_weights(actions, (*layout.batch, 3), state.buffer.dtype)
    return actions, _element(element, state, layout)
