"""Training: the two frameworks learn the same, and a run that is stopped at any moment goes on."""

import dataclasses
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffstack import _checkpoints, cli, evaluation, training
from diffstack._layers import Stack
from diffstack.families import FAMILIES
from diffstack.recipes import Recipe, hardened, numbers
from diffstack.tasks import TASKS
from diffstack.torch_impl import training as training_of_torch
from diffstack.training import LOG, Row, done, run
from families import product

ROOT = Path(__file__).parent.parent
SMALL: dict[str, Any] = {"hidden": 6, "embedding": 5, "lengths": (1, 2), "testing": (3, 4), "batch": 4, "tests": 3}
RECIPES = {
    "rnn": Recipe(
        "reverse_string",
        (Stack("neural_stack", 3), Stack("superposition", 2)),
        cell="rnn",
        dtype="float64",
        steps=100,
        check=50,
        penalty=0.05,
        hardening=60,
        seeds=(0, 3),
        schedule="cosine",
        warmup=5,
        curriculum=10,
        **SMALL,
    ),
    "attention": Recipe(
        "dyck_2",
        (Stack("superposition", 3),),
        "attention",
        heads=2,
        dtype="float64",
        steps=100,
        check=50,
        clip=0.1,
        **(SMALL | {"lengths": (2, 6), "testing": (6, 8)}),
    ),
}

SHORT = dataclasses.replace(RECIPES["rnn"], steps=20, check=10)

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder and the log of a recipe in a framework, which runs once."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def of(kind: str, backend: str) -> tuple[Path, list[Row]]:
        path = folder / f"{kind}-{backend}"
        return path, run(RECIPES.get(kind, SHORT), path, backend=backend)

    return of


