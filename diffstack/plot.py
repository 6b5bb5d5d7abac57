"""Pictures of what a structure did, drawn without a window."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import Family, family_of

_STYLES: Sequence[dict[str, Any]] = (
    {"color": "#f28e2b", "linewidth": 5, "alpha": 0.6},
    {"color": "#1f3b73", "linewidth": 1.6, "linestyle": (0, (4, 2))},
)


def plot_learning(losses: Mapping[str, np.ndarray], snapshots: Mapping[int, np.ndarray]) -> Figure:
    """Draw a learning run: its loss, and the input as it changes from the start to the learned one.

    Args:
        losses: by the name of a framework, one or both, the loss before each update, (steps,).
        snapshots: by the number of updates, the input then, (n, *element); elements are drawn as rows.

    Returns:
        A figure of 1200 x 500 pixels, for `savefig`.

    Example:
        >>> import numpy as np
        >>> from diffstack.plot import plot_learning
        >>> figure = plot_learning({"JAX": np.asarray([3.5, 1.3])}, {0: np.ones((4, 4)), 2: np.eye(4)})
        >>> figure.get_size_inches().tolist()
        [12.0, 5.0]
    """
    figure = Figure(figsize=(12, 5), dpi=100, layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(0.37, 0.63))
    _draw_losses(halves[0], losses)
    _draw_snapshots(halves[1], snapshots)
    return figure


def plot_training(rows: Sequence[Any], metric: str) -> Figure:
    """Draw a training: the loss and the score of every seed at each check.

    Args:
        rows: those of the log, with step, seed, loss and score.
        metric: the name of the score.

    Returns:
        A figure of 1200 x 500 pixels, for `savefig`.

    Example:
        >>> from diffstack.plot import plot_training
        >>> from diffstack.training import Row
        >>> figure = plot_training([Row(100, 0, 0.7, 0.5, 1.0), Row(200, 0, 0.1, 0.9, 2.0)], "accuracy")
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss, nats', 'accuracy']
    """
    figure = Figure(figsize=(12, 5), dpi=100, layout="constrained")
    panels: Any = figure.subplots(1, 2)
    for axes, name, label in zip(panels, ("loss", "score"), ("loss, nats", metric), strict=True):
        for seed in dict.fromkeys(row.seed for row in rows):
            mine = [row for row in rows if row.seed == seed]
            axes.plot(
                [row.step for row in mine], [getattr(row, name) for row in mine], marker=".", label=f"seed {seed}"
            )
        axes.set_xlabel("steps")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if any(row.loss > 0 for row in rows):
        panels[0].set_yscale("log")
    if rows:
        panels[1].legend(frameon=False)
    return figure


def _draw_losses(figure: Any, losses: Mapping[str, np.ndarray]) -> None:
    figure.suptitle("Loss", fontsize=14)
    axes = figure.add_subplot()
    for style, (name, values) in zip(_STYLES, losses.items(), strict=False):
        # A logarithmic axis has no place for a loss of zero or one beyond the largest number.
        shown = np.where(np.isfinite(values) & (values > 0), values, np.nan).astype(np.float64)
        axes.plot(shown, label=name, marker="o" if len(shown) == 1 else None, **style)
    if any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.set_yscale("log")
    else:
        axes.text(0.5, 0.5, "no loss above zero", ha="center", transform=axes.transAxes)
    axes.set_xlabel("updates")
    axes.set_ylabel("mean squared error")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=12)


def _draw_snapshots(figure: Any, snapshots: Mapping[int, np.ndarray]) -> None:
    figure.suptitle("The input, one element a row", fontsize=14)
    grids = [np.asarray(array, np.float64).reshape(len(array), -1) for array in snapshots.values()]
    low, high = min(grid.min() for grid in grids), max(grid.max() for grid in grids)
    norm = Normalize(low, high)
    rows, columns = grids[0].shape
    all_axes = figure.subplots(1, len(grids), squeeze=False)[0]
    last = max(snapshots)
    for axes, step, grid in zip(all_axes, snapshots, grids, strict=True):
        image = axes.imshow(grid, norm=norm, cmap="viridis", aspect="auto")
        axes.set_title(
            "start" if step == 0 else f"learned ({step})" if step == last else f"{step} updates", fontsize=11
        )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if rows <= 8 and columns <= 6:
            _write_numbers(axes, grid, (low + high) / 2)
    figure.colorbar(image, ax=all_axes, orientation="horizontal", fraction=0.05, aspect=50)


def _write_numbers(axes: Any, grid: np.ndarray, middle: float) -> None:
    for (row, column), value in np.ndenumerate(grid):
        colour = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=12)


def plot_trace(family: Any, state: Any, actions: Any, elements: Any) -> Figure:
    """Draw what a structure did: its actions, what it held over time, and what was read.

    A structure of strengths is drawn as a pile, one column a step: every element is a block as high as its strength,
    coloured by the step that pushed it (grey if it was there before). A picture of a nondeterministic stack shows how
    likely every top is, by state and symbol, and in place of the contents the attention of each read: a row for each
    push, the newest at the top, above what was there before. Any other structure is drawn as its contents, the top row
    at the top, where an element of several entries is shown by its length.

    Args:
        family: a family of either implementation, such as `diffstack.jax_impl.neural_stack`.
        state: the structure before the first step, without batch axes.
        actions: those of its `scan`, T steps.
        elements: those of its `scan`, T steps; None where it takes none.

    Returns:
        A figure of 1200 x 600 pixels, for `savefig`.

    Raises:
        ValueError: no steps.
        TypeError: a module that is not a family.
        TypeError, ValueError: what the family's `step` raises, for a batch of states too.

    Example:
        >>> import numpy as np
        >>> from diffstack.actions import NOOP, POP, PUSH
        >>> from diffstack.jax_impl import neural_stack
        >>> from diffstack.plot import plot_trace
        >>> program = neural_stack.encode([PUSH, PUSH, NOOP, POP])
        >>> figure = plot_trace(neural_stack, neural_stack.empty(1), program, np.ones(4, np.float32))
        >>> [axes.get_ylabel() for axes in figure.axes[:3]]
        ['actions', 'strength', 'reads']
    """
    about = family_of(family)
    if about is None:
        raise TypeError(f"family: expected a family's module, got {getattr(family, '__name__', type(family).__name__)}")
    time, pair = len(actions), len(about.ends) == 2
    if time == 0:
        raise ValueError("actions: expected at least one step, got none")
    if about.grows:
        slots = state.strengths.shape[-1] if about.strengths else state.edges.shape[-3]
        state = family.resize(state, slots + len(about.ends) * time)
    held, reads, tops = [], [], []
    acts, given = _steps(actions), tuple(map(_steps, () if elements is None else elements if pair else (elements,)))
    for t in range(time):
        element = None if elements is None else tuple(each[t] for each in given) if pair else given[0][t]
        state, read = family.step(state, acts[t], element)
        if about.automaton:
            likely, newest = np.exp(_array(state.tops)), np.exp(_array(state.edges)[-1])
            tops.append(likely.reshape(-1))
            # Every step has moved what was there by one.
            held.append(np.roll((likely[..., None] * newest.sum((-2, -1))).sum((0, 1)), t + 1 - time))
        else:
            held.append(_array(state.strengths if about.strengths else family.contents(state)))
        reads.append(np.concatenate([_array(each).reshape(-1) for each in (read if pair else (read,))]))
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=(1, 3, 1.4))
    if about.automaton:
        _draw_tops(above, np.asarray(tops), tuple(state.tops.shape))
        _draw_rows(middle, np.asarray(held).T[::-1], "Greys", "attention", Normalize(0, 1))
    else:
        _draw_actions(above, _array(actions).reshape(time, -1), about)
        if about.strengths:
            _draw_pile(middle, np.maximum(held, 0), pair)
        else:
            _draw_contents(middle, np.asarray(held))
    _draw_rows(below, np.asarray(reads).T, "RdBu", "reads", _spread(np.asarray(reads)))
    below.set_xlabel("step")
    return figure


def _array(array: Any) -> np.ndarray:
    """A NumPy array of one of any framework."""
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array).astype(np.float64)


def _steps(array: Any) -> Any:
    """An array that gives its steps at once; JAX would compile a program to cut one out."""
    return array if hasattr(array, "detach") else np.asarray(array)


def _spread(array: np.ndarray) -> Normalize:
    """Colours with white at zero."""
    most = max(float(np.max(np.abs(array), initial=0)), 1e-12)
    return Normalize(-most, most)


def _draw_rows(axes: Any, rows: np.ndarray, cmap: str, label: str, norm: Normalize) -> None:
    image = axes.imshow(rows, aspect="auto", interpolation="nearest", cmap=cmap, norm=norm)
    axes.figure.colorbar(image, ax=axes, pad=0.01, aspect=12)
    axes.set_ylabel(label, fontsize=12)
    axes.set_yticks([])


def _draw_actions(axes: Any, actions: np.ndarray, about: Family) -> None:
    names = about.action
    if not names:  # integer codes
        actions, names = (actions == (PUSH, POP, NOOP)).astype(float), ("push", "pop", "noop")
    _draw_rows(axes, actions.T, "Greys", "actions", Normalize(0, max(1.0, float(actions.max()))))
    axes.set_yticks(range(len(names)), names, fontsize=11)


def _draw_tops(axes: Any, tops: np.ndarray, sizes: tuple[int, ...]) -> None:
    _draw_rows(axes, tops.T, "Greys", "state, top", Normalize(0, 1))
    names = [f"{state}, {symbol}" for state, symbol in np.ndindex(sizes)]
    axes.set_yticks(range(len(names)), names, fontsize=11 if len(names) < 8 else 6)


def _draw_contents(axes: Any, contents: np.ndarray) -> None:
    flat = contents.reshape(*contents.shape[:2], -1)
    shown = flat[..., 0] if flat.shape[-1] == 1 else np.linalg.norm(flat, axis=-1)
    # The top, the last row of contents, is drawn at the top.
    _draw_rows(axes, shown.T[::-1], "RdBu", "contents", _spread(shown))


def _draw_pile(axes: Any, strengths: np.ndarray, pair: bool) -> None:
    time, slots = strengths.shape
    slot = np.arange(slots)
    # A push takes the last slot and moves the others down; at the bottom of a deque it is the other way round.
    age = np.minimum(slot, slots - 1 - slot) if pair else slots - 1 - slot
    norm, colours = Normalize(0, max(time - 1, 1)), colormaps["viridis"]
    tops = np.cumsum(strengths, axis=1)
    for t, k in np.argwhere(strengths > 0):
        pushed = t - age[k]
        colour = colours(norm(pushed)) if pushed >= 0 else "lightgrey"
        axes.bar(t, strengths[t, k], 0.92, tops[t, k] - strengths[t, k], color=colour, edgecolor="white", linewidth=0.6)
    axes.set_ylabel("strength", fontsize=12)
    axes.set_ylim(0, max(1.0, float(tops.max())) * 1.05)
    whole = MaxNLocator(5, integer=True)
    axes.figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, pad=0.01, aspect=25, label="step of the push", ticks=whole
    )
