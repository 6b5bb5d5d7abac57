"""How the command line shows arrays, progress and comparisons."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Column, Table
from rich.text import Text

from diffstack.parity import Result
from diffstack.tasks import Task


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, and yield the function that takes what is done and what is to be done."""
    columns = *Progress.get_default_columns(), MofNCompleteColumn()
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def shown(array: np.ndarray, digits: int = 4) -> str:
    """An array for people to read."""
    return np.array2string(array, precision=digits, suppress_small=True, threshold=200)


# A table with a bold title.
titled = partial(Table, title_justify="left", title_style="bold")


def comparison(title: str, rows: Mapping[str, tuple[Any, Any]], names: Sequence[str]) -> Table:
    """A table of the same quantities in two frameworks, and their differences."""
    table = titled("", *names, "difference", title=title, show_lines=True)
    for quantity, pair in rows.items():
        ours, theirs = map(np.asarray, pair)
        cells = (textwrap.dedent(shown(array, 3).replace("[", " ").replace("]", "")) for array in (ours, theirs))
        table.add_row(quantity, *cells, f"{np.abs(ours - theirs).max():.2g}")
    return table


def show(environment: Mapping[str, str], results: Sequence[Result]) -> None:
    """Print a parity report: the worst result of each case and dtype, then every comparison that failed."""
    for name, value in environment.items():
        print(f"{name}: {value}")
    worst: dict[tuple[str, str, bool], Result] = {}
    for result in sorted(results, key=lambda result: (result.passed, -result.measured)):
        worst.setdefault((result.name, result.dtype, result.quantity != "values"), result)
    title = "JAX against PyTorch: max|a - b| / max|a|, the worst of all modes and of all gradients"
    failed = [result for result in results if not result.passed]
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(_results(title, [worst[kind] for kind in sorted(worst)]))
    if failed:
        console.print(_results("Out of tolerance", failed))
    print(f"{len(results)} comparisons, {len(failed)} out of tolerance")


def show_tasks(tasks: Iterable[Task]) -> None:
    """Print what tasks there are, each with an example of as many as nine symbols, if they fit."""
    console = Console(markup=False, highlight=False)
    table = titled("task", "what it is", title="Tasks: an example has tokens above targets", show_lines=True)
    for task in tasks:
        table.add_row(task.name, f"{task.title} ({task.paper})\n" + "\n".join(_example(task)))
    console.print(table)


def as_json(environment: Mapping[str, str], results: Sequence[Result]) -> bytes:
    """A parity report with every comparison, for programs; infinite differences are null."""
    rows = json.dumps([result._asdict() for result in results], default=np.generic.item)
    report = {
        "environment": environment,
        "passed": all(result.passed for result in results),
        "results": json.loads(rows, parse_constant=lambda infinity: None),
    }
    return (json.dumps(report, indent=1) + "\n").encode()


def _example(task: Task, width: int = 54) -> tuple[str, str]:
    for length in range(9, 0, -1):
        if task.has(length):
            lines = task.show(task.draw(np.random.default_rng(0), 1, (length, length)))
            if len(lines[0]) <= width:
                break
    return lines


def _results(title: str, results: Sequence[Result]) -> Table:
    numbers = (Column(heading, justify="right") for heading in ("difference", "ulps", "allowed", "elementwise"))
    table = titled("case", "dtype", "mode", "worst of", *numbers, "", title=title)
    for result in results:
        verdict = Text("passed", "green") if result.passed else Text("FAILED", "bold red")
        texts = result.name, result.dtype, result.mode, result.quantity
        values = f"{result.measured:.1e}", f"{result.ulps:.2g}", result.allowed, f"{result.elementwise:.1e}"
        table.add_row(*texts, *values, verdict)
    return table
