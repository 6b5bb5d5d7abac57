"""Five context-free languages as probabilistic grammars, and the next symbol to predict (DuSell & Chiang 2020).

A length is drawn, uniform over those in a range that the grammar can make, and then a string of that length, by its
probability among them. The symbol "." is read before a string, and is due after it. `source` is exact: the marked and
unmarked reversals and Dyck-2 derive each of their strings in one way, the padded reversal and the hardest context-free
language some in several, and the probability of a string is the sum over all.

Example:
    >>> import numpy as np
    >>> from diffstack.tasks import TASKS
    >>> rng = np.random.default_rng(0)
    >>> for name in ("marked_reversal", "unmarked_reversal", "padded_reversal", "dyck_2", "hardest_cfl"):
    ...     print(TASKS[name].show(TASKS[name].draw(rng, 1, (8, 9)))[0])
    . 1 0 1 1 # 1 1 0 1
    . 0 1 0 1 1 0 1 0
    . 1 1 1 1 1 1 1 1
    . ( [ ( ( ) ) ] )
    . , $ ( [ ] ) , ( ;
"""

from collections.abc import Mapping, Sequence

import numpy as np

from diffstack.tasks._grammar import Grammar
from diffstack.tasks._task import Line, Task, sentence


def _on(mean: float) -> float:
    """The probability to go on, where the number of times has this mean."""
    return mean / (mean + 1)


def _task(name: str, title: str, symbols: str, rules: Mapping[str, Mapping[str, float]]) -> Task:
    grammar = Grammar(symbols, rules)

    def lines(rng: np.random.Generator, lengths: Sequence[int]) -> list[Line]:
        strings = [grammar.draw(rng, length) for length in lengths]
        given = np.log([grammar.probability(length) for length in lengths])
        nats = (given - grammar.log_probabilities(strings)).tolist()
        words = [[symbol + 1 for symbol in string] for string in strings]
        return [sentence(word, nats=each) for word, each in zip(words, nats, strict=True)]

    return Task(
        name,
        title,
        paper="DuSell & Chiang 2020",
        symbols=(".", *symbols),
        classes=(".", *symbols),
        metric="excess",
        training=(40, 80),
        testing=(40, 100),
        lines=lines,
        has=lambda length: grammar.probability(length) > 0,
    )


def _around(*middles: str) -> dict[str, float]:
    """A word and its reversal, 60 symbols each on average, around one of some middles."""
    middle = dict.fromkeys(middles, (1 - _on(60)) / len(middles))
    return {"0 S 0": _on(60) / 2, "1 S 1": _on(60) / 2} | middle


marked_reversal = _task(
    "marked_reversal",
    "Predict the next symbol of w # and w reversed, w of 0 and 1.",
    "01#",
    {"S": _around("#")},
)
unmarked_reversal = _task(
    "unmarked_reversal",
    "Predict the next symbol of w and w reversed, w of 0 and 1.",
    "01",
    {"S": _around("")},
)
padded_reversal = _task(
    "padded_reversal",
    "Predict the next symbol of w, a run of 0 or of 1, and w reversed, w of 0 and 1.",
    "01",
    {
        "S": _around("P", "Q"),
        "P": {"P 0": _on(30), "": 1 - _on(30)},
        "Q": {"Q 1": _on(30), "": 1 - _on(30)},
    },
)
dyck_2 = _task(
    "dyck_2",
    "Predict the next symbol of a string of balanced brackets of two kinds.",
    "()[]",
    {
        "S": {"S T": _on(1), "T": 1 - _on(1)},
        "T": {
            **{"( S )": _on(39) / 2, "[ S ]": _on(39) / 2},
            **{"( )": (1 - _on(39)) / 2, "[ ]": (1 - _on(39)) / 2},
        },
    },
)
# Lists of strings that end with ";", whose members are separated by ",". One member of each list is taken, and those
# taken are, one after the other, "$" and a string of Dyck-2. In the names of the paper: L is what follows the part that
# is taken of a list and R what comes before it, L' and R' are the members there, U and V are members, which may and may
# not be empty, W is a symbol of one, Q may go on to the next list, and S and T are as in Dyck-2.
# Runs come with the run first, where the paper has it last, which makes the same strings as probable.
hardest_cfl = _task(
    "hardest_cfl",
    "Predict the next symbol of lists of strings; one of each, put together, are $ and balanced brackets.",
    "()[],;$",
    {
        "S'": {"R $ Q S L ;": 1},
        "L": {"L' , U": 1},
        "L'": {"L' , V": _on(0.5), "": 1 - _on(0.5)},
        "R": {"U , R'": 1},
        "R'": {"R' V ,": _on(0.5), "": 1 - _on(0.5)},
        "U": {"U W": _on(0.5), "": 1 - _on(0.5)},
        "V": {"V W": _on(1), "W": 1 - _on(1)},
        "W": dict.fromkeys("()[]$", 1 / 5),
        "Q": {"L ; R": 1 / 4, "": 3 / 4},
        "S": {"S Q T": _on(1.5), "T": 1 - _on(1.5)},
        "T": {
            **{"( Q S Q )": _on(3) / 2, "[ Q S Q ]": _on(3) / 2},
            **{"( Q )": (1 - _on(3)) / 2, "[ Q ]": (1 - _on(3)) / 2},
        },
    },
)
