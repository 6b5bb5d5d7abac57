"""The neural stack: every element has a strength, and actions move strength.

With d the strength that is pushed with element v_t, u the strength that is popped, and elements i from oldest to
newest (Grefenstette et al. 2015, equations 1 to 3),

    s_t[i] = max(0, s_{t-1}[i] - max(0, u_t - sum_{j>i} s_{t-1}[j]))   for i < t,       s_t[t] = d_t
    r_t    = sum_i min(s_t[i], max(0, 1 - sum_{j>i} s_t[j])) v_i

so a step pops, pushes, and reads total strength 1 from the top. A pop of more than is there takes what is there.

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

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.actions import POP, PUSH
from diffstack.jax_impl import _line, _methods, _sequential
from diffstack.jax_impl._arrays import as_lengths, as_state, as_wide, flat, run, shaped
from diffstack.jax_impl._line import above, as_strength, as_strengths, newest
from diffstack.jax_impl._parallel import neural_stack as _parallel
from diffstack.jax_impl._ragged import stopped


class NeuralStackState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        values: the elements, (*batch, N, *element), oldest first.
        strengths: how much of each is there, (*batch, N).
    """

    values: Array
    strengths: Array


# The equations, on elements of one axis.


def _push(
    state: NeuralStackState, element: Float[Array, "*batch dim"], strength: Float[Array, "*batch"]
) -> NeuralStackState:
    return newest(_line.push(state, element, strength), state.strengths.shape[-1])


def _pop(
    state: NeuralStackState, strength: Float[Array, "*batch"]
) -> tuple[NeuralStackState, Float[Array, "*batch dim"]]:
    return _line.pop(state, strength, above), _line.peek(state, strength, above)


