"""The programs in `examples/`, shortened."""

import importlib.util
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.image import imread

from backends import BACKENDS, Backend
from families import product

EXAMPLES = Path(__file__).parent.parent / "examples"

# `optax.adam` breaks the strict rules.
pytestmark = pytest.mark.usefixtures("standard_promotion")


def opened(name: str) -> ModuleType:
    """The program of this name."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


@cache
def load(backend: Backend) -> ModuleType:
    """The controller's program, with fewer and shorter sequences."""
    program = opened(f"controller_{backend.name}")
    program.LONGEST, program.GOAL, program.STRETCH, program.BATCH, program.TESTS = 3, 4, 5, 16, 8
    return program


def loss(controller: ModuleType, backend: Backend, *arguments: Any) -> np.ndarray:
    """That of a program, which in JAX is compiled anew, with what it holds now."""
    function = partial(controller.loss)
    return backend.numpy((jax.jit(function) if backend.name == "jax" else function)(*arguments))


@pytest.fixture(scope="module")
def controller(backend: Backend) -> ModuleType:
    return load(backend)


def test_sequences_are_padded_with_nothing(controller: ModuleType, backend: Backend):
    batch = controller.draw(np.random.default_rng(0), np.asarray([1, 3]), 3)
    inputs, answers, targets, lengths = (backend.numpy(array) for array in batch)
    np.testing.assert_array_equal(lengths, [3, 7])
    np.testing.assert_array_equal(answers, [[0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(inputs.sum(-1), [[1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]])
    seen = inputs.argmax(-1)
    assert seen[0, 1] == seen[1, 3] == controller.SYMBOLS
    assert targets[0, 2] == seen[0, 0]
    np.testing.assert_array_equal(targets[1, 4:], seen[1, 2::-1])


def test_padding_has_no_answer(controller: ModuleType, backend: Backend):
    rng = np.random.default_rng(0)
    batch = controller.draw(rng, np.asarray([1, 3]), 3)
    model = controller.init(rng)
    _, trace = controller.run(model, batch)
    for output in trace:
        assert backend.numpy(output)[0, :3].any()
        assert not backend.numpy(output)[0, 3:].any()
    # What the readout makes of the padding has no cost.
    targets, answers = backend.numpy(batch.targets), backend.numpy(batch.answers)
    others = batch._replace(targets=backend.array(np.where(answers, targets, 0)))
    losses = [loss(controller, backend, model, each) for each in (batch, others)]
    np.testing.assert_array_equal(*losses)


def test_soft_strengths_have_a_cost(controller: ModuleType, backend: Backend, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    batch = controller.draw(rng, np.asarray([1, 3]), 3)
    model = controller.init(rng)
    _, trace = controller.run(model, batch)
    live = [backend.numpy(trace.actions)[i, :steps] for i, steps in enumerate([3, 7])]
    softness = sum((each * (1 - each)).sum() for each in live) / 10
    losses = []
    for penalty in (0.0, 1.0):
        monkeypatch.setattr(controller, "PENALTY", penalty)
        losses.append(loss(controller, backend, model, batch))
    assert losses[1] - losses[0] == pytest.approx(softness, rel=1e-4)


@cache
def trained(backend: Backend) -> list[float]:
    """The losses of the controller's program over 40 steps."""
    return load(backend).train(np.random.default_rng(0), 40)[1]


def test_the_loss_goes_down(controller: ModuleType, backend: Backend):
    losses = trained(backend)
    assert len(losses) == 40
    assert losses[0] == pytest.approx(np.log(controller.SYMBOLS), rel=0.2)
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])


def test_the_program(controller: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    controller.main(["--seed", "1", "--steps", "2", "--out", str(tmp_path / "picture.png")])
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split(":")[0] for line in lines] == ["length 3", "length 4", "length 5"]
    picture = imread(tmp_path / "picture.png")
    assert picture.shape[1] > 500
    assert picture.std() > 0.1


def test_both_programs_begin_alike():
    """They draw the same numbers, so the first losses and updates are the same."""
    losses = [trained(backend)[:5] for backend in BACKENDS]
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.fixture(scope="module")
def unmarked() -> ModuleType:
    """The program of unmarked reversal, with fewer, shorter sequences and fewer steps.

    Its tests go on for 10 steps, for which an update is compiled once.
    """
    program = opened("unmarked_reversal")
    program.ROUNDS = (program.Round(2, 2, 3), program.Round(1, 2, 2))
    program.LONGER, program.SHOWN, program.BATCH, program.TESTS = (3,), (0, 1), 8, 8
    program.PAPER, program.FEW = (2, 3), 2
    return program


def test_unmarked_strings_are_words_and_their_reversals(unmarked: ModuleType):
    batch = unmarked.strings(np.asarray([[0, 1, 1], [1, 0, 0]]), np.asarray([3, 1]))
    np.testing.assert_array_equal(batch.targets, [[0, 1, 1, 1, 1, 0, 2], [1, 1, 2, 2, 2, 2, 2]])
    np.testing.assert_array_equal(batch.seen, [[2, 0, 1, 1, 1, 1, 0], [2, 1, 1, 2, 2, 2, 2]])
    np.testing.assert_array_equal(batch.lengths, [7, 3])


def test_probabilities_of_unmarked_strings_add_up_to_one(unmarked: ModuleType):
    for longest in (1, 5):
        lengths = np.arange(1, longest + 1)
        assert (2.0**lengths * np.exp(unmarked.log_probability(lengths, longest))).sum() == pytest.approx(1)


def test_an_automaton_written_by_hand_is_the_source_of_unmarked_strings(unmarked: ModuleType):
    """The model can be exact at every length: state 0 reads the word, and state 1 its reversal."""
    states, tops = unmarked.STATES, unmarked.TOPS
    push, replace = np.full((2, 3, states, tops, states, tops), -np.inf)
    pop, answers = np.full((3, states, tops, states), -np.inf), np.full((states, tops, 3), -50.0)
    replace[unmarked.END, 0, 0, 0, 0] = 0
    for symbol in (0, 1):
        push[symbol, 0, :, 0, 1 + symbol] = np.log(0.45)
        pop[symbol, 0, 1 + symbol, 1] = np.log(0.1)
        pop[symbol, 1, 1 + symbol, 1] = 0
        answers[0, :, symbol] = np.log(0.45)
        answers[0, 1 + symbol, symbol] = np.log(0.55)
        answers[1, 1 + symbol, symbol] = 0
    answers[0, 0, :2], answers[1, 0, unmarked.END] = np.log(0.5), 0
    actions = np.concatenate([each.reshape(3, -1) for each in (push, pop, replace)], -1).astype(np.float32)
    model = {"actions": actions, "answers": answers.reshape(-1, 3).astype(np.float32)}
    for length in (2, 20):
        kind = unmarked.KINDS["nondeterministic"]
        above = unmarked.test(kind, model, np.random.default_rng(0), np.full(4, length), np.inf)
        assert above == pytest.approx(0, abs=1e-4)


def test_more_steps_come_nearer_to_the_papers_source(unmarked: ModuleType):
    kind = unmarked.KINDS["nondeterministic"]
    model = kind.init(unmarked.jax.random.key(0))
    before, after = (
        unmarked.test_paper(kind, each, np.random.default_rng(0))
        for each in (model, unmarked.go_on(kind, model, 10, 0))
    )
    # Nothing is below the source.
    assert before - 0.03 > after > 0


@pytest.mark.parametrize("stack", ["nondeterministic", *product("superposition")])
def test_the_program_of_unmarked_reversal(
    unmarked: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stack: str,
):
    unmarked.main(["--stack", stack, "--seeds", "1", "--further", "10", "--out", str(tmp_path / "picture.png")])
    *_, figures, further, minutes = capsys.readouterr().out.splitlines()
    assert further.startswith("  after 10 steps on 40 to 80 symbols: ")
    assert figures.startswith("seed 1, nats a symbol above the source: |w| <= 2: ")
    assert "|w| = 3: " in figures
    assert minutes.endswith(" minutes")
    if stack == "nondeterministic":
        assert imread(tmp_path / "picture.png").std() > 0.1
