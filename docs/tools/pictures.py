"""The pictures of the pages, again from the start.

`python docs/tools/pictures.py` draws those of scripted programs, in seconds, and writes them to `docs/images`. With
`--trained` it also trains the networks of the gallery, in some minutes, in the folder `runs` or one that is named; a
run that is there goes on from where it is.
"""

import argparse
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from diffstack import evaluation, training
from diffstack._layers import Stack
from diffstack.actions import NOOP, POP, PUSH
from diffstack.jax_impl import (
    discrete,
    neural_deque,
    neural_queue,
    neural_stack,
    nondeterministic,
    pointer,
    superposition,
)
from diffstack.plot import plot_trace
from diffstack.recipes import Recipe

IMAGES = Path(__file__).parents[1] / "images"
# Small enough that letters can be read on a phone.
SIZE = (7.5, 4.6)

TRAINED = {
    "anbn": Recipe("anbn", (Stack("superposition", 8),), cell="rnn", hidden=16, penalty=0.05, steps=1500, seeds=(0, 1)),
    "copy": Recipe(
        "copy",
        (Stack("neural_queue", 16),),
        cell="rnn",
        hidden=64,
        embedding=32,
        lengths=(1, 12),
        testing=(20, 20),
        penalty=0.05,
        steps=1000,
        goal=1.0,
        seeds=(0, 1),
    ),
    "dyck_2": Recipe(
        "dyck_2",
        (Stack("neural_stack", 8),),
        cell="rnn",
        hidden=32,
        lengths=(2, 20),
        testing=(20, 40),
        penalty=0.05,
        steps=2000,
        seeds=(0, 1),
    ),
}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the pages.")
    parser.add_argument("--trained", nargs="?", const=Path("runs"), type=Path, help="train the gallery's networks too")
    options = parser.parse_args(arguments)
    for folder in ("learn", "gallery"):
        (IMAGES / folder).mkdir(parents=True, exist_ok=True)
    for name, figure in scripted().items():
        write(name, figure)
    if options.trained:
        for name, recipe in TRAINED.items():
            write(f"gallery/trained-{name}", trained(recipe, options.trained / name))


