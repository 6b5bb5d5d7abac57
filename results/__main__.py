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
        "goal": row.goal,
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
    heads = (
        "row, lengths in training, network",
        "test",
        "score of each seed",
        "solved by",
        "minutes to train + to test",
    )
    lines = [f"| {' | '.join(heads)} | the paper |", "|---|---|---|---|---|---|"]
    for each in found:
        minutes = f"{each['minutes']['training']:.1f} + {each['minutes']['tests']:.1f}"
        # The lines of a row say one thing each of what it is.
        about = (each["name"], "lengths {} to {}".format(*each["recipe"]["lengths"]), _network(each["recipe"]))
        for i, test in enumerate(each["tests"]):
            scores = ", ".join(_rounded(score[each["metric"]]) for score in test["scores"])
            first, rest = "".join(about[i : i + 1]), ("", "") if i else (minutes, each["paper"])
            there = f"{test['there']} of {len(test['scores'])}"
            lines.append("| " + " | ".join((first, _named(test), scores, there, *rest)) + " |")
    return "\n".join(lines) + "\n"


def _rounded(score: float) -> str:
    """Three digits, or more where these would say that there is no mistake."""
    return f"{score:.5f}" if 0.9995 <= score < 1 else f"{score:.3f}"


def _network(recipe: dict[str, Any]) -> str:
    names = [f"{stack['family']}:{stack['dim']}" for stack in recipe["stacks"]]
    stacks = " and ".join(
        f"{names.count(name)} of {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )
    return f"{recipe['cell']} of {recipe['hidden']}, {stacks}"


def _named(test: dict[str, Any]) -> str:
    shortest, longest = test["lengths"]
    lengths = str(longest) if shortest == longest else f"{shortest} to {longest}"
    return f"{lengths}, {'hard' if test['hard'] else 'soft'}"


def picture(found: Sequence[dict[str, Any]]) -> Figure:
    """Every seed of every test as a dot, filled where its actions were hard; cross entropies have their own panel."""
    panels = [[each for each in found if (each["metric"] == "excess") == excess] for excess in (False, True)]
    labels = (
        "score of each seed: 1 is without a mistake",
        "nats a symbol of each seed above the source; the line is the goal",
    )
    panels, labels = zip(*((some, label) for some, label in zip(panels, labels, strict=True) if some), strict=True)
    heights = [sum(len(each["tests"]) for each in some) for some in panels]
    figure = Figure(figsize=(10, 1 + 0.42 * sum(heights)), layout="constrained")
    all_axes = figure.subplots(len(panels), height_ratios=heights, squeeze=False)[:, 0]
    for axes, some, label in zip(all_axes, panels, labels, strict=True):
        _dots(axes, some)
        axes.set_xlabel(label)
    return figure


def _dots(axes: Any, found: Sequence[dict[str, Any]]) -> None:
    labels: list[str] = []
    for each in found:
        for test in each["tests"]:
            scores = [score[each["metric"]] for score in test["scores"]]
            fill = {"facecolors": "#1f3b73" if test["hard"] else "none", "edgecolors": "#1f3b73"}
            axes.scatter(scores, _apart(scores, len(labels)), s=40, clip_on=False, zorder=3, **fill)
            labels.append(f"{each['name']}, {_named(test)}")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    if found[0]["metric"] == "excess":
        axes.set_xlim(left=0)
        axes.axvline(found[0]["goal"], color="#f28e2b", linestyle=":", linewidth=2)
    else:
        axes.set_xlim(0, 1)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _apart(scores: Sequence[float], place: int) -> list[float]:
    """Where dots lie around a place, so that none covers another that has nearly its score."""
    near = [[other for other in range(len(scores)) if abs(scores[other] - score) < 0.02] for score in scores]
    return [place + 0.15 * (some.index(i) - (len(some) - 1) / 2) for i, some in enumerate(near)]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    signal.signal(signal.SIGINT, cli.stop)
    sys.exit(cli.run(sys.argv[1:], app, "results"))
