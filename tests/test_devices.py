"""Several devices: training gives the numbers of one, by the command and by the code of docs/use/devices.md.

JAX has four devices in this process; for PyTorch the agent of torchrun starts two processes.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import devices_jax
from diffstack import _checkpoints, cli
from diffstack._layers import Stack
from diffstack.recipes import Recipe
from diffstack.training import CONFIG, run
from families import product

HERE = Path(__file__).parent
TOLERANCE = 1e-12
# The targets of a sequence are as many as its symbols, so that the parts of a batch have different weights.
RECIPE = Recipe(
    "reverse_string",
    (Stack("neural_stack", 2),),
    cell="rnn",
    hidden=4,
    embedding=3,
    lengths=(1, 3),
    testing=(2, 4),
    batch=4,
    steps=4,
    rate=0.1,
    clip=0.1,
    penalty=0.5,
    seeds=(0, 3),
    dtype="float64",
    check=2,
    tests=2,
)

pytestmark = pytest.mark.usefixtures("standard_promotion")


def prepared(folder: Path, name: str) -> Path:
    """A folder with the recipe, which the command goes on with; it has no option for float64."""
    (folder / name).mkdir()
    (folder / name / CONFIG).write_text(RECIPE.as_json())
    return folder / name


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"} | more


def assert_close(found: dict[str, float], names: Sequence[str]) -> None:
    assert list(found) == names
    assert {name: each for name, each in found.items() if not each <= TOLERANCE} == {}


def assert_goes_on(folder: Path) -> None:
    """What several devices began goes on with one in PyTorch: the log, the parameters, and what Adam remembers."""
    assert _checkpoints.load(folder)[0] == 2
    alone = folder.with_name("alone")
    runs = run(RECIPE, folder, backend="torch", resume=True), run(RECIPE, alone, backend="torch")
    logs = [[(*row[:2], row.loss, row.score) for row in rows] for rows in runs]
    np.testing.assert_allclose(*logs, rtol=0, atol=TOLERANCE)
    (step, ours, state), (other, theirs, expected) = map(_checkpoints.load, (folder, alone))
    assert (step, state["generators"]) == (other, expected["generators"])
    for left, right in zip(ours, theirs, strict=True):
        assert left.keys() == right.keys()
        for name, each in left.items():
            np.testing.assert_allclose(each, right[name], rtol=0, atol=TOLERANCE, err_msg=name)


def test_jax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    # Nobody looks at the command's picture.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    four = prepared(tmp_path, "four")
    others = product("shard_map, rnn", "jit, attention")
    names = ["jit, rnn", *others, "shard_map, attention", "passed along", "at once"]
    assert_close(devices_jax.found(), names)
    options = ["--resume", "--out", str(four), "--devices", "4", "--steps", "2"]
    assert cli.run(["train", "reverse_string", *options]) == 0
    assert_goes_on(four)


def test_torch(tmp_path: Path) -> None:
    two, stopped = prepared(tmp_path, "two"), prepared(tmp_path, "stopped")
    with subprocess.Popen(
        [sys.executable, str(HERE / "devices_torch.py"), str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal, where Ctrl-C reaches every process.
        start_new_session=True,
    ) as process:
        # One of more than no steps, whole.
        while process.poll() is None and not [*stopped.glob("checkpoint-*[2468]")]:
            time.sleep(0.1)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=1000)
    names = ["DDP, rnn", "FSDP2, rnn", "DDP, attention", "FSDP2, attention", "passed along"]
    assert (tmp_path / "found.json").exists(), errors
    assert_close(json.loads((tmp_path / "found.json").read_text()), names)
    assert errors.count("diffstack: interrupted; --resume goes on from the last check") == 2, errors
    # The first process alone speaks.
    checks, *others = printed.split("The recipe, the log, the checkpoint and the picture of this run are in ")
    assert [line.split(":")[0] for line in checks.splitlines()] == ["step 2, seed 0", "step 2, seed 3"]
    assert len(others) == 1
    assert_goes_on(two)
    reached, _, _ = _checkpoints.load(stopped)
    rows = run(dataclasses.replace(RECIPE, steps=reached + 1), stopped, backend="torch", resume=True)
    assert rows[-1].step == reached + 1
    assert reached >= 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--devices", "0"], "--devices: expected an integer of at least 1, got '0'"),
        (["--devices", "99"], "devices: expected at most "),
        (["--devices", "2", "--batch", "3"], "devices: expected a number that divides the batch of 3, got 2"),
        (["--devices", "2", "--backend", "torch"], "devices: expected 1, or torchrun --nproc-per-node 2, which "),
    ],
)
def test_devices_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], error: str
) -> None:
    assert cli.run(["train", "anbn", "--out", str(tmp_path / "run"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"diffstack: {error}")
    assert not (tmp_path / "run").exists()


def test_torchrun_is_for_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "3", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"^backend: expected 'torch' in the processes of torchrun.*, got 'jax'"):
        run(RECIPE, tmp_path / "run", devices=2)
    with pytest.raises(ValueError, match=r"^devices: expected 3, or torchrun --nproc-per-node 2"):
        run(RECIPE, tmp_path / "run", devices=2, backend="torch")
    with pytest.raises(ValueError, match=r"^devices: expected a number that divides the batch of 4, got 3"):
        run(RECIPE, tmp_path / "run", backend="torch")
    assert not (tmp_path / "run").exists()
