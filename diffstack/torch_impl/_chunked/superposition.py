"""The superposition stack in chunks: a window of the top rows for the steps, the whole buffer once a chunk.

Row 0 after k steps depends on rows 0 to k of the stack and on the k elements that were pushed. So for the reads of C
steps it is enough to step a stack cut to its top C + 1 rows: the zeros that come in at the bottom of this window reach
row 0 after C + 1 steps. When the actions and elements of the chunk are known, the parallel form of `scan` takes the
whole buffer over it.

A stack that starts empty has zeros below row t after t steps. Where the final state is not wanted, no read will see the
rows below T - t any more. Neither kind of row is kept.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffstack._plan import Plan
from diffstack.torch_impl._parallel import superposition as _parallel
from diffstack.torch_impl._parallel._chunking import pad
from diffstack.torch_impl.superposition import SuperpositionState, _step


def fit(state: SuperpositionState, *, first: int, stop: int, plan: Plan) -> SuperpositionState:
    """The rows that steps `first` to `stop` can read or write."""
    rows = plan.slots
    if plan.starts_empty:
        rows = min(rows, stop)
    if not plan.final_states:
        rows = min(rows, plan.time - first + 1)
    buffer = state.buffer[..., :rows, :]
    return SuperpositionState(pad(buffer, -2, 0, rows - buffer.shape[-2]))


def open(state: SuperpositionState, *, steps: int) -> tuple[tuple[()], SuperpositionState]:
    """The window: what the reads of so many steps can see."""
    return (), SuperpositionState(state.buffer[..., : steps + 1, :])


def tick(
    window: SuperpositionState,
    fixed: tuple[()],
    place: int,
    actions: Float[Tensor, "*batch 3"],
    element: Float[Tensor, "*batch dim"],
) -> tuple[SuperpositionState, Float[Tensor, "*batch dim"]]:
    """One step of the window."""
    return _step(window, actions, element)


def close(
    state: SuperpositionState,
    fixed: tuple[()],
    window: SuperpositionState,
    first: int,
    actions: Float[Tensor, "*batch steps 3"],
    elements: Float[Tensor, "*batch steps dim"],
    *,
    plan: Plan,
) -> SuperpositionState:
    """The whole stack after the chunk."""
    # A window that holds the whole stack is the stack.
    if window.buffer.shape == state.buffer.shape:
        return window
    return SuperpositionState(_parallel.scan(state.buffer, actions, elements)[0])


def end(state: SuperpositionState, lengths: Any, *, plan: Plan) -> SuperpositionState:
    """All rows of the stack."""
    return SuperpositionState(pad(state.buffer, -2, 0, plan.slots - state.buffer.shape[-2]))
