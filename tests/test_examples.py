"""The programs in `examples/`, shortened."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from matplotlib.image import imread

from backends import BACKENDS, Backend

EXAMPLES = Path(__file__).parent.parent / "examples"

# `optax.adam` breaks the strict rules.
pytestmark = pytest.mark.usefixtures("standard_promotion")


def load(backend: Backend) -> ModuleType:
    """The controller's program, with fewer and shorter sequences."""
    name = f"controller_{backend.name}"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    program.LONGEST, program.GOAL, program.STRETCH, program.BATCH, program.TESTS = 3, 4, 5, 16, 8
    return program


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
    losses = [backend.numpy(controller.loss(model, each)) for each in (batch, others)]
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
        losses.append(backend.numpy(controller.loss(model, batch)))
    assert losses[1] - losses[0] == pytest.approx(softness, rel=1e-4)


def test_the_loss_goes_down(controller: ModuleType):
    _, losses = controller.train(np.random.default_rng(0), 60)
    assert len(losses) == 60
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
    losses = [load(backend).train(np.random.default_rng(0), 5)[1] for backend in BACKENDS]
    np.testing.assert_allclose(*losses, rtol=1e-4)
