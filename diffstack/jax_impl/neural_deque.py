"""The neural deque: the neural stack with two ends, the top and the bottom.

A step pops the top, pops the bottom, pushes at both, and reads total strength 1 from each end. With d and u the
strengths that are pushed and popped at the top, and d' and u' those at the bottom, and elements i from the bottom to
the top (Grefenstette et al. 2015, section 3.3),

    s+[i]   = max(0, s_{t-1}[i] - max(0, u_t - sum_{j>i} s_{t-1}[j]))
    s_t[i]  = max(0, s+[i] - max(0, u'_t - sum_{j<i} s+[j]))       then d_t of v_t on top, d'_t of v'_t below
    r_t     = sum_i min(s_t[i], max(0, 1 - sum_{j>i} s_t[j])) v_i
    r'_t    = sum_i min(s_t[i], max(0, 1 - sum_{j<i} s_t[j])) v_i

The element of a step and its read are pairs, the top first. A pop of more than is there takes what is there.

Every push takes a slot, even one of strength 0, so a step takes two. The ends share the capacity, half of the slots
each: a push drops the slot in the middle, which is the farthest from both ends, and the oldest where both ends push in
turn. `push_top` drops slot N // 2 and `push_bottom` slot (N - 1) // 2; `step` does first the one, then the other. A
controller that calls `step` itself needs twice as much capacity as it takes steps between a push and its pop. `scan`
drops nothing while it runs: it makes room for its T steps first, and goes back to the capacity of the state when it is
done.

Strengths are usually in [0, 1]. Below 0 they count as 0, and above 1 they are taken as they are. NaN makes every read
NaN from its step on, for as long as the slots it reached are kept: to the end of a `scan`, but not for ever through
`step`, which drops slots. Hard strengths always tie; `_ties.py` says which derivative is taken there.

**Shapes.** A state has `values` (*batch, N, *element), from the bottom to the top, and `strengths` (*batch, N). An
element is a pair, for the top and the bottom, each (*batch, *element), and so is a read; the verbs of one end take and
give one of them. An action is (*batch, 4), the strengths of push and pop at the top, then at the bottom; the `strength`
of a verb is a number or (*batch,). In `scan` a time axis T follows the batch axes: actions (*batch, T, 4), each of the
elements and reads (*batch, T, *element).

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
from diffstack.jax_impl import _line, _methods, _sequential
from diffstack.jax_impl._arrays import as_lengths, as_state, as_wide, flat, numbered, run, shaped
from diffstack.jax_impl._line import above, as_strength, as_strengths, below
from diffstack.jax_impl._parallel import neural_deque as _parallel
from diffstack.jax_impl._ragged import stopped


class NeuralDequeState(NamedTuple):
    """A deque, or a batch of them.

    Attributes:
        values: the elements, (*batch, N, *element), from the bottom to the top.
        strengths: how much of each is there, (*batch, N).
    """

    values: Array
    strengths: Array


# The equations, on elements of one axis.


def _fitted(state: NeuralDequeState, bottom: int, top: int, capacity: int) -> NeuralDequeState:
    """So many slots nearest to the bottom and nearest to the top, and empty ones between them."""
    middle, first = capacity - bottom - top, state.strengths.shape[-1] - top
    values, strengths = state
    space = jnp.zeros_like(values, shape=(*values.shape[:-2], middle, values.shape[-1]))
    nothing = jnp.zeros_like(strengths, shape=(*strengths.shape[:-1], middle))
    return NeuralDequeState(
        jnp.concatenate([values[..., :bottom, :], space, values[..., first:, :]], -2),
        jnp.concatenate([strengths[..., :bottom], nothing, strengths[..., first:]], -1),
    )


def _push_top(
    state: NeuralDequeState, element: Float[Array, "*batch dim"], strength: Float[Array, "*batch"]
) -> NeuralDequeState:
    slots = state.strengths.shape[-1]
    return _fitted(_line.push(state, element, strength), slots // 2, slots - slots // 2, slots)


def _push_bottom(
    state: NeuralDequeState, element: Float[Array, "*batch dim"], strength: Float[Array, "*batch"]
) -> NeuralDequeState:
    slots = state.strengths.shape[-1]
    return _fitted(_line.push_oldest(state, element, strength), slots - slots // 2, slots // 2, slots)


def _pop_top(
    state: NeuralDequeState, strength: Float[Array, "*batch"]
) -> tuple[NeuralDequeState, Float[Array, "*batch dim"]]:
    return _line.pop(state, strength, above), _line.peek(state, strength, above)


def _pop_bottom(
    state: NeuralDequeState, strength: Float[Array, "*batch"]
) -> tuple[NeuralDequeState, Float[Array, "*batch dim"]]:
    return _line.pop(state, strength, below), _line.peek(state, strength, below)


def _peek_top(state: NeuralDequeState, strength: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
    return _line.peek(state, strength, above)


def _peek_bottom(state: NeuralDequeState, strength: Float[Array, "*batch"]) -> Float[Array, "*batch dim"]:
    return _line.peek(state, strength, below)


def _step(
    state: NeuralDequeState,
    actions: Float[Array, "*batch 4"],
    element: tuple[Float[Array, "*batch dim"], Float[Array, "*batch dim"]],
) -> tuple[NeuralDequeState, tuple[Float[Array, "*batch dim"], Float[Array, "*batch dim"]]]:
    push_top, pop_top, push_bottom, pop_bottom = (actions[..., each] for each in range(4))
    state = _line.pop(state, pop_top, above)
    state = _line.pop(state, pop_bottom, below)
    state = _push_top(state, element[0], push_top)
    state = _push_bottom(state, element[1], push_bottom)
    one = jnp.ones_like(push_top)
    return state, (_peek_top(state, one), _peek_bottom(state, one))


def _scan(
    state: NeuralDequeState,
    actions: Float[Array, "*batch time 4"],
    elements: tuple[Float[Array, "*batch time dim"], Float[Array, "*batch time dim"]],
    lengths: Int[Array, "*batch"] | None,
    *,
    method: str,
) -> tuple[NeuralDequeState, tuple[Float[Array, "*batch time dim"], Float[Array, "*batch time dim"]]]:
    capacity = state.strengths.shape[-1]
    actions, top, bottom = (stopped(each, lengths) for each in (actions, *elements))
    if method == "sequential":
        room = _with_room(state, steps=actions.shape[-2])
        state, (top, bottom) = _sequential.scan(_step, room, actions, (top, bottom))
    else:
        values, strengths, (top, bottom) = _parallel.scan(*state, actions, (top, bottom))
        state = NeuralDequeState(values, strengths)
    return _ended(state, lengths, capacity=capacity), (stopped(top, lengths), stopped(bottom, lengths))


def _with_room(state: NeuralDequeState, *, steps: int) -> NeuralDequeState:
    """The state from which so many steps drop nothing."""
    capacity = state.strengths.shape[-1]
    return _fitted(state, capacity - capacity // 2, capacity // 2, capacity + 2 * steps)


def _ended(state: NeuralDequeState, lengths: Int[Array, "*batch"] | None, *, capacity: int) -> NeuralDequeState:
    """Of a state with room for all steps, what its capacity keeps at the end of each sequence."""
    top = capacity // 2
    if lengths is None:
        return _fitted(state, capacity - top, top, capacity)
    longest = (state.strengths.shape[-1] - capacity) // 2
    lengths = jnp.clip(lengths, 0, longest)[..., None]
    slot = numbered(state.strengths[..., :capacity], -1)
    # A sequence of that length fills the slots from longest - length to longest + capacity + length.
    from_bottom, from_top = longest - lengths + slot, longest + lengths + slot
    return _line.taken_slots(state, jnp.where(slot < capacity - top, from_bottom, from_top))


def _resize(state: NeuralDequeState, *, capacity: int) -> NeuralDequeState:
    kept = min(capacity, state.strengths.shape[-1])
    return _fitted(state, kept - kept // 2, kept // 2, capacity)


# The public functions.


def empty(
    capacity: int, element_shape: tuple[int, ...] = (), *, dtype: Any = None, batch_shape: tuple[int, ...] = ()
) -> NeuralDequeState:
    """An empty deque: slots of strength 0.

    Args:
        capacity: the number of slots N, at least 1.
        element_shape: the shape of one element.
        dtype: a floating dtype for values and strengths; the default float where none is given.
        batch_shape: the leading axes, one deque for each of their entries.

    Example:
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.empty(3).strengths.tolist()
        [0.0, 0.0, 0.0]
    """
    return _line.empty(NeuralDequeState, capacity, element_shape, dtype, batch_shape)


def from_buffer(buffer: Array) -> NeuralDequeState:
    """One full deque of elements of strength 1, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element), floating.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.peek_top(neural_deque.from_buffer(jnp.asarray([1.0, 2.0]))).item()
        2.0
    """
    return _line.from_buffer(NeuralDequeState, buffer)


def encode(codes: Any, *, dtype: Any = None) -> Array:
    """Integer codes for both ends as strengths of push and pop, the top's before the bottom's, (*shape, 4).

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, (*shape, 2), for the top and the bottom; any other code
            counts as NOOP.
        dtype: a floating dtype; the default float where none is given.

    Example:
        >>> from diffstack.actions import NOOP, POP, PUSH
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.encode([[PUSH, NOOP], [NOOP, POP]]).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    strengths = _line.hard_strengths(codes, dtype)
    _checks.check_shape("codes", strengths.shape[-2:-1], (2,), "the last axis, a code for each end")
    return strengths.reshape(*strengths.shape[:-2], 4)


