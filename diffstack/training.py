"""Training of networks with stacks: a recipe, and a run of it that can be stopped at any moment and goes on.

A run is a folder: `config.json` has the recipe, `log.csv` a row for each check and seed, and `checkpoint-STEP/` what
the run goes on from. The same framework goes on to the same bits, and the other one to rounding: parameters start from
numbers that NumPy draws, batches come from NumPy's generators, and both frameworks take the same steps.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from diffstack.recipes import Recipe
    >>> from diffstack.training import run
    >>> recipe = Recipe("reverse_string", steps=2, check=1, lengths=(1, 3), testing=(1, 3))
    >>> [row.step for row in run(recipe, Path(tempfile.mkdtemp()) / "run", backend="torch")]
    [1, 2]
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffstack import _backends, _checkpoints, _checks, _processes
from diffstack.recipes import Recipe, network, numbers
from diffstack.tasks import TASKS, Batch, Task

CONFIG, LOG = "config.json", "log.csv"


class Row(NamedTuple):
    """A row of the log: a check of one seed.

    Attributes:
        step: how many steps the seed has taken.
        seed: which one.
        loss: the mean of the losses since the check before.
        score: the task's metric on new sequences of the lengths of the test.
        seconds: since the run began, pauses left out.
    """

    step: int
    seed: int
    loss: float
    score: float
    seconds: float


def run(
    recipe: Recipe,
    folder: Path,
    *,
    backend: str = "jax",
    resume: bool = False,
    devices: int | None = None,
    progress: Callable[[int, int, float, Sequence[Row]], None] = lambda done, total, loss, rows: None,
) -> list[Row]:
    """Train the networks of a recipe, and leave a folder from which the run goes on.

    Args:
        recipe: what to train, and how.
        folder: that of the run; it is made.
        backend: the framework that computes.
        resume: go on from the folder's checkpoint, of either framework; where there is none, start.
        devices: how many of them share each batch, in equal parts, with the same results; None for one, or in PyTorch
            for one in each process that torchrun has started. The first process alone writes.
        progress: is called after every step with the steps done, those to be done, the mean of the losses, and the rows
            of a check.

    Returns:
        The log.

    Raises:
        ValueError: a folder with a run in it that is not to go on; a checkpoint of another recipe, or a damaged one;
            devices that are not there, or that the batch cannot be shared among.
        OSError: a folder that cannot be written.
    """
    _checks.check_choice("backend", backend, _backends.NAMES)
    chosen, task, folder = _backends.load(backend), TASKS[recipe.task], Path(folder)
    wide = chosen.wide() if recipe.dtype == "float64" else nullcontext()
    with wide, _side(backend, "_devices").among(devices, recipe.batch) as sharing:
        found = _checkpoint_to_go_on_from(recipe, folder, resume)
        # No process is to find what the first one writes.
        sharing.wait()
        if _processes.is_first():
            folder.mkdir(parents=True, exist_ok=True)
            _checkpoints.write(folder / CONFIG, recipe.as_json().encode())
        net, trainer = network(recipe, backend), _side(backend, "training")
        state = _start(recipe, trainer, net) if found is None else _restored(recipe, trainer, net, *found)
        _save(recipe, folder, trainer, state)
        steps, losses, began = longest(task, recipe.lengths), [], time.perf_counter() - state.seconds
        while state.step < recipe.steps and len(state.kept) < len(recipe.seeds):
            batches = [task.draw(rng, recipe.batch, recipe.lengths_at(state.step)) for rng in state.generators]
            given = tuple(map(chosen.asarray, stacked(batches, steps)))
            rate = recipe.rate_at(state.step)
            state.learner, loss = trainer.update(
                net,
                state.learner,
                given,
                rate,
                clip=recipe.clip,
                penalty=recipe.penalty_at(state.step),
                devices=sharing,
            )
            state.step += 1
            losses.append(np.asarray(loss))
            latest: list[Row] = []
            if state.step % recipe.check == 0 or state.step == recipe.steps:
                scores = sharing.from_first(lambda: _check(recipe, net, state.learner, chosen, trainer, state.step))
                state.seconds = time.perf_counter() - began
                latest = _rows_of_check(recipe, trainer, state, np.mean(losses, 0), scores)
                _save(recipe, folder, trainer, state)
                losses = []
            progress(state.step, recipe.steps, float(np.asarray(loss).mean()), latest)
    return state.rows


def done(recipe: Recipe, rows: Sequence[Row]) -> list[int]:
    """The seeds that have passed as many checks in a row as they must."""
    if recipe.goal is None:
        return []
    metric, found = TASKS[recipe.task].metric, []
    for seed in recipe.seeds:
        last = [row.score for row in rows if row.seed == seed][-recipe.passes :]
        passed = [score <= recipe.goal if metric == "excess" else score >= recipe.goal for score in last]
        if len(last) == recipe.passes and all(passed):
            found.append(seed)
    return found


def longest(task: Task, lengths: tuple[int, int]) -> int:
    """The steps of the longest sequences of a range, to which all are padded, so that JAX compiles once."""
    length = next(length for length in range(lengths[1], -1, -1) if task.has(length))
    return int(task.draw(np.random.default_rng(0), 1, (length, length)).tokens.shape[1])


def stacked(batches: Sequence[Batch], steps: int) -> tuple[np.ndarray, ...]:
    """Tokens, targets and mask of batches as (seeds, B, T), padded to so many steps, and lengths, (seeds, B)."""
    steps = max(steps, *(each.tokens.shape[1] for each in batches))

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, steps - array.shape[1])))

    columns = ([padded(getattr(each, name)) for each in batches] for name in ("tokens", "targets", "mask"))
    return *(np.stack(each) for each in columns), np.stack([each.lengths for each in batches])


@dataclass
class _State:
    """Where a run is: `kept` has the arrays of the seeds that are done, which do not learn on."""

    step: int
    learner: Any
    generators: list[np.random.Generator]
    rows: list[Row]
    seconds: float
    kept: dict[int, dict[str, np.ndarray]]


def _start(recipe: Recipe, trainer: Any, net: Any) -> _State:
    learner = trainer.start(net, [numbers(recipe, trainer.shapes(net), seed) for seed in recipe.seeds])
    return _State(0, learner, [np.random.default_rng((seed, 1)) for seed in recipe.seeds], [], 0.0, {})


def _restored(
    recipe: Recipe, trainer: Any, net: Any, step: int, arrays: list[dict[str, np.ndarray]], state: Mapping[str, Any]
) -> _State:
    rows, generators = [Row(*row) for row in state["rows"]], [np.random.default_rng() for _ in recipe.seeds]
    for rng, each in zip(generators, state["generators"], strict=True):
        rng.bit_generator.state = each
    kept = {seed: arrays[recipe.seeds.index(seed)] for seed in done(recipe, rows)}
    return _State(step, trainer.restored(net, arrays), generators, rows, state["seconds"], kept)


def _rows_of_check(
    recipe: Recipe, trainer: Any, state: _State, losses: Sequence[float], scores: Sequence[float]
) -> list[Row]:
    """The rows of a check; a network that is done stays as it is from here on."""
    checks = zip(recipe.seeds, losses, scores, strict=True)
    latest = [
        Row(state.step, seed, float(loss), score, state.seconds)
        for seed, loss, score in checks
        if seed not in state.kept
    ]
    state.rows += latest
    for seed in done(recipe, state.rows):
        if seed not in state.kept:
            state.kept[seed] = trainer.saved(state.learner)[recipe.seeds.index(seed)]
    return latest


def _save(recipe: Recipe, folder: Path, trainer: Any, state: _State) -> None:
    if not _processes.is_first():
        return
    latest = trainer.saved(state.learner)
    arrays = [state.kept.get(seed, each) for seed, each in zip(recipe.seeds, latest, strict=True)]
    generators = [rng.bit_generator.state for rng in state.generators]
    rest = {"seconds": state.seconds, "generators": generators, "rows": state.rows}
    _checkpoints.save(folder, state.step, arrays, rest)
    _checkpoints.write(folder / LOG, _as_csv(TASKS[recipe.task], state.rows))


def _check(recipe: Recipe, net: Any, learner: Any, chosen: Any, trainer: Any, step: int) -> list[float]:
    """The metric of every seed on new sequences, which depend on the seed and the step alone."""
    task = TASKS[recipe.task]
    generators = [np.random.default_rng((seed, 2, step)) for seed in recipe.seeds]
    batches = [task.draw(rng, recipe.tests, recipe.testing) for rng in generators]
    tokens, _, _, lengths = stacked(batches, longest(task, recipe.testing))
    outputs = np.asarray(trainer.predict(net, learner, *map(chosen.asarray, (tokens, lengths))))
    return [
        getattr(task.score(each[:, : batch.tokens.shape[1]], batch), task.metric)
        for each, batch in zip(outputs, batches, strict=True)
    ]


def _checkpoint_to_go_on_from(
    recipe: Recipe, folder: Path, resume: bool
) -> tuple[int, list[dict[str, np.ndarray]], dict[str, Any]] | None:
    """What to go on from, if there is anything."""
    config = folder / CONFIG
    if not config.exists():
        return None
    if not resume:
        _checks.bad_value("folder", "one without a run, or resume=True", repr(str(folder)))
    before = read_recipe(folder)
    for name in (field.name for field in dataclasses.fields(recipe)):
        ours, theirs = getattr(recipe, name), getattr(before, name)
        # More steps are what one goes on for.
        if name not in ("steps", "check", "tests", "goal", "passes", "testing") and ours != theirs:
            _checks.bad_value("recipe", f"that of the run in {str(folder)!r}, with {name} = {theirs!r}", repr(ours))
    found = _checkpoints.load(folder)
    if found and found[0] > recipe.steps:
        _checks.bad_value("steps", f"at least {found[0]}, which the run in {str(folder)!r} has taken", recipe.steps)
    return found


def read_recipe(folder: Path) -> Recipe:
    """The recipe of the run in a folder.

    Raises:
        ValueError: a file that is not a recipe.
        OSError: a file that cannot be read.
    """
    path = folder / CONFIG
    try:
        return Recipe.from_json(path.read_text())
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{str(path)!r}: expected a recipe, got {' '.join(str(error).split())}") from None


def _as_csv(task: Task, rows: Sequence[Row]) -> bytes:
    head = (*Row._fields[:3], task.metric, *Row._fields[4:])
    lines = [",".join(head), *(f"{r.step},{r.seed},{r.loss:.6g},{r.score:.6g},{r.seconds:.1f}" for r in rows)]
    return ("\n".join(lines) + "\n").encode()


def _side(backend: str, name: str) -> Any:
    return import_module(f"diffstack.{backend}_impl.{name}")
