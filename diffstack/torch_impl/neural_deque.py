"""The neural deque: the neural stack with two ends, the top and the bottom.

A step pops the top, pops the bottom, pushes at both, and reads total strength 1 from each end. With d and u the
strengths that are pushed and popped at the top, and d' and u' those at the bottom, and elements i from the bottom to
the top (Grefenstette et al. 2015, section 3.3),

    s+[i]   = max(0, s_{t-1}[i] - max(0, u_t - sum_{j>i} s_{t-1}[j]))
    s_t[i]  = max(0, s+[i] - max(0, u'_t - sum_{j<i} s+[j]))       then d_t of v_t on top, d'_t of v'_t below
    r_t     = sum_i min(s_t[i], max(0, 1 - sum_{j>i} s_t[j])) v_i
    r'_t    = sum_i min(s_t[i], max(0, 1 - sum_{j<i} s_t[j])) v_i

The element of a step and its read are pairs, the top first. A pop of more than is there takes what is there.

Every push takes a slot, one of strength 0 included, so a step takes two. The ends share the capacity, half of the
slots each: a push drops the slot in the middle, which is the one that is farthest from both ends, and the oldest
where both ends push in turn. `push_top` drops slot N // 2 and `push_bottom` slot (N - 1) // 2; `step` does first the
one, then the other. A controller that calls `step` itself needs twice as much capacity as it takes steps between a
push and its pop. `scan` drops nothing on its way: it makes room for its T steps first, and goes back to the capacity
of the state when it is done.

Strengths are usually in [0, 1]. Below 0 they count as 0, above 1 they are taken as they are, and NaN makes every
read NaN from its step on, for as long as the slots it reached are kept: to the end of a `scan`, but not for ever
through `step`, which drops slots. The gradient at ties, which hard strengths always are, is that of `_neural.py`: the
derivative into the feasible region.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from diffstack import errors
from diffstack.torch_impl import sequential
from diffstack.torch_impl._arrays import as_array, flatten, floating_dtype
from diffstack.torch_impl._neural import above, as_strength, below, feasible, hard_actions, reading, remaining
from diffstack.torch_impl.parallel import neural_deque as parallel

IS_STACK: Final = False


class NeuralDequeState(NamedTuple):
    """A deque, or a batch of them.

    Attributes:
        values: the elements, (*batch, N, *element), from the bottom to the top.
        strengths: how much of each is there, (*batch, N).
    """

    values: Tensor
    strengths: Tensor


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
    device: Any = None,
) -> NeuralDequeState:
    """An empty deque: slots of strength 0.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for values and strengths; the default float where none is given.
        batch_shape: the leading axes, one deque for each of their entries.

    Returns:
        A `NeuralDequeState`.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.empty(3).strengths.tolist()
        [0.0, 0.0, 0.0]
    """
    layout = errors.check_empty(capacity, element_shape, batch_shape)
    values = torch.zeros((*layout.batch, layout.slots, *layout.element), dtype=floating_dtype(dtype), device=device)
    return NeuralDequeState(values, values.new_zeros((*layout.batch, layout.slots)))


def from_buffer(buffer: Tensor) -> NeuralDequeState:
    """One full deque, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element), floating.

    Returns:
        A `NeuralDequeState` of N elements of strength 1.

    Raises:
        TypeError, ValueError: a buffer that is not as said above.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.peek_top(neural_deque.from_buffer(torch.tensor([1.0, 2.0]))).item()
        2.0
    """
    buffer = as_array("buffer", buffer)
    layout = errors.check_buffer(buffer)
    errors.check_kind("buffer", buffer.dtype, errors.FLOATING, "a floating dtype")
    return NeuralDequeState(buffer, buffer.new_ones(layout.slots))


def actions(codes: Any, *, dtype: Any = None) -> Tensor:
    """Integer codes for both ends as strengths, 1 for what is done and 0 for what is not.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, (*shape, 2), for the top and the bottom; any other code
            counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Returns:
        The strengths of push and pop at the top, then at the bottom, (*shape, 4).

    Raises:
        TypeError: codes that are not integers, a dtype that is not floating.
        ValueError: codes whose last axis is not that of the two ends.

    Example:
        >>> from diffstack.actions import NOOP, POP, PUSH
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.actions([[PUSH, NOOP], [NOOP, POP]]).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    strengths = hard_actions(codes, dtype)
    errors.check_shape("codes", strengths.shape[-2:-1], (2,), "the last axis, a code for each end")
    return flatten(strengths, strengths.ndim - 2)


