"""Reading arrays from a user's files, and writing files as a whole or not at all.

Every error is one line that names the argument, raised as typer's own errors are.
"""

import csv
import math
import os
import secrets
import tempfile
import textwrap
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import typer

ARRAYS = (".npy", ".csv")

# The unfinished files on the disk.
_parts: set[Path] = set()


def refuse(name: str, expected: str, actual: str) -> NoReturn:
    """Raise the error of an argument that cannot be used."""
    raise typer.TyperException(f"{name}: expected {expected}, got {actual}") from None


def largest(dtype: np.dtype) -> float:
    """The largest number whose square is finite."""
    return math.sqrt(np.finfo(dtype).max)


@contextmanager
def checked(name: str, path: Path, expected: str = "a file that can be written") -> Iterator[None]:
    """Turn an error of the operating system in this block into that of an argument."""
    try:
        yield
    except OSError as error:
        refuse(name, expected, f"{str(path)!r} ({error.strerror or error})")


def read_target(path: Path) -> np.ndarray:
    """Read the array to be learned: as float32 if the file holds float16 or float32, and as float64 otherwise.

    The file is a .npy file of real numbers with at least one axis, or a .csv file with one element in each row.
    """
    shown, expected, ending = repr(str(path)), f"a {' or '.join(ARRAYS)} file", path.suffix.lower()
    with checked("TARGET", path, expected):
        # To open a named pipe would wait for its writer.
        if path.exists() and not (path.is_file() or path.is_dir()):
            refuse("TARGET", expected, f"{shown} (no regular file)")
    with checked("TARGET", path, expected), path.open("rb") as file:
        if ending not in ARRAYS:
            refuse("TARGET", expected, f"{shown}, whose ending is {ending!r}")
        array = _read_csv(file, shown) if ending == ".csv" else _read_npy(file, shown)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        refuse("TARGET", "real numbers of at most 64 bits", f"{textwrap.shorten(str(array.dtype), 60)} in {shown}")
    if array.ndim == 0 or array.size == 0:
        refuse("TARGET", "a non-empty array with at least one axis", f"shape {array.shape} in {shown}")
    dtype = np.dtype("float32" if array.dtype.name in ("float16", "float32") else "float64")
    array = np.asarray(array, dtype, order="C")
    bad = np.argwhere(~(np.abs(array) <= largest(dtype)))  # The loss is a mean of squares.
    if len(bad):
        where, expected = tuple(bad[0].tolist()), f"finite numbers with finite squares in {dtype}"
        refuse("TARGET", expected, f"{array[where]} at index {where} of {shown}")
    return array


def _read_npy(file: BinaryIO, shown: str) -> np.ndarray:
    try:
        return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # A damaged header makes NumPy raise errors of many kinds.
        refuse("TARGET", "an array of numbers", f"{shown} ({textwrap.shorten(str(error), 120)})")


def _read_csv(file: BinaryIO, shown: str) -> np.ndarray:
    # NumPy's own readers accept NaN and do not count blank lines, so the row in their messages may be the wrong one.
    rows: list[list[float]] = []
    with TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            for cells in reader:
                if len(cells) > 1 or "".join(cells).strip():
                    rows.append([_number(cell, reader.line_num, column, shown) for column, cell in enumerate(cells, 1)])
                    if len(cells) != len(rows[0]):
                        actual = f"{len(cells)} in row {reader.line_num} of {shown}"
                        refuse("TARGET", f"{len(rows[0])} numbers in every row", actual)
        except (csv.Error, UnicodeDecodeError) as error:
            refuse("TARGET", "comma-separated numbers in UTF-8", f"{shown} (row {reader.line_num + 1}: {error})")
    return np.asarray(rows, np.float64)


def _number(cell: str, row: int, column: int, shown: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and "_" not in cell:  # Python reads 1_000 as a number.
        return number
    refuse("TARGET", "finite numbers", f"{textwrap.shorten(cell, 40)!r} in row {row}, column {column} of {shown}")


def check_output(name: str, path: Path, endings: Collection[str], others: Mapping[str, Path]) -> None:
    """Check before the work begins that `replacing` will be able to write a file.

    The file must have one of the endings, if there are any. It must not be one of the others, which are named by their
    arguments.
    """
    shown, real = repr(str(path)), Path(os.path.realpath(path))
    if endings and path.suffix.lower() not in endings:
        refuse(name, f"a file ending in {' or '.join(endings)}", shown)
    with checked(name, path):
        for other, taken in others.items():
            there = Path(os.path.realpath(taken))
            # Where capitals do not matter, one file has many names.
            if real == there or (real.exists() and there.exists() and real.samefile(there)):
                refuse(name, f"a file other than {other}", shown)
        if real.exists() and not real.is_file():
            refuse(name, "a file", f"{shown} (a directory or a device)")
        with suppress(FileNotFoundError):
            real.open("r+b").close()  # This refuses a read-only file, which could still be replaced.
        tempfile.TemporaryFile(dir=real.parent).close()


@contextmanager
def replacing(name: str, path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when this block ends, and not at all if the block fails.

    A link stays, and the linked file is replaced.
    """
    real = Path(os.path.realpath(path))
    part = real.with_name(f".diffstack-{secrets.token_hex(6)}.part")
    _parts.add(part)
    try:
        with checked(name, path):
            with part.open("xb") as file:
                yield file
            part.replace(real)
    finally:
        part.unlink(missing_ok=True)
        _parts.discard(part)


def discard_parts() -> None:
    """Remove the unfinished files."""
    for part in tuple(_parts):
        part.unlink(missing_ok=True)


def write_array(file: BinaryIO, array: np.ndarray, ending: str) -> None:
    """Write an array as .npy, or one of at most two axes as .csv with as many digits as its dtype holds."""
    if ending == ".npy":
        np.save(file, array, allow_pickle=False)
    else:
        np.savetxt(file, array.reshape(len(array), -1), fmt="%s", delimiter=",")
