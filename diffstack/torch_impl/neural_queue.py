"""The neural queue: the neural stack, popped and read at its oldest end, the front.

With d the strength that is pushed with element v_t, u the strength that is popped, and elements i from oldest to
newest (Grefenstette et al. 2015, equations 4 and 5),

    s_t[i] = max(0, s_{t-1}[i] - max(0, u_t - sum_{j<i} s_{t-1}[j]))   for i < t,       s_t[t] = d_t
    r_t    = sum_i min(s_t[i], max(0, 1 - sum_{j<i} s_t[j])) v_i

so a step pops the front, pushes at the back, and reads total strength 1 from the front. A pop of more than is there
takes what is there.

Every push takes a slot, even one of strength 0. The capacity is the number of most recent slots that a state keeps:
`push` and `step` drop the oldest slot, whatever its strength. A controller that calls `step` itself needs as much
capacity as it takes steps between a push and its pop. `scan` drops nothing while it runs: it makes room for its T steps
first, and goes back to the capacity of the state when it is done.

Strengths are usually in [0, 1]. Below 0 they count as 0, and above 1 they are taken as they are. NaN makes every read
NaN from its step on, for as long as the slots it reached are kept: to the end of a `scan`, but not for ever through
`step`, which drops slots. Hard strengths always tie; `_ties.py` says which derivative is taken there.

**Shapes.** A state has `values` (*batch, N, *element), oldest first, and `strengths` (*batch, N). An element is
(*batch, *element); an action is (*batch, 2), the strengths of push and pop; the `strength` of a verb is a number or
(*batch,). In `scan` a time axis T follows the batch axes: actions (*batch, T, 2), elements and reads
(*batch, T, *element).

**Dtypes.** Values and strengths are floating, each of a dtype of its own; reads have that of the values. An element or
a strength of a narrower dtype is cast up to that of the state.

**Errors.** Every function raises `TypeError` or `ValueError` for an argument whose type, dtype or shape does not fit,
and names it.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.actions import POP, PUSH
from diffstack.torch_impl import _line, _methods, _sequential
from diffstack.torch_impl._arrays import as_lengths, as_state, as_wide, flat, run, shaped
from diffstack.torch_impl._line import as_strength, as_strengths, below, newest
from diffstack.torch_impl._parallel import neural_queue as _parallel
from diffstack.torch_impl._ragged import stopped


class NeuralQueueState(NamedTuple):
    """A queue, or a batch of them.

    Attributes:
        values: the elements, (*batch, N, *element), oldest first.
        strengths: how much of each is there, (*batch, N).
    """

    values: Tensor
    strengths: Tensor


# The equations, on elements of one axis.


def _push(
    state: NeuralQueueState, element: Float[Tensor, "*batch dim"], strength: Float[Tensor, "*batch"]
) -> NeuralQueueState:
    return newest(_line.push(state, element, strength), state.strengths.shape[-1])


def _pop(
    state: NeuralQueueState, strength: Float[Tensor, "*batch"]
) -> tuple[NeuralQueueState, Float[Tensor, "*batch dim"]]:
    return _line.pop(state, strength, below), _line.peek(state, strength, below)


def _peek(state: NeuralQueueState, strength: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch dim"]:
    return _line.peek(state, strength, below)


def _step(
    state: NeuralQueueState, actions: Float[Tensor, "*batch 2"], element: Float[Tensor, "*batch dim"]
) -> tuple[NeuralQueueState, Float[Tensor, "*batch dim"]]:
    state = _line.pop(state, actions[..., POP], below)
    state = _push(state, element, actions[..., PUSH])
    return state, _peek(state, torch.ones_like(actions[..., PUSH]))


def _scan(
    state: NeuralQueueState,
    actions: Float[Tensor, "*batch time 2"],
    elements: Float[Tensor, "*batch time dim"],
    lengths: Int[Tensor, "*batch"] | None,
    *,
    method: str,
) -> tuple[NeuralQueueState, Float[Tensor, "*batch time dim"]]:
    capacity = state.strengths.shape[-1]
    actions, elements = stopped(actions, lengths), stopped(elements, lengths)
    if method == "sequential":
        state, reads = _sequential.scan(_step, _with_room(state, steps=actions.shape[-2]), actions, elements)
    else:
        values, strengths, reads = _parallel.scan(*state, actions, elements)
        state = NeuralQueueState(values, strengths)
    return _ended(state, lengths, capacity=capacity), stopped(reads, lengths)


def _with_room(state: NeuralQueueState, *, steps: int) -> NeuralQueueState:
    """The state from which so many steps drop nothing."""
    return _line.with_room(state, steps)


def _ended(state: NeuralQueueState, lengths: Int[Tensor, "*batch"] | None, *, capacity: int) -> NeuralQueueState:
    """Of a state with room for all steps, what its capacity keeps at the end of each sequence."""
    return _line.newest_at_the_end(state, capacity, lengths)


# The public functions.


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
    device: Any = None,
) -> NeuralQueueState:
    """An empty queue: slots of strength 0.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for values and strengths; the default float where none is given.
        batch_shape: the leading axes, one queue for each of their entries.
        device: where the state lives; the default device where none is given.

    Example:
        >>> from diffstack.torch_impl import neural_queue
        >>> neural_queue.empty(3).strengths.tolist()
        [0.0, 0.0, 0.0]
    """
    return _line.empty(NeuralQueueState, capacity, element_shape, dtype, batch_shape, device)


def from_buffer(buffer: Tensor) -> NeuralQueueState:
    """One full queue of elements of strength 1, whose front is the first row of a buffer.

    Args:
        buffer: (N, *element), floating.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_queue
        >>> neural_queue.peek(neural_queue.from_buffer(torch.tensor([1.0, 2.0]))).item()
        1.0
    """
    return _line.from_buffer(NeuralQueueState, buffer)


def encode(codes: Any, *, dtype: Any = None) -> Tensor:
    """Integer codes as strengths of push and pop, (*codes, 2): 1 for what is done and 0 for what is not.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, of any shape; any other code counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.torch_impl import neural_queue
        >>> neural_queue.encode([PUSH, NOOP]).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    return _line.hard_strengths(codes, dtype)


