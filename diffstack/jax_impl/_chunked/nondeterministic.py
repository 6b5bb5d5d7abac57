"""The nondeterministic stack in chunks: the filter of `_parallel/nondeterministic.py`, a step at a time.

Rows and columns of all steps are laid out once, with the oldest first; here row j and column j both belong to what was
pushed after step j. A chunk leaves the rows and columns from before it as they are, and has C of its own, which are put
in their places at its end.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack._plan import Plan
from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl._logs import as_logs, divided, log, logsumexp
from diffstack.jax_impl._parallel._chunking import pad
from diffstack.jax_impl._parallel.nondeterministic import by_row, by_symbol, not_lost, revealed, settled, weighed
from diffstack.jax_impl.nondeterministic import NondeterministicState, _ended, _operations, _read, _resize


class Filter(NamedTuple):
    """A stack in probabilities, with slots that are yet to be pushed.

    Attributes:
        values: (*batch, K, dim).
        tops: the logarithms of how likely the tops are, (*batch, Q, S).
        table: how likely what each row stands on is, (*batch, S, K, Q, K, n).
        kept: how much of a row the window has kept, (*batch, K, n).
        newest: the row of the last step, (*batch, n, K, n).
        left: how much of it the window has kept, (*batch, n).
    """

    values: Array
    tops: Array
    table: Array
    kept: Array
    newest: Array
    left: Array


class Window(NamedTuple):
    """What a chunk works on: its own elements and rows, columns of which those after K are its own, and the tops.

    The tops that a push starts from, and those that a pop or a replacement does, differ by what the window has lost.
    """

    elements: Array
    tops: Array
    standing: Array
    rows: Array
    kept: Array
    newest: Array


def fit(state: Any, *, plan: Plan) -> Filter:
    """Slots for all steps up to the end of the run, oldest first."""
    if isinstance(state, NondeterministicState):
        state = _filter(_resize(state, capacity=1) if plan.starts_empty else state)
    more = _slots(plan) + plan.stop - state.values.shape[-2]
    return state._replace(
        values=pad(state.values, -2, 0, more),
        table=pad(pad(state.table, -2, 0, more), -4, 0, more),
        kept=pad(state.kept, -2, 0, more),
        newest=pad(state.newest, -2, 0, more),
    )


def open(state: Filter, *, steps: int) -> tuple[tuple[Array, Array, Array], Window]:
    """The rows from before, and room for those of the chunk."""
    values, tops, table, kept, newest, left = state
    *batch, symbols, _, states, _, n = table.shape
    own = (*batch, symbols, steps, states, table.shape[-2] + steps, n)
    lost = log(left).reshape(tops.shape)
    # Only the first row has lost anything.
    own_kept = jnp.concatenate([left[..., None, :], jnp.ones_like(kept, shape=(*batch, steps - 1, n))], -2)
    elements = jnp.zeros_like(values, shape=(*batch, steps, values.shape[-1]))
    window = Window(elements, tops, tops + lost, jnp.zeros_like(table, shape=own), own_kept, pad(newest, -2, 0, steps))
    return (values, table, kept), window


def tick(
    window: Window,
    fixed: tuple[Array, Array, Array],
    place: Int[Array, ""],
    actions: Float[Array, "*batch weights"],
    element: Float[Array, "*batch dim"],
) -> tuple[Window, Float[Array, "..."]]:
    """One step of the filter, on the older rows and the chunk's own."""
    values, table, kept = fixed
    elements, tops, standing, rows, own_kept, newest = window
    *batch, _, own, states, columns, n = rows.shape
    older = columns - own
    rows = lax.dynamic_update_slice_in_dim(rows, by_symbol(newest[..., None, :, :, :], states), place, -4)
    elements = lax.dynamic_update_index_in_dim(elements, element, place, -2)
    (weights,) = as_logs(actions)
    operations = _operations(weights, tops)
    shares, sums = weighed(tops.reshape(*batch, n), standing.reshape(*batch, n), operations)
    found, total = revealed(shares[1], newest, jnp.concatenate([kept, own_kept], -2), states)
    below = pad(_product(found[..., :older, :], table), -2, 0, own) + _product(found[..., older:, :], rows)
    logs, _, new, pushed = settled(shares, sums, total, below, newest)
    new = not_lost(lax.dynamic_update_slice_in_dim(new, pushed[..., None, :], older + place, -2))
    tops = logs.reshape(tops.shape)
    every = jnp.concatenate([values, elements], -2)
    at = (jnp.exp(logs)[..., None] * new.sum(-1)).reshape(*tops.shape, columns)
    return Window(elements, tops, tops, rows, own_kept, new), _read(at, tops, every)