def push_top(state: NeuralDequeState, element: Array, strength: Array | float = 1.0) -> NeuralDequeState:
    """Put an element in the last slot, at the top of the deque, and drop what was slot N // 2.

    Example:
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.push_top(neural_deque.empty(2), 5.0, 0.5).strengths.tolist()
        [0.0, 0.5]
    """
    state, layout = _opened(state)
    element = _element("element", element, state, layout)
    return shaped(run(_push_top, state, element, as_strength(strength, state)), layout)


def push_bottom(state: NeuralDequeState, element: Array, strength: Array | float = 1.0) -> NeuralDequeState:
    """Put an element in the first slot, at the bottom of the deque, and drop what was slot (N - 1) // 2.

    Example:
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.push_bottom(neural_deque.empty(2), 5.0, 0.5).strengths.tolist()
        [0.5, 0.0]
    """
    state, layout = _opened(state)
    element = _element("element", element, state, layout)
    return shaped(run(_push_bottom, state, element, as_strength(strength, state)), layout)


def pop_top(state: NeuralDequeState, strength: Array | float = 1.0) -> tuple[NeuralDequeState, Array]:
    """Take strength off the top of the deque: the deque with what is left, and what was taken.

    What was taken is the sum of the elements weighted by the strength that each lost, (*batch, *element). A pop of
    more than is there takes what is there.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_deque
        >>> state, element = neural_deque.pop_top(neural_deque.from_buffer(jnp.asarray([1.0, 4.0])), 0.5)
        >>> element.item(), state.strengths.tolist()
        (2.0, [1.0, 0.5])
    """
    state, layout = _opened(state)
    return shaped(run(_pop_top, state, as_strength(strength, state)), layout)


