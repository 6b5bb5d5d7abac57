"""Probabilistic context-free grammars: the probability of a string, and strings of a given length.

A form is what a rule makes, or what of it is still to be made: a tuple of symbols. The inside algorithm gives the
weight of every form on every span of a string, as sums over all derivations, from the left end of the string on:

    W(symbol on a span)      = 1 if the span is this symbol alone, and else 0
    W(head on a span)        = sum over its rules of the rule's weight times W(body on the span)
    W(first rest on a span)  = sum over the places to cut it of W(first on the left part) W(rest on the right part)

Where every symbol matches at every place, the weight of the start on a span is the probability of its width. The same
weights say how to draw a string of that width from the top down.

Weights are plain float64 numbers, so that strings of more than `LONGEST` symbols are refused.
"""

from bisect import bisect
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter

import numpy as np

Form = tuple[str, ...]
Rules = Mapping[str, Mapping[Form, float]]
LONGEST = 300  # Longer strings may be less probable than any positive float64 number says.
_TOGETHER = 16  # strings whose weights are computed at once


class Grammar:
    """A grammar that gives every string a probability.

    Args:
        symbols: its terminal symbols, in the order of their numbers in a string.
        rules: for each head its bodies, whose symbols are separated by spaces, with their weights, which sum to 1. The
            first head is the start. No body ends in its own head, neither by itself nor through others; a run is
            "run symbol", and not "symbol run".
    """

    def __init__(self, symbols: Sequence[str], rules: Mapping[str, Mapping[str, float]]) -> None:
        self.symbols = tuple(symbols)
        self.rules: Rules = {
            head: {tuple(body.split()): weight for body, weight in bodies.items()} for head, bodies in rules.items()
        }
        self.start: Form = (next(iter(rules)),)
        self._order = _order(self.rules)
        self._totals: dict[Form, list[float]] = {}
        self._choices: dict[tuple[Form, int], tuple[list[tuple[Form, int]], list[float]]] = {}

    def log_probabilities(self, strings: Sequence[Sequence[int]]) -> np.ndarray:
        """The logarithm of the probability of each string: the sum over its derivations, however many there are."""
        probabilities = []
        for begin in range(0, len(strings), _TOGETHER):
            some = strings[begin : begin + _TOGETHER]
            padded = np.full((len(some), max(map(len, some))), -1)
            for row, string in zip(padded, some, strict=True):
                row[: len(string)] = string
            matches = {symbol: (padded == number).astype(float) for number, symbol in enumerate(self.symbols)}
            weights = self._inside(matches, padded.shape[1])[self.start]
            probabilities += [weights[len(string), row] for row, string in enumerate(some)]
        with np.errstate(divide="ignore"):
            return np.log(probabilities)

    def probability(self, length: int) -> float:
        """The probability that a string has this length; 0 where it is refused, too."""
        return self._total(self.start, length) if length <= LONGEST else 0.0

    def draw(self, rng: np.random.Generator, length: int) -> list[int]:
        """A string of this length, by its probability among those of its length."""
        todo, string = [(self.start, length)], []
        while todo:
            form, width = todo.pop()
            if len(form) == 1 and form[0] not in self.rules:
                string.append(self.symbols.index(form[0]))
                continue
            if (form, width) not in self._choices:
                self._choices[form, width] = self._list(form, width)
            choices, cumulative = self._choices[form, width]
            chosen, part = choices[bisect(cumulative, rng.random())]
            if len(form) > 1:
                todo.append((form[1:], width - part))
            if chosen:
                todo.append((chosen, part))
        return string

    def _list(self, form: Form, width: int) -> tuple[list[tuple[Form, int]], list[float]]:
        """What a form of a width may begin with, each with its width, and the sums of their probabilities up to it."""
        if len(form) > 1:
            first, rest = form[:1], form[1:]
            weights = {(first, k): self._total(first, k) * self._total(rest, width - k) for k in range(width + 1)}
        else:
            bodies = self.rules[form[0]]
            weights = {(body, width): weight * self._total(body, width) for body, weight in bodies.items()}
        possible = {choice: weight for choice, weight in weights.items() if weight}
        sums = np.cumsum(list(possible.values()))
        return list(possible), (sums / sums[-1]).tolist()

    def _total(self, form: Form, width: int) -> float:
        """The weight of a form over all strings of a width."""
        if width >= len(self._totals.get(form, ())):
            size = max(32, 2 ** width.bit_length())
            everywhere = dict.fromkeys(self.symbols, np.ones((1, size)))
            self._totals = {each: weights[:, 0].tolist() for each, weights in self._inside(everywhere, size).items()}
        return self._totals[form][width]

    def _inside(self, matches: Mapping[str, np.ndarray], size: int) -> dict[Form, np.ndarray]:
        """The weights of all forms on the beginnings of strings, (width, strings), from the places symbols match.

        A rest is needed only on spans that end where the span ends, and what comes first on all spans before. A product
        where either makes a single symbol has one term.
        """
        strings = len(next(iter(matches.values())))
        single = {form: _single(self.rules, form, matches) for form in self._order if _is_single(self.rules, form)}
        # Spans are numbered [end, string, start], and the rows of one end [string, start].
        spans: dict[Form, np.ndarray] = {(head,): np.zeros((size + 1, strings, size + 1)) for head in self.rules}
        beginnings = {form: np.zeros((size + 1, strings)) for form in self._order}
        for end in range(size + 1):
            rows: dict[Form, np.ndarray] = {}
            for form in self._order:
                first, rest = form[:1], form[1:]
                row = rows[form] = np.zeros((strings, end + 1))
                if not form:
                    row[:, end] = 1
                elif form in single:
                    row[:, end - 1 : end] = single[form][:, end - 1 : end]
                elif not rest:
                    for body, weight in self.rules[form[0]].items():
                        row += weight * rows[body]
                elif first in single:
                    row[:, :end] = single[first][:, :end] * rows[rest][:, 1:]
                elif rest in single:
                    row[:, :end] = spans[first][end - 1, :, :end] * single[rest][:, end - 1 : end]
                else:
                    before = spans[first][: end + 1, :, : end + 1].swapaxes(0, 1)
                    row[:] = (rows[rest][:, None] @ before)[:, 0]
                if form in spans:
                    spans[form][end, :, : end + 1] = row
                beginnings[form][end] = row[:, 0]
        return beginnings