def _peek(state: NeuralStackState, strength: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
    return _line.peek(state, strength, above)


def _step(
    state: NeuralStackState, actions: Float[Array, "*batch 2"], element: Float[Array, "*batch dim"]
) -> tuple[NeuralStackState, Float[Array, "*batch dim"]]:
    state = _line.pop(state, actions[..., POP], above)
    state = _push(state, element, actions[..., PUSH])
    return state, _peek(state, jnp.ones_like(actions[..., PUSH]))


def _scan(
    state: NeuralStackState,
    actions: Float[Array, "*batch time 2"],
    elements: Float[Array, "*batch time dim"],
    lengths: Int[Array, "*batch"] | None,
    *,
    method: str,
) -> tuple[NeuralStackState, Float[Array, "*batch time dim"]]:
    capacity = state.strengths.shape[-1]
    actions, elements = stopped(actions, lengths), stopped(elements, lengths)
    if method == "sequential":
        state, reads = _sequential.scan(_step, _with_room(state, steps=actions.shape[-2]), actions, elements)
    else:
        values, strengths, reads = _parallel.scan(*state, actions, elements)
        state = NeuralStackState(values, strengths)
    return _ended(state, lengths, capacity=capacity), stopped(reads, lengths)


def _with_room(state: NeuralStackState, *, steps: int) -> NeuralStackState:
    """The state from which so many steps drop nothing."""
    return _line.with_room(state, steps)


def _ended(state: NeuralStackState, lengths: Int[Array, "*batch"] | None, *, capacity: int) -> NeuralStackState:
    """Of a state with room for all steps, what its capacity keeps at the end of each sequence."""
    return _line.newest_at_the_end(state, capacity, lengths)


# The public functions.


def empty(
    capacity: int, element_shape: tuple[int, ...] = (), *, dtype: Any = None, batch_shape: tuple[int, ...] = ()
) -> NeuralStackState:
    """An empty stack: slots of strength 0.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for values and strengths; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.empty(3).strengths.tolist()
        [0.0, 0.0, 0.0]
    """
    return _line.empty(NeuralStackState, capacity, element_shape, dtype, batch_shape)


def from_buffer(buffer: Array) -> NeuralStackState:
    """One full stack of elements of strength 1, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element), floating.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.peek(neural_stack.from_buffer(jnp.asarray([1.0, 2.0]))).item()
        2.0
    """
    return _line.from_buffer(NeuralStackState, buffer)


def encode(codes: Any, *, dtype: Any = None) -> Array:
    """Integer codes as strengths of push and pop, (*codes, 2): 1 for what is done and 0 for what is not.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, of any shape; any other code counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.encode([PUSH, NOOP]).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    return _line.hard_strengths(codes, dtype)


def push(state: NeuralStackState, element: Array, strength: Array | float = 1.0) -> NeuralStackState:
    """Put an element in the newest slot of the stack, and drop the oldest slot.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.push(neural_stack.empty(2), 5.0, 0.5).strengths.tolist()
        [0.0, 0.5]
    """
    state, layout = _opened(state)
    return shaped(run(_push, state, _element(element, state, layout), as_strength(strength, state)), layout)


def pop(state: NeuralStackState, strength: Array | float = 1.0) -> tuple[NeuralStackState, Array]:
    """Take strength off the top of the stack: the stack with what is left, and what was taken.

    What was taken is the sum of the elements weighted by the strength that each lost, (*batch, *element). A pop of
    more than is there takes what is there.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> state = neural_stack.push(neural_stack.push(neural_stack.empty(2), 1.0), 4.0, 0.5)
        >>> state, element = neural_stack.pop(state, 0.75)
        >>> element.item(), state.strengths.tolist()
        (2.25, [0.75, 0.0])
    """
    state, layout = _opened(state)
    return shaped(run(_pop, state, as_strength(strength, state)), layout)


def peek(state: NeuralStackState, strength: Array | float = 1.0) -> Array:
    """Read strength from the top of the stack, and leave the stack as it is.

    The read is the sum of the elements nearest to the top, weighted by strengths that add up to `strength`, or to what
    is there if that is less, (*batch, *element).

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> state = neural_stack.push(neural_stack.push(neural_stack.empty(2), 1.0), 4.0, 0.5)
        >>> neural_stack.peek(state).item()
        2.5
    """
    state, layout = _opened(state)
    return shaped(run(_peek, state, as_strength(strength, state)), layout)


def step(state: NeuralStackState, actions: Array, element: Array) -> tuple[NeuralStackState, Array]:
    """One time step of a controller: pop, push, then read total strength 1; the oldest slot is dropped.

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
    state, layout = _opened(state)
    return shaped(run(_step, state, *_inputs(actions, element, state, layout)), layout)


def scan(
    state: NeuralStackState,
    actions: Array,
    elements: Array,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NeuralStackState, Array]:
    """Run a whole sequence of steps, without dropping a slot: the stack after the last one, and the read of each.

    Args:
        state: the stack before the first step; the one after the last has its capacity.
        actions: (*batch, T, 2).
        elements: (*batch, T, *element).
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. The reads after a sequence's end are zero, and the final state is that of the sequence
            without its padding.
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, one pop and one read of all
            older slots each. They agree to rounding, also in the gradients at ties. With "parallel", an element that is
            not finite may also spoil the reads before it. "auto" takes the faster one, by the rule in
            docs/understand/parallel.md.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.jax_impl import neural_stack
        >>> program = neural_stack.encode([PUSH, PUSH, POP])
        >>> neural_stack.scan(neural_stack.empty(1), program, jnp.asarray([1.0, 2.0, 0.0]))[1].tolist()
        [1.0, 2.0, 1.0]
    """
    state, layout = _opened(state)
    elements = as_wide("elements", elements, state.values)
    time = _checks.check_elements("elements", elements, layout, state.values.dtype)
    actions = as_strengths(actions, state, layout, time, 2)
    lengths = as_lengths(lengths, layout.batch)
    method = _methods.choose(method, "neural_stack", time, layout)
    return shaped(run(_scan, state, actions, flat(elements, layout), lengths, method=method), layout)


def contents(state: NeuralStackState) -> Array:
    """What is on the stack: the elements times their strengths, the top in the last row, (*batch, N, *element).

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.contents(neural_stack.push(neural_stack.empty(2), 5.0, 0.5)).tolist()
        [0.0, 2.5]
    """
    state, layout = _opened(state)
    return shaped(run(_line.contents, state), layout)


def size(state: NeuralStackState) -> Array:
    """How much is on the stack: the total strength, (*batch,), in float32 at least.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.size(neural_stack.push(neural_stack.empty(2), 5.0, 0.5)).item()
        0.5
    """
    state, _ = _opened(state)
    return run(_line.size, state)


def resize(state: NeuralStackState, capacity: int) -> NeuralStackState:
    """The same stack with another number of slots: padded with slots of strength 0, or without its oldest slots.

    Args:
        state: the stack.
        capacity: how many slots it is to have, at least 1. More slots come in at the oldest end.

    Example:
        >>> from diffstack.jax_impl import neural_stack
        >>> neural_stack.resize(neural_stack.push(neural_stack.empty(1), 5.0), 3).values.tolist()
        [0.0, 0.0, 5.0]
    """
    state, layout = _opened(state)
    capacity = _checks.check_count("capacity", capacity, 1)
    return shaped(run(_line.resize, state, capacity=capacity), layout)


def _opened(state: NeuralStackState) -> tuple[NeuralStackState, Layout]:
    return as_state(state, _checks.check_neural, NeuralStackState)


def _element(element: Any, state: NeuralStackState, layout: Layout) -> Array:
    element = as_wide("element", element, state.values)
    _checks.check_element("element", element, layout, state.values.dtype)
    return flat(element, layout)


def _inputs(actions: Any, element: Any, state: NeuralStackState, layout: Layout) -> tuple[Array, Array]:
    """The checked actions and element of a step."""
    return as_strengths(actions, state, layout, 2), _element(element, state, layout)