def push(state: NeuralQueueState, element: Tensor, strength: Tensor | float = 1.0) -> NeuralQueueState:
    """Put an element in the newest slot of the queue, at its back, and drop the oldest slot.

    Example:
        >>> from diffstack.torch_impl import neural_queue
        >>> neural_queue.push(neural_queue.empty(2), 5.0, 0.5).strengths.tolist()
        [0.0, 0.5]
    """
    state, layout = _opened(state)
    return shaped(run(_push, state, _element(element, state, layout), as_strength(strength, state)), layout)


def pop(state: NeuralQueueState, strength: Tensor | float = 1.0) -> tuple[NeuralQueueState, Tensor]:
    """Take strength off the front of the queue: the queue with what is left, and what was taken.

    What was taken is the sum of the elements weighted by the strength that each lost, (*batch, *element). A pop of
    more than is there takes what is there.

    Example:
        >>> from diffstack.torch_impl import neural_queue
        >>> state = neural_queue.push(neural_queue.push(neural_queue.empty(2), 1.0), 4.0, 0.5)
        >>> state, element = neural_queue.pop(state, 0.75)
        >>> element.item(), state.strengths.tolist()
        (0.75, [0.25, 0.5])
    """
    state, layout = _opened(state)
    return shaped(run(_pop, state, as_strength(strength, state)), layout)


def peek(state: NeuralQueueState, strength: Tensor | float = 1.0) -> Tensor:
    """Read strength from the front of the queue, and leave the queue as it is.

    The read is the sum of the elements nearest to the front, weighted by strengths that add up to `strength`, or to
    what is there if that is less, (*batch, *element).

    Example:
        >>> from diffstack.torch_impl import neural_queue
        >>> state = neural_queue.push(neural_queue.push(neural_queue.empty(2), 1.0), 4.0, 0.5)
        >>> neural_queue.peek(state, 1.5).item()
        3.0
    """
    state, layout = _opened(state)
    return shaped(run(_peek, state, as_strength(strength, state)), layout)