def _forms(rules: Rules) -> list[Form]:
    """All forms of a grammar: heads, bodies, what is left of a body after its first symbols, and single symbols."""
    bodies = [body for each in rules.values() for body in each]
    rests = [body[k:] for body in bodies for k in range(1, len(body))]
    singles = [(symbol,) for body in bodies for symbol in body]
    return sorted({*((head,) for head in rules), *bodies, *rests, *singles})


def _is_single(rules: Rules, form: Form) -> bool:
    """Whether it is plain to see that a form makes one symbol, neither more nor less."""
    return len(form) == 1 and all(len(body) == 1 and body[0] not in rules for body in rules.get(form[0], [form]))


def _single(rules: Rules, form: Form, matches: Mapping[str, np.ndarray]) -> np.ndarray:
    """The weight of a form that makes one symbol, (strings, places)."""
    bodies = rules.get(form[0], {form: 1.0})
    return np.sum([weight * matches[body[0]] for body, weight in bodies.items()], axis=0)


def _order(rules: Rules) -> list[Form]:
    """The forms in an order in which each follows those whose weights on spans with the same end it needs."""
    empty: set[str] = set()
    for _ in rules:  # Each round finds the heads that become empty by one rule more.
        empty |= {head for head, bodies in rules.items() if any(empty.issuperset(body) for body in bodies)}
    needs: dict[Form, set[Form]] = {}
    for form in _forms(rules):
        if len(form) > 1:
            needs[form] = {form[1:], form[:1]} if empty.issuperset(form[1:]) else {form[1:]}
        else:
            needs[form] = set(rules.get(form[0], ())) if form else set()
    return list(TopologicalSorter(needs).static_order())
