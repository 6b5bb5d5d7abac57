"""Pictures of what a structure did, drawn without a window."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

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
