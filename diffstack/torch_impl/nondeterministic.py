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
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from diffstack import _checks
from diffstack._checks import Layout
from diffstack.actions import POP, PUSH
from diffstack.families import FAMILIES
from diffstack.torch_impl import _methods, _sequential
from diffstack.torch_impl._arrays import (
    as_codes,
    as_lengths,
    as_state,
    as_wide,
    flat,
    floating_dtype,
    gathered,
    matmul,
    run,
    shaped,
    without_autocast,
)
from diffstack.torch_impl._logs import as_logs, divided, dtype_of_logs, log, logsumexp
from diffstack.torch_impl._parallel import nondeterministic as _parallel
from diffstack.torch_impl._ragged import noop, stopped, where_live

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

    values: Tensor
    tops: Tensor
    edges: Tensor


# The equations.


def _operations(
    actions: Float[Tensor, "*steps weights"], tops: Float[Tensor, "*batch states symbols"]
) -> tuple[Float[Tensor, "*steps tops tops"], Float[Tensor, "*steps tops states"], Float[Tensor, "*steps tops tops"]]:
    """The log weights of push, pop and replace, from each state and top."""
    states, symbols = tops.shape[-2:]
    n, batch = states * symbols, actions.shape[:-1]
    push, pop, replace = torch.split(actions, [n * n, n * states, n * n], -1)
    return push.reshape(*batch, n, n), pop.reshape(*batch, n, states), replace.reshape(*batch, n, n)


def _step(
    state: NondeterministicState, actions: Float[Tensor, "*batch weights"], element: Float[Tensor, "*batch dim"]
) -> tuple[NondeterministicState, Float[Tensor, "..."]]:
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
    kept = logsumexp(torch.stack([replaced, popped], -1), (-1,))[..., 1:, :]
    joint = torch.cat([kept, pushed.mT[..., None, :]], -2)
    total = logsumexp(joint, (-2, -1))
    new = divided(joint, total[..., None, None])
    older = torch.cat([edges[..., 1:, :, 1:, :], torch.full_like(edges[..., 1:, :, :1, :], -torch.inf)], -2)
    values = torch.cat([values[..., 1:, :], element[..., None, :]], -2)
    tops = divided(total, logsumexp(total, (-1,))[..., None]).reshape(*batch, states, symbols)
    edges = torch.cat([older, new[..., None, :, :, :]], -4).reshape(state.edges.shape)
    read = _peek(NondeterministicState(values, tops, edges))
    dtype = state.tops.dtype
    return NondeterministicState(values, tops.to(dtype), edges.to(dtype)), read


def _peek(state: NondeterministicState) -> Float[Tensor, "..."]:
    values, tops, edges = state
    tops, edges = as_logs(tops, edges)
    shares = torch.exp(tops[..., None] + logsumexp(edges[..., -1, :, :, :, :, :], (-2, -1)))
    return _read(shares, tops, values)


def _read(
    shares: Float[Tensor, "*#batch states symbols slots"],
    tops: Float[Tensor, "*#batch states symbols"],
    values: Float[Tensor, "*#batch slots dim"],
) -> Float[Tensor, "..."]:
    """Attention over the vectors; without vectors, the distribution of the tops."""
    if values.shape[-1] == 0:
        return torch.exp(tops).to(values.dtype)
    *batch, states, symbols, slots = shares.shape
    read = matmul(shares.reshape(*batch, states * symbols, slots), values.to(shares.dtype))
    return read.reshape(*batch, states, symbols, values.shape[-1]).to(values.dtype)


def _contents(state: NondeterministicState) -> Float[Tensor, "..."]:
    values, tops, edges = state
    tops, edges = as_logs(tops, edges)
    *batch, slots, states, symbols = edges.shape[:-3]
    n = states * symbols
    edges = torch.exp(edges).reshape(*batch, slots * n, slots * n)
    first = torch.exp(tops).reshape(*batch, 1, n)
    rows = torch.cat([torch.zeros_like(edges[..., : slots - 1, :n]), first], -2)

    def level(rows: Tensor) -> tuple[Tensor, Tensor]:
        """From how likely each row of the edges is at a depth, to that one deeper, and the read there."""
        joint = (rows.reshape(*batch, slots * n, 1) * edges).reshape(*batch, slots, n, slots, n)
        shares = joint.sum((-4, -1)).reshape(*batch, states, symbols, slots)
        below = joint.sum((-4, -3))[..., 1:, :]
        read = _read(shares, log(shares.sum(-1)), values)
        return torch.cat([below, torch.zeros_like(rows[..., :1, :])], -2), read

    reads = []
    for _ in range(slots):
        rows, read = level(rows)
        reads.append(read)
    return torch.stack(reads[::-1], len(batch))


