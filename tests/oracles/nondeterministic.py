"""The nondeterministic stack of DuSell & Chiang (2020 to 2023), as a log semiring has it.

With positive weights, whose logarithms are given, gamma[i -> t][q,x -> r,y] is the weight of all ways from state q with
x on top after step i to state r with y on top after step t, where y stands one level above and was never exposed below:

    gp[k, t][u,y -> r]     = sum_{s,z} gamma[k -> t-1][u,y -> s,z] pop_t[s,z,r]
    gamma[i -> t][q,x -> r,y] = [i = t-1] push_t[q,x,r,y]
                              + sum_{s,z} gamma[i -> t-1][q,x -> s,z] replace_t[s,z,r,y]
                              + sum_{k=i+1}^{t-2} sum_u gamma[i -> k][q,x -> u,y] gp[k, t][u,y -> r]
    alpha[t][r,y]          = sum_i sum_{q,x} alpha[i][q,x] gamma[i -> t][q,x -> r,y]
    read_t[r,y]            = sum_i sum_{q,x} alpha[i][q,x] gamma[i -> t][q,x -> r,y] v_{i+1} / sum alpha[t]

A state of the library, after step t with a window of D steps, has shares instead of weights: values (D, dim), where row
j belongs to i = t - D + j; tops (Q, S), the logarithm of alpha[t] / sum alpha[t]; and edges (D, Q, S, D, Q, S), where
entry [j,r,y, i,q,x] is the logarithm of alpha[i][q,x] gamma[i -> k][q,x -> r,y] / alpha[k][r,y] for k = t - D + 1 + j.
The equations do not change when every alpha[i] is taken to be 1 and gamma is scaled for it, so they go on from a state
with alpha = 1 before step t, and alpha[t] as the tops have it.

`enumerated` follows every run by itself, for a few steps. Actions (T, A): push (Q, S, Q, S), pop (Q, S, Q) and replace
(Q, S, Q, S), one after the other; elements (T, dim). Without numbers in an element the read is alpha[t] / sum alpha[t].
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NEVER = -np.inf


def total(logs: Any, axes: Any = None) -> Any:
    """The logarithm of the sum of what these are the logarithms of."""
    logs = np.asarray(logs, np.float64)
    most = np.max(logs, axis=axes, keepdims=True, initial=NEVER)
    most = np.where(np.isfinite(most), most, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(logs - most), axis=axes)) + np.squeeze(most, axis=axes)


def finite(logs: Any) -> Any:
    """What can be taken off logarithms."""
    return np.where(np.isfinite(logs), logs, 0)


def operations(actions: Any, states: int, symbols: int) -> tuple[Array, Array, Array]:
    n, actions = states * symbols, np.asarray(actions, np.float64)
    push, pop, replace = np.split(actions, [n * n, n * n + n * states])
    whole = (states, symbols, states, symbols)
    return push.reshape(whole), pop.reshape(whole[:3]), replace.reshape(whole)


class Weights:
    """Alpha and gamma of steps, where the state that is gone on from is that after step 0.

    Both have room for the steps to come: alpha[D + i], and gamma[D + i, D + k] for gamma[i -> k].
    """

    def __init__(self, values: Any, tops: Any, edges: Any, steps: int) -> None:
        self.shape, self.slots, self.now = np.shape(tops), len(values), 0
        room = self.slots + steps + 1
        self.vectors = [np.array(value, np.float64) for value in values]
        self.alpha = np.full((room, *self.shape), NEVER)
        self.alpha[: self.slots], self.alpha[self.slots] = 0, tops
        self.gamma = np.full((room, room, *self.shape, *self.shape), NEVER)
        for row, column in np.ndindex(self.slots, self.slots):
            share = np.moveaxis(np.array(edges, np.float64)[row][:, :, column], (0, 1), (2, 3))
            self.gamma[column, row + 1] = share + self.alpha[row + 1]

    def step(self, actions: Any, element: Any, oldest: int) -> None:
        """One more step, in which no gamma starts before `oldest`."""
        self.now += 1
        push, pop, replace = operations(actions, *self.shape)
        t, i = self.slots + self.now, slice(self.slots + oldest, self.slots + self.now - 1)
        gone = total(self.gamma[i, t - 1][..., None] + pop, (3, 4))
        popped = total(self.gamma[i, i, :, :, :, :, None] + gone[:, None, None], (1, 4))
        replaced = total(self.gamma[i, t - 1][..., None, None] + replace, (3, 4))
        self.gamma[i, t] = np.logaddexp(replaced, np.swapaxes(popped, -1, -2))
        self.gamma[t - 1, t] = push
        self.alpha[t] = total(self.joint()[self.slots + oldest :], (0, 1, 2))
        self.vectors.append(np.array(element, np.float64))

    def joint(self) -> Array:
        """The weights of all ways to the tops of the last step, by where they were pushed."""
        t = self.slots + self.now
        return self.alpha[:t, :, :, None, None] + self.gamma[:t, t]

    def read(self, oldest: int) -> Array:
        t = self.slots + self.now
        if self.vectors[-1].size == 0:
            return np.exp(self.alpha[t] - finite(total(self.alpha[t])))
        shares = np.exp(total(self.joint(), (1, 2)) - finite(total(self.alpha[t])))[self.slots + oldest :]
        return np.tensordot(np.moveaxis(shares, 0, -1), np.stack(self.vectors[self.slots + oldest :]), 1)

    def state(self) -> tuple[Array, Array, Array]:
        """That of the library, with the window that it had."""
        window, rows = slice(self.now, self.now + self.slots), slice(self.now + 1, self.now + self.slots + 1)
        # Of the last step only the ways count that begin in the window.
        alpha = self.alpha[rows].copy()
        alpha[-1] = total(self.joint()[window], (0, 1, 2)) if self.now else alpha[-1]
        joint = self.alpha[window, None, :, :, None, None] + self.gamma[window, rows]
        edges = np.moveaxis(joint - finite(alpha)[:, None, None], (1, 4, 5), (0, 1, 2))
        return np.stack(self.vectors[-self.slots :]), alpha[-1] - finite(total(alpha[-1])), edges


def step(values: Any, tops: Any, edges: Any, actions: Any, element: Any) -> tuple[Any, Array]:
    """(state, read) after one time step, which drops what leaves the window."""
    weights, oldest = Weights(values, tops, edges, 1), 1 - len(values)
    weights.step(actions, element, oldest)
    return weights.state(), weights.read(oldest)


def scan(values: Any, tops: Any, edges: Any, actions: Any, elements: Any) -> tuple[Any, Array]:
    """(state, reads) after T time steps, which drop nothing; the state has the window that it had."""
    weights, reads = Weights(values, tops, edges, len(actions)), []
    for action, element in zip(actions, elements, strict=True):
        weights.step(action, element, -len(values))
        reads.append(weights.read(-len(values)))
    none = np.zeros((0, *peek(values, tops, edges).shape))
    return weights.state(), np.stack(reads) if reads else none


def peek(values: Any, tops: Any, edges: Any) -> Array:
    """What the newest row of the edges says of the tops."""
    values, tops = np.asarray(values, np.float64), np.asarray(tops, np.float64)
    if values[0].size == 0:
        return np.exp(tops)
    return np.tensordot(_shares(np.exp(tops), np.asarray(edges)[-1]), values, 1)


def _shares(likely: Array, row: Any) -> Array:
    """How likely the top was pushed in each step, (Q, S, D)."""
    return likely[..., None] * np.exp(row).sum((-2, -1))


def contents(values: Any, tops: Any, edges: Any) -> Array:
    """The reads at each depth, the top in the last row: from each top to all that it can stand on, and so on."""
    values, edges = np.asarray(values, np.float64), np.asarray(edges, np.float64)
    slots, levels = len(values), []
    here = {slots - 1: np.exp(np.asarray(tops, np.float64))}
    for _ in range(slots):
        shares = sum(_shares(likely, edges[row]) for row, likely in here.items())
        levels.append(shares.sum(-1) if values[0].size == 0 else np.tensordot(shares, values, 1))
        below = sum(np.tensordot(likely, np.exp(edges[row]), 2) for row, likely in here.items())
        here = {column - 1: below[column] for column in range(1, slots)} or {0: np.zeros_like(below[0])}
    return np.stack(levels[::-1])


def resize(values: Any, tops: Any, edges: Any, capacity: int) -> tuple[Array, Array, Array]:
    values, edges = np.asarray(values, np.float64), np.asarray(edges, np.float64)
    kept = min(capacity, len(values))
    new = np.zeros((capacity, *values.shape[1:]))
    new[capacity - kept :] = values[len(values) - kept :]
    shape = edges.shape[1:3]
    table = np.full((capacity, *shape, capacity, *shape), NEVER)
    first, tops = len(values) - kept, np.array(tops, np.float64)
    table[capacity - kept :, :, :, capacity - kept :] = edges[first:, :, :, first:]
    if first:
        # The ways that are left are all there are.
        left = total(table[-1], (2, 3, 4))
        table[-1] -= finite(left)[..., None, None, None]
        tops = tops + left - finite(total(tops + left))
    return new, tops, table


def enumerated(states: int, symbols: int, actions: Any, elements: Any, bottom: Any) -> Array:
    """The reads by following every run: configurations, stacks of (symbol, vector), and the weights that reach them."""
    runs, reads = {(0, ((0, -1),)): 0.0}, []
    vector = np.concatenate([np.asarray(elements, np.float64), np.asarray(bottom, np.float64)[None]])
    for t, action in enumerate(actions):
        push, pop, replace = operations(action, states, symbols)
        reached: dict[Any, list[float]] = {}
        for (q, stack), weight in runs.items():
            *rest, (x, v) = stack
            for r, y in np.ndindex(states, symbols):
                reached.setdefault((r, (*stack, (y, t))), []).append(weight + push[q, x, r, y])
                reached.setdefault((r, (*rest, (y, v))), []).append(weight + replace[q, x, r, y])
            for r in range(states if rest else 0):
                reached.setdefault((r, tuple(rest)), []).append(weight + pop[q, x, r])
        runs = {configuration: float(total(weights)) for configuration, weights in reached.items()}
        everything, read = total(list(runs.values())), np.zeros((states, symbols, *vector.shape[1:]))
        for (r, stack), weight in runs.items():
            y, v = stack[-1]
            read[r, y] += np.exp(weight - everything) * vector[v]
        reads.append(read)
    return np.stack(reads)
