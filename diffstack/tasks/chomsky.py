"""The deterministic context-free tasks of the Chomsky hierarchy benchmark (Deletang et al. 2022).

A network reads the input, and then an empty token, "_", for each target. The length is that of the input.

Example:
    >>> import numpy as np
    >>> from diffstack.tasks import TASKS
    >>> rng = np.random.default_rng(3)
    >>> for name in ("reverse_string", "stack_manipulation", "modular_arithmetic", "solve_equation"):
    ...     task = TASKS[name]
    ...     print(*task.show(task.draw(rng, 1, (7, 7))), sep="\\n")
    1 0 0 0 0 1 1 _ _ _ _ _ _ _
                  1 1 0 0 0 0 1
    0 0 0 0 +0 +0 - _ _ _ _ _ _ _ _
                    0 0 0 0 0 . 0 0
    ( 3 + ( 3 ) ) _
                  1
    ( 0 + x ) = 2 _
                  2
"""

from collections.abc import Callable

import numpy as np

from diffstack.tasks._task import Line, Task, answer, one_by_one

_MODULUS = 5
_OPERATORS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def _reversal(rng: np.random.Generator, length: int) -> Line:
    bits = rng.integers(2, size=length).tolist()
    return answer([1 + bit for bit in bits], bits[::-1])


def _manipulation(rng: np.random.Generator, length: int) -> Line:
    """A stack from its bottom to its top, then actions; its state after them, from top to bottom, and an end.

    Zeros follow up to one target more than the input has tokens. The loss counts them, and accuracies do not.
    """
    size = int(rng.integers(1, max(length, 2)))
    stack = rng.integers(2, size=size).tolist()
    actions = rng.integers(3, size=length - size).tolist()
    question = [1 + bit for bit in stack] + [3 + action for action in actions]
    for action in actions:
        if action:
            stack.append(action - 1)
        elif stack:  # A pop of the empty stack does nothing.
            stack.pop()
    targets = [*stack[::-1], 2]
    return answer(question, targets + [0] * (length + 1 - len(targets)), scored=len(targets))


def _expression(rng: np.random.Generator, length: int, operators: str) -> tuple[str, int]:
    """An expression of so many symbols, and its value: a digit d, -d, (d), (-d), or two expressions in brackets."""
    if length < 5:
        digit = int(rng.integers(_MODULUS))
        return (f"{digit}", f"-{digit}", f"({digit})", f"(-{digit})")[length - 1], (-1) ** (
            length + 1
        ) * digit % _MODULUS
    size = int(rng.integers(1, length - 3))
    left, first = _expression(rng, size, operators)
    right, second = _expression(rng, length - 3 - size, operators)
    operator = operators[rng.integers(len(operators))]
    return f"({left}{operator}{right})", _OPERATORS[operator](first, second) % _MODULUS


def _arithmetic(rng: np.random.Generator, length: int) -> Line:
    text, value = _expression(rng, length, "+-*")
    return answer([_ARITHMETIC.index(symbol) for symbol in text], [value])


def _equation(rng: np.random.Generator, length: int) -> Line:
    """An expression without products, where one digit is unknown, and its value: exactly one digit solves it."""
    text, value = _expression(rng, length - 2, "+-")
    places = [place for place, symbol in enumerate(text) if symbol.isdigit()]
    place = places[rng.integers(len(places))]
    question = f"{text[:place]}x{text[place + 1 :]}={value}"
    return answer([_EQUATION.index(symbol) for symbol in question], [int(text[place])])


_DIGITS = tuple(map(str, range(_MODULUS)))
_ARITHMETIC = ("_", *_DIGITS, "+", "-", "*", "(", ")")
_EQUATION = ("_", *_DIGITS, "+", "-", "(", ")", "x", "=")


def _task(
    name: str,
    title: str,
    symbols: tuple[str, ...],
    classes: tuple[str, ...],
    line: Callable[[np.random.Generator, int], Line],
    shortest: int = 1,
) -> Task:
    return Task(
        name,
        title,
        paper="Deletang et al. 2022",
        symbols=symbols,
        classes=classes,
        metric="accuracy",
        training=(1, 40),
        testing=(41, 500),
        lines=one_by_one(line),
        has=lambda length: length >= shortest,
    )


reverse_string = _task("reverse_string", "Say a string of 0 and 1 backwards.", ("_", "0", "1"), ("0", "1"), _reversal)
stack_manipulation = _task(
    "stack_manipulation",
    "Say what is on a stack of 0 and 1, from its top on, after pops (-) and pushes (+0, +1).",
    ("_", "0", "1", "-", "+0", "+1"),
    ("0", "1", "."),
    _manipulation,
)
modular_arithmetic = _task(
    "modular_arithmetic",
    f"Say the value, modulo {_MODULUS}, of an expression with brackets.",
    _ARITHMETIC,
    _DIGITS,
    _arithmetic,
)
solve_equation = _task(
    "solve_equation",
    f"Say the digit x that solves an equation modulo {_MODULUS}.",
    _EQUATION,
    _DIGITS,
    _equation,
    shortest=3,
)