def step(state: NeuralQueueState, actions: Tensor, element: Tensor) -> tuple[NeuralQueueState, Tensor]:
    """One time step of a controller: pop, push, then read total strength 1; the oldest slot is dropped.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_queue
        >>> state = neural_queue.push(neural_queue.empty(2), 1.0)
        >>> state, read = neural_queue.step(state, torch.tensor([0.25, 0.5]), 4.0)
        >>> read.item(), state.strengths.tolist()
        (1.5, [0.5, 0.25])

    References:
        Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, equations 4 and 5.
    """
    state, layout = _opened(state)
    return shaped(run(_step, state, *_inputs(actions, element, state, layout)), layout)


def scan(
    state: NeuralQueueState,
    actions: Tensor,
    elements: Tensor,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NeuralQueueState, Tensor]:
    """Run a whole sequence of steps, without dropping a slot: the queue after the last one, and the read of each.

    Args:
        state: the queue before the first step; the one after the last has its capacity.
        actions: (*batch, T, 2).
        elements: (*batch, T, *element).
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. The reads after a sequence's end are zero, and the final state is that of the sequence
            without its padding.
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, one pop and one read of all
            slots each. They agree to rounding, also in the gradients at ties. With "parallel", an element that is
            not finite may also spoil the reads before it. "auto" takes the faster one, by the rule in
            docs/understand/parallel.md.

    Example:
        >>> import torch
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.torch_impl import neural_queue
        >>> program = neural_queue.encode([PUSH, PUSH, POP])
        >>> neural_queue.scan(neural_queue.empty(1), program, torch.tensor([1.0, 2.0, 0.0]))[1].tolist()
        [1.0, 1.0, 2.0]
    """
    state, layout = _opened(state)
    elements = as_wide("elements", elements, state.values)
    time = _checks.check_elements("elements", elements, layout, state.values.dtype)
    actions = as_strengths(actions, state, layout, time, 2)
    lengths = as_lengths(lengths, layout.batch, state[0])
    method = _methods.choose(method, "neural_queue", time, layout)
    return shaped(run(_scan, state, actions, flat(elements, layout), lengths, method=method), layout)


def contents(state: NeuralQueueState) -> Tensor:
    """What is in the queue: the elements times their strengths, oldest first, (*batch, N, *element).

    Example:
        >>> from diffstack.torch_impl import neural_queue
        >>> neural_queue.contents(neural_queue.push(neural_queue.empty(2), 5.0, 0.5)).tolist()
        [0.0, 2.5]
    """
    state, layout = _opened(state)
    return shaped(run(_line.contents, state), layout)


def size(state: NeuralQueueState) -> Tensor:
    """How much is in the queue: the total strength, (*batch,), in float32 at least.

    Example:
        >>> from diffstack.torch_impl import neural_queue
        >>> neural_queue.size(neural_queue.push(neural_queue.empty(2), 5.0, 0.5)).item()
        0.5
    """
    state, _ = _opened(state)
    return run(_line.size, state)


def resize(state: NeuralQueueState, capacity: int) -> NeuralQueueState:
    """The same queue with another number of slots: padded with slots of strength 0, or without its oldest slots.

    Args:
        state: the queue.
        capacity: how many slots it is to have, at least 1. More slots come in at the oldest end.

    Example:
        >>> from diffstack.torch_impl import neural_queue
        >>> neural_queue.resize(neural_queue.push(neural_queue.empty(1), 5.0), 3).values.tolist()
        [0.0, 0.0, 5.0]
    """
    state, layout = _opened(state)
    capacity = _checks.check_count("capacity", capacity, 1)
    return shaped(run(_line.resize, state, capacity=capacity), layout)


def _opened(state: NeuralQueueState) -> tuple[NeuralQueueState, Layout]:
    return as_state(state, _checks.check_neural, NeuralQueueState)


def _element(element: Any, state: NeuralQueueState, layout: Layout) -> Tensor:
    element = as_wide("element", element, state.values)
    _checks.check_element("element", element, layout, state.values.dtype)
    return flat(element, layout)


def _inputs(actions: Any, element: Any, state: NeuralQueueState, layout: Layout) -> tuple[Tensor, Tensor]:
    """The checked actions and element of a step."""
    return as_strengths(actions, state, layout, 2), _element(element, state, layout)