def close(
    state: Filter, fixed: tuple[Array, Array, Array], window: Window, first: Int[Array, ""], *, plan: Plan
) -> Filter:
    """The stack after the chunk: its rows and columns in their places."""
    values, table, kept = fixed
    at = _slots(plan) + first
    newest = _with_own(window.newest, table.shape[-2], at)
    return Filter(
        lax.dynamic_update_slice_in_dim(values, window.elements, at, -2),
        window.tops,
        lax.dynamic_update_slice_in_dim(table, _with_own(window.rows, table.shape[-2], at), at, -4),
        lax.dynamic_update_slice_in_dim(kept, window.kept, at, -2),
        newest,
        jnp.ones_like(state.left),
    )


def end(state: Filter, lengths: Int[Array, "*batch"] | None, *, plan: Plan) -> NondeterministicState:
    """The state with the window that it had, in logarithms again."""
    values, tops, table, kept, newest, left = state
    rows = jnp.concatenate([by_row(table)[..., 1:, :, :, :], newest[..., None, :, :, :]], -4)
    kept = jnp.concatenate([kept[..., 1:, :], left[..., None, :]], -2)
    logs = divided(log(rows), -log(kept)[..., None, None])
    *batch, slots, _, _, _ = logs.shape
    edges = logs.reshape(*batch, *(slots, *tops.shape[-2:]) * 2)
    whole = _resize(NondeterministicState(values, tops, edges), capacity=plan.slots + plan.time)
    return _ended(whole, lengths, capacity=plan.slots)


def _slots(plan: Plan) -> int:
    """How many slots of the first state can hold something: of an empty one, that of the bottom."""
    return 1 if plan.starts_empty else plan.slots


def _filter(state: NondeterministicState) -> Filter:
    values, tops, edges = state
    *batch, slots, states, symbols = edges.shape[:-3]
    n = states * symbols
    tops, logs = as_logs(tops, edges.reshape(*batch, slots, n, slots, n))
    left = logsumexp(logs, (-2, -1))
    rows, kept = jnp.exp(divided(logs, left[..., None, None])), jnp.exp(left)
    # Of what the oldest column is above, nothing is known.
    table = pad(by_symbol(rows[..., :-1, :, :, :], states), -4, 1, 0)
    return Filter(values, tops, table, pad(kept[..., :-1, :], -2, 1, 0), rows[..., -1, :, :, :], kept[..., -1, :])


def _with_own(rows: Float[Array, "..."], slots: int, at: Int[Array, ""]) -> Float[Array, "..."]:
    """Rows whose own columns are put in their places."""
    return lax.dynamic_update_slice_in_dim(rows[..., :slots, :], rows[..., slots:, :], at, -2)


def _product(found: Float[Array, "*batch symbols states rows states"], table: Array) -> Array:
    """What the rows that were found stand on."""
    *batch, rows, states, columns, n = table.shape
    below = matmul(found.reshape(*found.shape[:-2], rows * states), table.reshape(*batch, rows * states, columns * n))
    return below.reshape(*batch, found.shape[-3], columns, n)