def pop_bottom(state: NeuralDequeState, strength: Array | float = 1.0) -> tuple[NeuralDequeState, Array]:
    """Take strength off the bottom of the deque: the deque with what is left, and what was taken.

    What was taken is the sum of the elements weighted by the strength that each lost, (*batch, *element). A pop of
    more than is there takes what is there.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_deque
        >>> state, element = neural_deque.pop_bottom(neural_deque.from_buffer(jnp.asarray([1.0, 4.0])), 0.5)
        >>> element.item(), state.strengths.tolist()
        (0.5, [0.5, 1.0])
    """
    state, layout = _opened(state)
    return shaped(run(_pop_bottom, state, as_strength(strength, state)), layout)


def peek_top(state: NeuralDequeState, strength: Array | float = 1.0) -> Array:
    """Read strength from the top of the deque, and leave the deque as it is.

    The read is the sum of the elements nearest to the top, weighted by strengths that add up to `strength`, or to
    what is there if that is less, (*batch, *element).

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.peek_top(neural_deque.from_buffer(jnp.asarray([1.0, 4.0]))).item()
        4.0
    """
    state, layout = _opened(state)
    return shaped(run(_peek_top, state, as_strength(strength, state)), layout)


def peek_bottom(state: NeuralDequeState, strength: Array | float = 1.0) -> Array:
    """Read strength from the bottom of the deque, and leave the deque as it is.

    The read is the sum of the elements nearest to the bottom, weighted by strengths that add up to `strength`, or to
    what is there if that is less, (*batch, *element).

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.peek_bottom(neural_deque.from_buffer(jnp.asarray([1.0, 4.0]))).item()
        1.0
    """
    state, layout = _opened(state)
    return shaped(run(_peek_bottom, state, as_strength(strength, state)), layout)


def step(
    state: NeuralDequeState, actions: Array, element: tuple[Array, Array]
) -> tuple[NeuralDequeState, tuple[Array, Array]]:
    """One time step of a controller: pop the top, pop the bottom, push at both, then read total strength 1 at both.

    The two slots in the middle are dropped.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_deque
        >>> element = jnp.asarray(1.0), jnp.asarray(2.0)
        >>> state, (top, bottom) = neural_deque.step(neural_deque.empty(4), jnp.asarray([1.0, 0.0, 0.5, 0.0]), element)
        >>> top.item(), bottom.item(), state.strengths.tolist()
        (1.0, 1.5, [0.5, 0.0, 0.0, 1.0])

    References:
        Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, section 3.3.
    """
    state, layout = _opened(state)
    return shaped(run(_step, state, *_inputs(actions, element, state, layout)), layout)


