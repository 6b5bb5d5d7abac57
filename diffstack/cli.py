"""The command `diffstack`: a walk through the library, learning from a user's file, the parity report, and the tasks.

The commands of training are in `cli_training.py`.

Each command imports the frameworks that it needs. An error that the user can correct ends as one line on stderr with
exit status 2.
"""

import math
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import numpy as np
import typer
from typer.main import get_command

from diffstack import __version__, _backends, _files, _report, cli_training, parity
from diffstack._options import choice, option
from diffstack.tasks import TASKS

app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(cli_training.app)


def run(arguments: Sequence[str], program: typer.Typer = app, name: str = "diffstack") -> int:
    """Run a command line and return its exit status: 0, or 1 if a comparison failed, or 2 for bad input."""
    try:
        return get_command(program)(list(arguments), prog_name=name, standalone_mode=False) or 0
    except typer.TyperException as error:
        message = error.format_message()
    except ImportError as error:
        message = str(error)
    except MemoryError:
        message = "TARGET: expected an array that fits into memory with its gradient, got a larger one"
    print(f"{name}:", " ".join(message.split()), file=sys.stderr)
    return 2


def stop(*_: object) -> NoReturn:
    """End the process at Ctrl-C, as a handler of that signal.

    An exception would not do, since Python ignores one raised in a callback of the garbage collector, which JAX has.
    """
    _files.discard_parts()
    if os.isatty(1):
        os.write(1, b"\x1b[?25h\n")  # A progress bar hides the cursor.
    going_on = b"; --resume goes on from the last check" if sys.argv[1:2] == ["train"] else b""
    os.write(2, b"diffstack: interrupted" + going_on + b"\n")
    os._exit(130)


@app.callback(invoke_without_command=True)
def _diffstack(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Differentiable stacks in JAX and in PyTorch, tested to give the same values and gradients."""
    if version:
        print(f"diffstack {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for the picture learning.png. It is made if missing.")
    ] = Path("demo"),
) -> None:
    """Walk through the soft stack, its gradients and a learning run, in both frameworks side by side."""
    chosen, picture = [_backends.load(name) for name in _backends.NAMES], out / "learning.png"
    with _files.checked("--out", out, "a folder that exists or can be made"):
        out.mkdir(parents=True, exist_ok=True)
    _files.check_output("--out", picture, (), {})
    from diffstack import _demo  # noqa: PLC0415  # imports matplotlib

    figure = _demo.walk(chosen)
    with _files.replacing("--out", picture) as file:
        figure.savefig(file, format="png")
    print(f"The picture of this run is in {picture}")


_TARGET = typer.Argument(
    metavar="TARGET",
    readable=False,  # `read_target` says what is wrong with a file that cannot be read.
    help="The array that the reversal is to give: a .npy file with elements of any rank, or a .csv file with one "
    "element in each row. Arrays of float16 and float32 are computed in float32, and all others in float64.",
)
_STEPS = option("--steps", "N", "an integer of at least 0", int, lambda n: n >= 0, "The number of updates of Adam")
_RATE = option(
    "--learning-rate", "X", "a finite number above 0", float, lambda x: 0 < x < math.inf, "The learning rate of Adam"
)
_LEARNED = typer.Option(
    metavar="FILE",
    help="The file for the learned input, .npy or .csv (for up to two axes). An existing file is replaced. By default, "
    "it is TARGET's name with .learned before its ending.",
)


@app.command()
def learn(
    target: Annotated[Path, _TARGET],
    backend: Annotated[str, choice("--backend", _backends.NAMES, "The framework that computes")] = "jax",
    steps: Annotated[int, _STEPS] = 100,
    learning_rate: Annotated[float, _RATE] = 0.1,
    out: Annotated[Path | None, _LEARNED] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture of the run, .png, .svg or .pdf.")] = None,
) -> None:
    """Learn the input whose reversal is the target in your own file.

    The reversal runs on exact stacks, which give the same bits as soft ones and suit long sequences too.
    """
    wanted = _files.read_target(target)
    if learning_rate > (limit := _files.largest(wanted.dtype)):
        _files.refuse("--learning-rate", f"at most {limit:.2g} for a target of {wanted.dtype}", str(learning_rate))
    result = out or target.with_name(f"{target.stem}.learned{target.suffix}")
    endings = _files.ARRAYS if wanted.ndim <= 2 else (".npy",)
    _files.check_output("--out", result, endings, {"TARGET": target})
    if plot:
        _files.check_output("--plot", plot, (".png", ".svg", ".pdf"), {"TARGET": target, "--out": result})

    chosen = _backends.load(backend)
    program = partial(chosen.implementation.reverse, stack=chosen.implementation.discrete)
    losses, snapshots, output = _backends.learn(chosen, wanted, program, chosen.adam(learning_rate), steps)
    learned = snapshots[steps]
    with _files.replacing("--out", result) as file:
        _files.write_array(file, learned, result.suffix.lower())
        if plot:
            from diffstack.plot import plot_learning  # noqa: PLC0415  # imports matplotlib

            figure = plot_learning({chosen.title: losses}, snapshots)
            with _files.replacing("--plot", plot) as picture:
                figure.savefig(picture, format=plot.suffix.lower()[1:])

    with np.errstate(over="ignore"):
        loss = np.mean((output.astype(np.float64) - wanted) ** 2)
    print(f"Mean squared error after {steps} updates in {chosen.title}: {loss:.6g}\n")
    print(f"The learned input:\n{_report.shown(learned)}\n")
    print(f"Its reversal, which should be the target:\n{_report.shown(output)}\n")
    if not loss <= 0.01 * np.mean(wanted.astype(np.float64) ** 2):
        print("The error is still large. Try more --steps, or a larger --learning-rate.\n")
    print(f"The learned input is in {result}")
    if plot:
        print(f"The picture of the run is in {plot}")


@app.command("parity")
def _parity(
    device: Annotated[
        Literal["cpu", "cuda"], choice("--device", ("cpu", "cuda"), "Where both frameworks compute")
    ] = "cpu",
    dtype: Annotated[
        list[str] | None, choice("--dtype", parity.DTYPES, "A dtype to compare in (may be repeated; all by default)")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Every comparison, as JSON.")] = None,
) -> None:
    """Run both implementations on the same inputs and compare values and gradients. Exit with 1 if any differ."""
    if json_file:
        _files.check_output("--json", json_file, (), {})
    for name in _backends.NAMES:
        _backends.load(name)
    try:
        environment = parity.environment(device)
    except RuntimeError as error:
        raise typer.TyperException(f"--{error}") from None
    with _report.progress("comparing") as update:
        results = parity.run(device=device, dtypes=dtype or parity.DTYPES, progress=update)
    if json_file:
        with _files.replacing("--json", json_file) as file:
            file.write(_report.as_json(environment, results))
    _report.show(environment, results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command()
def tasks() -> None:
    """List the tasks of the papers that a network with a stack may learn, each with a short example."""
    _report.show_tasks(TASKS.values())