def push_top(state: NeuralDequeState, element: Tensor, strength: Tensor | float = 1.0) -> NeuralDequeState:
    """Put an element at the top of the deque.

    Args:
        state: the deque.
        element: (*batch, *element), of the dtype of the values.
        strength: a number, or (*batch,), of the dtype of the strengths; usually in [0, 1].

    Returns:
        The deque with the element in its last slot, and without slot N // 2 of before.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.push_top(neural_deque.empty(2), 5.0, 0.5).strengths.tolist()
        [0.0, 0.5]
    """
    return _push_top(state, _checked_element("element", state, element), as_strength(strength, state))


def push_bottom(state: NeuralDequeState, element: Tensor, strength: Tensor | float = 1.0) -> NeuralDequeState:
    """Put an element at the bottom of the deque.

    Args:
        state: the deque.
        element: (*batch, *element), of the dtype of the values.
        strength: a number, or (*batch,), of the dtype of the strengths; usually in [0, 1].

    Returns:
        The deque with the element in its first slot, and without slot (N - 1) // 2 of before.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.push_bottom(neural_deque.empty(2), 5.0, 0.5).strengths.tolist()
        [0.5, 0.0]
    """
    return _push_bottom(state, _checked_element("element", state, element), as_strength(strength, state))


def pop_top(state: NeuralDequeState, strength: Tensor | float = 1.0) -> tuple[NeuralDequeState, Tensor]:
    """Take strength off the top of the deque.

    Args:
        state: the deque.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The deque with what is left; and what was taken, the sum of the elements weighted by the strength that each
        lost, (*batch, *element). More than is there takes what is there.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_deque
        >>> state, element = neural_deque.pop_top(neural_deque.from_buffer(torch.tensor([1.0, 4.0])), 0.5)
        >>> element.item(), state.strengths.tolist()
        (2.0, [1.0, 0.5])
    """
    errors.check_neural(state, NeuralDequeState)
    return _pop(state, as_strength(strength, state), nearer=above)


def pop_bottom(state: NeuralDequeState, strength: Tensor | float = 1.0) -> tuple[NeuralDequeState, Tensor]:
    """Take strength off the bottom of the deque.

    Args:
        state: the deque.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The deque with what is left; and what was taken, the sum of the elements weighted by the strength that each
        lost, (*batch, *element). More than is there takes what is there.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_deque
        >>> state, element = neural_deque.pop_bottom(neural_deque.from_buffer(torch.tensor([1.0, 4.0])), 0.5)
        >>> element.item(), state.strengths.tolist()
        (0.5, [0.5, 1.0])
    """
    errors.check_neural(state, NeuralDequeState)
    return _pop(state, as_strength(strength, state), nearer=below)


def peek_top(state: NeuralDequeState, strength: Tensor | float = 1.0) -> Tensor:
    """Read strength from the top of the deque.

    Args:
        state: the deque, which stays as it is.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The sum of the elements nearest to the top, weighted by strengths that add up to `strength`, or to what is
        there if that is less, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.peek_top(neural_deque.from_buffer(torch.tensor([1.0, 4.0]))).item()
        4.0
    """
    errors.check_neural(state, NeuralDequeState)
    return _peek(state, as_strength(strength, state), nearer=above)


def peek_bottom(state: NeuralDequeState, strength: Tensor | float = 1.0) -> Tensor:
    """Read strength from the bottom of the deque.

    Args:
        state: the deque, which stays as it is.
        strength: how much, a number, or (*batch,), of the dtype of the strengths.

    Returns:
        The sum of the elements nearest to the bottom, weighted by strengths that add up to `strength`, or to what is
        there if that is less, (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.peek_bottom(neural_deque.from_buffer(torch.tensor([1.0, 4.0]))).item()
        1.0
    """
    errors.check_neural(state, NeuralDequeState)
    return _peek(state, as_strength(strength, state), nearer=below)


def step(
    state: NeuralDequeState, actions: Tensor, element: tuple[Tensor, Tensor]
) -> tuple[NeuralDequeState, tuple[Tensor, Tensor]]:
    """One time step of a controller: pop the top, pop the bottom, push at both, then read total strength 1 at both.

    Args:
        state: the deque.
        actions: (*batch, 4), the strengths of push and pop at the top, then at the bottom, of the dtype of the
            strengths; usually in [0, 1].
        element: what is pushed at the top and at the bottom, each (*batch, *element), of the dtype of the values.

    Returns:
        The deque afterwards, without its two slots in the middle; and the reads at the top and at the bottom, each
        (*batch, *element).

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_deque
        >>> element = torch.tensor(1.0), torch.tensor(2.0)
        >>> state, (top, bottom) = neural_deque.step(neural_deque.empty(4), torch.tensor([1.0, 0.0, 0.5, 0.0]), element)
        >>> top.item(), bottom.item(), state.strengths.tolist()
        (1.0, 1.5, [0.5, 0.0, 0.0, 1.0])

    References:
        Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, section 3.3.
    """
    errors.check_pair("element", element)
    top, bottom = (_checked_element(f"element[{end}]", state, each) for end, each in enumerate(element))
    actions = as_array("actions", actions)
    errors.check_weights(actions, (*state.strengths.shape[:-1], 4), state.strengths.dtype)
    return _step(state, actions, (top, bottom))


