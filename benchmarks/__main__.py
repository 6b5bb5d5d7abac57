"""The command `python -m benchmarks`."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import jax
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import attention, controllers, memory, nondeterministic, report, reversal, scans
from benchmarks.measure import BACKWARD, Budget, Result, Runner, Work
from diffstack.families import FAMILIES

SUITE: dict[str, Callable[[str, bool], Iterator[Work]]] = {
    reversal.NAME: reversal.works,
    **{name: partial(scans.works, name) for name, family in FAMILIES.items() if not family.automaton},
    nondeterministic.NAME: nondeterministic.works,
    controllers.NAME: controllers.works,
    attention.NAME: attention.works,
}
RESULTS = Path(__file__).parent / "results"
# What the README shows.
OVERVIEW = tuple(f"{name} over T, {BACKWARD}" for name in ("superposition", "neural_stack"))


def main(
    only: Annotated[str, typer.Option(help=f"One benchmark: {', '.join(SUITE)}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="The smallest sizes, to see that it runs.")] = False,
    out: Annotated[Path, typer.Option(help="A folder for JSON, tables and pictures.", file_okay=False)] = RESULTS,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to run.")] = "cpu",
) -> None:
    """Time every implementation beside its baselines, and write JSON, tables and pictures."""
    if only and only not in SUITE:
        raise typer.BadParameter(f"one of {', '.join(SUITE)}, not {only!r}", param_hint="--only")
    if device == "cuda" and not (torch.cuda.is_available() and jax.default_backend() == "gpu"):
        raise typer.BadParameter("both frameworks must see a GPU", param_hint="--device")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{out} cannot be made: {error.strerror}", param_hint="--out") from error
    console = Console()
    if not console.is_terminal:
        console.width = 150
    about = report.environment(device)
    for name, value in about.items():
        console.print(f"{name}: {value}", highlight=False)
    everything = []
    for name in [only] if only else SUITE:
        measured = list(_run(name, device, quick, console))
        everything += measured
        (out / f"{name}-{device}.json").write_text(report.as_json(about, measured))
        (out / f"{name}-{device}.md").write_text(report.as_markdown(name, about, measured))
        # The first work's axis is the number of steps; the tables have the others.
        report.picture([each for each in measured if each[0].axis == measured[0][0].axis], out / f"{name}-{device}.png")
    if not only:
        overview = [each for each in everything if each[0].title in OVERVIEW]
        report.picture(overview, out / f"overview-{device}.png")
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _run(name: str, device: str, quick: bool, console: Console) -> Iterator[tuple[Work, list[Result]]]:
    """Measure the works of a benchmark, and print each table as soon as it is full."""
    budget = Budget(call=30, total=0.02 if quick else 0.6, rounds=3 if quick else 100, bytes=memory.available() // 2)
    runner, works = Runner(device, budget), list(SUITE[name](device, quick))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=len(works))
        for _, group in groupby(works, key=lambda work: work.title):
            measured = []
            for work in group:

                def say(competitor: str, work: Work = work) -> None:
                    bar.update(task, description=f"{work.title}, {work.size}: {competitor}")

                measured.append((work, runner.run(work, say)))
                bar.advance(task)
            console.print(report.table(measured))
            yield from measured


if __name__ == "__main__":
    typer.run(main)
