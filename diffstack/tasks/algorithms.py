"""Memorization and binary addition, as the next symbol to predict at each step (Joulin & Mikolov 2015).

In addition, the result comes with its least significant digit first, and only its targets count. Either number has at
least one digit, and begins with a 1; the paper's code also has the number 0.

Example:
    >>> import numpy as np
    >>> from diffstack.tasks import TASKS
    >>> rng = np.random.default_rng(1)
    >>> for name in ("memorization", "addition"):
    ...     task = TASKS[name]
    ...     print(*task.show(task.draw(rng, 1, (4, 4))), sep="\\n")
    . a b b b # b b b a
    a b b b # b b b a .
    . 1 + 1 0 0 = 1 0 1
                1 0 1 .
"""

import math

import numpy as np

from diffstack.tasks._task import Line, Task, one_by_one, sentence


def _memorization(rng: np.random.Generator, length: int) -> Line:
    word = rng.integers(1, 3, size=length).tolist()
    return sentence([*word, 3, *word[::-1]], nats=length * math.log(2), scored=length + 1)


def _addition(rng: np.random.Generator, length: int) -> Line:
    digits = int(rng.integers(1, length))
    left, right = (int(rng.integers(2 ** (n - 1), 2**n)) for n in (digits, length - digits))
    question = f"{left:b}+{right:b}="
    word = [_DIGITS.index(symbol) for symbol in f"{question}{left + right:b}"]
    word[len(question) :] = word[: len(question) - 1 : -1]
    return sentence(word, nats=None, mask=len(question), scored=len(question))


_DIGITS = (".", "0", "1", "+", "=")
_LETTERS = (".", "a", "b", "#")

memorization = Task(
    "memorization",
    title="Predict the next symbol of w # and w reversed, w of two letters, of the length of w.",
    paper="Joulin & Mikolov 2015",
    symbols=_LETTERS,
    classes=_LETTERS,
    metric="coarse",
    training=(2, 19),
    testing=(2, 59),
    lines=one_by_one(_memorization),
)
addition = Task(
    "addition",
    title="Add two binary numbers, the least significant digit first; the length is that of both together.",
    paper="Joulin & Mikolov 2015",
    symbols=_DIGITS,
    classes=_DIGITS,
    metric="coarse",
    training=(2, 19),
    testing=(2, 59),
    lines=one_by_one(_addition),
    has=lambda length: length >= 2,
)
