"""What trained networks can do: their scores at any length, soft or as hard programs, and what they do with a stack."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffstack import _backends, _checkpoints, _checks
from diffstack._layers import Stack
from diffstack.recipes import Recipe, network
from diffstack.tasks import TASKS, Batch, Scores
from diffstack.training import longest, read_recipe, stacked


class Trained(NamedTuple):
    """The networks in the folder of a run, in one framework.

    Attributes:
        recipe: what they were trained by.
        step: how many steps they have taken.
        network: what they are.
        learner: their parameters, of all seeds.
        backend: their framework.
        trainer: its module `training`.
    """

    recipe: Recipe
    step: int
    network: Any
    learner: Any
    backend: Any
    trainer: Any

    def width(self) -> AbstractContextManager[Any]:
        """The mode in which the framework has the recipe's dtype."""
        context: AbstractContextManager[Any] = self.backend.wide() if self.recipe.dtype == "float64" else nullcontext()
        return context


def load(folder: Path, *, backend: str = "jax", hard: bool = False) -> Trained:
    """Read the networks of a run, of either framework.

    Args:
        folder: that of the run.
        backend: the framework that computes.
        hard: whether their actions are to be rounded: those of pointer and superposition then run on the exact stack,
            and strengths are 0 or 1.

    Raises:
        ValueError: a folder without a checkpoint, or with a damaged one; hard actions of a family without them.
        OSError: a file that cannot be read.
    """
    _checks.check_choice("backend", backend, _backends.NAMES)
    folder = Path(folder)
    recipe = read_recipe(folder)
    found = _checkpoints.load(folder)
    if found is None:
        _checks.bad_value("folder", "one with a checkpoint", repr(str(folder)))
    step, arrays, _ = found
    chosen, trainer = _backends.load(backend), import_module(f"diffstack.{backend}_impl.training")
    trained = Trained(recipe, step, network(recipe, backend, hard=hard), None, chosen, trainer)
    with trained.width():
        return trained._replace(learner=trainer.restored(trained.network, arrays))


def evaluate(trained: Trained, lengths: tuple[int, int], *, count: int = 64, seed: int = 0) -> list[Scores]:
    """Score the networks of every seed on new sequences.

    Args:
        trained: the networks.
        lengths: the shortest and the longest length.
        count: the number of sequences.
        seed: of the generator that draws them; the same ones for all networks.

    Returns:
        The scores, for every seed of the recipe.
    """
    task = TASKS[trained.recipe.task]
    batch = task.draw(np.random.default_rng((seed, 3)), count, lengths)
    tokens, _, _, ends = stacked([batch] * len(trained.recipe.seeds), longest(task, lengths))
    with trained.width():
        given = map(trained.backend.asarray, (tokens, ends))
        outputs = np.asarray(trained.trainer.predict(trained.network, trained.learner, *given))
    return [task.score(each[:, : batch.tokens.shape[1]], batch) for each in outputs]


def trace(trained: Trained, length: int, *, index: int = 0, seed: int = 0) -> tuple[Batch, np.ndarray, list[Any]]:
    """Draw one sequence, and a picture of each stack while the network of a seed reads it.

    Args:
        trained: the networks, of a recipe with a `StackRNN`.
        length: that of the sequence.
        index: which of the recipe's seeds.
        seed: of the generator that draws the sequence.

    Returns:
        The sequence, what the network says at each of its steps, (1, T), and the figures.
    """
    from diffstack.plot import plot_trace  # noqa: PLC0415  # imports matplotlib

    recipe = trained.recipe
    if recipe.layer != "rnn":
        _checks.bad_value("layer", "a StackRNN, whose stacks can be drawn", recipe.layer)
    task = TASKS[recipe.task]
    batch, figures = task.draw(np.random.default_rng((seed, 3)), 1, (length, length)), []
    with trained.width():
        logits, traces = trained.trainer.traced(
            trained.network, trained.learner, index, trained.backend.asarray(batch.tokens)
        )
        for stack, each in zip(trained.network.layer.stacks, traces, strict=True):
            family = getattr(trained.backend.implementation, stack.family)
            more = {"states": stack.states, "symbols": stack.symbols} if stack.table.automaton else {}
            dtype = trained.backend.asarray(np.zeros(1, recipe.dtype)).dtype
            state = family.empty(stack.slots(batch.tokens.shape[1]), (stack.dim,), dtype=dtype, **more)
            figure = plot_trace(family, state, *_first(each, stack))
            _label(figure, [task.symbols[token] for token in batch.tokens[0]])
            figures.append(figure)
    return batch, np.argmax(np.asarray(logits), -1), figures


def _first(each: Any, stack: Stack) -> tuple[Any, Any]:
    """Actions and elements of the one sequence."""
    elements = each.elements
    return each.actions[0], tuple(some[0] for some in elements) if stack.ends > 1 else elements[0]


def _label(figure: Any, symbols: Sequence[str]) -> None:
    """The tokens under the last panel, where there is room for them."""
    most = 60
    if len(symbols) <= most:
        axes = [each for each in figure.axes if each.get_xlabel()][-1]
        axes.set_xticks(range(len(symbols)), symbols)
        axes.set_xlabel("token")
