"""The walk through the library that `diffstack demo` prints: every step in both frameworks, side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from diffstack import _backends
from diffstack._backends import Backend
from diffstack._report import comparison, titled
from diffstack.plot import plot_learning

STEPS = 100

_BUFFER = np.asarray([[1, 2], [3, 4], [5, 6]], np.float32)
_HALF = np.asarray([0, 0.5, 0.5], np.float32)
_ELEMENT = np.asarray([7, 8], np.float32)
_SEQUENCE = np.repeat(np.arange(1, 5, dtype=np.float32)[:, None], 4, axis=1)
_TARGET = _SEQUENCE[::-1].copy()


def walk(backends: Sequence[Backend]) -> Figure:
    """Print the walk.

    Args:
        backends: the two frameworks, in the order of the columns.

    Returns:
        The picture of the learning run.
    """
    console, names = Console(markup=False, highlight=False), [backend.title for backend in backends]
    console.print("A differentiable stack, in " + " and in ".join(f"{b.title} {b.version}" for b in backends) + "\n")
    for title, text, section in _SECTIONS:
        ours, theirs = map(section, backends)
        console.print(text)
        console.print(comparison(title, {name: (ours[name], theirs[name]) for name in ours}, names))
        console.print()

    console.print(
        "Gradients flow through the whole reversal, so an input can be learned from the output that it should have. "
        "Here the output should have the rows 4, 3, 2, 1. Adam starts from an input of ones and makes "
        f"{STEPS} updates to reduce the mean squared error. Numbers are float32 in both frameworks. JAX's 64-bit mode "
        "is on, so that optax corrects Adam's bias in float64 as PyTorch does.\n",
    )
    runs = [_backends.learn(backend, _TARGET, backend.implementation.reverse, None, STEPS) for backend in backends]
    table = titled("step", *(f"{name} loss" for name in names), "difference", title="Learning")
    for step in range(0, STEPS, 10):
        pair = [float(run.losses[step]) for run in runs]
        table.add_row(str(step), *(f"{loss:.6f}" for loss in pair), f"{abs(pair[0] - pair[1]):.2g}")
    console.print(table)
    console.print()
    learned = runs[0].snapshots[STEPS], runs[1].snapshots[STEPS]
    rows = {"learned": learned, "rounded": (np.round(learned[0]), np.round(learned[1]))}
    console.print(comparison("The learned input", rows, names))
    console.print()
    losses = {name: run.losses for name, run in zip(names, runs, strict=True)}
    return plot_learning(losses, runs[0].snapshots)


def _gradient(backend: Backend, function: Callable[[Any], Any], argument: Any) -> Any:
    return backend.grad(lambda argument: function(argument).sum())(argument)


def _assignment(backend: Backend) -> dict[str, Any]:
    soft_assign = backend.implementation.pointer.soft_assign
    buffer, index, element = map(backend.asarray, (_BUFFER, _HALF, _ELEMENT))
    return {
        "the buffer": buffer,
        "soft_assign of [7 8]": soft_assign(buffer, index, element),
        "gradient of the index": _gradient(backend, lambda index: soft_assign(buffer, index, element), index),
        "gradient of the element": _gradient(backend, lambda element: soft_assign(buffer, index, element), element),
    }


def _lookup(backend: Backend) -> dict[str, Any]:
    soft_lookup = backend.implementation.pointer.soft_lookup
    buffer, index = map(backend.asarray, (_BUFFER, _HALF))
    return {
        "soft_lookup": soft_lookup(buffer, index),
        "gradient of the buffer": _gradient(backend, lambda buffer: soft_lookup(buffer, index), buffer),
        "gradient of the index": _gradient(backend, lambda index: soft_lookup(buffer, index), index),
    }


def _push(backend: Backend) -> dict[str, Any]:
    pointer, element = backend.implementation.pointer, backend.asarray(_ELEMENT)
    empty = pointer.empty(3, (2,), dtype=element.dtype)
    state = pointer.push(empty, element)
    return {
        "the buffer after push [7 8]": state.buffer,
        "the index, before": empty.index,
        "the index, after": state.index,
        "gradient of the element": _gradient(backend, lambda element: pointer.push(empty, element).buffer, element),
    }


def _pop(backend: Backend) -> dict[str, Any]:
    pointer, buffer = backend.implementation.pointer, backend.asarray(_BUFFER)
    state, element = pointer.pop(pointer.from_buffer(buffer))
    return {
        "the popped element": element,
        "the index, after": state.index,
        "gradient of the buffer": _gradient(
            backend, lambda buffer: pointer.pop(pointer.from_buffer(buffer))[1], buffer
        ),
    }


def _peek(backend: Backend) -> dict[str, Any]:
    pointer, buffer, index = backend.implementation.pointer, backend.asarray(_BUFFER), backend.asarray(_HALF)

    def top(index: Any) -> Any:
        return pointer.peek(pointer.PointerState(buffer, index))

    return {"the top": top(index), "gradient of the index": _gradient(backend, top, index)}


def _reversal(backend: Backend) -> dict[str, Any]:
    reverse, sequence = backend.implementation.reverse, backend.asarray(_SEQUENCE)
    return {
        "the sequence": sequence,
        "reverse(sequence)": reverse(sequence),
        "gradient of the sequence": _gradient(backend, lambda each: sequence * reverse(each), sequence),
    }


_SECTIONS: tuple[tuple[str, str, Callable[[Backend], dict[str, Any]]], ...] = (
    (
        "Soft assignment",
        "An index gives each slot a weight. With the index [0 0.5 0.5], each of the last two slots keeps half of what "
        "it held and receives half of the new element. Here and below, the gradients are those of the sum of the "
        "result.",
        _assignment,
    ),
    ("Soft lookup", "The same index reads half of each of the last two slots.", _lookup),
    ("Push", "A push writes at the index, and then the index moves up by one slot.", _push),
    (
        "Pop",
        "A pop first moves the index down by one slot (from the first slot to the last), and then reads there. "
        "Only the element that was read has a gradient.",
        _pop,
    ),
    (
        "Peek",
        "A peek reads the element that a pop would read, and changes nothing. With the index [0 0.5 0.5], it reads "
        "half of each of the first two slots.",
        _peek,
    ),
    (
        "Reversal with two stacks",
        "Push a sequence onto one stack, pop it, and push what was popped onto a second stack. The second stack gives "
        "it back reversed, bit for bit. The gradient here is that of the output weighted by 1, 2, 3, 4 row by row, "
        "and it is reversed too.",
        _reversal,
    ),
)
