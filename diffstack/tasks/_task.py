"""What a task is: it draws batches of sequences, and scores what a network says to them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from diffstack import _checks

LONGEST = 1_000_000


class Batch(NamedTuple):
    """Sequences with their targets, of NumPy arrays that are padded with 0 after the end of a sequence.

    Attributes:
        tokens: (B, T) int32, what the network reads.
        targets: (B, T) int32, what it should say at each step.
        mask: (B, T) bool, the steps whose targets the loss counts.
        scored: (B, T) bool, the steps of these that accuracies count; fewer where no network can know the others.
        lengths: (B,) int32, the number of steps of each sequence.
        source: (B,) float64, the nats that no network can save on the targets of the mask: minus the logarithm of their
            probability under the source that drew them, and 0 where they follow from the tokens.
    """

    tokens: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    scored: np.ndarray
    lengths: np.ndarray
    source: np.ndarray


class Scores(NamedTuple):
    """How well a network did on a batch.

    Attributes:
        accuracy: the share of the scored steps that are right.
        coarse: the share of the sequences whose scored steps are all right.
        fine: the share of a sequence's scored steps before its first mistake, on average over the sequences.
        excess: the cross entropy above that of the source, in nats for each target of the mask.
    """

    accuracy: float
    coarse: float
    fine: float
    excess: float


class Line(NamedTuple):
    """One sequence of a batch. Its `nats` are those given its length, and None where targets follow from tokens."""

    tokens: Sequence[int]
    targets: Sequence[int]
    mask: slice
    scored: slice
    nats: float | None = None


@dataclass(frozen=True)
class Task:
    """A task of a paper.

    Attributes:
        name: its name in the table of tasks.
        title: what it is, in one sentence, which says what the length of a sequence is.
        paper: who posed it, and when.
        symbols: the tokens as text, in the order of their numbers; 0 also pads.
        classes: the targets as text, in the order of their numbers.
        metric: the field of `Scores` that the paper reports.
        training: the shortest and the longest length in training.
        testing: the shortest and the longest length in the test.
        lines: draws one sequence for each length that it is given.
        has: whether there are sequences of a length.
    """

    name: str
    title: str
    paper: str
    symbols: tuple[str, ...]
    classes: tuple[str, ...]
    metric: str
    training: tuple[int, int]
    testing: tuple[int, int]
    lines: Callable[[np.random.Generator, Sequence[int]], list[Line]]
    has: Callable[[int], bool] = lambda length: length >= 1

    @property
    def inputs(self) -> int:
        """The number of different tokens."""
        return len(self.symbols)

    @property
    def outputs(self) -> int:
        """The number of different targets."""
        return len(self.classes)

    def draw(self, rng: np.random.Generator, count: int, lengths: tuple[int, int]) -> Batch:
        """Draw sequences whose lengths are uniform over those in a range that the task has.

        Args:
            rng: a generator of NumPy.
            count: the number of sequences.
            lengths: the shortest and the longest length, both included.

        Returns:
            The batch.
        """
        if not isinstance(rng, np.random.Generator):
            _checks.bad_type("rng", "a numpy.random.Generator", type(rng).__name__)
        count, possible = _checks.check_count("count", count, 1), self._possible(lengths)
        lines = self.lines(rng, [possible[k] for k in rng.integers(len(possible), size=count)])
        return _batch(lines, math.log(len(possible)))

    def score(self, outputs: Any, batch: Batch) -> Scores:
        """Compare what a network says with the targets; a step is right where its target alone has the largest number.

        Args:
            outputs: (B, T, outputs), logits or log probabilities.
            batch: what the network has read.

        Returns:
            The scores, of which the task's `metric` is the paper's.
        """
        outputs = np.asarray(outputs, np.float64)
        shape = (*batch.targets.shape, self.outputs)
        _checks.check_shape("outputs", outputs.shape, shape, "the steps of the batch by the classes of the task")
        return _scores(outputs, batch)

    def show(self, batch: Batch, row: int = 0) -> tuple[str, str]:
        """One sequence as two lines of text, tokens above targets; the loss does not count a step without a target."""
        steps = range(batch.lengths[row])
        above = [self.symbols[batch.tokens[row, t]] for t in steps]
        below = [self.classes[batch.targets[row, t]] if batch.mask[row, t] else "" for t in steps]
        widths = [max(len(token), len(target)) for token, target in zip(above, below, strict=True)]
        for texts in (above, below):
            texts[:] = [text.rjust(width) for text, width in zip(texts, widths, strict=True)]
        return " ".join(above), " ".join(below)

    def _possible(self, lengths: tuple[int, int]) -> list[int]:
        """The lengths in a range that the task has."""
        if not isinstance(lengths, tuple | list) or len(lengths) != 2:
            _checks.bad_type("lengths", "a pair, the shortest and the longest length", repr(lengths))
        shortest, longest = (_checks.check_count("lengths", each, 0) for each in lengths)
        if longest > LONGEST:
            _checks.bad_value("lengths", f"lengths of at most {LONGEST:,}", longest)
        if shortest > longest:
            _checks.bad_value("lengths", "the shortest and the longest length in this order", f"{shortest}, {longest}")
        possible = [length for length in range(shortest, longest + 1) if self.has(length)]
        if not possible:
            _checks.bad_value("lengths", f"a range with a length that {self.name} has", f"{shortest} to {longest}")
        return possible


def one_by_one(line: Callable[[np.random.Generator, int], Line]) -> Callable[..., list[Line]]:
    """Make the `lines` of a task from a function that draws one sequence of a length."""
    return lambda rng, lengths: [line(rng, length) for length in lengths]


def sentence(word: Sequence[int], *, nats: float | None, mask: int = 0, scored: int = 0) -> Line:
    """A word whose next symbol is to be predicted at each step: 0 is read before it, and is due after it.

    Args:
        word: its symbols, from 1 on.
        nats: minus the logarithm of its probability given its length; None where the masked targets follow from tokens.
        mask: the number of symbols before the first whose target the loss counts.
        scored: the number of symbols before the first whose target accuracies count.
    """
    return Line([0, *word], [*word, 0], slice(mask, len(word) + 1), slice(scored, len(word) + 1), nats)


def answer(question: Sequence[int], targets: Sequence[int], *, early: int = 0, scored: int | None = None) -> Line:
    """A question, then an empty token, 0, for each target.

    Args:
        question: its tokens.
        targets: what is due at the steps of the empty tokens.
        early: by how many steps the targets come sooner than that.
        scored: the number of targets that accuracies count; None for all.
    """
    start = len(question) - early
    end = start + len(targets)
    tokens = [*question, *[0] * (len(targets) - early)]
    stop = end if scored is None else start + scored
    return Line(tokens, [*[0] * start, *targets], slice(start, end), slice(start, stop))


def _batch(lines: Sequence[Line], nats: float) -> Batch:
    """Lines as one batch; `nats` are those of the choice of a length."""
    shape = len(lines), max(len(line.tokens) for line in lines)
    tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    mask, scored = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, line in enumerate(lines):
        tokens[row, : len(line.tokens)] = line.tokens
        targets[row, : len(line.targets)] = line.targets
        mask[row, line.mask] = True
        scored[row, line.scored] = True
    lengths = np.asarray([len(line.tokens) for line in lines], np.int32)
    source = np.asarray([0.0 if line.nats is None else nats + line.nats for line in lines])
    return Batch(tokens, targets, mask, scored, lengths, source)


def _scores(outputs: np.ndarray, batch: Batch) -> Scores:
    places = batch.targets[..., None]
    ours, rivals = np.take_along_axis(outputs, places, -1)[..., 0], outputs.copy()
    np.put_along_axis(rivals, places, -np.inf, -1)
    right = ours > rivals.max(-1)
    before = np.logical_and.accumulate(right | ~batch.scored, axis=1) & batch.scored
    with np.errstate(invalid="ignore"):  # of padding, whose outputs may be anything
        largest = outputs.max(-1)
        nats = largest - ours + np.log(np.exp(outputs - largest[..., None]).sum(-1))
    return Scores(
        accuracy=float(right[batch.scored].mean()),
        coarse=float((right | ~batch.scored).all(1).mean()),
        fine=float((before.sum(1) / batch.scored.sum(1)).mean()),
        excess=float((nats[batch.mask].sum() - batch.source.sum()) / batch.mask.sum()),
    )
