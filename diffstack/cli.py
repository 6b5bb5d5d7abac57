"""The command `diffstack`: a walk through the library, learning from a user's file, and the parity report.

A framework is imported by the command that needs it. What the user can put right ends as one line on stderr with
exit status 2.
"""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, cast

import numpy as np
import typer
from rich.console import Console
from typer.main import get_command

from diffstack import __version__, _backends, _files, _report, parity
from diffstack._files import InputError, refuse
from diffstack._report import bar, say, shown

PICTURES = (".png", ".svg", ".pdf")

# The base of every complaint about the command line, which typer has no public name for.
_UsageError = cast(type[Exception], typer.BadParameter.__base__)


def _number(kind: type, least: float, expected: str) -> Any:
    """Reads a finite number that is not below `least`, and says in one line what else it was given."""

    def parse(text: str) -> Any:
        with suppress(ValueError):
            if least <= (number := kind(text)) < math.inf:
                return number
        raise typer.BadParameter(f"expected {expected}, got {text!r}")

    return parse


_COUNT = _number(int, 0, "an integer of at least 0")
_RATE = _number(float, math.ulp(0.0), "a finite number above 0")


class _Dtype(StrEnum):
    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"
    float64 = "float64"


app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str]) -> int:
    """Run the command line.

    Args:
        arguments: what follows the command's name.

    Returns:
        The exit status: 0, 1 where a comparison failed, 2 for bad input.
    """
    try:
        status = get_command(app)(list(arguments), prog_name="diffstack", standalone_mode=False)
    except InputError as error:
        message = str(error)
    except _UsageError as error:
        message = cast(Any, error).format_message().replace("Value error, ", "")
    except MemoryError:
        message = "TARGET: expected an array that fits into memory with its gradient, got a larger one"
    else:
        return status or 0
    print("diffstack:", " ".join(message.split()), file=sys.stderr)
    return 2


def stop(*_: object) -> NoReturn:
    """End the process at Ctrl-C, as a handler of that signal.

    An exception would not do: Python drops those raised in a callback of the garbage collector, and JAX has one.
    """
    _files.discard_parts()
    if os.isatty(1):
        os.write(1, b"\x1b[?25h\n")  # A progress bar hides the cursor.
    os.write(2, b"diffstack: interrupted\n")
    os._exit(130)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"diffstack {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _diffstack(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Differentiable stacks in JAX and in PyTorch, with proof that the two are the same."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def demo(
    out: Annotated[
        str, typer.Option(metavar="DIR", help="The folder for the picture learning.png, made if missing.")
    ] = "demo",
) -> None:
    """Walk through the soft stack, its gradients and a learning run, in both frameworks side by side."""
    from diffstack import _demo  # noqa: PLC0415  # with it comes matplotlib

    chosen = [_load("demo", name) for name in _backends.NAMES]
    picture = Path(out) / "learning.png"
    _files.make_folder("--out", picture.parent)
    real = _files.check_output("--out", picture, (), {})
    console = Console()
    figure = _demo.walk(console, chosen)
    with _files.replacing("--out", real) as file:
        figure.savefig(file, format="png")
    say(console, f"The picture of this run is in {picture}")


