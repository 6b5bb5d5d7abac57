"""The command `python -m results`: train the recipes of the rows, test what they learned, and write it down."""

import json
import platform
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from diffstack import _checkpoints, cli, cli_training, evaluation, training
from diffstack.recipes import Recipe
from diffstack.tasks import TASKS
from results.report import picture, table
from results.rows import PROGRAMS, ROWS, SEEDS, Program, Row

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "runs"


def main(
    only: Annotated[list[str] | None, typer.Argument(metavar="ROW", help="The rows to run; all by default.")] = None,
    out: Annotated[Path, typer.Option(help="A folder for runs, JSON, table and picture.", file_okay=False)] = OUT,
) -> None:
    """Train the recipes of the results, and test what they learned. What was stopped goes on; what is there stays."""
    names = [row.name for row in (*ROWS, *PROGRAMS)]
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
            _write(out, _outcome(row, out / row.name))
    for program in PROGRAMS:
        if not only or program.name in only:
            console.print(f"{program.name}: {TASKS[program.name].title}")
            _write(out, _outcome_of_program(program, out / program.name, console))
    found = [json.loads(path.read_text()) for name in names if (path := out / f"{name}.json").exists()]
    (out / "results.md").write_text(table(found))
    picture(found).savefig(out / "results.png")
    console.print(f"written to {out}", soft_wrap=True)


def _write(out: Path, outcome: dict[str, Any]) -> None:
    """The JSON of a row, whole or not at all."""
    _checkpoints.write(out / f"{outcome['name']}.json", (json.dumps(outcome, indent=1) + "\n").encode())


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
        "about": ("lengths {} to {}".format(*row.recipe.lengths), _network(row.recipe)),
        "metric": task.metric,
        "goal": row.goal,
        "recipe": json.loads(row.recipe.as_json()),
        "steps": {seed: max(each.step for each in rows if each.seed == seed) for seed in row.recipe.seeds},
        "tests": tests,
        "minutes": {"training": rows[-1].seconds / 60, "tests": (time.perf_counter() - began) / 60},
        "paper": row.paper,
        **_stamp(),
    }


def _outcome_of_program(program: Program, folder: Path, console: Console) -> dict[str, Any]:
    """Run a program for each seed for which it has not ended yet, and read what it says."""
    folder.mkdir(exist_ok=True)
    for seed in SEEDS:
        said, began = folder / f"seed-{seed}.json", time.perf_counter()
        if said.exists():
            continue
        words = [*program.words, "--seeds", str(seed), "--out", str(folder / f"seed-{seed}.png")]
        with console.status(f"seed {seed}, some minutes"):
            ended = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        found = re.findall(program.says, ended.stdout)
        if ended.returncode or not found:
            raise typer.TyperException(f"{program.name}: its program ended with {ended.returncode} and without a score")
        console.print(f"seed {seed}: {found[-1]}")
        seconds = time.perf_counter() - began
        _checkpoints.write(said, json.dumps({"excess": float(found[-1]), "seconds": seconds}).encode())
    scores = [json.loads((folder / f"seed-{seed}.json").read_text()) for seed in SEEDS]
    there = sum(score["excess"] <= program.goal for score in scores)
    test = {"lengths": (40, 80), "hard": False, "count": 256, "there": there, "scores": scores}
    return {
        "name": program.name,
        "about": program.about,
        "metric": "excess",
        "goal": program.goal,
        "command": " ".join(program.words),
        "tests": [test],
        "minutes": {"training": sum(score["seconds"] for score in scores) / 60, "tests": 0.0},
        "paper": program.paper,
        **_stamp(),
    }


def _network(recipe: Recipe) -> str:
    names = [f"{stack.family}:{stack.dim}" for stack in recipe.stacks]
    stacks = " and ".join(
        f"{names.count(name)} of {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )
    return f"{recipe.cell} of {recipe.hidden}, {stacks}"


def _stamp() -> dict[str, Any]:
    """When and with what."""
    versions = {name: version(name) for name in ("diffstack", "jax", "numpy")} | {"python": platform.python_version()}
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions}


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    signal.signal(signal.SIGINT, cli.stop)
    sys.exit(cli.run(sys.argv[1:], app, "results"))
