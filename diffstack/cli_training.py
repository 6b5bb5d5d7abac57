"""The commands of training: `diffstack train`, `diffstack evaluate` and `diffstack trace`."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffstack import _backends, _checks, _files, _processes, _report, evaluation, training
from diffstack._layers import CELLS, Stack
from diffstack._options import choice, option
from diffstack.families import FAMILIES
from diffstack.recipes import Recipe
from diffstack.tasks import TASKS, Scores
from diffstack.training import Row

app = typer.Typer()


def _stack(given: str) -> Stack:
    """A stack from text such as `neural_stack:16`; an automaton also has its numbers of states and symbols."""
    family, *sizes = given.split(":")
    _checks.check_choice("family", family, tuple(FAMILIES))
    dim, *rest = map(int, sizes)
    if rest or FAMILIES[family].automaton:
        states, symbols = rest
        return Stack(family, dim, states=states, symbols=symbols)
    return Stack(family, dim, capacity=32 if FAMILIES[family].ring else None)


def _span(given: str) -> range:
    shortest, _, longest = given.partition("-")
    return range(int(shortest), int(longest or shortest) + 1)


def _pair(span: range | None) -> tuple[int, int] | None:
    return None if span is None else (span[0], span[-1])


def _count(flag: str, minimum: int, about: str) -> Any:
    return option(flag, "N", f"an integer of at least {minimum}", int, lambda n: n >= minimum, about)


_DIR = typer.Argument(metavar="DIR", help="The folder of a run of diffstack train.")
_STACK = option(
    "--stack",
    "FAMILY:DIM",
    f"FAMILY:DIM or nondeterministic:DIM:STATES:SYMBOLS, with FAMILY one of {', '.join(FAMILIES)}",
    _stack,
    lambda stack: True,
    "A stack and the size of its vectors; a pointer has 32 slots (may be repeated; superposition:8 by default)",
)
_LENGTHS = "a length, or two with a dash, such as 1-40"


def _lengths(flag: str, about: str) -> Any:
    return option(flag, "N-N", _LENGTHS, _span, lambda span: len(span) and span[0] >= 0, about)


@app.command()
def train(
    task: Annotated[str, typer.Argument(metavar="TASK", help="One of those that diffstack tasks lists.")],
    backend: Annotated[str, choice("--backend", _backends.NAMES, "The framework that computes")] = "jax",
    layer: Annotated[str | None, choice("--layer", ("rnn", "attention"), "A recurrent network, or attention")] = None,
    stack: Annotated[list[Stack] | None, _STACK] = None,
    cell: Annotated[str | None, choice("--cell", CELLS, "The cell of a recurrent network")] = None,
    hidden: Annotated[int | None, _count("--hidden", 1, "The number of its units")] = None,
    lengths: Annotated[range | None, _lengths("--lengths", "Lengths in training")] = None,
    testing: Annotated[range | None, _lengths("--testing", "Lengths in the checks")] = None,
    steps: Annotated[int | None, _count("--steps", 0, "The largest number of steps")] = None,
    batch: Annotated[int | None, _count("--batch", 1, "Sequences of a step")] = None,
    rate: Annotated[
        float | None,
        option(
            "--rate", "X", "a finite number above 0", float, lambda x: 0 < x < math.inf, "The learning rate of Adam"
        ),
    ] = None,
    penalty: Annotated[
        float | None,
        option(
            "--penalty",
            "X",
            "a finite number of at least 0",
            float,
            lambda x: 0 <= x < math.inf,
            "What the loss adds for actions between 0 and 1",
        ),
    ] = None,
    goal: Annotated[
        float | None,
        option(
            "--goal",
            "X",
            "a finite number",
            float,
            math.isfinite,
            "The score that a seed must reach in three checks in a row to be done",
        ),
    ] = None,
    seeds: Annotated[int | None, _count("--seeds", 1, "How many networks learn side by side, from seed 0 on")] = None,
    devices: Annotated[
        int | None,
        _count("--devices", 1, "How many devices share each batch (1, or the processes of torchrun, by default)"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder of the run. [default: TASK]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from where the run in that folder has stopped.")
    ] = False,
) -> None:
    """Train networks with stacks on a task of the papers, and leave a folder from which the run can go on.

    The folder has the recipe, a log with a row for each check, a checkpoint, which both frameworks read, and a picture
    of the learning. A run that is stopped at any moment, and goes on with --resume, ends with the same numbers.
    """
    given: dict[str, Any] = {
        "layer": layer,
        "stacks": tuple(stack) if stack else None,
        "cell": cell,
        "hidden": hidden,
        "lengths": _pair(lengths),
        "testing": _pair(testing),
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "penalty": penalty,
        "goal": goal,
        "seeds": None if seeds is None else tuple(range(seeds)),
    }
    given = {name: value for name, value in given.items() if value is not None}
    if task not in TASKS:
        _files.refuse("TASK", f"one of {', '.join(TASKS)}", repr(task))
    folder = out or Path(task)
    _backends.load(backend)
    with _errors_in_a_line(), _files.checked("--out", folder, "a folder that exists or can be made"):
        there = (folder / training.CONFIG).exists()
        if there and not resume:
            _files.refuse("--out", "a folder without a run, or --resume", repr(str(folder)))
        if resume and not there:
            _files.refuse("--resume", "a folder with a run", repr(str(folder)))
        recipe = training.read_recipe(folder) if there else Recipe(task)
        if recipe.task != task:
            _files.refuse("TASK", f"that of the run in {str(folder)!r}, {recipe.task}", repr(task))
        recipe = dataclasses.replace(recipe, **given)
        metric = TASKS[task].metric
        with shown(metric) as progress:
            rows = training.run(recipe, folder, backend=backend, resume=resume, devices=devices, progress=progress)
        if not _processes.is_first():
            return
        from diffstack import plot  # noqa: PLC0415  # imports matplotlib

        figure = plot.plot_training(rows, metric)
        with _files.replacing("--out", folder / "learning.png") as file:
            figure.savefig(file, format="png")
    reached = training.done(recipe, rows)
    if recipe.goal is not None:
        print(f"{len(reached)} of {len(recipe.seeds)} networks reached a score of {recipe.goal:g}")
    print(f"The recipe, the log, the checkpoint and the picture of this run are in {folder}")


@app.command()
def evaluate(
    folder: Annotated[Path, _DIR],
    backend: Annotated[str, choice("--backend", _backends.NAMES, "The framework that computes")] = "jax",
    length: Annotated[range | None, _lengths("--length", "Lengths (those of the checks by default)")] = None,
    count: Annotated[int, _count("--count", 1, "The number of new sequences")] = 64,
    hard: Annotated[bool, typer.Option("--hard", help="Round the actions, and run them on exact stacks.")] = False,
) -> None:
    """Score trained networks on new sequences, soft or as hard programs."""
    with _errors_in_a_line(), _files.checked("DIR", folder, "the folder of a run"):
        trained = evaluation.load(folder, backend=backend, hard=hard)
        lengths = _pair(length) or trained.recipe.testing
        scores = evaluation.evaluate(trained, lengths, count=count)
    _show_scores(trained.recipe, trained.step, lengths, scores)


@app.command()
def trace(
    folder: Annotated[Path, _DIR],
    backend: Annotated[str, choice("--backend", _backends.NAMES, "The framework that computes")] = "jax",
    length: Annotated[int, _count("--length", 0, "The length of the sequence")] = 10,
    seed: Annotated[int | None, _count("--seed", 0, "Which network, by its seed (the first by default)")] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Round the actions, and run them on exact stacks.")] = False,
) -> None:
    """Draw what a trained network does with each of its stacks while it reads one sequence."""
    with _errors_in_a_line(), _files.checked("DIR", folder, "the folder of a run"):
        trained = evaluation.load(folder, backend=backend, hard=hard)
        seeds = trained.recipe.seeds
        if seed is not None and seed not in seeds:
            _files.refuse("--seed", f"one of {', '.join(map(str, seeds))}", str(seed))
        index = 0 if seed is None else seeds.index(seed)
        batch, said, figures = evaluation.trace(trained, length, index=index)
    (reads, should), (_, says) = (
        TASKS[trained.recipe.task].show(each) for each in (batch, batch._replace(targets=said))
    )
    print(f"reads       {reads}\nshould say  {should}\nsays        {says}")
    for i, figure in enumerate(figures):
        which = f"seed{trained.recipe.seeds[index]}-length{length}" + ("-hard" if hard else "")
        picture = folder / (f"trace-{which}.png" if len(figures) == 1 else f"trace-{which}-stack{i}.png")
        with _files.replacing("DIR", picture) as file:
            figure.savefig(file, format="png")
        print(f"The picture is in {picture}")


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """Turn an error of the library, which names an argument, into one line of the command."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.TyperException(str(error)) from None


