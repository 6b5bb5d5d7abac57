"""The rows of the results: what is trained, how it is tested, and what the paper reports."""

from typing import NamedTuple

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


SEEDS = (0, 1, 2, 3, 4)
LONG = Trial((10_000, 10_000), True, 2)


def _chomsky(task: str, steps: int) -> Row:
    recipe = Recipe(
        task,
        (Stack("neural_stack", 8),),
        cell="rnn",
        hidden=32,
        embedding=16,
        lengths=(1, 12),
        testing=(60, 80),
        penalty=0.05,
        steps=steps,
        goal=1.0,
        seeds=SEEDS,
    )
    return Row(
        task, recipe, (Trial((41, 500), False), Trial((41, 500), True), LONG), 1.0, "1.00 (Deletang et al. 2022)"
    )


def _transduction(task: str, stack: str) -> Row:
    recipe = Recipe(
        task,
        (Stack(stack, 16),),
        cell="rnn",
        hidden=64,
        embedding=32,
        lengths=(1, 12),
        testing=(64, 64),
        penalty=0.05,
        steps=2000,
        goal=1.0,
        seeds=SEEDS,
    )
    return Row(
        task, recipe, (Trial((128, 128), False), Trial((128, 128), True), LONG), 1.0, "1.00 (Grefenstette et al. 2015)"
    )


ROWS = (
    _chomsky("reverse_string", 2000),
    _chomsky("stack_manipulation", 3000),
    _transduction("reversal", "neural_stack"),
    _transduction("copy", "neural_queue"),
)
