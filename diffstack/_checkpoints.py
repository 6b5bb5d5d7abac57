"""Checkpoints of a training run: folders that appear whole or not at all, and that either framework reads.

A checkpoint is a folder `checkpoint-STEP` with two files: `arrays.safetensors` has the parameters, the moments and the
count of Adam of every seed, and `state.json` the rest, generators included. It is written under another name, which
nothing reads, and then renamed; only after that is an older one removed. So there is one to go on from at any moment.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffstack import _checks

ARRAYS, STATE = "arrays.safetensors", "state.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def save(folder: Path, step: int, arrays: Sequence[Mapping[str, np.ndarray]], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a step, and then remove all others.

    Args:
        folder: that of the run.
        step: how many steps the run has taken.
        arrays: by name, for each seed.
        state: what JSON can hold.
    """
    _checks.require("safetensors", "training")
    from safetensors.numpy import save as to_bytes  # noqa: PLC0415  # an optional dependency

    flat = {f"{i}.{name}": np.asarray(each) for i, some in enumerate(arrays) for name, each in some.items()}
    final = folder / f"checkpoint-{step}"
    part = folder / f"{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    _write(part / ARRAYS, to_bytes(flat))
    _write(part / STATE, json.dumps(dict(state)).encode())
    _sync(part)
    # Where this step has a checkpoint already, it is the same one.
    if final.exists():
        shutil.rmtree(part)
    else:
        part.rename(final)
        _sync(folder)
    for path in folder.glob("checkpoint-*"):
        if path != final:
            shutil.rmtree(path, ignore_errors=True)


def load(folder: Path) -> tuple[int, list[dict[str, np.ndarray]], dict[str, Any]] | None:
    """The step, the arrays of each seed and the state of the newest checkpoint; None where there is none.

    Raises:
        ValueError: a file that is not whole, or not of its kind.
        OSError: a file that cannot be read.
    """
    _checks.require("safetensors", "training")
    from safetensors import SafetensorError  # noqa: PLC0415  # an optional dependency
    from safetensors.numpy import load as from_bytes  # noqa: PLC0415  # an optional dependency

    steps = [int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
    if not steps:
        return None
    path = folder / f"checkpoint-{max(steps)}"
    try:
        flat = from_bytes((path / ARRAYS).read_bytes())
        state = json.loads((path / STATE).read_text())
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{str(path)!r}: expected a whole checkpoint, got {error}") from None
    arrays: dict[int, dict[str, np.ndarray]] = {}
    for name, each in flat.items():
        seed, _, rest = name.partition(".")
        arrays.setdefault(int(seed), {})[rest] = each
    return max(steps), [arrays[i] for i in sorted(arrays)], state


def write(path: Path, data: bytes) -> None:
    """Write a file that appears as a whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        _write(part, data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make names in a folder last, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