def scripted() -> dict[str, Figure]:
    """Every picture of a program that is written down here."""
    figures = {"learn/index": buffer_and_index(), "learn/reversal": reversal(), "learn/drift": drift()}
    half = [0.5, 0.3, 0.2]
    figures["learn/superposition"] = trace(
        superposition, [[1, 0, 0], [1, 0, 0], [1, 0, 0], half, half, [0, 1, 0], [0, 1, 0], [0, 1, 0]], [1, 2, 3, 4, 5]
    )
    strengths = [[0.8, 0], [0.5, 0.1], [0.9, 0.9], [0, 0.6], [0, 0.5], [1, 0], [0, 1], [0, 1]]
    figures["learn/neural_stack"] = trace(neural_stack, strengths, [1, 2, 3, 0, 0, 4])
    figures["learn/neural_queue"] = trace(neural_queue, strengths, [1, 2, 3, 0, 0, 4])
    both = [
        [0.8, 0, 0, 0],
        [0, 0, 0.7, 0],
        [0.5, 0, 0, 0],
        [0, 0.6, 0, 0],
        [0, 0, 0, 0.5],
        [1, 0, 0.4, 0],
        [0, 1, 0, 1],
    ]
    figures["learn/neural_deque"] = trace(neural_deque, both, [1, 2, 3, 0, 0, 4])
    figures["learn/automaton"] = automaton([0, 1, 1, 0, 0, 1, 1, 0])
    hard = [PUSH, PUSH, POP, PUSH, PUSH, NOOP, POP, POP, PUSH, POP, POP]
    elements = [1, 2, 0, 3, 4, 0, 0, 0, 5]
    for family in (pointer, discrete, superposition, neural_stack, neural_queue):
        actions = jnp.asarray(hard) if family is discrete else family.encode(hard)
        figures[f"gallery/{family.__name__.rpartition('.')[2]}"] = trace(family, actions, elements)
    ends = neural_deque.encode([[code, NOOP] if t % 2 else [NOOP, code] for t, code in enumerate(hard)])
    figures["gallery/neural_deque"] = trace(neural_deque, ends, elements)
    figures["gallery/nondeterministic"] = automaton([0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    rng = np.random.default_rng(0)
    softmax = np.exp(rng.normal(size=(16, 3)) * 1.5)
    figures["gallery/superposition-random"] = trace(
        superposition, softmax / softmax.sum(-1, keepdims=True), rng.normal(size=16)
    )
    figures["gallery/neural_stack-random"] = trace(neural_stack, rng.uniform(size=(16, 2)), rng.normal(size=16))
    figures["gallery/neural_queue-random"] = trace(neural_queue, rng.uniform(size=(16, 2)), rng.normal(size=16))
    return figures


def trace(family: Any, actions: Any, elements: Any) -> Figure:
    """`plot_trace` of a family from an empty stack; elements that are not given are zero."""
    actions = jnp.asarray(actions) if family is discrete else jnp.asarray(actions, jnp.float32)
    shape = (1,) if family is superposition else ()
    given = np.zeros((len(actions), *shape), np.float32)
    given[: len(elements)] = np.reshape(elements, (-1, *shape))
    pushed = jnp.asarray(given)
    state = family.empty(5, shape)
    return plot_trace(family, state, actions, (pushed, pushed) if family is neural_deque else pushed)


def buffer_and_index() -> Figure:
    """The two arrays of the pointer's state after each step of a program."""
    codes, elements = [PUSH, PUSH, PUSH, POP, POP, PUSH], [1.0, 2.0, 3.0, 0.0, 0.0, 4.0]
    state = pointer.empty(4)
    indices, buffers, names = [np.asarray(state.index)], [np.asarray(state.buffer)], ["start"]
    for code, element in zip(codes, elements, strict=True):
        state, _ = pointer.step(state, pointer.encode(code), element)
        indices.append(np.asarray(state.index))
        buffers.append(np.asarray(state.buffer))
        names.append(f"push {element:g}" if code == PUSH else "pop")
    figure = Figure(figsize=SIZE, dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    grid(above, np.stack(indices, 1), "index", "Greys", Normalize(0, 1.6))
    grid(below, np.stack(buffers, 1), "buffer", "Blues", Normalize(0, 6))
    below.set_xticks(range(len(names)), names, fontsize=12)
    return figure


def reversal() -> Figure:
    """Two stacks over the steps of a reversal: what the first pops, the second is pushed."""
    sequence, (first, second), seen = [1.0, 2.0, 3.0, 4.0], (pointer.empty(4), pointer.empty(4)), []
    for element in sequence:
        first = pointer.push(first, element)
        seen.append((first, second))
    for _ in sequence:
        first, element = pointer.pop(first)
        second = pointer.push(second, element)
        seen.append((first, second))
    figure = Figure(figsize=SIZE, dpi=150, layout="constrained")
    for axes, which, name in zip(
        figure.subplots(2, 1, sharex=True), (0, 1), ("first stack", "second stack"), strict=True
    ):
        # What is above the index is no longer on the stack.
        depths = [min(t + 1, 7 - t) if which == 0 else max(t - 3, 0) for t in range(8)]
        held = np.stack([np.asarray(state[which].buffer) for state in seen], 1)
        held[[[slot >= depth for depth in depths] for slot in range(4)]] = np.nan
        grid(axes, held, name, "Blues", Normalize(0, 6))
    axes.set_xticks(range(8), ["push"] * 4 + ["pop, push"] * 4, fontsize=11)
    return figure


def drift() -> Figure:
    """How far reads are off where pushes are soft, by the number of elements that are pushed and then popped."""
    figure = Figure(figsize=(7.5, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    lengths = [1, 2, 4, 8, 16, 32, 64, 128]
    rng = np.random.default_rng(0)
    for degree in (0.9, 0.99, 0.999, 1.0):
        errors = []
        for length in lengths:
            elements = jnp.asarray(np.sign(rng.normal(size=2 * length)), jnp.float32)
            soft = neural_stack.encode([PUSH] * length + [POP] * length) * jnp.asarray([degree, 1.0])
            hard = jnp.asarray([PUSH] * length + [POP] * length)
            _, reads = neural_stack.scan(neural_stack.empty(1), soft, elements)
            _, expected = discrete.scan(discrete.empty(length), hard, elements)
            errors.append(float(jnp.abs(reads - expected)[length:].mean()))
        axes.plot(lengths, errors, marker="o", label=f"{degree:g}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_xlabel("elements pushed, then popped", fontsize=12)
    axes.set_ylabel("mean error of a read", fontsize=12)
    axes.legend(title="strength of\nevery push", frameon=False, loc="upper left", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def automaton(word: list[int]) -> Figure:
    """The automaton for a word and its reversal, as understand/nondeterministic.md writes it."""

    def operations(symbol: int) -> np.ndarray:
        push, pop = np.full((2, 3, 2, 3), -np.inf), np.full((2, 3, 2), -np.inf)
        push[0, :, 0, 1 + symbol] = np.log(0.5)
        pop[0, 1 + symbol, 1] = np.log(0.5)
        pop[1, 1 + symbol, 1] = 0
        return np.concatenate([push.ravel(), pop.ravel(), np.full_like(push, -np.inf).ravel()])

    actions = jnp.asarray(np.stack([operations(symbol) for symbol in word]), jnp.float32)
    figure = plot_trace(nondeterministic, nondeterministic.empty(1, (0,), states=2, symbols=3), actions, None)
    tops, reads, numbers = figure.axes[0], figure.axes[2], figure.axes[-1]
    tops.tick_params(labelsize=8)
    reads.set_visible(False)
    numbers.set_visible(False)
    figure.axes[1].tick_params(labelbottom=True)
    figure.axes[1].set_xlabel("step")
    return figure


def trained(recipe: Recipe, folder: Path) -> Figure:
    """What the network does with its stack that has the best score, on a sequence of ten symbols."""
    rows = training.run(recipe, folder, backend="jax", resume=folder.exists())
    last = [row for row in rows if row.step == rows[-1].step] or rows[-1:]
    best = max(last, key=lambda row: -row.score if recipe.task == "dyck_2" else row.score)
    _, _, (figure,) = evaluation.trace(evaluation.load(folder), 10, index=recipe.seeds.index(best.seed))
    return figure


def grid(axes: Any, values: np.ndarray, name: str, cmap: str, norm: Normalize) -> None:
    """Numbers in cells, a column a step, and row 0 at the bottom."""
    axes.imshow(values, origin="lower", aspect="auto", cmap=cmap, norm=norm)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(column, row, f"{value:g}", ha="center", va="center", fontsize=13)
    axes.set_ylabel(name, fontsize=13)
    axes.set_yticks(range(len(values)), [f"slot {slot}" for slot in range(len(values))], fontsize=11)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(values) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def write(name: str, figure: Figure) -> None:
    """One picture, in the size of a page's column."""
    if len(figure.axes) > 2:  # those of `plot_trace`
        figure.set_size_inches(*SIZE)
    path = IMAGES / f"{name}.png"
    # Without the date and the version of what drew it, the same picture has the same bytes.
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    print(path)


if __name__ == "__main__":
    main()