def _scan(
    state: NondeterministicState,
    actions: Float[Tensor, "*batch time weights"],
    elements: Float[Tensor, "*batch time dim"],
    lengths: Int[Tensor, "*batch"] | None,
    *,
    method: str,
) -> tuple[NondeterministicState, Float[Tensor, "..."]]:
    first, capacity, steps = state, state.values.shape[-2], actions.shape[-2]
    if lengths is not None:
        still = noop(FAMILIES["nondeterministic"], actions, state)
        actions, elements = stopped(actions, lengths, still), stopped(elements, lengths)
    if method == "sequential":
        state, reads = _sequential.scan(_step, _with_room(state, steps=steps), actions, elements)
        if not steps:
            # A loop without a step has seen no read.
            reads = _peek(state).unsqueeze(actions.ndim - 2).narrow(actions.ndim - 2, 0, 0)
    else:
        values = torch.cat([state.values, elements], -2)
        tops, edges, actions = as_logs(state.tops, state.edges, actions)
        tops, edges, each, shares = _parallel.scan(tops, edges, _operations(actions, tops))
        # All steps read in one product.
        reads = _read(shares.flatten(-4, -3), each.flatten(-3, -2), values)
        reads = reads.unflatten(actions.ndim - 2, (steps, state.tops.shape[-2]))
        dtype = state.tops.dtype
        state = NondeterministicState(values, tops.to(dtype), edges.to(dtype))
    state = _ended(state, lengths, capacity=capacity)
    if lengths is not None:
        # A sequence without a step leaves the state as it was, to the bit.
        state = where_live(lengths > 0, state, first)
    return state, stopped(reads, lengths)


def _with_room(state: NondeterministicState, *, steps: int) -> NondeterministicState:
    """The state from which so many steps drop nothing."""
    return _resize(state, capacity=state.values.shape[-2] + steps)


def _ended(
    state: NondeterministicState, lengths: Int[Tensor, "*batch"] | None, *, capacity: int
) -> NondeterministicState:
    """Of a state with room for all steps, what its capacity keeps at the end of each sequence."""
    if lengths is None:
        return _resize(state, capacity=capacity)
    values, tops, edges = state
    time = values.shape[-2] - capacity
    # Every step takes a slot, also one after the end, which leaves the newest row of the edges as it was.
    places = torch.clamp(lengths, 0, time)[..., None] + torch.arange(capacity, device=lengths.device)
    *batch, _, states, symbols = edges.shape[:-3]
    # The rows of the edges, and then their columns, which that brings to the front.
    for _ in range(2):
        rest = (states, symbols, edges.shape[-3], states, symbols)
        edges = gathered(edges.flatten(-5), places).reshape(*batch, capacity, *rest)
        edges = edges.movedim((-3, -2, -1), (-6, -5, -4))
    return _in_its_window(NondeterministicState(gathered(values, places), tops, edges))


def _resize(state: NondeterministicState, *, capacity: int) -> NondeterministicState:
    values, tops, edges = state
    more = capacity - values.shape[-2]
    if more < 0:
        return _in_its_window(
            NondeterministicState(values[..., -more:, :], tops, edges[..., -more:, :, :, -more:, :, :])
        )
    window = (0, 0, 0, 0, more, 0)
    values = pad(values, (0, 0, more, 0))
    return NondeterministicState(values, tops, pad(edges, (*window, *window), value=-torch.inf))


def _in_its_window(state: NondeterministicState) -> NondeterministicState:
    """The state whose shares are those of the runs that its window has kept."""
    values, tops, edges = state
    # Contiguous, so that they are added up in the same order wherever they come from.
    wide_tops, newest = as_logs(tops, edges[..., -1:, :, :, :, :, :].contiguous())
    left = logsumexp(newest, (-3, -2, -1))
    total = wide_tops + left[..., 0, :, :]
    tops = divided(total, logsumexp(total, (-2, -1))[..., None, None]).to(tops.dtype)
    newest = divided(newest, left[..., None, None, None]).to(edges.dtype)
    return NondeterministicState(values, tops, torch.cat([edges[..., :-1, :, :, :, :, :], newest], -6))