def losses(rows: list[Row]) -> np.ndarray:
    """The losses and scores of a log."""
    return np.asarray([(row.loss, row.score) for row in rows])


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of the checkpoint in a folder."""
    _, seeds, _ = _checkpoints.load(folder)
    return {f"{i}.{name}": each for i, seed in enumerate(seeds) for name, each in seed.items()}


@pytest.mark.parametrize("kind", RECIPES)
def test_two_frameworks_learn_the_same(runs: Any, kind: str) -> None:
    """From one start, over 100 steps: the losses, the parameters, and what Adam remembers."""
    (ours, our_rows), (theirs, their_rows) = runs(kind, "jax"), runs(kind, "torch")
    np.testing.assert_allclose(losses(our_rows), losses(their_rows), rtol=0, atol=1e-9)
    assert our_rows[-1].loss < 0.9 * numpy_loss(kind)
    ours, theirs = arrays(ours), arrays(theirs)
    assert ours.keys() == theirs.keys()
    for name, each in ours.items():
        np.testing.assert_allclose(each, theirs[name], rtol=0, atol=1e-9, err_msg=name)


def numpy_loss(kind: str) -> float:
    """That of a network that knows nothing."""
    return float(np.log(TASKS[RECIPES[kind].task].outputs))


@pytest.mark.parametrize("second", ["jax", "torch"])
@pytest.mark.parametrize("first", ["jax", "torch"])
def test_a_run_goes_on(runs: Any, tmp_path: Path, first: str, second: str) -> None:
    """In the same framework to the same bits, and in the other one to rounding."""
    whole, rows = runs("short", second)
    stopped = []

    def stop(done: int, total: int, loss: float, latest: Any) -> None:
        stopped.append(done)
        # After a check, and before the next one.
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SHORT, tmp_path, backend=first, progress=stop)
    resumed = run(SHORT, tmp_path, backend=second, resume=True)
    same = first == second
    np.testing.assert_allclose(losses(resumed), losses(rows), rtol=0, atol=0 if same else 1e-9)
    theirs = arrays(whole)
    for name, each in arrays(tmp_path).items():
        np.testing.assert_allclose(each, theirs[name], rtol=0, atol=0 if same else 1e-9, err_msg=name)
    # Nothing is left over, and the log is that of the whole run.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-20", "config.json", LOG]
    assert len((tmp_path / LOG).read_text().splitlines()) == 1 + len(rows)


def test_a_checkpoint_survives_a_kill(tmp_path: Path) -> None:
    """Fifty writers are killed at some moment; each time what is there is whole, and the next one goes on from it.

    On a busy machine there are more of them, until one has written something.
    """
    program = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from diffstack import _checkpoints
folder, rng = Path(sys.argv[1]), random.Random(0)
_checkpoints.save(folder, 0, [{"x": np.zeros(1000)}], {"step": 0})
reached = []
while len(reached) < 50 or not reached[-1]:
    step, arrays, state = _checkpoints.load(folder)
    assert state == {"step": step} and (arrays[0]["x"] == step).all() and arrays[0]["x"].shape == (1000,)
    reached.append(step)
    if not (child := os.fork()):
        while True:
            step += 1
            _checkpoints.save(folder, step, [{"x": np.full(1000, float(step))}], {"step": step})
    time.sleep(rng.uniform(0.001, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print(_checkpoints.load(folder)[0], len(list(folder.glob("*.part"))))
"""
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    assert int(result.stdout.split()[0]) > 0
    _checkpoints.save(tmp_path, 10**6, [{"x": np.zeros(1)}], {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1000000"]


@pytest.mark.parametrize("name", [_checkpoints.ARRAYS, _checkpoints.STATE])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    _checkpoints.save(tmp_path, 3, [{"x": np.arange(9.0)}], {"step": 3})
    path = tmp_path / "checkpoint-3" / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"checkpoint-3.*expected a whole checkpoint"):
        _checkpoints.load(tmp_path)


def test_a_seed_is_done_after_passes_in_a_row() -> None:
    recipe = Recipe("reverse_string", seeds=(0, 1), goal=0.9, passes=2)
    rows = [Row(step, seed, 0.0, score, 0.0) for step, seed, score in [(1, 0, 1), (1, 1, 1), (2, 0, 0.9), (2, 1, 0.8)]]
    assert done(recipe, rows) == [0]
    assert done(recipe, rows[:2]) == []
    assert done(dataclasses.replace(recipe, goal=None), rows) == []
    # A cross entropy above the source's is to be small.
    below = dataclasses.replace(recipe, task="dyck_2", goal=0.05, lengths=(2, 4), testing=(2, 4))
    assert done(below, [row._replace(score=1 - row.score) for row in rows]) == []
    assert done(below, [row._replace(score=(1 - row.score) / 2) for row in rows]) == [0]


def test_a_network_that_is_done_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not learn on while the others do, nor when the run goes on."""
    monkeypatch.setattr(training, "_check", lambda recipe, *_: [1.0, 0.0])
    recipe = dataclasses.replace(RECIPES["rnn"], steps=2, check=1, goal=0.5, passes=2, dtype="float32")
    found = []
    for steps in (2, 4, 5):
        rows = run(dataclasses.replace(recipe, steps=steps), tmp_path, backend="torch", resume=steps > 2)
        found.append(arrays(tmp_path))
    assert [(row.step, row.seed) for row in rows] == [(1, 0), (1, 3), (2, 0), (2, 3), (3, 3), (4, 3), (5, 3)]
    for name, each in found[0].items():
        assert (each == found[1][name]).all() == (each == found[2][name]).all() == name.startswith("0."), name


def test_rates_lengths_and_penalties_of_a_step() -> None:
    recipe = dataclasses.replace(RECIPES["rnn"], rate=0.1, steps=10, warmup=2, curriculum=4, lengths=(2, 10))
    assert [recipe.lengths_at(step) for step in (0, 1, 4, 9)] == [(0, 1), (0, 2), (2, 10), (2, 10)]
    wanted = [0.05, *(0.05 * (1 + np.cos(np.pi * step / 10)) for step in range(1, 10))]
    np.testing.assert_allclose([recipe.rate_at(step) for step in range(10)], wanted, rtol=1e-12)
    # Brackets have even lengths.
    dyck = dataclasses.replace(recipe, task="dyck_2", lengths=(3, 9), testing=(4, 4))
    assert [dyck.lengths_at(step) for step in (0, 1, 4)] == [(0, 2), (1, 2), (3, 9)]
    growing = dataclasses.replace(recipe, penalty=0.2, hardening=4)
    assert [growing.penalty_at(step) for step in (0, 1, 4, 9)] == [0.0, 0.05, 0.2, 0.2]
    assert dataclasses.replace(growing, hardening=0).penalty_at(0) == 0.2
    assert dataclasses.replace(growing, penalty=0.0).penalty_at(9) is None
    constant = dataclasses.replace(recipe, schedule="constant", warmup=0, curriculum=0)
    assert {constant.rate_at(step) for step in range(10)} == {0.1}
    assert constant.lengths_at(0) == (2, 10)


def test_the_penalty_of_a_run_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = training_of_torch, []
    update = trainer.update
    monkeypatch.setattr(
        trainer, "update", lambda *given, **more: seen.append(more["penalty"]) or update(*given, **more)
    )
    run(dataclasses.replace(SHORT, steps=5, check=5, penalty=0.2, hardening=4), tmp_path, backend="torch")
    assert seen == [0.0, 0.05, 0.1, 0.2 * 0.75, 0.2]


def test_a_run_does_not_go_back(runs: Any) -> None:
    folder, _ = runs("attention", "torch")
    with pytest.raises(ValueError, match=r"^steps: expected at least 100, which the run in .* has taken, got 99"):
        run(dataclasses.replace(RECIPES["attention"], steps=99), folder, backend="torch", resume=True)
    with pytest.raises(ValueError, match=r"^backend: expected one of 'jax', 'torch', got 'tensorflow'"):
        run(RECIPES["attention"], folder, backend="tensorflow")
    assert json.loads((folder / "config.json").read_text())["steps"] == 100


def test_a_recipe_is_text() -> None:
    stack = Stack("superposition", 2)
    assert Recipe("anbn", stack, seeds=[1]) == Recipe("anbn", (stack,), seeds=(1,))
    for recipe in RECIPES.values():
        assert Recipe.from_json(recipe.as_json()) == recipe
        assert json.loads(recipe.as_json())["task"] == recipe.task


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"task": "nothing"}, "task: expected one of 'anbn'"),
        ({"rate": 0.0}, "rate: expected a finite number above 0, got 0.0"),
        ({"clip": float("nan")}, "clip: expected a finite number above 0, got nan"),
        ({"penalty": -1.0}, "penalty: expected a finite number of at least 0, got -1.0"),
        ({"seeds": (1, 1)}, "seeds: expected different integers, at least one, got (1, 1)"),
        ({"lengths": (4, 1)}, "lengths: expected the shortest and the longest length"),
        ({"layer": "attention"}, "stacks: expected one stack"),
        ({"batch": 0}, "batch: expected"),
        ({"stacks": ()}, "stacks: expected a Stack or a tuple of them, got ()"),
        ({"goal": "x"}, "goal: expected a number or None, got 'x'"),
        ({"lengths": 5}, "lengths: expected a pair"),
    ],
)
def test_a_bad_recipe_is_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        dataclasses.replace(RECIPES["rnn"], **change)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("family", "backend"),
    [
        *((name, "torch") for name, each in FAMILIES.items() if each.action and (each.strengths or each.is_stack)),
        ("superposition", "jax"),
        *product(("neural_stack", "jax")),
    ],
)
def test_a_hard_program_is_the_soft_one_with_hard_actions(tmp_path: Path, family: str, backend: str) -> None:
    """A head with large weights acts as its rounded one, and the exact stack then reads what the soft one does."""
    stack = Stack(family, 3, capacity=40 if FAMILIES[family].ring else None)
    # The pointer's ring has a top also when it is empty, so that its steps are compared where it is not.
    recipe = Recipe("reverse_string", (stack,), steps=0, **SMALL)
    run(recipe, tmp_path, backend=backend)
    trained, hard = (evaluation.load(tmp_path, backend=backend, hard=rounded) for rounded in (False, True))
    assert hard.network.layer.stacks[0] == hardened(stack)
    _, (seed,), _ = _checkpoints.load(tmp_path)
    seed = {name: 1e6 * each if ".actions." in name else each for name, each in seed.items()}
    tokens = np.random.default_rng(0).integers(3, size=(1, 5, 20))
    ends = np.full((1, 5), 20)
    soft, rounded = (
        np.asarray(
            each.trainer.predict(
                each.network, each.trainer.restored(each.network, [seed]), *map(each.backend.asarray, (tokens, ends))
            )
        )
        for each in (trained, hard)
    )
    np.testing.assert_allclose(soft, rounded, rtol=0, atol=2e-5)


def test_what_no_exact_stack_can_replace_is_not_hardened(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack("superposition", 2)
    assert hardened(stack) == Stack("discrete", 2)
    monkeypatch.setitem(FAMILIES, "superposition", FAMILIES["superposition"]._replace(is_stack=False))
    with pytest.raises(ValueError, match=r"^hard: expected a family whose actions can be rounded, got superposition"):
        hardened(stack)


# The command.


@pytest.mark.parametrize("layer", ["rnn", "attention"])
def test_the_command_trains_evaluates_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    """It trains and scores in PyTorch, which has nothing to compile, and draws in JAX what that has learned.

    The picture of a training does not depend on the layer, and is drawn for one of them.
    """
    if layer == "attention":
        monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    out = tmp_path / "run"
    torch = ["--backend", "torch"]
    options = ["--layer", layer, *torch, "--lengths", "1-3", "--testing", "4", "--batch", "3"]
    assert cli.run(["train", "reverse_string", *options, "--steps", "2", "--seeds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "step 2, seed 1: loss" in printed
    assert f"are in {out}" in printed
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-2", "config.json", "learning.png", LOG]
    assert (out / "learning.png").read_bytes().startswith(b"\x89PNG") == (layer == "rnn")
    assert cli.run(["train", "reverse_string", "--resume", "--steps", "3", *torch, "--out", str(out)]) == 0
    assert (out / "checkpoint-3").exists()
    assert "going on from step 2\n" in capsys.readouterr().out
    assert cli.run(["evaluate", str(out), "--length", "4", *torch]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert cli.run(["trace", str(out), "--length", "4", "--seed", "1"]) == (0 if layer == "rnn" else 2)
    assert (out / "trace-seed1-length4.png").exists() == (layer == "rnn")
    assert ("should say  " in capsys.readouterr().out) == (layer == "rnn")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["train", "nothing"], "TASK: expected one of anbn"),
        (["train", "anbn", "--stack", "heap:3"], "--stack: expected FAMILY:DIM"),
        (["train", "anbn", "--lengths", "5-2"], "--lengths: expected a length"),
        (["train", "anbn", "--rate", "-1"], "--rate: expected a finite number above 0, got '-1'"),
        (["train", "anbn", "--out", "file"], "--out: expected a folder that exists or can be made, got 'file'"),
        (["train", "anbn", "--out", "run"], "--out: expected a folder without a run, or --resume, got 'run'"),
        (["train", "anb2n", "--out", "run", "--resume"], "TASK: expected that of the run in 'run', anbn, got 'anb2n'"),
        (["train", "anbn", "--out", "run", "--resume", "--hidden", "9"], "recipe: expected that of the run in 'run'"),
        (["train", "anbn", "--out", "nothing", "--resume"], "--resume: expected a folder with a run, got 'nothing'"),
        (["train", "anbn", "--stack", "nondeterministic:4"], "--stack: expected FAMILY:DIM"),
        (["train", "anbn", "--lengths", "1-999999999999"], "lengths: expected lengths of at most 1,000,000"),
        (["evaluate", "missing"], "DIR: expected the folder of a run, got 'missing'"),
        (["evaluate", "run"], "folder: expected one with a checkpoint, got 'run'"),
        (["evaluate", "broken"], "'broken/config.json': expected a recipe"),
        (["trace", "run", "--length", "x"], "--length: expected an integer of at least 0, got 'x'"),
    ],
)
def test_the_command_refuses_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for folder, text in (("run", Recipe("anbn").as_json()), ("broken", "{}")):
        Path(folder).mkdir()
        Path(folder, "config.json").write_text(text)
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"diffstack: {error}")
    assert len(captured.err.splitlines()) == 1
    assert sorted(path.name for path in Path("run").iterdir()) == ["config.json"]


def test_attention_has_no_hard_actions(runs: Any) -> None:
    folder, _ = runs("attention", "torch")
    with pytest.raises(ValueError, match=r"^hard: expected False for attention"):
        evaluation.load(folder, backend="torch", hard=True)


def test_the_start_is_drawn_by_name() -> None:
    """Norms start at 1, biases at 0 or where the stack wants them, and no two seeds alike."""
    recipe = RECIPES["rnn"]
    shapes = {"readout.weight": (2, 6), "readout.bias": (2,), "norm.weight": (6,), "layer.heads.0.actions.bias": (2,)}
    one, two = (numbers(recipe, shapes, seed) for seed in (0, 1))
    assert one["layer.heads.0.actions.bias"].tolist() == [0, -1]
    assert one["norm.weight"].tolist() == [1] * 6
    assert not one["readout.bias"].any()
    assert (one["readout.weight"] != two["readout.weight"]).all()
    assert np.abs(one["readout.weight"]).max() <= 1 / np.sqrt(6)
