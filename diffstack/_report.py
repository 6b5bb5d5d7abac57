"""How the command line shows arrays, progress and comparisons."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from diffstack.parity import Result


def bar(console: Console) -> Progress:
    """A progress bar, where somebody can see it move."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def say(console: Console, text: str) -> None:
    """Print a text as it is: brackets in the name of a file are no markup, and its lines are not cut."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def tell(console: Console, text: str) -> None:
    """Print a paragraph, cut into lines as wide as the console."""
    console.print(text, markup=False, highlight=False)


def shown(array: np.ndarray, digits: int = 4) -> str:
    """An array for people to read."""
    return np.array2string(array, precision=digits, suppress_small=True, threshold=200)


def compare(console: Console, title: str, rows: Mapping[str, Sequence[Any]], names: Sequence[str]) -> None:
    """Print the same quantities of two implementations and their difference."""
    table = Table("", *names, "difference", title=title, title_justify="left", title_style="bold", show_lines=True)
    for quantity, (ours, theirs) in rows.items():
        arrays = np.asarray(ours), np.asarray(theirs)
        gap = float(np.max(np.abs(arrays[0] - arrays[1])))
        table.add_row(quantity, *(_cell(array) for array in arrays), difference(gap))
    console.print(table)


def difference(gap: float) -> str:
    """A difference as the tables show it."""
    return f"{gap:.1e}" if gap else "0"


def show(console: Console, environment: Mapping[str, str], results: Sequence[Result]) -> None:
    """Print a parity report: the worst of each case and dtype, then every comparison that failed."""
    if not console.is_terminal:
        console.width = 150
    for name, value in environment.items():
        say(console, f"{name}: {value}")
    title = "JAX against PyTorch: max|a - b| / max|a|, the worst of all modes and of all gradients"
    summary = []
    by_kind = sorted(results, key=_kind)
    for _, group in groupby(by_kind, key=_kind):
        summary.append(max(group, key=lambda result: (not result.passed, result.measured)))
    console.print(_table(title, summary))
    failed = [result for result in results if not result.passed]
    if failed:
        console.print(_table("Out of tolerance", failed))
    say(console, f"{len(results)} comparisons, {len(failed)} out of tolerance")


def as_json(environment: Mapping[str, str], results: Sequence[Result]) -> bytes:
    """A parity report with every comparison, for programs; infinite differences are null."""
    rows = [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in result._asdict().items()
        }
        for result in results
    ]
    report = {
        "environment": dict(environment),
        "passed": all(result.passed for result in results),
        "results": rows,
    }
    return (json.dumps(report, indent=1, default=lambda scalar: scalar.item()) + "\n").encode()


def _cell(array: np.ndarray) -> Text:
    return Text(textwrap.dedent(shown(array, 3).replace("[", " ").replace("]", "")))


def _kind(result: Result) -> tuple[str, str, bool]:
    return result.name, result.dtype, result.quantity != "values"


def _table(title: str, results: Sequence[Result]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("case", "dtype", "mode", "worst of"):
        table.add_column(heading)
    for heading in ("difference", "ulps", "allowed", "elementwise"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for result in results:
        numbers = f"{result.measured:.1e}", f"{result.ulps:.2g}", result.allowed, f"{result.elementwise:.1e}"
        verdict = Text("passed", "green") if result.passed else Text("FAILED", "bold red")
        table.add_row(result.name, result.dtype, result.mode, result.quantity, *numbers, verdict)
    return table
