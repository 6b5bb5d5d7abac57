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

A step works on the part of the table that it can reach. The backward pass is a function of its own, which cannot itself
be differentiated: for second derivatives, in forward mode, under `torch.func` and in a compiler the loop over `step` is
differentiated as it stands.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.nn.functional import pad, threshold

from diffstack.torch_impl._arrays import matmul, without_autocast
from diffstack.torch_impl._logs import divided, log, logsumexp, share, softmax
from diffstack.torch_impl._parallel._recompute import _pull_back

Tops = Float[Tensor, "batch n"]
Table = Float[Tensor, "*batch symbols _ states _ n"]
Operations = tuple[Float[Tensor, "*steps n n"], Float[Tensor, "*steps n states"], Float[Tensor, "*steps n n"]]


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

    pushed: Tensor
    replaced: Tensor
    popped: Tensor
    ways: Tensor
    found: Tensor
    total: Tensor
    tops: Tensor


def scan(
    tops: Float[Tensor, "*batch states symbols"],
    edges: Float[Tensor, "*batch slots states symbols slots states symbols"],
    operations: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tops and edges after all steps, with room for them; and log a_t and the shares of every step."""
    *batch, slots, states, symbols = edges.shape[:-3]
    n, time, flat = states * symbols, operations[0].shape[-3], math.prod(batch)
    first, logs = tops.reshape(flat, n), edges.reshape(flat, slots, n, slots, n)
    left = logsumexp(logs, (-2, -1))
    table = by_symbol(torch.exp(divided(logs, left[..., None, None])), states)
    steps: Any = tuple(each.reshape(flat, *each.shape[-3:]).movedim(1, 0) for each in operations)
    each, shares, table = _filter(first, first + left[:, -1], table, torch.exp(left), steps)
    logs = pad(logs, (0, 0, 0, time), value=-torch.inf)
    logs = torch.cat([logs, log(by_row(table[:, :, slots:]))], 1)
    shares = (torch.exp(each)[..., None] * shares).movedim(0, 1)
    return (
        each[-1].reshape(tops.shape),
        logs.reshape(*batch, *(slots + time, states, symbols) * 2),
        each.movedim(0, 1).reshape(*batch, time, states, symbols),
        shares.reshape(*batch, time, states, symbols, slots + time),
    )


def by_symbol(rows: Float[Tensor, "*batch rows n columns n"], states: int) -> Table:
    """The table as the products of a pop take it."""
    *batch, count, n, columns, _ = rows.shape
    return torch.movedim(rows.reshape(*batch, count, states, n // states, columns, n), -3, -5)


def by_row(table: Table) -> Float[Tensor, "*batch rows n columns n"]:
    """The table as the state has it."""
    *batch, _, rows, _, columns, n = table.shape
    return torch.movedim(table, -5, -3).reshape(*batch, rows, n, columns, n)


class _Filter(torch.autograd.Function):
    # Not `setup_context`: what the backward pass needs is more than the results.
    @staticmethod
    def forward(
        ctx: Any, tops: Tensor, standing: Tensor, table: Tensor, kept: Tensor, *operations: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        results, (whole, _, keeps) = _forward(tops, standing, table, kept, operations)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            tops, standing, table, kept, *operations, whole, *(each for keep in keeps for each in keep)
        )
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, (table, *rest) = ctx.saved_tensors[:7], ctx.saved_tensors[7:]
        keeps = [Kept(*each) for each in zip(*[iter(rest)] * len(Kept._fields), strict=True)]
        with without_autocast(table):
            if torch.is_grad_enabled() or _as_it_stands(*gradients):
                return _backward_of_the_loop(inputs, gradients, ctx.needs_input_grad)
            *of_state, of_operations = _backward((table, inputs[3], keeps), gradients)
        return *of_state, *of_operations


def _filter(
    tops: Tops, standing: Tops, table: Table, kept: Float[Tensor, "batch slots n"], operations: Operations
) -> tuple[Tensor, Tensor, Table]:
    """Log a_t, how likely each column is given the top at each step, and the table with a row for each step."""
    if _as_it_stands():
        return _forward(tops, standing, table, kept, operations)[0]
    return _Filter.apply(tops, standing, table, kept, *operations)


def _as_it_stands(*gradients: Tensor | None) -> bool:
    """Whether PyTorch is to see every operation, rather than `_Filter`."""
    if torch.compiler.is_compiling():
        return True
    # PyTorch says by this level alone that forward mode is on, and `is_grads_batched=True` has a vmap of its own.
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return transformed or any(each is not None and is_legacy_batchedtensor(each) for each in gradients)


def _forward(tops: Tensor, standing: Tensor, table: Tensor, kept: Tensor, operations: Any) -> tuple[Any, Any]:
    slots, time, keeps = table.shape[2], len(operations[0]), []
    new, ones = by_row(table[:, :, -1:])[:, 0], _with_ones(kept, slots + time - 1)
    if not (torch.is_grad_enabled() or _as_it_stands()):
        table = pad(table, (0, 0, 0, time, 0, 0, 0, time))
    for place, given in enumerate(zip(*(each.unbind() for each in operations), strict=True), slots):
        carry, keep = step(ones[:, : place - 1], (tops, standing, new, table), given)
        tops, standing, new, table = carry
        keeps.append(keep)
    each = torch.stack([keep.tops for keep in keeps])
    shares = by_row(table[:, :, slots:]).sum(-1).movedim(1, 0)
    return (each, shares, table), (table, kept, keeps)


def step(
    kept: Float[Tensor, "batch rows n"], carry: tuple[Tensor, ...], operations: Operations
) -> tuple[tuple[Tensor, ...], Kept]:
    """One step of the filter, which adds its row and its column to the table."""
    tops, standing, row, table = carry
    batch, _, columns, n = row.shape
    symbols, rows, states = table.shape[1], columns - 1, table.shape[3]
    shares, sums = weighed(tops, standing, operations)
    found, total = revealed(shares[1], row[:, :, 1:], kept, states)
    below = matmul(found.reshape(batch, symbols, states, rows * states), _below(table[:, :, :rows, :, :columns]))
    below = below.reshape(batch, symbols, states, columns, n)
    tops, ways, new, own = settled(shares, sums, total, below, row)
    new = not_lost(torch.cat([new, own[:, :, None]], 2))
    keep = Kept(shares[0], shares[2], shares[1], ways, found, total, tops)
    return (tops, tops, new, _with_row(table, new)), keep


def weighed(
    tops: Float[Tensor, "*batch n"], standing: Float[Tensor, "*batch n"], operations: Operations
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What each operation started from, p, omega and rho, and the logarithms of how likely it was for each outcome."""
    push, pop, replace = operations
    weights = tops[..., None] + push, standing[..., None] + pop, standing[..., None] + replace
    sizes = [each.shape[-1] for each in weights]
    shares, sums = softmax(torch.cat(weights, -1), -2)
    return shares.split(sizes, -1), sums.split(sizes, -1)


def revealed(
    popped: Float[Tensor, "*batch n states"],
    row: Float[Tensor, "*batch n rows n"],
    kept: Float[Tensor, "*batch rows n"],
    states: int,
) -> tuple[Float[Tensor, "*batch symbols states rows states"], Float[Tensor, "*batch symbols states"]]:
    """What a pop finds under the top, D / total for each symbol and new state, and the total."""
    *batch, n, rows, _ = row.shape
    found = matmul(popped.mT, row.reshape(*batch, n, rows * n)).reshape(*batch, states, rows, n)
    found = (found * kept[..., None, :, :]).reshape(*batch, states, rows, states, n // states)
    found = torch.movedim(found, -1, -4)
    total = not_lost(found.sum((-2, -1)))
    return share(found, total[..., None, None]).contiguous(), total


def settled(
    shares: tuple[Tensor, ...],
    sums: tuple[Tensor, ...],
    total: Float[Tensor, "*batch symbols states"],
    below: Float[Tensor, "*batch symbols states columns n"],
    row: Float[Tensor, "*batch n columns n"],
) -> tuple[Tensor, Tensor, Float[Tensor, "*batch n columns n"], Float[Tensor, "*batch n n"]]:
    """The new tops, how likely each way to them was, the new row, and what is pushed in this step of it."""
    (pushed, _, replaced), (of_push, of_pop, of_replace) = shares, sums
    *batch, n, columns, _ = row.shape
    of_pop = (log(total.mT) + of_pop[..., None]).reshape(of_push.shape)
    ways, logs = softmax(torch.stack([of_push, of_pop, of_replace], -2), -2)
    tops = divided(logs, logsumexp(logs, (-1,))[..., None])
    below = below.transpose(-4, -3).reshape(row.shape)
    same = matmul(replaced.mT, row.reshape(*batch, n, columns * n)).reshape(row.shape)
    push, pop, replace = (each[..., None] for each in ways.unbind(-2))
    return tops, ways, pop[..., None] * below + replace[..., None] * same, push * pushed.mT


def _with_row(table: Table, row: Float[Tensor, "batch n _ n"]) -> Table:
    """The table with a row more, which is written into it where it has room."""
    place, (_, _, rows, states, columns, _) = row.shape[2] - 1, table.shape
    row = by_symbol(row[:, None], states)
    if place < rows:
        table[:, :, place : place + 1, :, : place + 1] = row
        return table
    return torch.cat([pad(table, (0, 0, 0, place + 1 - columns)), row], 2)


def _backward(residuals: Any, gradients: Any) -> tuple[Any, ...]:
    """The gradients of what `_filter` is given, from those of what it returns."""
    (table, kept, keeps), (of_tops, of_shares, of_table) = residuals, gradients
    batch, symbols, rows, states, columns, n = table.shape
    slots, time = kept.shape[1], len(keeps)
    # What later steps found in each row, and what is due to what they found.
    found = table.new_zeros((batch, symbols, time, states, rows, states))
    later = table.new_empty((batch, symbols, time, states, columns, n))
    nothing, of_kept = table.new_zeros((batch, n)), torch.zeros_like(kept)
    new = by_row(table[:, :, -1:])[:, 0]
    of_last, of_standing, of_row = nothing, nothing, torch.zeros_like(new)
    fixed, of_operations = (table, kept, _with_ones(kept, rows - 1), found, later), []
    for step in reversed(range(time)):
        place = slots + step
        given: Any = keeps[step], nothing if of_tops is None else of_tops[step]
        if of_shares is not None:
            of_row = of_row + of_shares[step, ..., : place + 1, None]
        if of_table is not None:
            of_row = of_row + by_row(of_table[:, :, place : place + 1, :, : place + 1])[:, 0]
        carry, of_operation = _step_back(fixed, (of_last, of_standing, of_row, new, of_kept), (*given, step))
        of_last, of_standing, of_row, new, of_kept = carry
        of_operations.append(of_operation)
    of_older = _product(found[:, :, :, :, :slots], later[..., :slots, :])
    of_older[:, :, -1:] += by_symbol(of_row[:, None], states)
    if of_table is not None:
        of_older += of_table[:, :, :slots, :, :slots]
    stacked = (torch.stack(each[::-1]) for each in zip(*of_operations, strict=True))
    return of_last, of_standing, of_older, of_kept, tuple(stacked)


def _step_back(
    fixed: tuple[Tensor, ...], carry: tuple[Tensor, ...], given: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], Operations]:
    """One step of the backward pass."""
    table, kept, ones, found, later = fixed
    of_tops, of_standing, of_new, new, of_kept = carry
    keep, of_each, step = given
    batch, n, columns, _ = new.shape
    place, rows, columns = columns - 1, columns - 2, columns - 1
    symbols, states, slots = table.shape[1], table.shape[3], of_kept.shape[1]
    due = _product(found[:, :, step + 2 :, :, place : place + 1], later[:, :, step + 2 :, :, : place + 1])
    of_new = (of_new + by_row(due)[:, 0]).masked_fill_(new <= 0, 0).reshape(batch, n, (columns + 1) * n)
    of_new, of_own = of_new.split((columns * n, n), -1)
    row = by_row(table[:, :, place - 1 : place, :, :columns])[:, 0]
    push, pop, replace = keep.ways.unbind(1)
    # What the three ways gave.
    flat = row.reshape(batch, n, columns * n)
    by_top = of_new.reshape(batch, states, symbols, columns * n).transpose(1, 2)
    of_replaced = matmul(flat, of_new.mT)
    of_found = matmul(by_top, _below(table[:, :, :rows, :, :columns]).mT).reshape(keep.found.shape)
    of_pop = (of_found * keep.found).sum((-2, -1))
    of_push = (of_own.mT * keep.pushed).sum(-2)
    of_ways = torch.stack([of_push, of_pop.mT.reshape(batch, n), (of_replaced * keep.replaced).sum(-2)], -2)
    # The tops, and how likely each way was.
    of_each = (of_each + of_tops + of_standing).masked_fill_(keep.tops == -torch.inf, 0)
    of_logs = of_each - torch.exp(keep.tops) * of_each.sum(-1, keepdim=True)
    of_ways = _of_logs(keep.ways, of_ways, of_logs)
    of_total = of_ways[:, 1].reshape(batch, states, symbols).mT
    # What a pop found: the rule of a quotient, which does not square the total.
    pop = pop.reshape(batch, states, symbols).mT
    of_found = of_found - of_pop[..., None, None]
    of_found = share(of_found * pop[..., None, None] + of_total[..., None, None], keep.total[..., None, None])
    of_found = of_found.permute(0, 2, 3, 4, 1).reshape(batch, states, rows, n)
    if kept.requires_grad:
        first = min(rows, slots)
        alone = matmul(keep.popped.mT, flat[..., n : (first + 1) * n]).reshape(batch, states, first, n)
        of_kept[:, :first] += (of_found[:, :, :first] * alone).sum(1)
    of_found = (of_found * ones[:, None, :rows]).reshape(batch, states, rows * n)
    of_row = matmul(keep.replaced * replace[:, None], of_new)
    of_row[..., n:] += matmul(keep.popped, of_found)
    found[:, :, step, :, :rows] = keep.found
    torch.mul(by_top, pop[..., None], out=later[:, :, step, :, :columns].flatten(-2))
    of_push = _of_logs(keep.pushed, of_own.mT * push[:, None], of_ways[:, 0])
    of_popped = _of_logs(keep.popped, matmul(flat[..., n:], of_found.mT), of_total.sum(-2))
    of_replace = _of_logs(keep.replaced, of_replaced * replace[:, None], of_ways[:, 2])
    carry = of_push.sum(-1), of_popped.sum(-1) + of_replace.sum(-1), of_row.reshape(row.shape), row, of_kept
    return carry, (of_push, of_popped, of_replace)


def _backward_of_the_loop(
    inputs: tuple[Tensor, ...], gradients: tuple[Tensor | None, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """What `_backward` gives, by the loop as it stands, which can be differentiated again."""
    given = {place: each for place, each in enumerate(gradients) if each is not None}

    def loop(*wanted: Tensor) -> tuple[Tensor, ...]:
        rest = iter(wanted)
        tops, standing, table, kept, *operations = (
            next(rest) if need else each for each, need in zip(inputs, needed, strict=True)
        )
        results = _forward(tops, standing, table, kept, operations)[0]
        return tuple(results[place] for place in given)

    wanted = [each for each, need in zip(inputs, needed, strict=True) if need]
    found = iter(_pull_back(loop, wanted, tuple(given.values())))
    return tuple(next(found) if need else None for need in needed)


def _of_logs(shares: Tensor, of_shares: Tensor, of_sum: Tensor) -> Tensor:
    """The gradient of logarithms, from those of their softmax over the last axis but one and of their logsumexp."""
    return shares * (of_shares - (shares * of_shares).sum(-2, keepdim=True) + of_sum[..., None, :])


def _product(
    found: Float[Tensor, "batch symbols time states _ states"],
    later: Table,
) -> Table:
    """For each row, what all later steps found in it times what is due to what they found."""
    batch, symbols, time, states, count, _ = found.shape
    found = found.reshape(batch, symbols, time * states, count * states)
    due = matmul(found.mT, _below(later))
    return due.reshape(batch, symbols, count, states, *later.shape[4:])


def _below(table: Table) -> Float[Tensor, "batch symbols above below"]:
    """The table as matrices: what is on top, and what it stands on."""
    batch, symbols, rows, states, columns, n = table.shape
    return table.reshape(batch, symbols, rows * states, columns * n)


def not_lost(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What is not so small that rounding has begun to lose it."""
    return threshold(x, 1e-30 if x.dtype == torch.float32 else 1e-290, 0)


def _with_ones(kept: Float[Tensor, "batch slots n"], rows: int) -> Float[Tensor, "batch rows n"]:
    return torch.cat([kept, kept.new_ones((kept.shape[0], rows, kept.shape[2]))], 1)[:, :rows]
