"""The command `python -m release`: install the wheel on every Python, with the lowest versions and the newest.

What the lowest versions are is read from pyproject.toml, and the newest are what pip finds. On the Python that runs
this, PyTorch is in the version of constraints.txt, and on the others it is left out: other wheels of it may be
gigabytes with what they need. `--torch` installs it as users would, in the lowest version and the newest, everywhere.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("jax", "torch", "cli", "weights")
HERE = ".".join(map(str, sys.version_info[:2]))


class Environment(NamedTuple):
    """A fresh environment: a Python, extras, and which versions pip must take."""

    python: str
    title: str
    extras: tuple[str, ...]
    constraints: dict[str, str]

    def __str__(self) -> str:
        return f"Python {self.python}, {self.title}: diffstack[{','.join(self.extras)}]"


def lowest(extras: tuple[str, ...], python: str) -> dict[str, str]:
    """The lower ends of the ranges of all that these extras need on this Python."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    found = {}
    for each in map(Requirement, lines):
        if each.marker is None or each.marker.evaluate({"python_version": python}):
            (found[each.name],) = (one.version for one in each.specifier if one.operator == ">=")
    return found


def pinned(name: str) -> str:
    """The version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (version,) = (line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))
    return version


def pythons() -> dict[str, Path]:
    """The Pythons that pyproject.toml allows and that are on the path or come from pyenv, by their minor versions."""
    allowed, found = SpecifierSet(PROJECT["requires-python"]), {HERE: Path(sys.executable)}
    folders = [Path(each) for each in os.get_exec_path()]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    for version in (f"3.{minor}" for minor in range(50)):
        for python in (folder / f"python{version}" for folder in folders):
            # One of pyenv's stands on the path for every version, whether it is there or not.
            if allowed.contains(Version(f"{version}.99")) and version not in found and _runs(python):
                found[version] = python
    return dict(sorted(found.items(), key=lambda item: Version(item[0])))


def _runs(python: Path) -> bool:
    return python.is_file() and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode


def environments(pythons: list[str], torch: bool) -> Iterator[Environment]:
    """The lowest and the newest on every Python, and on this one each framework alone."""
    for python in pythons:
        everything = torch or python == HERE
        extras = EXTRAS if everything else tuple(extra for extra in EXTRAS if extra != "torch")
        ours = {} if torch or not everything else {"torch": pinned("torch")}
        yield Environment(python, "lowest versions", extras, lowest(extras, python) | ours)
        yield Environment(python, "newest versions", extras, ours)
        if python == HERE:
            yield Environment(python, "JAX alone", ("jax",), {})
            yield Environment(python, "PyTorch alone", ("torch",), ours)


def check(environment: Environment, python: Path, wheel: Path, folder: Path) -> str:
    """What went wrong in it, or nothing."""
    (folder / "constraints.txt").write_text("".join(f"{n}=={v}\n" for n, v in environment.constraints.items()))
    bin = folder / "environment" / "bin"
    install = [bin / "python", "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    # What is set for this tree is not for them: a newer XLA ends at a flag that it does not know.
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    wanted = f"diffstack[{','.join(environment.extras)}] @ {wheel.as_uri()}"
    for command in (
        [python, "-m", "venv", bin.parent],
        [*install, "--constraint", folder / "constraints.txt", wanted],
        [bin / "python", "-m", "pip", "check"],
        # `-I`: nothing of this folder is imported.
        [bin / "python", "-I", ROOT / "release" / "smoke.py", *environment.extras],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=own, check=False)
        if done.returncode:
            return f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    print(done.stdout, end="", flush=True)
    return ""


def main(
    python: Annotated[list[str] | None, typer.Option(metavar="3.N", help="One Python; all by default.")] = None,
    torch: Annotated[bool, typer.Option("--torch", help="PyTorch everywhere, in its lowest version too.")] = False,
    dist: Annotated[Path, typer.Option(help="The folder with the wheel.", file_okay=False)] = ROOT / "dist",
) -> None:
    """Install the wheel in fresh environments and run it there."""
    (wheel,) = sorted(dist.resolve().glob("diffstack-*.whl"))
    there = {version: path for version, path in pythons().items() if not python or version in python}
    for version in PROJECT["classifiers"]:
        name = version.removeprefix("Programming Language :: Python :: ")
        if name != version and name not in there and not python:
            print(f"Python {name} is not on this machine, and was not checked.")
    if not torch:
        print(
            f"PyTorch is {pinned('torch')} on Python {HERE} and left out elsewhere; its lowest version is not checked."
        )
    failed = 0
    for environment in environments(list(there), torch):
        print(f"{environment} ... ", end="", flush=True)
        folder = Path(tempfile.mkdtemp())
        problem = check(environment, there[environment.python], wheel, folder)
        shutil.rmtree(folder)
        if problem:
            failed += 1
            print(f"FAILED\n{problem}")
    raise typer.Exit(bool(failed))


if __name__ == "__main__":
    typer.run(main)
