"""The nondeterministic stack in chunks: the filter of `_parallel/nondeterministic.py`, a step at a time.

Rows and columns of all steps are laid out once, with the oldest first; here row j and column j both belong to what was
pushed after step j. A chunk leaves the rows and columns from before it as they are, and has C of its own, which are put
in their places at its end.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack._plan import Plan
from diffstack.torch_impl._arrays import matmul, with_row
from diffstack.torch_impl._logs import as_logs, divided, log, logsumexp
from diffstack.torch_impl._parallel._chunking import pad
from diffstack.torch_impl._parallel.nondeterministic import by_row, by_symbol, not_lost, revealed, settled, weighed
from diffstack.torch_impl.nondeterministic import NondeterministicState, _ended, _operations, _read, _resize


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

    values: Tensor
    tops: Tensor
    table: Tensor
    kept: Tensor
    newest: Tensor
    left: Tensor


class Window(NamedTuple):
    """What a chunk works on: its own elements and rows, columns of which those after K are its own, and the tops.

    The tops that a push starts from, and those that a pop or a replacement does, differ by what the window has lost.
    """

    elements: Tensor
    tops: Tensor
    standing: Tensor
    rows: Tensor
    kept: Tensor
    newest: Tensor


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


def open(state: Filter, *, steps: int) -> tuple[tuple[Tensor, Tensor, Tensor], Window]:
    """The rows from before, and room for those of the chunk."""
    values, tops, table, kept, newest, left = state
    *batch, symbols, _, states, _, n = table.shape
    own = (*batch, symbols, steps, states, table.shape[-2] + steps, n)
    lost = log(left).reshape(tops.shape)
    # Only the first row has lost anything.
    own_kept = torch.cat([left[..., None, :], kept.new_ones((*batch, steps - 1, n))], -2)
    elements = values.new_zeros((*batch, steps, values.shape[-1]))
    window = Window(elements, tops, tops + lost, table.new_zeros(own), own_kept, pad(newest, -2, 0, steps))
    return (values, table, kept), window


def tick(
    window: Window,
    fixed: tuple[Tensor, Tensor, Tensor],
    place: int,
    actions: Float[Tensor, "*batch weights"],
    element: Float[Tensor, "*batch dim"],
) -> tuple[Window, Float[Tensor, "..."]]:
    """One step of the filter, on the older rows and the chunk's own."""
    values, table, kept = fixed
    elements, tops, standing, rows, own_kept, newest = window
    *batch, _, own, states, columns, n = rows.shape
    older = columns - own
    rows = torch.slice_scatter(rows, by_symbol(newest[..., None, :, :, :], states), -4, place, place + 1)
    elements = with_row(elements, element, place)
    (weights,) = as_logs(actions)
    operations = _operations(weights, tops)
    shares, sums = weighed(tops.reshape(*batch, n), standing.reshape(*batch, n), operations)
    found, total = revealed(shares[1], newest, torch.cat([kept, own_kept], -2), states)
    below = pad(_product(found[..., :older, :], table), -2, 0, own) + _product(found[..., older:, :], rows)
    logs, _, new, pushed = settled(shares, sums, total, below, newest)
    new = not_lost(torch.slice_scatter(new, pushed[..., None, :], -2, older + place, older + place + 1))
    tops = logs.reshape(tops.shape)
    every = torch.cat([values, elements], -2)
    at = (torch.exp(logs)[..., None] * new.sum(-1)).reshape(*tops.shape, columns)
    return Window(elements, tops, tops, rows, own_kept, new), _read(at, tops, every)


def close(state: Filter, fixed: tuple[Tensor, Tensor, Tensor], window: Window, first: int, *, plan: Plan) -> Filter:
    """The stack after the chunk: its rows and columns in their places."""
    values, table, kept = fixed
    at, own = _slots(plan) + first, window.kept.shape[-2]
    newest = _with_own(window.newest, table.shape[-2], at)
    return Filter(
        torch.slice_scatter(values, window.elements, -2, at, at + own),
        window.tops,
        torch.slice_scatter(table, _with_own(window.rows, table.shape[-2], at), -4, at, at + own),
        torch.slice_scatter(kept, window.kept, -2, at, at + own),
        newest,
        torch.ones_like(state.left),
    )


def end(state: Filter, lengths: Int[Tensor, "*batch"] | None, *, plan: Plan) -> NondeterministicState:
    """The state with the window that it had, in logarithms again."""
    values, tops, table, kept, newest, left = state
    rows = torch.cat([by_row(table)[..., 1:, :, :, :], newest[..., None, :, :, :]], -4)
    kept = torch.cat([kept[..., 1:, :], left[..., None, :]], -2)
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
    rows, kept = torch.exp(divided(logs, left[..., None, None])), torch.exp(left)
    # Of what the oldest column is above, nothing is known.
    table = pad(by_symbol(rows[..., :-1, :, :, :], states), -4, 1, 0)
    return Filter(values, tops, table, pad(kept[..., :-1, :], -2, 1, 0), rows[..., -1, :, :, :], kept[..., -1, :])


def _with_own(rows: Float[Tensor, "..."], slots: int, at: int) -> Float[Tensor, "..."]:
    """Rows whose own columns are put in their places."""
    own = rows[..., slots:, :]
    return torch.slice_scatter(rows[..., :slots, :], own, -2, at, at + own.shape[-2])


def _product(found: Float[Tensor, "*batch symbols states rows states"], table: Tensor) -> Tensor:
    """What the rows that were found stand on."""
    *batch, rows, states, columns, n = table.shape
    below = matmul(found.reshape(*found.shape[:-2], rows * states), table.reshape(*batch, rows * states, columns * n))
    return below.reshape(*batch, found.shape[-3], columns, n)
