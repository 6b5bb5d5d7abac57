"""The nondeterministic stack: all runs of a weighted pushdown automaton at once.

The automaton has Q states and S stack symbols. It starts in state 0 with the bottom symbol 0, which is never popped. In
state q with x on top, a step t pushes y above x, replaces x by y or pops x, and goes to state r, with the log weights

    push_t[q,x,r,y]          pop_t[q,x,r]          replace_t[q,x,r,y]

The weight of a run is the product of those of its steps. Let joint_t[i,q,x; r,y] be the share, in the weight of all
runs of t steps, of those that are in state r with y on top, above the symbol x that was on top in state q after step i.
What is on top was pushed by step i + 1, whether or not it has been replaced since (i = -1 for the bottom). Its sum over
i, q and x is a_t[r,y], and W_t = joint_t / a_t[r,y] says where and over what the top was pushed. With weights in place
of their logarithms, it is

    joint_t[i,q,x; r,y] = a_{t-1}[q,x] push_t[q,x,r,y]                                               where i = t - 1
                        + sum_{s,z} joint_{t-1}[i,q,x; s,z] replace_t[s,z,r,y]                       where i < t - 1
                        + sum_{k>i,u} W_k[i,q,x | u,y] sum_{s,z} joint_{t-1}[k,u,y; s,z] pop_t[s,z,r]

divided by its sum over everything (DuSell & Chiang 2020 to 2023; their gamma[i -> t] times alpha[i], divided by the sum
of alpha[t]). All of it is kept as logarithms, so that it is right for weights of any size.

Every symbol carries a vector: a push brings its own, a replacement keeps it, and the bottom has one in the state. The
read is attention over the vectors that were pushed,

    read_t[r,y] = sum_{i,q,x} joint_t[i,q,x; r,y] v_{i+1}

Where elements have no numbers, shape (0,), the read is the distribution a_t[r,y] itself. Where no run is possible, the
read is zero from then on, and has no gradient.

The capacity D is a window in time: after step t only i >= t - D are kept, and the shares are those of the runs that are
left. It bounds how long ago the top can have been pushed, and not the depth. `step` drops what leaves the window, and
the bottom leaves it after D steps. `scan` drops nothing while it runs: it makes room for its T steps first, and goes
back to the capacity of the state when it is done.

**Shapes.** A state has `values` (*batch, D, *element), oldest first, of which row j belongs to i = t - D + j; `tops`
(*batch, Q, S), log a_t; and `edges` (*batch, D, Q, S, D, Q, S): entry [j,r,y, i,q,x] is log W_k[i,q,x | r,y] for
k = t - D + 1 + j, so that the last row is that of step t. An element is (*batch, *element); an action is
(*batch, A) with A = Q S (2 Q S + Q), three blocks one after the other, each in row-major order:

    push (Q, S, Q, S)          pop (Q, S, Q)          replace (Q, S, Q, S)

For one state and one symbol these are the weights of push, pop and noop. Actions are any numbers, or minus infinity for
what is forbidden. In `scan` a time axis T follows the batch axes: actions
(*batch, T, A), elements (*batch, T, *element), reads (*batch, T, Q, S, *element).

**Dtypes.** Values are floating, and reads have their dtype. `tops` and `edges` share another floating dtype, which
`empty` makes float32 at least; they are computed in float32 at least. An element or an action of a narrower dtype is
cast up to that of the state.

**Errors.** Every function raises `TypeError` or `ValueError` for an argument whose type, dtype or shape does not fit,
and names it.
"""

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.actions import POP, PUSH
from diffstack.families import FAMILIES
from diffstack.jax_impl import _methods, _sequential
from diffstack.jax_impl._arrays import (
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
from diffstack.jax_impl._logs import as_logs, divided, dtype_of_logs, log, logsumexp
from diffstack.jax_impl._parallel import nondeterministic as _parallel
from diffstack.jax_impl._ragged import noop, stopped, where_live

# The log weight with which a hard program leaves an empty stack as it is where it pops: beside a pop that is possible,
# it is lost in every dtype.
NOTHING_TO_POP = -1000.0


class NondeterministicState(NamedTuple):
    """A stack, or a batch of them.

    Attributes:
        values: the vectors of what was pushed in the window, (*batch, D, *element), oldest first.
        tops: the log probability of each state and top symbol, (*batch, Q, S).
        edges: the log probability of where and over what each top was pushed, (*batch, D, Q, S, D, Q, S).
    """

    values: Array
    tops: Array
    edges: Array


# The equations.


def _operations(
    actions: Float[Array, "*steps weights"], tops: Float[Array, "*batch states symbols"]
) -> tuple[Float[Array, "*steps tops tops"], Float[Array, "*steps tops states"], Float[Array, "*steps tops tops"]]:
    """The log weights of push, pop and replace, from each state and top."""
    states, symbols = tops.shape[-2:]
    n, batch = states * symbols, actions.shape[:-1]
    push, pop, replace = jnp.split(actions, (n * n, n * n + n * states), -1)
    return push.reshape(*batch, n, n), pop.reshape(*batch, n, states), replace.reshape(*batch, n, n)


def _step(
    state: NondeterministicState, actions: Float[Array, "*batch weights"], element: Float[Array, "*batch dim"]
) -> tuple[NondeterministicState, Float[Array, "..."]]:
    values, tops, edges = state
    tops, edges, actions = as_logs(tops, edges, actions)
    *batch, slots, states, symbols = edges.shape[:-3]
    n = states * symbols
    push, pop, replace = _operations(actions, tops)
    # A state and a symbol are one axis from here on, so that in the letters above it is joint[(r,y), i, (q,x)].
    tops, edges = tops.reshape(*batch, n), edges.reshape(*batch, slots, n, slots, n)
    joint = tops[..., None, None] + edges[..., -1, :, :, :]
    pushed = tops[..., None] + push
    replaced = logsumexp(joint[..., None, :, :] + replace[..., None, None], (-4,))
    # Row k of the edges belongs to column k + 1; what the first column has below it is in the window no more.
    revealed = logsumexp(joint[..., None, 1:, :] + pop[..., None, None], (-4,))
    revealed = revealed.reshape(*batch, states, slots - 1, states, symbols, 1, 1)
    below = edges[..., :-1, :, :, :].reshape(*batch, 1, slots - 1, states, symbols, slots, n)
    popped = logsumexp(revealed + below, (-5, -4)).reshape(*batch, n, slots, n)
    kept = logsumexp(jnp.stack([replaced, popped], -1), (-1,))[..., 1:, :]
    joint = jnp.concatenate([kept, jnp.swapaxes(pushed, -1, -2)[..., None, :]], -2)
    total = logsumexp(joint, (-2, -1))
    new = divided(joint, total[..., None, None])
    older = jnp.concatenate([edges[..., 1:, :, 1:, :], jnp.full_like(edges[..., 1:, :, :1, :], -jnp.inf)], -2)
    values = jnp.concatenate([values[..., 1:, :], element[..., None, :]], -2)
    tops = divided(total, logsumexp(total, (-1,))[..., None]).reshape(*batch, states, symbols)
    edges = jnp.concatenate([older, new[..., None, :, :, :]], -4).reshape(state.edges.shape)
    read = _peek(NondeterministicState(values, tops, edges))
    dtype = state.tops.dtype
    return NondeterministicState(values, tops.astype(dtype), edges.astype(dtype)), read


def _peek(state: NondeterministicState) -> Float[Array, "..."]:
    values, tops, edges = state
    tops, edges = as_logs(tops, edges)
    shares = jnp.exp(tops[..., None] + logsumexp(edges[..., -1, :, :, :, :, :], (-2, -1)))
    return _read(shares, tops, values)


def _read(
    shares: Float[Array, "*#batch states symbols slots"],
    tops: Float[Array, "*#batch states symbols"],
    values: Float[Array, "*#batch slots dim"],
) -> Float[Array, "..."]:
    """Attention over the vectors; without vectors, the distribution of the tops."""
    if values.shape[-1] == 0:
        return jnp.exp(tops).astype(values.dtype)
    *batch, states, symbols, slots = shares.shape
    read = matmul(shares.reshape(*batch, states * symbols, slots), values.astype(shares.dtype))
    return read.reshape(*batch, states, symbols, values.shape[-1]).astype(values.dtype)


def _contents(state: NondeterministicState) -> Float[Array, "..."]:
    values, tops, edges = state
    tops, edges = as_logs(tops, edges)
    *batch, slots, states, symbols = edges.shape[:-3]
    n = states * symbols
    edges = jnp.exp(edges).reshape(*batch, slots * n, slots * n)
    rows = jnp.zeros_like(edges, shape=(*batch, slots, n))
    rows = rows.at[..., -1, :].set(jnp.exp(tops).reshape(*batch, n))

    def level(rows: Array, _: None) -> tuple[Array, Array]:
        """From how likely each row of the edges is at a depth, to that one deeper, and the read there."""
        joint = (rows.reshape(*batch, slots * n, 1) * edges).reshape(*batch, slots, n, slots, n)
        shares = joint.sum((-4, -1)).reshape(*batch, states, symbols, slots)
        below = joint.sum((-4, -3))[..., 1:, :]
        read = _read(shares, log(shares.sum(-1)), values)
        return jnp.concatenate([below, jnp.zeros_like(rows[..., :1, :])], -2), read

    _, reads = lax.scan(level, rows, None, slots)
    return jnp.moveaxis(jnp.flip(reads, 0), 0, len(batch))


def _scan(
    state: NondeterministicState,
    actions: Float[Array, "*batch time weights"],
    elements: Float[Array, "*batch time dim"],
    lengths: Int[Array, "*batch"] | None,
    *,
    method: str,
) -> tuple[NondeterministicState, Float[Array, "..."]]:
    first, capacity, steps = state, state.values.shape[-2], actions.shape[-2]
    if lengths is not None:
        still = noop(FAMILIES["nondeterministic"], actions, state)
        actions, elements = stopped(actions, lengths, still), stopped(elements, lengths)
    if method == "sequential":
        state, reads = _sequential.scan(_step, _with_room(state, steps=steps), actions, elements)
    else:
        values = jnp.concatenate([state.values, elements], -2)
        tops, edges, actions = as_logs(state.tops, state.edges, actions)
        tops, edges, each, shares = _parallel.scan(tops, edges, _operations(actions, tops))
        reads = _read(shares, each, values[..., None, :, :])
        dtype = state.tops.dtype
        state = NondeterministicState(values, tops.astype(dtype), edges.astype(dtype))
    state = _ended(state, lengths, capacity=capacity)
    if lengths is not None:
        # A sequence without a step leaves the state as it was, to the bit.
        state = where_live(lengths > 0, state, first)
    return state, stopped(reads, lengths)


def _with_room(state: NondeterministicState, *, steps: int) -> NondeterministicState:
    """The state from which so many steps drop nothing."""
    return _resize(state, capacity=state.values.shape[-2] + steps)


def _ended(
    state: NondeterministicState, lengths: Int[Array, "*batch"] | None, *, capacity: int
) -> NondeterministicState:
    """Of a state with room for all steps, what its capacity keeps at the end of each sequence."""
    if lengths is None:
        return _resize(state, capacity=capacity)
    values, tops, edges = state
    time = values.shape[-2] - capacity
    # Every step takes a slot, also one after the end, which leaves the newest row of the edges as it was.
    first = jnp.clip(lengths, 0, time)[..., None] + numbered(edges[..., :capacity, 0, 0, 0, 0, 0], -1)
    edges = jnp.take_along_axis(edges, first.reshape(*first.shape, *(1,) * 5), -6)
    edges = jnp.take_along_axis(edges, first.reshape(*first.shape[:-1], 1, 1, 1, capacity, 1, 1), -3)
    return _in_its_window(NondeterministicState(jnp.take_along_axis(values, first[..., None], -2), tops, edges))


def _resize(state: NondeterministicState, *, capacity: int) -> NondeterministicState:
    values, tops, edges = state
    more = capacity - values.shape[-2]
    if more < 0:
        return _in_its_window(
            NondeterministicState(values[..., -more:, :], tops, edges[..., -more:, :, :, -more:, :, :])
        )
    batch, window = [(0, 0)] * (tops.ndim - 2), ((more, 0), (0, 0), (0, 0))
    values = jnp.pad(values, (*batch, (more, 0), (0, 0)))
    return NondeterministicState(values, tops, jnp.pad(edges, (*batch, *window, *window), constant_values=-jnp.inf))


def _in_its_window(state: NondeterministicState) -> NondeterministicState:
    """The state whose shares are those of the runs that its window has kept."""
    values, tops, edges = state
    wide_tops, newest = as_logs(tops, edges[..., -1:, :, :, :, :, :])
    left = logsumexp(newest, (-3, -2, -1))
    total = wide_tops + left[..., 0, :, :]
    tops = divided(total, logsumexp(total, (-2, -1))[..., None, None]).astype(tops.dtype)
    newest = divided(newest, left[..., None, None, None]).astype(edges.dtype)
    return NondeterministicState(values, tops, jnp.concatenate([edges[..., :-1, :, :, :, :, :], newest], -6))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _bottom(
    batch: tuple[int, ...], window: tuple[int, int, int], dtype: Any
) -> tuple[Float[Array, "*batch states symbols"], Float[Array, "*batch slots states symbols slots states symbols"]]:
    """The tops and edges of a stack that holds its bottom alone."""
    tops = jnp.full((*batch, *window[1:]), -jnp.inf, dtype).at[..., 0, 0].set(0)
    edges = jnp.full((*batch, *window, *window), -jnp.inf, dtype).at[..., -1, 0, 0, -1, 0, 0].set(0)
    return tops, edges


@partial(jax.jit, static_argnames=("states", "symbols", "dtype"))
def _encode(
    codes: Int[Array, "*codes"], pushed: Int[Array, "*codes"], *, states: int, symbols: int, dtype: Any
) -> Float[Array, "*codes weights"]:
    ones = (1,) * codes.ndim
    stays = jnp.eye(states, dtype=bool).reshape(*ones, states, 1, states, 1)
    same = jnp.eye(symbols, dtype=bool).reshape(*ones, 1, symbols, 1, symbols)
    new = jnp.arange(symbols, dtype=pushed.dtype).reshape(*ones, 1, 1, 1, symbols)
    codes, pushed = (each[..., None, None, None, None] for each in (codes, pushed))
    nothing = jnp.asarray(-jnp.inf, dtype)
    push = jnp.where((codes == PUSH) & stays & (pushed == new), 0, nothing)
    pop = jnp.where((codes == POP)[..., 0] & stays[..., 0], 0, nothing)
    replace = jnp.where(codes == POP, jnp.asarray(NOTHING_TO_POP, nothing.dtype), 0)
    replace = jnp.where(stays & same & (codes != PUSH), replace, nothing)
    batch, full = codes.shape[:-4], (states, symbols, states, symbols)
    blocks = ((push, full), (pop, full[:3]), (replace, full))
    return jnp.concatenate(
        [jnp.broadcast_to(x, (*batch, *shape)).reshape(*batch, math.prod(shape)) for x, shape in blocks], -1
    )


# The public functions.


def empty(
    capacity: int,
    element_shape: tuple[int, ...] = (),
    *,
    states: int = 1,
    symbols: int = 1,
    bottom: Any = None,
    dtype: Any = None,
    batch_shape: tuple[int, ...] = (),
) -> NondeterministicState:
    """An empty stack: state 0, and on top the bottom symbol 0.

    Args:
        capacity: the window D, at least 1.
        element_shape: the shape of one element; (0,) for none, where the reads are the distribution of the tops.
        states: the number of states Q of the automaton, at least 1.
        symbols: the number of stack symbols S, at least 1.
        bottom: the vector of the bottom, (*element) or (*batch, *element); zeros where none is given.
        dtype: a floating dtype; the default float where none is given.
        batch_shape: the leading axes, one stack for each of their entries.

    Example:
        >>> from diffstack.jax_impl import nondeterministic
        >>> state = nondeterministic.empty(4, (3,), states=2, symbols=5)
        >>> state.values.shape, state.tops.shape, state.edges.shape
        ((4, 3), (2, 5), (4, 2, 5, 4, 2, 5))
    """
    layout = _checks.check_empty(capacity, element_shape, batch_shape)
    shape = (_checks.check_count("states", states, 1), _checks.check_count("symbols", symbols, 1))
    dtype = floating_dtype(dtype)
    values = jnp.zeros((*layout.batch, layout.slots, *layout.element), dtype)
    if bottom is not None:
        bottom = as_wide("bottom", bottom, values)
        _checks.check_bottom(bottom, layout, dtype)
        values = values.at[(slice(None),) * len(layout.batch) + (-1,)].set(bottom)
    return NondeterministicState(values, *_bottom(layout.batch, (layout.slots, *shape), dtype_of_logs(dtype)))


def encode(codes: Any, pushed: Any = None, *, states: int = 1, symbols: int = 1, dtype: Any = None) -> Array:
    """Integer codes as the log weights of a hard program, (*codes, A): 0 for what is done, minus infinity for the rest.

    The automaton stays in its state. A pop of an empty stack leaves it as it is, as that of a discrete stack does: that
    has the log weight -1000, which is lost beside a pop that is possible. So give the stack a window with room for the
    program; one that has forgotten what a pop takes would leave the top where it is.

    Args:
        codes: PUSH, POP and NOOP of `diffstack.actions`, of any shape; any other code counts as NOOP.
        pushed: the symbol that each PUSH pushes, integers of the shape of the codes below `symbols`; 0 where none is
            given. No run can push another.
        states: the number of states Q.
        symbols: the number of stack symbols S.
        dtype: a floating dtype; the default float where none is given.

    Example:
        >>> from diffstack.actions import NOOP, PUSH
        >>> from diffstack.jax_impl import nondeterministic
        >>> nondeterministic.encode([PUSH, NOOP]).tolist()
        [[0.0, -inf, -inf], [-inf, -inf, 0.0]]
    """
    codes = as_codes(codes)
    pushed = jnp.zeros_like(codes) if pushed is None else as_codes(pushed, "pushed")
    _checks.check_shape("pushed", pushed.shape, codes.shape, "a symbol for each of the codes")
    states, symbols = _checks.check_count("states", states, 1), _checks.check_count("symbols", symbols, 1)
    return _encode(codes, pushed, states=states, symbols=symbols, dtype=floating_dtype(dtype))


def peek(state: NondeterministicState) -> Array:
    """What a step would have read that left the stack in this state, (*batch, Q, S, *element).

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import nondeterministic
        >>> nondeterministic.peek(nondeterministic.empty(3, (2,), bottom=jnp.asarray([4.0, 5.0]))).tolist()
        [[[4.0, 5.0]]]
    """
    state, layout = _opened(state)
    return _shaped(run(_peek, state), layout)


def step(state: NondeterministicState, actions: Array, element: Any = None) -> tuple[NondeterministicState, Array]:
    """One time step of a controller: all pushes, pops and replacements at once, then read the top.

    Args:
        state: the stack.
        actions: log weights, (*batch, A).
        element: the vector that a push brings, (*batch, *element); None where elements have no numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import nondeterministic
        >>> state = nondeterministic.empty(3, (1,))
        >>> state, read = nondeterministic.step(state, jnp.log(jnp.asarray([0.5, 0.25, 0.5])), jnp.asarray([4.0]))
        >>> read.tolist()
        [[[2.0]]]

    References:
        DuSell & Chiang 2020, Learning Context-Free Languages with Nondeterministic Stack RNNs, equations of section 3;
        DuSell & Chiang 2023, The Surprising Computational Power of Nondeterministic Stack RNNs, for the vectors.
    """
    state, layout = _opened(state)
    state, read = run(_step, state, *_inputs(actions, element, state, layout))
    return shaped(state, layout), _shaped(read, layout)


def scan(
    state: NondeterministicState,
    actions: Array,
    elements: Any = None,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NondeterministicState, Array]:
    """Run a whole sequence of steps, without dropping a slot: the stack after the last one, and the read of each.

    Args:
        state: the stack before the first step; the one after the last has its capacity.
        actions: log weights, (*batch, T, A).
        elements: (*batch, T, *element); None where elements have no numbers.
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. The reads after a sequence's end are zero, and the final state is that of the sequence
            without its padding.
        method: "sequential" runs `step` T times, in logarithms, and is right for weights of any size. "parallel" is a
            filter on probabilities, many times as fast; it loses what is less likely than its top by more than 69 nats
            (667 in float64), which matters where later steps favour it by more. It has a backward pass of its own, so
            that forward mode needs "sequential". "auto" takes "parallel".

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.jax_impl import nondeterministic
        >>> program = nondeterministic.encode([PUSH, PUSH, POP])
        >>> elements = jnp.asarray([1.0, 2.0, 0.0])
        >>> nondeterministic.scan(nondeterministic.empty(1), program, elements)[1].tolist()
        [[[1.0]], [[2.0]], [[1.0]]]
    """
    state, layout = _opened(state)
    actions = as_wide("actions", actions, state.tops)
    if elements is None and 0 in layout.element:
        (time,) = _checks.check_log_weights(actions, layout, state.tops, None)
        elements = jnp.zeros_like(state.values, shape=(*layout.batch, time, *layout.element))
    elements = as_wide("elements", elements, state.values)
    time = _checks.check_elements("elements", elements, layout, state.values.dtype)
    _checks.check_log_weights(actions, layout, state.tops, (time,))
    lengths = as_lengths(lengths, layout.batch)
    method = _methods.choose(method, "nondeterministic", time, layout)
    state, reads = run(_scan, state, actions, flat(elements, layout), lengths, method=method)
    return shaped(state, layout), _shaped(reads, layout)


def contents(state: NondeterministicState) -> Array:
    """What a read would see at each depth, the top in the last row, (*batch, D, Q, S, *element).

    A row is the sum, over all runs, of the vector at that depth, split by its symbol and the state in which it was last
    on top; where elements have no numbers, it is how likely they are. Below the bottom there is nothing.

    Example:
        >>> from diffstack.actions import PUSH
        >>> from diffstack.jax_impl import nondeterministic
        >>> state, _ = nondeterministic.step(nondeterministic.empty(2), nondeterministic.encode(PUSH), 5.0)
        >>> nondeterministic.contents(state).reshape(-1).tolist()
        [0.0, 5.0]
    """
    state, layout = _opened(state)
    return _shaped(run(_contents, state), layout)


def resize(state: NondeterministicState, capacity: int) -> NondeterministicState:
    """The same stack with another window: padded at its oldest end, or without its oldest steps.

    Args:
        state: the stack.
        capacity: the window it is to have, at least 1.

    Example:
        >>> from diffstack.jax_impl import nondeterministic
        >>> nondeterministic.resize(nondeterministic.empty(1), 3).values.shape
        (3,)
    """
    state, layout = _opened(state)
    capacity = _checks.check_count("capacity", capacity, 1)
    return shaped(run(_resize, state, capacity=capacity), layout)


def _shaped(reads: Array, layout: Layout) -> Array:
    """Reads with the axes of an element; without numbers in the elements they have none."""
    return reads if 0 in layout.element else shaped(reads, layout)


def _opened(state: NondeterministicState) -> tuple[NondeterministicState, Layout]:
    return as_state(state, _checks.check_nondeterministic, NondeterministicState)


def _inputs(actions: Any, element: Any, state: NondeterministicState, layout: Layout) -> tuple[Array, Array]:
    """The checked actions and element of a step."""
    actions = as_wide("actions", actions, state.tops)
    _checks.check_log_weights(actions, layout, state.tops, ())
    if element is None and 0 in layout.element:
        element = jnp.zeros_like(state.values, shape=layout.batch + layout.element)
    element = as_wide("element", element, state.values)
    _checks.check_element("element", element, layout, state.values.dtype)
    return actions, flat(element, layout)
