"""Arrays from a user's files and back. Every fault is one `InputError`, and no file is ever half written."""

import csv
import math
import os
import secrets
import stat
import textwrap
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

ARRAYS = (".npy", ".csv")

# What is being written now.
_parts: set[Path] = set()


class InputError(Exception):
    """Something that the user gave and can put right. Its message is one line."""


def refuse(name: str, expected: str, actual: str) -> NoReturn:
    """Raise the `InputError` of an argument."""
    raise InputError(f"{name}: expected {expected}, got {actual}") from None


def largest(dtype: np.dtype) -> float:
    """The largest number whose square is finite."""
    return math.sqrt(np.finfo(dtype).max)


def read_target(path: Path) -> np.ndarray:
    """The array in a user's file, ready to be learned.

    Args:
        path: a .npy file of floating or integer numbers with at least one axis, or a .csv file, whose rows are
            elements.

    Returns:
        The array as float32 or float64: float16 becomes float32, in which Adam works, and integers and what a .csv
        file holds become float64.

    Raises:
        InputError: any other file, or one that holds NaN or infinity.
    """
    expected = "a .npy or .csv file"
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            refuse("TARGET", expected, f"{_shown(path)} ({'a directory' if stat.S_ISDIR(mode) else 'no file'})")
        if path.suffix.lower() not in ARRAYS:
            refuse("TARGET", expected, f"{_shown(path)}, whose ending is {path.suffix!r}")
        array = _read_csv(path) if path.suffix.lower() == ".csv" else _read_npy(path)
        return _real(path, array)
    except OSError as error:
        refuse("TARGET", expected, f"{_shown(path)} ({error.strerror})")
    except MemoryError:
        refuse("TARGET", "an array that fits into memory", _shown(path))


def check_output(name: str, path: Path, endings: tuple[str, ...], others: Mapping[str, Path]) -> Path:
    """Make sure, before the work, that a file can be written.

    Args:
        name: of the argument.
        path: the file to be, which may exist.
        endings: those that it may have; any where there are none.
        others: arguments and their files, none of which it may be.

    Returns:
        The path with links resolved, so that it is the linked file that is replaced.

    Raises:
        InputError: a path that cannot be written, or that may not be.
    """
    if endings and path.suffix.lower() not in endings:
        refuse(name, f"a file ending in {' or '.join(endings)}", _shown(path))
    real = Path(os.path.realpath(path))
    with _writing(name, path):
        with suppress(FileNotFoundError):
            real.stat()  # A name that is too long must be found before the work.
        for other, taken in others.items():
            there = Path(os.path.realpath(taken))
            if real == there or (real.exists() and there.exists() and real.samefile(there)):
                refuse(name, f"a file other than {other}", _shown(path))
        if real.exists() and not real.is_file():
            refuse(name, "a file", f"{_shown(path)} ({'a directory' if real.is_dir() else 'no regular file'})")
        if real.exists() and not os.access(real, os.W_OK):
            refuse(name, "a file that can be written", f"{_shown(path)} (read-only)")
        with _part(real) as part:
            part.open("xb").close()
    return real


def make_folder(name: str, path: Path) -> None:
    """Make a folder, and those above it, unless it is there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(name, "a folder that exists or can be made", f"{_shown(path)} ({error.strerror})")


@contextmanager
def replacing(name: str, path: Path) -> Iterator[BinaryIO]:
    """Write a file as a whole: it appears under its name when the block ends, and not at all if it fails."""
    with _writing(name, path), _part(path) as part:
        with part.open("xb") as file:
            yield file
        part.replace(path)


def discard_parts() -> None:
    """Remove what is half written."""
    for part in tuple(_parts):
        part.unlink(missing_ok=True)


def write_array(file: BinaryIO, array: np.ndarray, ending: str) -> None:
    """Write an array as .npy, or one of at most two axes as .csv with as many digits as its dtype holds."""
    if ending == ".npy":
        np.save(file, array, allow_pickle=False)
    else:
        np.savetxt(file, array.reshape(len(array), -1), fmt="%s", delimiter=",")


@contextmanager
def _writing(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        refuse(name, "a file that can be written", f"{_shown(path)} ({error.strerror or error})")


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A name beside a file for what is to become it; nothing is left there afterwards."""
    part = path.with_name(f".diffstack-{secrets.token_hex(6)}.part")
    _parts.add(part)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)
        _parts.discard(part)


def _shown(path: Path) -> str:
    return repr(str(path))


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # A header that Python 2 wrote is as good as another.
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, OverflowError, TypeError, SyntaxError, tokenize.TokenError) as error:
            refuse("TARGET", "an array of numbers", f"{_shown(path)} ({textwrap.shorten(str(error), 120)})")


def _read_csv(path: Path) -> np.ndarray:
    rows: list[list[float]] = []
    first = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if not "".join(cells).strip() and len(cells) <= 1:
                    continue
                row = reader.line_num
                rows.append([_number(path, row, column, cell) for column, cell in enumerate(cells, 1)])
                first = first or row
                if len(cells) != len(rows[0]):
                    expected = f"{len(rows[0])} numbers in every row, as in row {first}"
                    refuse("TARGET", expected, f"{len(cells)} in row {row} of {_shown(path)}")
        except (csv.Error, UnicodeDecodeError) as error:
            refuse("TARGET", "comma-separated numbers in UTF-8", f"{_shown(path)} (row {reader.line_num + 1}: {error})")
    if not rows:
        refuse("TARGET", "at least one row of numbers", f"{_shown(path)}, which is empty")
    return np.asarray(rows, np.float64)


def _number(path: Path, row: int, column: int, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    # Python would also read 1_000.
    if not math.isfinite(number) or "_" in cell:
        where = f"row {row}, column {column} of {_shown(path)}"
        refuse("TARGET", "finite numbers", f"{textwrap.shorten(cell, 40)!r} in {where}")
    return number


def _real(path: Path, array: np.ndarray) -> np.ndarray:
    """The array as float32 or float64, in this machine's byte order and in row order."""
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    elif array.dtype.name == "float16":
        array = array.astype(np.float32)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        kind = textwrap.shorten(str(array.dtype), 60)
        refuse("TARGET", "real numbers (float16, float32, float64 or integers)", f"{kind} in {_shown(path)}")
    if array.ndim == 0:
        refuse("TARGET", "an array with at least one axis", f"a single number in {_shown(path)}")
    if array.size == 0:
        refuse("TARGET", "at least one number", f"an array of shape {array.shape} in {_shown(path)}")
    # The loss is a mean of squares.
    bad = np.argwhere(~(np.abs(array) <= largest(array.dtype)))
    if len(bad):
        where = tuple(bad[0].tolist())
        expected = f"finite numbers with finite squares in {array.dtype.name}"
        refuse("TARGET", expected, f"{array[where]} at index {where} of {_shown(path)}")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))