def scan(
    state: NeuralDequeState,
    actions: Tensor,
    elements: tuple[Tensor, Tensor],
    *,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NeuralDequeState, tuple[Tensor, Tensor]]:
    """Run a whole sequence of steps.

    Args:
        state: the deque before the first step.
        actions: (*batch, T, 4), the strengths of push and pop at the top, then at the bottom, of the dtype of the
            strengths.
        elements: what is pushed at the top and at the bottom, each (*batch, T, *element), of the dtype of the values.
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, one pop and one read of all
            slots each. They agree to rounding, also in the gradients at ties. With "parallel", an element that is
            not finite may also spoil the reads before it. "auto" takes the faster one, by the rule in docs/parallel.md.

    Returns:
        The deque after the last step, of the same capacity, and the reads of each step at the top and at the bottom,
        like `elements`. Nothing is dropped on the way.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit, an unknown method.

    Example:
        >>> import torch
        >>> from diffstack.actions import NOOP, POP, PUSH
        >>> from diffstack.torch_impl import neural_deque
        >>> program = neural_deque.actions([[PUSH, NOOP], [PUSH, NOOP], [NOOP, POP]])
        >>> elements = torch.tensor([1.0, 2.0, 0.0]), torch.zeros(3)
        >>> state, (top, bottom) = neural_deque.scan(neural_deque.empty(2), program, elements)
        >>> top.tolist(), bottom.tolist()
        ([1.0, 2.0, 2.0], [1.0, 1.0, 2.0])
    """
    layout = errors.check_neural(state, NeuralDequeState)
    errors.check_pair("elements", elements)
    actions = as_array("actions", actions)
    top, bottom = (as_array(f"elements[{end}]", each) for end, each in enumerate(elements))
    time = errors.check_elements("elements[0]", top, layout, state.values.dtype)
    errors.check_shape("elements[1]", bottom.shape, top.shape, "that of elements[0]")
    errors.check_dtype("elements[1]", bottom.dtype, state.values.dtype, "the state")
    errors.check_weights(actions, (*layout.batch, time, 4), state.strengths.dtype)
    chosen = errors.check_method(method, time, parallel.is_faster(time))
    return _scan(state, actions, (top, bottom), chosen)


def contents(state: NeuralDequeState) -> Tensor:
    """What is on the deque: the elements times their strengths, the top in the last row.

    Args:
        state: the deque.

    Returns:
        (*batch, N, *element).

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.contents(neural_deque.push_top(neural_deque.empty(2), 5.0, 0.5)).tolist()
        [0.0, 2.5]
    """
    errors.check_neural(state, NeuralDequeState)
    return _contents(state)


def size(state: NeuralDequeState) -> Tensor:
    """How much is on the deque: the total strength.

    Args:
        state: the deque.

    Returns:
        (*batch,), in float32 at least.

    Raises:
        TypeError, ValueError: a state whose shapes or dtypes do not fit together.

    Example:
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.size(neural_deque.push_top(neural_deque.empty(2), 5.0, 0.5)).item()
        0.5
    """
    errors.check_neural(state, NeuralDequeState)
    return _size(state)


