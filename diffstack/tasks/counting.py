"""Counting: words whose letters are as many as others, and the next symbol to predict at each step.

Joulin & Mikolov (2015) have them in one stream; here each word stands alone. The symbol "." is read before it, and is
due after it. The loss counts every target. Accuracies count those that a network can know: all from the step that
reads the second kind of letter on, or in a^n b^m c^(n+m) the third.

Example:
    >>> import numpy as np
    >>> from diffstack.tasks import TASKS
    >>> task = TASKS["anbn"]
    >>> batch = task.draw(np.random.default_rng(0), 1, (3, 3))
    >>> print(*task.show(batch), sep="\\n")
    . a a a b b b
    a a a b b b .
    >>> batch.scored[0].astype(int).tolist()
    [0, 0, 0, 0, 1, 1, 1]
"""

import math
from collections.abc import Callable

import numpy as np

from diffstack.tasks._task import Line, Task, one_by_one, sentence


def _word(*counts: int) -> list[int]:
    """So many of the first letter, then so many of the second, and so on."""
    return [letter for letter, count in enumerate(counts, 1) for _ in range(count)]


def _multiples(*factors: int) -> Callable[[np.random.Generator, int], Line]:
    """Draws words that have n times as many of each letter as its factor says."""

    def line(rng: np.random.Generator, n: int) -> Line:
        return sentence(_word(*(n * factor for factor in factors)), nats=0.0, scored=n + 1)

    return line


def _sum(rng: np.random.Generator, total: int) -> Line:
    """a^n b^m c^(n+m), n from 1 to the total less 1."""
    n = int(rng.integers(1, total))
    return sentence(_word(n, total - n, total), nats=math.log(total - 1), scored=total + 1)


def _task(
    name: str, rule: str, letters: str, line: Callable[[np.random.Generator, int], Line], shortest: int = 1
) -> Task:
    symbols = (".", *letters)
    return Task(
        name,
        title=f"Predict the next symbol of {rule}.",
        paper="Joulin & Mikolov 2015",
        symbols=symbols,
        classes=symbols,
        metric="coarse",
        training=(2, 19),
        testing=(2, 59),
        lines=one_by_one(line),
        has=lambda length: length >= shortest,
    )


anbn = _task("anbn", "a^n b^n, of length n", "ab", _multiples(1, 1))
anb2n = _task("anb2n", "a^n b^2n, of length n", "ab", _multiples(1, 2))
anbncn = _task("anbncn", "a^n b^n c^n, of length n", "abc", _multiples(1, 1, 1))
anbncndn = _task("anbncndn", "a^n b^n c^n d^n, of length n", "abcd", _multiples(1, 1, 1, 1))
anbmcnm = _task("anbmcnm", "a^n b^m c^(n+m), of length n + m", "abc", _sum, shortest=2)
