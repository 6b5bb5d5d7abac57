"""Time competitors in turn, so that what disturbs the machine disturbs all of them alike."""

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from benchmarks import memory

FORWARD, BACKWARD = "forward", "forward and backward"


class Competitor(NamedTuple):
    """A function and its inputs, ready to run.

    Attributes:
        name: what the tables call it.
        function: from arrays of its framework to one array.
        inputs: NumPy arrays; the gradients of the floating ones are taken.
        framework: "jax", where the function is compiled, or "torch", where it runs eagerly.
    """

    name: str
    function: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    framework: str


class Work(NamedTuple):
    """Competitors that do the same.

    Attributes:
        benchmark: what competitors of one name do the same for.
        title: what is done, without its size.
        shape: its size, as the names of the axes and their lengths.
        axis: the one that grows, which the time is drawn against and predicted from.
        mode: `FORWARD` or `BACKWARD`.
        competitors: what is compared; they share nothing but the inputs.
        limit: the name of the competitor that serves as a yardstick: a copy, or one matrix product.
        reference: the name of the competitor that is to be beaten.
        drawn: the names of the few competitors that the picture shows; the first is a baseline.
    """

    benchmark: str
    title: str
    shape: dict[str, int]
    axis: str
    mode: str
    competitors: tuple[Competitor, ...]
    limit: str
    reference: str
    drawn: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The length of the axis that grows."""
        return self.shape[self.axis]


class Result(NamedTuple):
    """What was measured of one competitor, in seconds and bytes; what was skipped has a reason and no numbers."""

    name: str
    framework: str
    repetitions: int = 0
    median: float | None = None
    low: float | None = None
    high: float | None = None
    temporary_bytes: int | None = None
    skipped: str = ""


class Budget(NamedTuple):
    """How much a competitor may take.

    Attributes:
        call: seconds for one call; what is predicted to take more is skipped.
        total: seconds for all calls after the first; one that takes longer is timed once.
        rounds: the most calls after the first.
        bytes: of temporary memory.
    """

    call: float
    total: float
    rounds: int
    bytes: int


class Runner:
    """Measures one work after the other, and remembers what was measured to predict what larger ones take."""

    def __init__(self, device: str, budget: Budget) -> None:
        self.device, self.budget = device, budget
        self._seen: dict[tuple[str, str], tuple[int, Result]] = {}
        self._measured: dict[tuple[str, str, tuple[int, ...], str], Result] = {}

    def run(self, work: Work, progress: Callable[[str], None] = lambda name: None) -> list[Result]:
        """Measure every competitor of a work that is within the budget; a shape on several axes is measured once."""
        shape = tuple(work.shape.values())
        keys = [(work.benchmark, work.mode, shape, competitor.name) for competitor in work.competitors]
        if not all(key in self._measured for key in keys):
            self._measured.update(zip(keys, self._results(work, progress), strict=True))
        results = [self._measured[key] for key in keys]
        for result in results:
            self._seen[work.title, result.name] = work.size, result
        return results

    def _results(self, work: Work, progress: Callable[[str], None]) -> list[Result]:
        prepared = {}
        for competitor in work.competitors:
            progress(competitor.name)
            prepared[competitor.name] = self._prepared(competitor, work)
        progress("timing")
        ready = {name: each for name, each in prepared.items() if isinstance(each, _Ready)}
        times = {name: [each.first] for name, each in ready.items()}
        affordable = {name: int(self.budget.total / each.first) for name, each in ready.items()}
        for name in _turns({name: min(count, self.budget.rounds) for name, count in affordable.items()}):
            times[name].append(_timed(ready[name].call))
        return [
            each if isinstance(each, Result) else _summary(competitor, times[competitor.name], each.bytes)
            for competitor, each in zip(work.competitors, prepared.values(), strict=True)
        ]

    def _prepared(self, competitor: Competitor, work: Work) -> "_Ready | Result":
        """A competitor that has run twice, the second time on the clock, or the reason why not."""
        reason = self._prediction(competitor, work)
        if not reason:
            call, known = _call(competitor, work.mode, self.device)
            if known is not None and known > self.budget.bytes:
                reason = f"needs {known / 1e9:.1f} GB"
        if reason:
            return Result(competitor.name, competitor.framework, skipped=reason)
        if known is None:
            known = memory.of_torch(call, self.device)
        else:
            call()
        return _Ready(call, known, _timed(call))

    def _prediction(self, competitor: Competitor, work: Work) -> str:
        """Why it should not even be tried: time and memory grow at most as the square of the size."""
        size, result = self._seen.get((work.title, competitor.name), (work.size, Result("", "")))
        growth = (work.size / size) ** 2
        if result.skipped:
            return result.skipped if result.skipped.endswith("smaller") else f"{result.skipped} when smaller"
        if (result.median or 0) * growth > self.budget.call:
            return f"would take {(result.median or 0) * growth:.0f} s"
        # A quantity that grows with the square only from some size on is overestimated here; XLA says it beforehand.
        if competitor.framework == "torch" and (result.temporary_bytes or 0) * growth > self.budget.bytes:
            return f"would need {(result.temporary_bytes or 0) * growth / 1e9:.0f} GB"
        return ""


class _Ready(NamedTuple):
    call: Callable[[], Any]
    bytes: int
    first: float


def _turns(repetitions: dict[str, int]) -> Iterator[str]:
    """Each name as often as it says, evenly spread, and in another order every round: calls disturb the next one."""
    rounds, order = max(repetitions.values(), default=0), random.Random(0)
    for turn in range(rounds):
        due = [name for name, count in repetitions.items() if (turn + 1) * count // rounds > turn * count // rounds]
        order.shuffle(due)
        yield from due


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    results = call()
    elapsed = time.perf_counter() - start
    del results
    return elapsed


def _summary(competitor: Competitor, times: list[float], temporary: int) -> Result:
    low, median, high = np.percentile(times, [10, 50, 90])
    return Result(competitor.name, competitor.framework, len(times), median, low, high, temporary)


def _call(competitor: Competitor, mode: str, device: str) -> tuple[Callable[[], Any], int | None]:
    """A call that returns when its results are there; and its temporary memory, where it is known beforehand."""
    if competitor.framework == "jax":
        return _jax_call(competitor, mode, device)
    return _torch_call(competitor, mode, device), None


def _jax_call(competitor: Competitor, mode: str, device: str) -> tuple[Callable[[], Any], int]:
    place = jax.devices("gpu" if device == "cuda" else device)[0]
    arrays = [jax.device_put(array, place) for array in competitor.inputs]
    floating = [jax.numpy.issubdtype(array.dtype, jax.numpy.floating) for array in arrays]

    def both(cotangent: Any, *arrays: Any) -> Any:
        def function(leaves: list[Any]) -> Any:
            rest = iter(leaves)
            return competitor.function(*(next(rest) if f else a for a, f in zip(arrays, floating, strict=True)))

        result, pull_back = jax.vjp(function, [a for a, f in zip(arrays, floating, strict=True) if f])
        return result, pull_back(cotangent)

    if mode == FORWARD:
        compiled = jax.jit(competitor.function)
    else:
        cotangent = _cotangent(jax.eval_shape(competitor.function, *arrays).shape)
        compiled, arrays = jax.jit(both), [jax.device_put(cotangent, place), *arrays]
    executable = compiled.lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays)), memory.of_jax(executable)


def _torch_call(competitor: Competitor, mode: str, device: str) -> Callable[[], Any]:
    inputs = [torch.tensor(array, device=device) for array in competitor.inputs]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def forward() -> Any:
        with torch.no_grad():
            result = competitor.function(*inputs)
        wait()
        return result

    def both() -> Any:
        result = competitor.function(*inputs)
        gradients = torch.autograd.grad(result, leaves, cotangent, materialize_grads=True)
        wait()
        return result.detach(), gradients

    if mode == FORWARD:
        return forward
    with torch.no_grad():
        cotangent = torch.tensor(_cotangent(tuple(competitor.function(*inputs).shape)), device=device)
    leaves = [array.requires_grad_() for array in inputs if array.is_floating_point()]
    return both


def _cotangent(shape: tuple[int, ...]) -> np.ndarray:
    return np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