def _bottom(
    batch: tuple[int, ...], window: tuple[int, int, int], dtype: Any, device: Any
) -> tuple[Float[Tensor, "*batch states symbols"], Float[Tensor, "*batch slots states symbols slots states symbols"]]:
    """The tops and edges of a stack that holds its bottom alone."""
    tops = torch.full((*batch, *window[1:]), -torch.inf, dtype=dtype, device=device)
    tops[..., 0, 0] = 0
    edges = torch.full((*batch, *window, *window), -torch.inf, dtype=dtype, device=device)
    edges[..., -1, 0, 0, -1, 0, 0] = 0
    return tops, edges


def _encode(
    codes: Int[Tensor, "*codes"], pushed: Int[Tensor, "*codes"], *, states: int, symbols: int, dtype: Any
) -> Float[Tensor, "*codes weights"]:
    ones = (1,) * codes.ndim
    stays = torch.eye(states, dtype=torch.bool, device=codes.device).reshape(*ones, states, 1, states, 1)
    same = torch.eye(symbols, dtype=torch.bool, device=codes.device).reshape(*ones, 1, symbols, 1, symbols)
    new = torch.arange(symbols, dtype=pushed.dtype, device=codes.device).reshape(*ones, 1, 1, 1, symbols)
    codes, pushed = (each[..., None, None, None, None] for each in (codes, pushed))
    nothing = torch.tensor(-torch.inf, dtype=dtype, device=codes.device)
    push = torch.where((codes == PUSH) & stays & (pushed == new), 0, nothing)
    pop = torch.where((codes == POP)[..., 0] & stays[..., 0], 0, nothing)
    replace = torch.where(codes == POP, torch.full_like(nothing, NOTHING_TO_POP), 0)
    replace = torch.where(stays & same & (codes != PUSH), replace, nothing)
    batch, full = codes.shape[:-4], (states, symbols, states, symbols)
    blocks = ((push, full), (pop, full[:3]), (replace, full))
    return torch.cat(
        [torch.broadcast_to(x, (*batch, *shape)).reshape(*batch, math.prod(shape)) for x, shape in blocks], -1
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
    device: Any = None,
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
        device: where the state lives; the default device where none is given.

    Example:
        >>> from diffstack.torch_impl import nondeterministic
        >>> state = nondeterministic.empty(4, (3,), states=2, symbols=5)
        >>> tuple(state.values.shape), tuple(state.tops.shape), tuple(state.edges.shape)
        ((4, 3), (2, 5), (4, 2, 5, 4, 2, 5))
    """
    layout = _checks.check_empty(capacity, element_shape, batch_shape)
    shape = (_checks.check_count("states", states, 1), _checks.check_count("symbols", symbols, 1))
    dtype = floating_dtype(dtype)
    values = torch.zeros((*layout.batch, layout.slots, *layout.element), dtype=dtype, device=device)
    if bottom is not None:
        bottom = as_wide("bottom", bottom, values)
        _checks.check_bottom(bottom, layout, dtype)
        rank = len(layout.batch)
        last = bottom.expand(*layout.batch, *layout.element).unsqueeze(rank)
        with without_autocast(values):
            values = torch.cat([values.narrow(rank, 0, layout.slots - 1), last], rank)
    return NondeterministicState(values, *_bottom(layout.batch, (layout.slots, *shape), dtype_of_logs(dtype), device))


def encode(codes: Any, pushed: Any = None, *, states: int = 1, symbols: int = 1, dtype: Any = None) -> Tensor:
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
        >>> from diffstack.torch_impl import nondeterministic
        >>> nondeterministic.encode([PUSH, NOOP]).tolist()
        [[0.0, -inf, -inf], [-inf, -inf, 0.0]]
    """
    codes = as_codes(codes)
    pushed = torch.zeros_like(codes) if pushed is None else as_codes(pushed, "pushed")
    _checks.check_shape("pushed", pushed.shape, codes.shape, "a symbol for each of the codes")
    states, symbols = _checks.check_count("states", states, 1), _checks.check_count("symbols", symbols, 1)
    return run(_encode, codes, pushed, states=states, symbols=symbols, dtype=floating_dtype(dtype))


def peek(state: NondeterministicState) -> Tensor:
    """What a step would have read that left the stack in this state, (*batch, Q, S, *element).

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import nondeterministic
        >>> nondeterministic.peek(nondeterministic.empty(3, (2,), bottom=torch.tensor([4.0, 5.0]))).tolist()
        [[[4.0, 5.0]]]
    """
    state, layout = _opened(state)
    return _shaped(run(_peek, state), layout)


def step(state: NondeterministicState, actions: Tensor, element: Any = None) -> tuple[NondeterministicState, Tensor]:
    """One time step of a controller: all pushes, pops and replacements at once, then read the top.

    Args:
        state: the stack.
        actions: log weights, (*batch, A).
        element: the vector that a push brings, (*batch, *element); None where elements have no numbers.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import nondeterministic
        >>> state = nondeterministic.empty(3, (1,))
        >>> state, read = nondeterministic.step(state, torch.log(torch.tensor([0.5, 0.25, 0.5])), torch.tensor([4.0]))
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
    actions: Tensor,
    elements: Any = None,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "parallel"] = "auto",
) -> tuple[NondeterministicState, Tensor]:
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
            (667 in float64), which matters where later steps favour it by more. Under `torch.func`, in forward mode,
            in a compiler and for second derivatives it needs more memory. "auto" takes "parallel".

    Example:
        >>> import torch
        >>> from diffstack.actions import POP, PUSH
        >>> from diffstack.torch_impl import nondeterministic
        >>> program = nondeterministic.encode([PUSH, PUSH, POP])
        >>> elements = torch.tensor([1.0, 2.0, 0.0])
        >>> nondeterministic.scan(nondeterministic.empty(1), program, elements)[1].tolist()
        [[[1.0]], [[2.0]], [[1.0]]]
    """
    state, layout = _opened(state)
    actions = as_wide("actions", actions, state.tops)
    if elements is None and 0 in layout.element:
        (time,) = _checks.check_log_weights(actions, layout, state.tops, None)
        elements = state.values.new_zeros((*layout.batch, time, *layout.element))
    elements = as_wide("elements", elements, state.values)
    time = _checks.check_elements("elements", elements, layout, state.values.dtype)
    _checks.check_log_weights(actions, layout, state.tops, (time,))
    lengths = as_lengths(lengths, layout.batch, state[0])
    method = _methods.choose(method, "nondeterministic", time, layout)
    state, reads = run(_scan, state, actions, flat(elements, layout), lengths, method=method)
    return shaped(state, layout), _shaped(reads, layout)


def contents(state: NondeterministicState) -> Tensor:
    """What a read would see at each depth, the top in the last row, (*batch, D, Q, S, *element).

    A row is the sum, over all runs, of the vector at that depth, split by its symbol and the state in which it was last
    on top; where elements have no numbers, it is how likely they are. Below the bottom there is nothing.

    Example:
        >>> from diffstack.actions import PUSH
        >>> from diffstack.torch_impl import nondeterministic
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
        >>> from diffstack.torch_impl import nondeterministic
        >>> tuple(nondeterministic.resize(nondeterministic.empty(1), 3).values.shape)
        (3,)
    """
    state, layout = _opened(state)
    capacity = _checks.check_count("capacity", capacity, 1)
    return shaped(run(_resize, state, capacity=capacity), layout)


def _shaped(reads: Tensor, layout: Layout) -> Tensor:
    """Reads with the axes of an element; without numbers in the elements they have none."""
    return reads if 0 in layout.element else shaped(reads, layout)


def _opened(state: NondeterministicState) -> tuple[NondeterministicState, Layout]:
    return as_state(state, _checks.check_nondeterministic, NondeterministicState)


def _inputs(actions: Any, element: Any, state: NondeterministicState, layout: Layout) -> tuple[Tensor, Tensor]:
    """The checked actions and element of a step."""
    actions = as_wide("actions", actions, state.tops)
    _checks.check_log_weights(actions, layout, state.tops, ())
    if element is None and 0 in layout.element:
        element = state.values.new_zeros((*layout.batch, *layout.element))
    element = as_wide("element", element, state.values)
    _checks.check_element("element", element, layout, state.values.dtype)
    return actions, flat(element, layout)