@app.command()
def learn(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="What the reversal is to give: a .npy file of any element rank, or a .csv file whose rows are "
            "elements. Computed in float32 where it holds float32 or float16, else in float64.",
        ),
    ],
    *,
    backend: Annotated[Literal["jax", "torch"], typer.Option(help="The framework that computes.")] = "jax",
    steps: Annotated[int, typer.Option(parser=_COUNT, metavar="N", help="How many updates of Adam.")] = 100,
    learning_rate: Annotated[
        float, typer.Option(parser=_RATE, metavar="X", help="The learning rate of Adam, above 0.")
    ] = 0.1,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where the learned input goes, .npy or .csv (up to two axes); an older file is replaced. "
            "TARGET's name with .learned before its ending where none is given.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A picture of the run, .png, .svg or .pdf.", show_default=False),
    ] = None,
) -> None:
    """Learn the input whose reversal is the target of your own file.

    The reversal runs on exact stacks: the same bits as soft ones give, for long sequences too.
    """
    source = Path(target)
    wanted = _files.read_target(source)
    if learning_rate > _files.largest(wanted.dtype):
        limit = f"at most {_files.largest(wanted.dtype):.2g} for a target of {wanted.dtype.name}"
        refuse("--learning-rate", limit, f"{learning_rate:g}")
    result = source.with_name(f"{source.stem}.learned{source.suffix}") if out is None else Path(out)
    endings = _files.ARRAYS if wanted.ndim <= 2 else (".npy",)
    files = {"--out": _files.check_output("--out", result, endings, {"TARGET": source})}
    if plot is not None:
        taken = {"TARGET": source, "--out": result}
        files["--plot"] = _files.check_output("--plot", Path(plot), PICTURES, taken)

    chosen, console = _load("--backend", backend), Console()
    program = partial(chosen.implementation.reverse, stack=chosen.implementation.discrete)
    with chosen.wide(True):  # float32 targets too: optax then corrects Adam's bias as PyTorch does
        run = _backends.learn(chosen, wanted, program, chosen.adam(learning_rate), steps)
        losses, snapshots = _watch(console, steps, run)
        learned = snapshots[steps]
        output = np.asarray(program(chosen.asarray(learned)))
    with ExitStack() as stack:
        file = stack.enter_context(_files.replacing("--out", files["--out"]))
        _files.write_array(file, learned, result.suffix.lower())
        if plot is not None:
            from diffstack.plot import plot_learning  # noqa: PLC0415  # with it comes matplotlib

            figure = plot_learning({chosen.title: losses}, snapshots)
            file = stack.enter_context(_files.replacing("--plot", files["--plot"]))
            figure.savefig(file, format=Path(plot).suffix.lower()[1:])

    with np.errstate(over="ignore"):
        loss = np.mean((output.astype(np.float64) - wanted) ** 2)
    say(console, f"Mean squared error after {steps} updates in {chosen.title}: {loss:.6g}\n")
    say(
        console, f"The learned input:\n{shown(learned)}\n\nIts reversal, which should be the target:\n{shown(output)}\n"
    )
    if not loss <= 0.01 * np.mean(wanted.astype(np.float64) ** 2):
        say(console, "It is not there yet: try more --steps, or a larger --learning-rate.\n")
    say(console, f"The learned input is in {result}")
    if plot is not None:
        say(console, f"The picture of the run is in {plot}")


@app.command("parity")
def _parity(
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where both frameworks compute.")] = "cpu",
    dtype: Annotated[
        list[_Dtype] | None,
        typer.Option(help="May be repeated; all where none is given.", show_default=False),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Every comparison, as JSON.", show_default=False),
    ] = None,
) -> None:
    """Run both implementations on the same inputs and compare values and gradients; status 1 if any differ."""
    real = None if json_file is None else _files.check_output("--json", Path(json_file), (), {})
    for name in _backends.NAMES:
        _load("parity", name)
    try:
        environment = parity.environment(device)
    except RuntimeError as error:
        raise InputError(f"--{error}") from None
    console = Console()
    with bar(console) as progress:
        task = progress.add_task("comparing", total=None)
        results = parity.run(
            device=device,
            dtypes=[each.value for each in dtype or _Dtype],
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if real is not None:
        with _files.replacing("--json", real) as file:
            file.write(_report.as_json(environment, results))
    _report.show(console, environment, results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _load(argument: str, name: str) -> _backends.Backend:
    try:
        return _backends.load(name)
    except ImportError as error:
        refuse(argument, "an installed framework", f"{name!r}: {error}")


def _watch(
    console: Console, steps: int, run: Iterator[tuple[int, np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Follow a learning run with a progress bar: its losses, and the input at a few moments, the last included."""
    losses, snapshots = [], {}
    moments = _backends.moments(steps)
    with bar(console) as progress:
        task = progress.add_task("learning", total=steps)
        for done, sequence, latest in run:
            losses.append(latest)
            if done in moments:
                snapshots[done] = sequence
            progress.update(task, completed=done)
    return np.concatenate(losses), snapshots