def resize(state: NeuralDequeState, capacity: int) -> NeuralDequeState:
    """The same deque with another number of slots.

    Args:
        state: the deque.
        capacity: how many slots it is to have, at least 1.

    Returns:
        The deque, padded with slots of strength 0 in the middle, or without the slots in its middle. The bottom keeps
        the odd one.

    Raises:
        TypeError, ValueError: a capacity below 1, a state whose shapes or dtypes do not fit together.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_deque
        >>> neural_deque.resize(neural_deque.from_buffer(torch.tensor([1.0, 2.0, 3.0])), 4).values.tolist()
        [1.0, 2.0, 0.0, 3.0]
    """
    errors.check_neural(state, NeuralDequeState)
    capacity, axis = errors.check_count("capacity", capacity, 1), state.strengths.ndim - 1
    kept = min(capacity, state.strengths.shape[-1])
    return NeuralDequeState(*(_fitted(array, axis, kept - kept // 2, kept // 2, capacity) for array in state))


def _checked_element(name: str, state: NeuralDequeState, element: Any) -> Tensor:
    layout = errors.check_neural(state, NeuralDequeState)
    element = as_array(name, element, state.values)
    errors.check_element(name, element, layout, state.values.dtype)
    return element


def _fitted(array: Tensor, axis: int, first: int, last: int, capacity: int) -> Tensor:
    """The first and the last slots along an axis, and zeros between them."""
    slots = array.shape[axis]
    bottom = array.narrow(axis, 0, first)
    top = array.narrow(axis, slots - last, last)
    shape = (*array.shape[:axis], capacity - first - last, *array.shape[axis + 1 :])
    return torch.cat([bottom, array.new_zeros(shape), top], axis)


def _push_top(state: NeuralDequeState, element: Tensor, strength: Tensor) -> NeuralDequeState:
    axis, slots = state.strengths.ndim - 1, state.strengths.shape[-1]
    strength = feasible(strength).to(state.strengths.dtype)
    values = torch.cat([state.values, element.unsqueeze(axis)], axis)
    strengths = torch.cat([state.strengths, strength[..., None]], -1)
    return NeuralDequeState(
        *(_fitted(array, axis, slots // 2, slots - slots // 2, slots) for array in (values, strengths))
    )


def _push_bottom(state: NeuralDequeState, element: Tensor, strength: Tensor) -> NeuralDequeState:
    axis, slots = state.strengths.ndim - 1, state.strengths.shape[-1]
    strength = feasible(strength).to(state.strengths.dtype)
    values = torch.cat([element.unsqueeze(axis), state.values], axis)
    strengths = torch.cat([strength[..., None], state.strengths], -1)
    return NeuralDequeState(
        *(_fitted(array, axis, slots - slots // 2, slots // 2, slots) for array in (values, strengths))
    )


def _pop(
    state: NeuralDequeState, strength: Tensor, nearer: Callable[[Tensor], Tensor]
) -> tuple[NeuralDequeState, Tensor]:
    strengths = feasible(state.strengths)
    left = remaining(strengths, nearer(strengths), feasible(strength))
    return NeuralDequeState(state.values, left.to(state.strengths.dtype)), _peek(state, strength, nearer)


def _peek(state: NeuralDequeState, strength: Tensor, nearer: Callable[[Tensor], Tensor]) -> Tensor:
    strengths, rank = feasible(state.strengths), state.strengths.ndim
    read = reading(flatten(state.values, rank), strengths, nearer(strengths), feasible(strength))
    return read.reshape(state.values.shape[: rank - 1] + state.values.shape[rank:])


def _step(
    state: NeuralDequeState, actions: Tensor, element: tuple[Tensor, Tensor]
) -> tuple[NeuralDequeState, tuple[Tensor, Tensor]]:
    push_top, pop_top, push_bottom, pop_bottom = (actions[..., each] for each in range(4))
    state = _pop(state, pop_top, above)[0]
    state = _pop(state, pop_bottom, below)[0]
    state = _push_top(state, element[0], push_top)
    state = _push_bottom(state, element[1], push_bottom)
    one = torch.ones_like(push_top)
    return state, (_peek(state, one, above), _peek(state, one, below))


def _scan(
    state: NeuralDequeState, actions: Tensor, elements: tuple[Tensor, Tensor], method: str
) -> tuple[NeuralDequeState, tuple[Tensor, Tensor]]:
    rank, capacity = state.strengths.ndim - 1, state.strengths.shape[-1]
    if method == "sequential":
        state = resize(state, capacity + 2 * actions.shape[rank])
        state, reads = sequential.scan(step, state, actions, elements, rank)
    else:
        top, bottom = (flatten(each, rank + 1) for each in elements)
        values, strengths, (top, bottom) = parallel.scan(
            flatten(state.values, rank + 1), state.strengths, actions, (top, bottom)
        )
        shape = (*strengths.shape, *state.values.shape[rank + 1 :])
        state = NeuralDequeState(values.reshape(shape), strengths)
        reads = top.reshape(elements[0].shape), bottom.reshape(elements[1].shape)
    return resize(state, capacity), reads


def _contents(state: NeuralDequeState) -> Tensor:
    strengths = feasible(state.strengths).to(state.values.dtype)
    return state.values * strengths.reshape(strengths.shape + (1,) * (state.values.ndim - strengths.ndim))


def _size(state: NeuralDequeState) -> Tensor:
    return torch.sum(feasible(state.strengths), -1)