@contextmanager
def shown(metric: str) -> Iterator[Callable[[int, int, float, Sequence[Row]], None]]:
    """Show the loss and the speed of a training on a terminal, and print every check."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(markup=False, highlight=False)
    silent = not _processes.is_first()
    with Progress(*columns, console=console, transient=True, disable=silent or not sys.stdout.isatty()) as bar:
        task, began = bar.add_task("compiling", total=None), time.perf_counter()
        first: list[int] = []

        def update(done: int, total: int, loss: float, rows: Sequence[Row]) -> None:
            if not first:
                first.append(done - 1)
                if done > 1 and not silent:
                    console.print(f"going on from step {done - 1}")
            speed = (done - first[0]) / (time.perf_counter() - began)
            bar.update(task, completed=done, total=total, description=f"loss {loss:.4f}, {speed:.1f} steps a second")
            for row in () if silent else rows:
                console.print(f"step {row.step}, seed {row.seed}: loss {row.loss:.4f}, {metric} {row.score:.4f}")

        yield update


def _show_scores(recipe: Recipe, step: int, lengths: tuple[int, int], scores: Sequence[Scores]) -> None:
    """Print the scores of the networks of every seed."""
    span = f"{lengths[0]}" if lengths[0] == lengths[1] else f"{lengths[0]} to {lengths[1]}"
    metric = TASKS[recipe.task].metric
    title = f"{recipe.task} after {step} steps, on lengths of {span}; the paper's metric is {metric}"
    table = _report.titled("seed", *Scores._fields, title=title)
    for seed, score in zip(recipe.seeds, scores, strict=True):
        table.add_row(str(seed), *(f"{value:.4f}" for value in score))
    Console(markup=False, highlight=False).print(table)