def scan(
    state: NeuralDequeState,
    actions: Array,
    elements: tuple[Array, Array],
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NeuralDequeState, tuple[Array, Array]]:
    """Run a whole sequence of steps, without dropping a slot: the deque after the last one, and the reads of each.

    Args:
        state: the deque before the first step; the one after the last has its capacity.
        actions: (*batch, T, 4).
        elements: what is pushed at the top and at the bottom, each (*batch, T, *element).
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. The reads after a sequence's end are zero, and the final state is that of the sequence
            without its padding.
        method: "sequential" runs `step` T times; "parallel" takes the sequence in chunks, one pop and one read of all
            slots each. They agree to rounding, also in the gradients at ties. With "parallel", an element that is
            not finite may also spoil the reads before it. "auto" takes the faster one, by the rule in
            docs/understand/parallel.md.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.actions import NOOP, POP, PUSH
        >>> from diffstack.jax_impl import neural_deque
        >>> program = neural_deque.encode([[PUSH, NOOP], [PUSH, NOOP], [NOOP, POP]])
        >>> elements = jnp.asarray([1.0, 2.0, 0.0]), jnp.zeros(3)
        >>> state, (top, bottom) = neural_deque.scan(neural_deque.empty(2), program, elements)
        >>> top.tolist(), bottom.tolist()
        ([1.0, 2.0, 2.0], [1.0, 1.0, 2.0])
    """
    state, layout = _opened(state)
    _checks.check_pair("elements", elements)
    top, bottom = (as_wide(f"elements[{end}]", each, state.values) for end, each in enumerate(elements))
    time = _checks.check_elements("elements[0]", top, layout, state.values.dtype)
    _checks.check_shape("elements[1]", bottom.shape, top.shape, "that of elements[0]")
    _checks.check_dtype("elements[1]", bottom.dtype, state.values.dtype, "the state")
    actions = as_strengths(actions, state, layout, time, 4)
    lengths = as_lengths(lengths, layout.batch)
    pair = flat(top, layout), flat(bottom, layout)
    method = _methods.choose(method, "neural_deque", time, layout)
    return shaped(run(_scan, state, actions, pair, lengths, method=method), layout)


def contents(state: NeuralDequeState) -> Array:
    """What is on the deque: the elements times their strengths, the top in the last row, (*batch, N, *element).

    Example:
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.contents(neural_deque.push_top(neural_deque.empty(2), 5.0, 0.5)).tolist()
        [0.0, 2.5]
    """
    state, layout = _opened(state)
    return shaped(run(_line.contents, state), layout)


def size(state: NeuralDequeState) -> Array:
    """How much is on the deque: the total strength, (*batch,), in float32 at least.

    Example:
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.size(neural_deque.push_top(neural_deque.empty(2), 5.0, 0.5)).item()
        0.5
    """
    state, _ = _opened(state)
    return run(_line.size, state)


def resize(state: NeuralDequeState, capacity: int) -> NeuralDequeState:
    """The same deque with another number of slots: padded with slots of strength 0 in the middle, or cut there.

    Args:
        state: the deque.
        capacity: how many slots it is to have, at least 1. The bottom keeps the odd one.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_deque
        >>> neural_deque.resize(neural_deque.from_buffer(jnp.asarray([1.0, 2.0, 3.0])), 4).values.tolist()
        [1.0, 2.0, 0.0, 3.0]
    """
    state, layout = _opened(state)
    capacity = _checks.check_count("capacity", capacity, 1)
    return shaped(run(_resize, state, capacity=capacity), layout)


def _opened(state: NeuralDequeState) -> tuple[NeuralDequeState, Layout]:
    return as_state(state, _checks.check_neural, NeuralDequeState)


def _element(name: str, element: Any, state: NeuralDequeState, layout: Layout) -> Array:
    element = as_wide(name, element, state.values)
    _checks.check_element(name, element, layout, state.values.dtype)
    return flat(element, layout)


def _inputs(actions: Any, element: Any, state: NeuralDequeState, layout: Layout) -> tuple[Array, tuple[Array, ...]]:
    """The checked actions and element of a step."""
    _checks.check_pair("element", element)
    pair = tuple(_element(f"element[{end}]", each, state, layout) for end, each in enumerate(element))
    return as_strengths(actions, state, layout, 4), pair
