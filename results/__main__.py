"""The command `python -m results`: train the recipes of the rows, test what they learned, and write it down."""

import json
import platform
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from rich.console import Console

from diffstack import cli, cli_training, evaluation, training
from diffstack.tasks import TASKS
from results.rows import ROWS, Row

OUT = Path(__file__).parent / "runs"


def main(
    only: Annotated[list[str] | None, typer.Argument(metavar="ROW", help="The rows to run; all by default.")] = None,
    out: Annotated[Path, typer.Option(help="A folder for runs, JSON, table and picture.", file_okay=False)] = OUT,
) -> None:
    """Train the recipes of the results, and test what they learned. What was stopped goes on; what is there stays."""
    names = [row.name for row in ROWS]
    for name in only or ():
        if name not in names:
            raise typer.BadParameter(f"one of {', '.join(names)}, not {name!r}", param_hint="ROW")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{out} cannot be made: {error.strerror}", param_hint="--out") from error
    console = Console(markup=False, highlight=False)
    for row in ROWS:
        if not only or row.name in only:
            console.print(f"{row.name}: {TASKS[row.recipe.task].title}")
            (out / f"{row.name}.json").write_text(json.dumps(_outcome(row, out / row.name), indent=1) + "\n")
    found = [json.loads(path.read_text()) for row in ROWS if (path := out / f"{row.name}.json").exists()]
    (out / "results.md").write_text(table(found))
    picture(found).savefig(out / "results.png")
    console.print(f"written to {out}", soft_wrap=True)


def _outcome(row: Row, folder: Path) -> dict[str, Any]:
    """Train a row, or go on with it, and test it."""
    with cli_training.shown(TASKS[row.recipe.task].metric) as progress:
        rows = training.run(row.recipe, folder, resume=True, progress=progress)
    began, task, tests = time.perf_counter(), TASKS[row.recipe.task], []
    for lengths, hard, count in row.tests:
        scores = evaluation.evaluate(evaluation.load(folder, hard=hard), lengths, count=count)
        values = [getattr(each, task.metric) for each in scores]
        there = [value <= row.goal if task.metric == "excess" else value >= row.goal for value in values]
        each = {"lengths": lengths, "hard": hard, "count": count, "there": sum(there)}
        tests.append(each | {"scores": [score._asdict() for score in scores]})
    return {
        "name": row.name,
        "metric": task.metric,
        "recipe": json.loads(row.recipe.as_json()),
        "steps": {seed: max(each.step for each in rows if each.seed == seed) for seed in row.recipe.seeds},
        "tests": tests,
        "minutes": {"training": rows[-1].seconds / 60, "tests": (time.perf_counter() - began) / 60},
        "paper": row.paper,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("diffstack", "jax", "numpy")}
        | {"python": platform.python_version()},
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown: what each seed scored in each test."""
    lines = [
        "| row | test | score of each seed | solved by | minutes | the paper |",
        "|---|---|---|---|---|---|",
    ]
    for each in found:
        minutes = f"{each['minutes']['training']:.1f} + {each['minutes']['tests']:.1f}"
        for i, test in enumerate(each["tests"]):
            scores = ", ".join(f"{score[each['metric']]:.3f}" for score in test["scores"])
            name, rest = ("", ("", "")) if i else (each["name"], (minutes, each["paper"]))
            there = f"{test['there']} of {len(test['scores'])}"
            lines.append("| " + " | ".join((name, _named(test), scores, there, *rest)) + " |")
    return "\n".join(lines) + "\n"


def _named(test: dict[str, Any]) -> str:
    shortest, longest = test["lengths"]
    lengths = str(longest) if shortest == longest else f"{shortest} to {longest}"
    return f"{lengths}, {'hard' if test['hard'] else 'soft'}"


def picture(found: Sequence[dict[str, Any]]) -> Figure:
    """Every seed of every test as a dot, filled where its actions were hard."""
    labels: list[str] = []
    height = 1.5 + 0.45 * sum(len(each["tests"]) for each in found)
    figure = Figure(figsize=(10, height), layout="constrained")
    axes = figure.subplots()
    for each in found:
        for test in each["tests"]:
            scores = [score[each["metric"]] for score in test["scores"]]
            fill = {"facecolors": "#1f3b73" if test["hard"] else "none", "edgecolors": "#1f3b73"}
            axes.scatter(scores, _apart(scores, len(labels)), s=40, clip_on=False, zorder=3, **fill)
            labels.append(f"{each['name']}, {_named(test)}")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("score of each seed: 1 is without a mistake")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _apart(scores: Sequence[float], place: int) -> list[float]:
    """Where dots lie around a place, so that none covers another that has nearly its score."""
    near = [[other for other in range(len(scores)) if abs(scores[other] - score) < 0.02] for score in scores]
    return [place + 0.15 * (some.index(i) - (len(some) - 1) / 2) for i, some in enumerate(near)]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    signal.signal(signal.SIGINT, cli.stop)
    sys.exit(cli.run(sys.argv[1:], app, "results"))
