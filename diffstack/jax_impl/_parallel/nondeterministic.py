"""The nondeterministic stack as a filter on conditional probabilities, with a backward pass of its own.

The definition keeps logarithms of shares that may be as small as they like. Given its top, what a stack stands on is a
distribution, W_t[. | r,y], which sums to 1. So a step can be taken with ordinary sums and matrix products. A state and
its top are one axis here, n before a step and m after it. With l_t = log a_t and softmaxes over n, let

    p = softmax(l + push[n -> m])        rho = softmax(l + replace[n -> m])        omega = softmax(l + pop[n -> r])

with the logarithms M_push, M_replace and M_pop of their sums, and

    R[. ; m]   = sum_n W_{t-1}[. | n] rho[n; m]                        where a replaced top was pushed
    D[k,u,y;r] = sum_n W_{t-1}[k,u,y | n] omega[n; r]                  what a pop reveals
    Y[. ; r,y] = sum_{k,u} W_k[. | u,y] D[k,u,y; r] / total[y; r]      where that was pushed; total = sum_{k,u} D

The three operations led to the top m with the logarithms M_push, M_replace and M_pop + log total. With lambda their
softmax over the three,

    l_t = log_softmax over m of their logsumexp
    W_t = lambda_push p (in the column of step t) + lambda_replace R + lambda_pop Y

This is the definition divided by a_t[m], so it is exact, and every sum is convex: nothing overflows, and nothing
cancels. What it cannot keep is a share below 1e-30 of its top, which is 69 nats (in float64 1e-290, 667 nats): such a
share is dropped, which matters where later steps favour it by more than that.

W_t of a state may add up to less than 1, where its window has lost something; `kept` says how much is left. It is part
of what a pop or a replacement finds, and so goes into M_replace, M_pop and D.

**The backward pass** keeps the W of all steps, in one table, and the small distributions of each step. With c_t the
gradient of W_t, one product G = W_k c_t gives that of D / total and of lambda_pop, so that Y is not kept. What c_t adds
to the gradient of an older W_k is due only when step k is reached: it is then one product of what all later steps
found in W_k with their c_t. So nothing of the size of the table is rewritten at a step.

A run of steps works on the part of the table that it can reach; there are at most four runs, so that the length of what
is compiled does not depend on T.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl._logs import divided, log, logsumexp, share, softmax

Tops = Float[Array, "batch n"]
Table = Float[Array, "*batch symbols _ states columns n"]
Operations = tuple[Float[Array, "*steps n n"], Float[Array, "*steps n states"], Float[Array, "*steps n n"]]

RUNS, SHORTEST = 4, 16


class Kept(NamedTuple):
    """What the backward pass needs of a step.

    Attributes:
        pushed: p, (batch, n, n).
        replaced: rho, (batch, n, n).
        popped: omega, (batch, n, states).
        ways: lambda of push, pop and replace, (batch, 3, n).
        found: D / total, (batch, symbols, states, rows, states): what each symbol and new state was found under.
        total: (batch, symbols, states).
        tops: l_t, (batch, n).
    """

    pushed: Array
    replaced: Array
    popped: Array
    ways: Array
    found: Array
    total: Array
    tops: Array


def scan(
    tops: Float[Array, "*batch states symbols"],
    edges: Float[Array, "*batch slots states symbols slots states symbols"],
    operations: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, Array]:
    """The tops and edges after all steps, with room for them; and log a_t and the shares of every step."""
    *batch, slots, states, symbols = edges.shape[:-3]
    n, time, flat = states * symbols, operations[0].shape[-3], math.prod(batch)
    first, logs = tops.reshape(flat, n), edges.reshape(flat, slots, n, slots, n)
    left = logsumexp(logs, (-2, -1))
    table = by_symbol(jnp.exp(divided(logs, left[..., None, None])), states)
    steps = tuple(jnp.moveaxis(each.reshape(flat, *each.shape[-3:]), 1, 0) for each in operations)
    each, shares, table = _filter(first, first + left[:, -1], table, jnp.exp(left), steps)
    logs = jnp.pad(logs, ((0, 0), (0, 0), (0, 0), (0, time), (0, 0)), constant_values=-jnp.inf)
    logs = jnp.concatenate([logs, log(by_row(table[:, :, slots:]))], 1)
    shares = jnp.moveaxis(jnp.exp(each)[..., None] * shares, 0, 1)
    return (
        each[-1].reshape(tops.shape),
        logs.reshape(*batch, *(slots + time, states, symbols) * 2),
        jnp.moveaxis(each, 0, 1).reshape(*batch, time, states, symbols),
        shares.reshape(*batch, time, states, symbols, slots + time),
    )


def by_symbol(rows: Float[Array, "*batch rows n columns n"], states: int) -> Table:
    """The table as the products of a pop take it."""
    *batch, count, n, columns, _ = rows.shape
    return jnp.moveaxis(rows.reshape(*batch, count, states, n // states, columns, n), -3, -5)


def by_row(table: Table) -> Float[Array, "*batch rows n columns n"]:
    """The table as the state has it."""
    *batch, _, rows, _, columns, n = table.shape
    return jnp.moveaxis(table, -5, -3).reshape(*batch, rows, n, columns, n)


@jax.custom_vjp
def _filter(
    tops: Tops, standing: Tops, table: Table, kept: Float[Array, "batch slots n"], operations: Operations
) -> tuple[Array, Array, Table]:
    """Log a_t, how likely each column is given the top at each step, and the table with a row for each step."""
    return _forward(tops, standing, table, kept, operations)[0]


def _forward(tops: Array, standing: Array, table: Array, kept: Array, operations: Any) -> tuple[Any, Any]:
    (_, _, slots, states, _, _), time = table.shape, len(operations[0])
    new, table = by_row(table)[:, -1], table[:, :, :-1]
    keeps, shares = [], []
    for first, stop in _runs(time):
        more = slots + stop - new.shape[2]
        new, table = _padded(new, 2, more), _padded(_padded(table, 4, more), 2, more)
        # Flat, so that the loop writes into it where a product reads it.
        carry: Any = tops, standing, new, _below(table), jnp.asarray(slots + first, jnp.int32)
        given = tuple(each[first:stop] for each in operations)
        carry, (keep, share_) = lax.scan(partial(step, _with_ones(kept, slots + stop - 1)), carry, given)
        tops, standing, new, flat, _ = carry
        table = flat.reshape(table.shape)
        keeps.append(keep)
        shares.append(_padded(share_, 3, slots + time - share_.shape[3]))
    table = jnp.concatenate([table, by_symbol(new[:, None], states)], 2)
    each = jnp.concatenate([keep.tops for keep in keeps])
    return (each, jnp.concatenate(shares), table), (table, kept, keeps)


def step(
    kept: Float[Array, "batch rows n"], carry: tuple[Array, ...], operations: Operations
) -> tuple[tuple[Array, ...], tuple[Kept, Array]]:
    """One step of the filter, which writes the row of the step before and the column `place`."""
    tops, standing, row, table, place = carry
    batch, n, columns, _ = row.shape
    rows, states, symbols = kept.shape[1], operations[1].shape[-1], table.shape[1]
    own = _below(by_symbol(row[:, None], states))
    table = lax.dynamic_update_slice_in_dim(table, own, (place - 1) * states, 2)
    shares, sums = weighed(tops, standing, operations)
    found, total = revealed(shares[1], row[:, :, 1:], kept, states)
    below = matmul(found.reshape(batch, symbols, states, rows * states), table)
    tops, ways, new, pushed = settled(shares, sums, total, below.reshape(batch, symbols, states, columns, n), row)
    new = not_lost(lax.dynamic_update_slice_in_dim(new, pushed[:, :, None], place, 2))
    keep = Kept(shares[0], shares[2], shares[1], ways, found, total, tops)
    return (tops, tops, new, table, place + 1), (keep, new.sum(-1))


def weighed(
    tops: Float[Array, "*batch n"], standing: Float[Array, "*batch n"], operations: Operations
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """What each operation started from, p, omega and rho, and the logarithms of how likely it was for each outcome."""
    push, pop, replace = operations
    weights = tops[..., None] + push, standing[..., None] + pop, standing[..., None] + replace
    shares, sums = zip(*(softmax(each, -2) for each in weights), strict=True)
    return shares, sums


def revealed(
    popped: Float[Array, "*batch n states"],
    row: Float[Array, "*batch n rows n"],
    kept: Float[Array, "*batch rows n"],
    states: int,
) -> tuple[Float[Array, "*batch symbols states rows states"], Float[Array, "*batch symbols states"]]:
    """What a pop finds under the top, D / total for each symbol and new state, and the total."""
    *batch, n, rows, _ = row.shape
    found = matmul(_turned(popped), row.reshape(*batch, n, rows * n)).reshape(*batch, states, rows, n)
    found = (found * kept[..., None, :, :]).reshape(*batch, states, rows, states, n // states)
    found = jnp.moveaxis(found, -1, -4)
    total = not_lost(found.sum((-2, -1)))
    return share(found, total[..., None, None]), total


def settled(
    shares: tuple[Array, Array, Array],
    sums: tuple[Array, Array, Array],
    total: Float[Array, "*batch symbols states"],
    below: Float[Array, "*batch symbols states columns n"],
    row: Float[Array, "*batch n columns n"],
) -> tuple[Array, Array, Float[Array, "*batch n columns n"], Float[Array, "*batch n n"]]:
    """The new tops, how likely each way to them was, the new row, and what is pushed in this step of it."""
    (pushed, _, replaced), (of_push, of_pop, of_replace) = shares, sums
    *batch, n, columns, _ = row.shape
    of_pop = (log(_turned(total)) + of_pop[..., None]).reshape(of_push.shape)
    ways, logs = softmax(jnp.stack([of_push, of_pop, of_replace], -2), -2)
    tops = divided(logs, logsumexp(logs, (-1,))[..., None])
    below = jnp.swapaxes(below, -4, -3).reshape(row.shape)
    same = matmul(_turned(replaced), row.reshape(*batch, n, columns * n)).reshape(row.shape)
    push, pop, replace = (ways[..., way, :, None] for way in range(3))
    return tops, ways, pop[..., None] * below + replace[..., None] * same, push * _turned(pushed)


def _backward(residuals: Any, gradients: tuple[Array, Array, Array]) -> tuple[Any, ...]:
    """The gradients of what `_filter` is given, from those of what it returns."""
    (table, kept, keeps), (of_tops, of_shares, of_table) = residuals, gradients
    batch, symbols, rows, states, columns, n = table.shape
    slots, time = kept.shape[1], len(of_tops)
    # What later steps found in each row.
    found = jnp.concatenate([_padded(keep.found, 4, rows - keep.found.shape[4]) for keep in keeps])
    found = found.transpose(4, 1, 2, 5, 0, 3)
    later = jnp.zeros_like(table, shape=(batch, symbols, 0, columns * n))
    nothing, of_kept = jnp.zeros_like(of_tops[0]), jnp.zeros_like(kept)
    of_last, of_standing, of_row = nothing, nothing, jnp.zeros_like(by_row(table[:, :, :1])[:, 0])
    of_runs: list[Operations] = []
    for (first, stop), keep in reversed(list(zip(_runs(time), keeps, strict=True))):
        reach, own = slots + stop, slice(slots + first, slots + stop)
        before = _rows(table, slots + first - 1, slots + stop - 1)[..., :reach, :]
        after, of_after = (_rows(each, own.start, own.stop)[..., :reach, :] for each in (table, of_table))
        # Flat, so that the loop writes into it where a product reads it.
        room = jnp.zeros_like(later, shape=(batch, symbols, (stop - first) * states, reach * n))
        later = jnp.concatenate([room, later[..., : reach * n]], 2)
        fixed = _below(table[:, :, : reach - 1, :, :reach]), _with_ones(kept, reach - 1), slots + first
        start: Any = of_last, of_standing, of_row[:, :, :reach], later, jnp.zeros_like(fixed[1])
        places = jnp.arange(stop - first, dtype=jnp.int32)
        given: Any = keep, before, after, of_after, of_shares[first:stop, ..., :reach], of_tops[first:stop]
        carry, of_run = lax.scan(
            partial(_step_back, fixed), start, (*given, found[own, ..., first:, :], places), reverse=True
        )
        of_last, of_standing, of_row, later, of_run_kept = carry
        of_kept = of_kept + _padded(of_run_kept, 1, slots)[:, :slots]
        of_runs.append(of_run)
    of_operations = tuple(jnp.concatenate(each) for each in zip(*reversed(of_runs), strict=True))
    of_older = _product(found[:slots], later[..., : slots * n]) + of_table[:, :, :slots, :, :slots]
    of_older = of_older.at[:, :, -1:].add(by_symbol(of_row[:, None, :, :slots], states))
    return of_last, of_standing, of_older, of_kept, of_operations


def _step_back(
    fixed: tuple[Array, Array, int], carry: tuple[Array, ...], given: tuple[Any, ...]
) -> tuple[tuple[Array, ...], Operations]:
    """One step of the backward pass."""
    table, kept, place = fixed
    of_tops, of_standing, of_row, later, of_kept = carry
    keep, row, new, of_new, of_shares, of_each, found, step = given
    batch, n, columns, _ = row.shape
    (_, symbols, states, rows, _) = keep.found.shape
    of_new = of_new + of_row + of_shares[..., None] + by_row(_product(found[None], later))[:, 0]
    of_new = jnp.where(new <= 0, 0, of_new).reshape(batch, n, columns * n)
    of_own = lax.dynamic_slice_in_dim(of_new, (place + step) * n, n, 2)
    of_new = lax.dynamic_update_slice_in_dim(of_new, jnp.zeros_like(of_own), (place + step) * n, 2)
    push, pop, replace = (keep.ways[:, way] for way in range(3))
    # What the three ways gave.
    flat = row.reshape(batch, n, columns * n)
    by_top = of_new.reshape(batch, states, symbols, columns * n).transpose(0, 2, 1, 3)
    of_replaced = matmul(flat, _turned(of_new))
    of_found = _by_rows(by_top, table).reshape(keep.found.shape)
    of_pop = (of_found * keep.found).sum((-2, -1))
    of_push = (_turned(of_own) * keep.pushed).sum(-2)
    of_ways = jnp.stack([of_push, _turned(of_pop).reshape(push.shape), (of_replaced * keep.replaced).sum(-2)], -2)
    # The tops, and how likely each way was.
    of_each = jnp.where(keep.tops == -jnp.inf, 0, of_each + of_tops + of_standing)
    of_logs = of_each - jnp.exp(keep.tops) * of_each.sum(-1, keepdims=True)
    of_ways = _of_logs(keep.ways, of_ways, of_logs)
    of_total = _turned(of_ways[:, 1].reshape(batch, states, symbols))
    # What a pop found: the rule of a quotient, which does not square the total.
    pop = _turned(pop.reshape(batch, states, symbols))
    of_found = of_found - of_pop[..., None, None]
    of_found = share(of_found * pop[..., None, None] + of_total[..., None, None], keep.total[..., None, None])
    of_found = of_found.transpose(0, 2, 3, 4, 1).reshape(batch, states, rows, n)
    alone = matmul(_turned(keep.popped), flat)[..., n:].reshape(of_found.shape)
    of_kept = of_kept + (of_found * alone).sum(1)
    of_found = (of_found * kept[:, None]).reshape(batch, states, rows * n)
    of_row = matmul(keep.replaced * replace[:, None], of_new)
    of_row = of_row + jnp.pad(matmul(keep.popped, of_found), ((0, 0), (0, 0), (n, 0)))
    later = lax.dynamic_update_slice_in_dim(later, by_top * pop[..., None], step * states, 2)
    of_push = _of_logs(keep.pushed, _turned(of_own) * push[:, None], of_ways[:, 0])
    of_popped = _of_logs(keep.popped, matmul(flat[..., n:], _turned(of_found)), of_total.sum(-2))
    of_replace = _of_logs(keep.replaced, of_replaced * replace[:, None], of_ways[:, 2])
    carry = of_push.sum(-1), of_popped.sum(-1) + of_replace.sum(-1), of_row.reshape(row.shape), later, of_kept
    return carry, (of_push, of_popped, of_replace)


_filter.defvjp(_forward, _backward)


def _of_logs(shares: Array, of_shares: Array, of_sum: Array) -> Array:
    """The gradient of logarithms, from those of their softmax over the last axis but one and of their logsumexp."""
    return shares * (of_shares - (shares * of_shares).sum(-2, keepdims=True) + of_sum[..., None, :])


def _product(
    found: Float[Array, "rows batch symbols states time states"],
    later: Float[Array, "batch symbols found below"],
) -> Table:
    """For each row, what all later steps found in it times what is due to what they found."""
    count, batch, symbols, states, time, _ = found.shape
    found = found.transpose(1, 2, 0, 3, 4, 5).reshape(batch, symbols, count * states, time * states)
    n = symbols * states
    return matmul(found, later).reshape(batch, symbols, count, states, later.shape[-1] // n, n)


def _below(table: Table) -> Float[Array, "batch symbols above below"]:
    """The table as matrices: what is on top, and what it stands on."""
    batch, symbols, rows, states, columns, n = table.shape
    return table.reshape(batch, symbols, rows * states, columns * n)


def _by_rows(
    array: Float[Array, "batch symbols states below"], table: Float[Array, "batch symbols above below"]
) -> Float[Array, "batch symbols states above"]:
    """The product with the turned table, one entry of the batch at a time: XLA takes far longer over all at once."""
    entries = array.shape[0] * array.shape[1]
    flat = (each.reshape(entries, *each.shape[2:]) for each in (array, table))
    found = lax.map(lambda pair: matmul(pair[0], pair[1].T), tuple(flat))
    return found.reshape(*array.shape[:3], table.shape[2])


def _rows(table: Table, first: int, stop: int) -> Float[Array, "steps batch n columns n"]:
    return jnp.moveaxis(by_row(table[:, :, first:stop]), 1, 0)


def _runs(time: int) -> list[tuple[int, int]]:
    length = max(SHORTEST, -(-time // RUNS))
    return [(first, min(first + length, time)) for first in range(0, time, length)]


def not_lost(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """What is not so small that rounding has begun to lose it."""
    return jnp.where(x <= (1e-30 if x.dtype == jnp.float32 else 1e-290), 0, x)


def _with_ones(kept: Float[Array, "batch slots n"], rows: int) -> Float[Array, "batch rows n"]:
    ones = jnp.ones_like(kept, shape=(kept.shape[0], rows, kept.shape[2]))
    return jnp.concatenate([kept, ones], 1)[:, :rows]


def _padded(array: Float[Array, "..."], axis: int, more: int) -> Float[Array, "..."]:
    """The array with zeros after it."""
    return jnp.pad(array, [(0, more if axis == each else 0) for each in range(array.ndim)])


def _turned(array: Float[Array, "... a b"]) -> Float[Array, "... b a"]:
    return jnp.swapaxes(array, -1, -2)
