"""Transduction: a source sequence, a separator, and what is to become of the source (Grefenstette et al. 2015).

The first target is due at the step of the separator, and the end, ".", after the last. While a network says its targets
it reads empty tokens, "_", so that training and testing are the same. (Fed with its targets instead, it would have the
same scores in `coarse` and `fine` as when it is fed with what it said: up to the first mistake, the two are the same.)

Example:
    >>> import numpy as np
    >>> from diffstack.tasks import transduction
    >>> rng = np.random.default_rng(0)
    >>> for task in transduction.copy(9), transduction.reversal(9), transduction.bigram_flip(9):
    ...     print(*task.show(task.draw(rng, 1, (4, 4))), sep="\\n")
    7 5 4 2 | _ _ _ _
            7 5 4 2 .
    2 0 0 0 | _ _ _ _
            0 0 0 2 .
    1 7 5 8 | _ _ _ _
            7 1 8 5 .
"""

from collections.abc import Callable

import numpy as np

from diffstack import _checks
from diffstack.tasks._task import Line, Task, answer, one_by_one


def copy(symbols: int = 128) -> Task:
    """Say the source again.

    Args:
        symbols: the number of different symbols, 128 in the paper.

    Returns:
        The task.
    """
    return _task("copy", "Say the sequence again; its length is that of the source.", symbols, lambda source: source)


def reversal(symbols: int = 128) -> Task:
    """Say the source backwards.

    Args:
        symbols: the number of different symbols, 128 in the paper.

    Returns:
        The task.
    """
    title = "Say the sequence backwards; its length is that of the source."
    return _task("reversal", title, symbols, lambda source: source[::-1])


def bigram_flip(symbols: int = 128) -> Task:
    """Say the source with every two neighbours swapped. Its length is even.

    Args:
        symbols: the number of different symbols, 128 in the paper.

    Returns:
        The task.
    """
    title = "Say the sequence with every two neighbours swapped; its length is that of the source, and even."
    return _task("bigram_flip", title, symbols, _flipped, step=2)


def _flipped(source: list[int]) -> list[int]:
    return [source[k ^ 1] for k in range(len(source))]


def _task(name: str, title: str, symbols: int, rule: Callable[[list[int]], list[int]], step: int = 1) -> Task:
    symbols = _checks.check_count("symbols", symbols, 1)
    names = tuple(map(str, range(symbols)))

    def line(rng: np.random.Generator, length: int) -> Line:
        source = rng.integers(1, symbols + 1, size=length).tolist()
        return answer([*source, symbols + 1], [*rule(source), 0], early=1)

    return Task(
        name,
        title,
        paper="Grefenstette et al. 2015",
        symbols=("_", *names, "|"),
        classes=(".", *names),
        metric="coarse",
        training=(8, 64),
        testing=(65, 128),
        lines=one_by_one(line),
        has=lambda length: length >= 1 and length % step == 0,
    )
