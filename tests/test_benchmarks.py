"""The benchmarks run, and compare functions that do the same; how fast anything is, no test says."""

import json
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from backends import assert_close
from benchmarks import attention, controllers, memory, nondeterministic, scans
from benchmarks.__main__ import SUITE, main
from benchmarks.measure import BACKWARD, FORWARD, Budget, Competitor, Runner, Work
from families import FULL

# The baselines are what anyone would write.
pytestmark = pytest.mark.usefixtures("standard_promotion")

DOCS = Path(__file__).parents[1] / "docs"
APP = Typer()
APP.command()(main)

WORKS = [w for works in SUITE.values() for w in works("cpu", quick=True) if w.mode == BACKWARD]
# Of controllers, which take longest, those with one family with strengths and one without.
COMPARED = [
    w
    for w in WORKS
    if FULL or " of a controller" not in w.title or w.title.startswith(("neural_stack", "superposition"))
]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def evaluated(competitor: Competitor) -> np.ndarray:
    if competitor.framework == "jax":
        return np.asarray(jax.jit(competitor.function)(*competitor.inputs))
    return competitor.function(*map(torch.tensor, competitor.inputs)).numpy()


def test_a_quick_run_writes_finite_positive_numbers(tmp_path: Path):
    output = run("--only", "reversal", "--quick", "--out", str(tmp_path))
    report = json.loads((tmp_path / "reversal-cpu.json").read_text())
    assert {"date", "jax", "torch", "cpu", "cores", "torch threads", "device"} <= report["environment"].keys()
    assert len(report["works"]) == 2
    for work in report["works"]:
        assert len(work["results"]) == 8
        for result in work["results"]:
            assert result["name"] in output
            assert result["repetitions"] > 0
            assert all(math.isfinite(result[key]) and result[key] > 0 for key in ("low", "median", "high"))
            assert result["low"] <= result["median"] <= result["high"]
            assert result["temporary_bytes"] >= 0
    assert (tmp_path / "reversal-cpu.png").stat().st_size > 10_000
    tables = (tmp_path / "reversal-cpu.md").read_text()
    assert all(f"| {result['name']} |" in tables for work in report["works"] for result in work["results"])


def test_an_unknown_benchmark(tmp_path: Path):
    result = CliRunner().invoke(APP, ["--only", "nothing", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "reversal" in result.output


@pytest.mark.parametrize("work", COMPARED, ids=lambda work: work.title)
def test_competitors_do_the_same(work: Work):
    # One matrix product is a yardstick, and not the reads; a controller and a layer without a stack are others.
    yardsticks = (scans.LIMIT, attention.LIMIT, nondeterministic.LIMIT, *controllers.ALONE)
    rivals = [competitor for competitor in work.competitors if competitor.name not in yardsticks]
    expected = evaluated(rivals[0])
    for rival in rivals[1:]:
        assert_close(evaluated(rival), expected, 1e-5)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.title)
def test_pictures_show_at_most_four_lines(work: Work):
    assert 2 <= len(set(work.drawn)) <= 4
    assert {*work.drawn} <= {competitor.name for competitor in work.competitors}


def test_a_shape_on_two_axes_is_measured_once():
    calls = []

    def count(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return x.sum()

    rivals = (Competitor("sum", count, (np.ones(3, np.float32),), "torch"),)
    runner = Runner("cpu", Budget(10, 0, 2, 10**9))
    works = [Work("", title, {"n": 3, "m": 4}, title, FORWARD, rivals, "", "") for title in "nm"]
    first, second = (runner.run(work) for work in works)
    assert first == second
    assert len(calls) == 2  # one for the memory, one for the time


def test_what_is_predicted_to_be_slow_or_large_is_skipped():
    def work(size: int) -> Work:
        rivals = [Competitor("sum", lambda x: x.exp().sum(), (np.ones(size, np.float32),), "torch")]
        return Work("", "", {"n": size}, "n", BACKWARD, tuple(rivals), "", "")

    for limits, reason in (((1e-9, 1.0, 2, 10**9), "would take"), ((10.0, 1.0, 2, 5000), "would need")):
        runner = Runner("cpu", Budget(*limits))
        first, second, third = (runner.run(work(size))[0] for size in (1000, 10_000, 100_000))
        assert first.median is not None
        assert second.median is None
        assert second.skipped.startswith(reason)
        assert third.skipped == f"{second.skipped} when smaller"


def test_temporary_memory_in_pytorch():
    x = torch.ones(1000, requires_grad=True)
    # The exponential is alive while it is doubled, and the result is no temporary.
    assert memory.of_torch(lambda: x.detach().exp() * 2, "cpu") == 4000
    assert memory.of_torch(lambda: x.detach().exp(), "cpu") == 0


def test_temporary_memory_in_jax():
    x = np.ones((64, 64), np.float32)
    chain = Competitor("products", lambda x: (x @ x) @ (x @ x), (x,), "jax")
    (result,) = Runner("cpu", Budget(10, 0.01, 2, 10**9)).run(Work("", "", {"n": 64}, "n", FORWARD, (chain,), "", ""))
    assert result.temporary_bytes >= x.nbytes


MIDDLE, LINE = {"B": 8, "T": 512, "N": 64, "D": 64}, {"B": 8, "T": 256, "D": 32}
PARALLEL = ("parallel (JAX)", "parallel (PyTorch)")


@pytest.mark.parametrize(
    ("benchmark", "shape", "reference", "ours", "page"),
    [
        ("superposition", MIDDLE, "stack-attention-pytorch", PARALLEL, "measurements"),
        ("superposition", MIDDLE, "plain lax.scan (JAX)", PARALLEL[:1], "measurements"),
        ("superposition", MIDDLE, "plain loop (PyTorch)", PARALLEL[1:], "measurements"),
        ("neural_stack", LINE, "plain loop (PyTorch)", PARALLEL, "measurements"),
        ("neural_stack", LINE, "sequential (JAX)", PARALLEL[:1], "measurements"),
        ("neural_stack", LINE, "sequential (PyTorch)", PARALLEL[1:], "measurements"),
        ("neural_queue", LINE, "sequential (JAX)", PARALLEL[:1], "measurements"),
        ("neural_queue", LINE, "sequential (PyTorch)", PARALLEL[1:], "measurements"),
        ("nondeterministic", {"T": 60, "D": 5}, "log semiring (PyTorch)", PARALLEL, "nondeterministic"),
        ("reversal", {"n": 1024}, "notebook, eager PyTorch", ("pointer (JAX)", "pointer (PyTorch)"), "measurements"),
        ("reversal", {"n": 1024}, "notebook, eager PyTorch", ("discrete (JAX)", "discrete (PyTorch)"), "measurements"),
    ],
)
def test_ratios_that_are_told_are_those_of_the_raw_numbers(
    benchmark: str, shape: dict[str, int], reference: str, ours: tuple[str, ...], page: str
):
    works = json.loads((DOCS / "measurements" / f"{benchmark}-cpu.json").read_text())["works"]
    work = next(each for each in works if each["mode"] == BACKWARD and shape.items() <= each["shape"].items())
    times = {each["name"]: each["median"] for each in work["results"]}
    front = (DOCS.parent / "README.md").read_text().split("## How fast")[1].split("\n## ")[0]
    for name in ours:
        ratio = times[reference] / times[name]
        told = f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"
        for text in (front, (DOCS / "understand" / f"{page}.md").read_text()):
            assert re.search(rf"\b{re.escape(told)}", text), told
