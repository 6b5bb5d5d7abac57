"""The rows of the results: what is trained, how it is tested, and what the paper reports."""

from typing import Any, NamedTuple

from diffstack._layers import Stack
from diffstack.recipes import Recipe


class Trial(NamedTuple):
    """Trained networks on `count` new sequences, with soft or with hard actions."""

    lengths: tuple[int, int]
    hard: bool
    count: int = 64


class Row(NamedTuple):
    """A row of the table: a seed gets there in a test when the metric of its task reaches `goal`."""

    name: str
    recipe: Recipe
    tests: tuple[Trial, ...]
    goal: float
    paper: str


class Program(NamedTuple):
    """A row that a program of its own trains and tests, seed by seed; `says` finds the score in what it prints."""

    name: str
    words: tuple[str, ...]
    says: str
    about: tuple[str, ...]
    goal: float
    paper: str


SEEDS = (0, 1, 2, 3, 4)


def _counting(task: str, stacks: int, letters: int, paper: str, **more: Any) -> Row:
    """The last test has about 100,000 symbols, `letters` of them for each of its length."""
    recipe = Recipe(
        task,
        (Stack("superposition", 4),) * stacks,
        cell="rnn",
        hidden=16,
        embedding=8,
        **{"lengths": (2, 12), "batch": 8, "penalty": 0.03, "hardening": 2000, "steps": 3000, "check": 500, **more},
        testing=(2, 60),
        seeds=SEEDS,
    )
    # Enough draws to meet each length from 2 to 60.
    short, far = (Trial((2, 60), hard, 512) for hard in (False, True)), 100_000 // letters
    tests = (*short, Trial((1000, 1000), True, 1), Trial((far, far), True, 1))
    return Row(task, recipe, tests, 1.0, f"{paper} (Joulin & Mikolov 2015)")


def _chomsky(task: str, **more: Any) -> Row:
    recipe = Recipe(
        task,
        (Stack("superposition", 8),),
        cell="rnn",
        hidden=32,
        embedding=16,
        lengths=(1, 40),
        testing=(200, 250),
        curriculum=1000,
        batch=16,
        penalty=0.03,
        hardening=1000,
        **more,
        goal=1.0,
        seeds=SEEDS,
    )
    tests = (Trial((41, 500), False), Trial((41, 500), True), Trial((100_000, 100_000), True, 1))
    return Row(task, recipe, tests, 1.0, "1.00 (Deletang et al. 2022)")


def _transduction(name: str, stack: str, **more: Any) -> Row:
    recipe = Recipe(
        name.removesuffix("_deque"),
        (Stack(stack, 16),),
        cell="rnn",
        hidden=64,
        embedding=32,
        lengths=(1, 12),
        testing=(128, 128),
        penalty=0.05,
        **{"steps": 2000, **more},
        goal=1.0,
        seeds=SEEDS,
    )
    tests = (Trial((128, 128), False), Trial((128, 128), True), Trial((10_000, 10_000), True, 2))
    return Row(name, recipe, tests, 1.0, "1.00 (Grefenstette et al. 2015)")


def _arithmetic() -> Row:
    recipe = Recipe(
        "modular_arithmetic",
        (Stack("superposition", 16),),
        cell="lstm",
        hidden=64,
        embedding=32,
        lengths=(1, 40),
        testing=(1, 40),
        curriculum=3000,
        steps=6000,
        batch=16,
        rate=0.005,
        schedule="cosine",
        check=500,
        seeds=SEEDS,
    )
    tests = (Trial((1, 40), False, 512), Trial((41, 500), False), Trial((41, 500), True))
    return Row("modular_arithmetic", recipe, tests, 1.0, "0.96 (Deletang et al. 2022)")


def _language(task: str, **more: Any) -> Row:
    recipe = Recipe(
        task,
        (Stack("superposition", 8),),
        cell="rnn",
        **{
            "hidden": 20,
            "embedding": 16,
            "batch": 10,
            "steps": 3000,
            "curriculum": 2000,
            "hardening": 2000,
            "rate": 0.01,
            **more,
        },
        lengths=(40, 80),
        testing=(40, 80),
        schedule="cosine",
        clip=5.0,
        penalty=0.03,
        check=500,
        seeds=SEEDS,
    )
    tests = (Trial((40, 80), False, 256), Trial((40, 80), True, 256), Trial((40, 100), False, 256))
    return Row(task, recipe, tests, 0.05, "0.05, nondeterministic (DuSell & Chiang 2022)")


ROWS = (
    _counting("anbn", 1, 2, "1.00"),
    _counting("anb2n", 1, 3, "1.00", penalty=0.02, hardening=3000, steps=4000),
    _counting("anbncn", 2, 3, "1.00"),
    _counting("anbncndn", 2, 4, "1.00", hardening=3000, steps=4000),
    _counting("anbmcnm", 1, 2, "0.43, rounded 1.00"),
    _transduction("reversal", "neural_stack"),
    _transduction("copy", "neural_queue"),
    _transduction("reversal_deque", "neural_deque", steps=1000),
    _transduction("copy_deque", "neural_deque", batch=16, hardening=1500),
    _chomsky("reverse_string", steps=2000),
    _chomsky("stack_manipulation", steps=3000),
    _arithmetic(),
    _language("marked_reversal", hidden=32, batch=16, rate=0.005, curriculum=1500, hardening=1500),
    _language("dyck_2"),
)

# Its network is an automaton, whose prediction depends on what the stack has become in the same step.
PROGRAMS = (
    Program(
        "unmarked_reversal",
        ("examples/unmarked_reversal.py", "--further", "100"),
        r"on 40 to 80 symbols: ([\d.]+) there",
        ("lengths 2 to 24, then 40 to 80, automaton with 3 states, 3 symbols",),
        0.05,
        "0.05 (DuSell & Chiang 2022)",
    ),
)
