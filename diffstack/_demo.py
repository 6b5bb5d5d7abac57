"""The walk through the library that `diffstack demo` prints: every step in both frameworks, side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from diffstack import _backends
from diffstack._backends import Backend
from diffstack._report import bar, compare, difference, tell
from diffstack.plot import plot_learning

STEPS = 100

_BUFFER = np.asarray([[1, 2], [3, 4], [5, 6]], np.float32)
_HALF = np.asarray([0, 0.5, 0.5], np.float32)
_ELEMENT = np.asarray([7, 8], np.float32)
_SEQUENCE = np.repeat(np.arange(1, 5, dtype=np.float32)[:, None], 4, axis=1)
_TARGET = _SEQUENCE[::-1].copy()


def walk(console: Console, backends: Sequence[Backend]) -> Figure:
    """Print the walk.

    Args:
        console: where it is printed.
        backends: the frameworks, side by side.

    Returns:
        The picture of the learning run.
    """
    names = [backend.title for backend in backends]
    tell(console, "A differentiable stack, in " + " and in ".join(f"{b.title} {b.version}" for b in backends) + "\n")
    for title, text, show in _SECTIONS:
        tell(console, text)
        ours, theirs = (show(backend) for backend in backends)
        compare(console, title, {name: (ours[name], theirs[name]) for name in ours}, names)
        console.print()
    return _learning(console, backends)


def _assignment(backend: Backend) -> dict[str, Any]:
    pointer, grad = backend.implementation.pointer, backend.grad
    arguments = backend.asarray(_BUFFER), backend.asarray(_HALF), backend.asarray(_ELEMENT)

    def total(buffer: Any, index: Any, element: Any) -> Any:
        return pointer.soft_assign(buffer, index, element).sum()

    return {
        "the buffer": _BUFFER,
        "soft_assign of [7 8]": pointer.soft_assign(*arguments),
        "gradient of the index": grad(total, argnums=1)(*arguments),
        "gradient of the element": grad(total, argnums=2)(*arguments),
    }


def _lookup(backend: Backend) -> dict[str, Any]:
    pointer, grad = backend.implementation.pointer, backend.grad
    arguments = backend.asarray(_BUFFER), backend.asarray(_HALF)

    def total(buffer: Any, index: Any) -> Any:
        return pointer.soft_lookup(buffer, index).sum()

    return {
        "soft_lookup": pointer.soft_lookup(*arguments),
        "gradient of the buffer": grad(total, argnums=0)(*arguments),
        "gradient of the index": grad(total, argnums=1)(*arguments),
    }


def _push(backend: Backend) -> dict[str, Any]:
    pointer, element = backend.implementation.pointer, backend.asarray(_ELEMENT)
    empty = pointer.empty(3, (2,), dtype=element.dtype)
    state = pointer.push(empty, element)

    def total(element: Any) -> Any:
        return pointer.push(empty, element).buffer.sum()

    return {
        "the buffer after push [7 8]": state.buffer,
        "the index, before": empty.index,
        "the index, after": state.index,
        "gradient of the element": backend.grad(total)(element),
    }


def _pop(backend: Backend) -> dict[str, Any]:
    pointer, buffer = backend.implementation.pointer, backend.asarray(_BUFFER)
    state, element = pointer.pop(pointer.from_buffer(buffer))

    def total(buffer: Any) -> Any:
        return pointer.pop(pointer.from_buffer(buffer))[1].sum()

    return {
        "the popped element": element,
        "the index, after": state.index,
        "gradient of the buffer": backend.grad(total)(buffer),
    }


def _peek(backend: Backend) -> dict[str, Any]:
    pointer, buffer, index = (
        backend.implementation.pointer,
        backend.asarray(_BUFFER),
        backend.asarray(_HALF),
    )

    def total(index: Any) -> Any:
        return pointer.peek(pointer.PointerState(buffer, index)).sum()

    return {
        "the top": pointer.peek(pointer.PointerState(buffer, index)),
        "gradient of the index": backend.grad(total)(index),
    }


def _reversal(backend: Backend) -> dict[str, Any]:
    reverse, sequence = backend.implementation.reverse, backend.asarray(_SEQUENCE)
    weights = backend.asarray(_SEQUENCE)
    return {
        "the sequence": sequence,
        "reverse(sequence)": reverse(sequence),
        "gradient of the sequence": backend.grad(lambda sequence: (weights * reverse(sequence)).sum())(sequence),
    }


_SECTIONS: tuple[tuple[str, str, Callable[[Backend], dict[str, Any]]], ...] = (
    (
        "Soft assignment",
        "An index is a weight for each slot. Here it is [0 0.5 0.5]: half of the element goes to each of the last "
        "two slots, and half of what was there stays. Gradients are those of the sum of what is shown first.",
        _assignment,
    ),
    ("Soft lookup", "The same index reads half of each of the two slots.", _lookup),
    ("Push", "A push writes where the index is, and the index moves one slot up.", _push),
    (
        "Pop",
        "A pop moves the index one slot down, round the end of a full buffer, and reads there. Only the element "
        "that was read has a gradient.",
        _pop,
    ),
    (
        "Peek",
        "A peek reads what a pop would and changes nothing. Half way between two slots it reads half of each.",
        _peek,
    ),
    (
        "Reversal with two stacks",
        "Push a sequence on one stack, pop it, push what was popped on another: it comes out reversed, bit for bit. "
        "The gradient is that of the output weighted with rows 1, 2, 3, 4: it comes back reversed, too.",
        _reversal,
    ),
)


def _learning(console: Console, backends: Sequence[Backend]) -> Figure:
    tell(
        console,
        "The reversal can be learned through: which input gives the rows 4, 3, 2, 1? Adam starts from ones and "
        f"descends the mean squared error for {STEPS} updates. Numbers are float32 in both; JAX's 64-bit mode is on, "
        "so that optax corrects Adam's bias in float64 as PyTorch does.\n",
    )
    losses: list[list[np.ndarray]] = [[] for _ in backends]
    snapshots: dict[int, list[np.ndarray]] = {}
    with backends[0].wide(True), bar(console) as progress:
        task = progress.add_task("learning", total=STEPS)
        runs = [_backends.learn(b, _TARGET, b.implementation.reverse, None, STEPS) for b in backends]
        for both in zip(*runs, strict=True):
            for kept, (_, _, latest) in zip(losses, both, strict=True):
                kept.append(latest)
            done = both[0][0]
            snapshots[done] = [sequence for _, sequence, _ in both]
            progress.update(task, completed=done)
    ours, theirs = (np.concatenate(kept) for kept in losses)
    names = [backend.title for backend in backends]
    table = Table(
        "step",
        *(f"{name} loss" for name in names),
        "difference",
        title="Learning",
        title_justify="left",
        title_style="bold",
    )
    for step in range(0, STEPS, 10):
        gap = abs(float(ours[step]) - float(theirs[step]))
        table.add_row(str(step), f"{ours[step]:.6f}", f"{theirs[step]:.6f}", difference(gap))
    console.print(table)
    console.print()
    learned = snapshots[STEPS]
    compare(
        console, "The learned input", {"learned": learned, "rounded": [np.round(array) for array in learned]}, names
    )
    console.print()
    moments = sorted(_backends.moments(STEPS))
    return plot_learning(dict(zip(names, (ours, theirs), strict=True)), {m: snapshots[m][0] for m in moments})
