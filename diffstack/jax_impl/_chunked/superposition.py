"""The superposition stack in chunks: a window of the top rows for the steps, the whole buffer once a chunk.

**The window.** Row 0 after k steps depends on rows 0 to k of the stack and on the k elements that were pushed. So for
the reads of C steps it is enough to step a stack cut to its top rows: the zeros that come in at the bottom of this
window spoil one row a step. Of 2C rows, the top C are exactly those of the whole stack after the chunk.

**The rows below.** What a step does to a row does not depend on where the row is, unless the top or the bottom is near.
Nothing moves by more than C rows, and what is at row C or below has not met the top. So these rows are a convolution

    new S_i = sum_d taps_d S_{i-d}          taps = product over the steps of (a_pop z^-1 + a_noop + a_push z)

with 2C + 1 taps: products of pairs of polynomials, then of pairs of those. As a matrix with the taps along its
diagonals it takes R = 2C rows at a time: new rows r to r + R come from the 2R rows from r - C on.

**The bottom.** Seen from below, a stack is a stack whose pushes and pops are exchanged, and zeros are pushed. So the
last C rows come out of its last 2C rows, turned over and stepped.

A stack that starts empty has zeros below row t after t steps. Where the final state is not wanted, no read will see the
rows below T - t any more. Neither kind of row is kept, and the bottom is not looked at where no read can see it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from diffstack._plan import Plan
from diffstack.actions import NOOP, POP, PUSH
from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl._parallel._chunking import pad
from diffstack.jax_impl.superposition import SuperpositionState, _step


class Window(NamedTuple):
    """The top rows, (*batch, 2C, D), and the actions of the chunk so far, (*batch, C, 3)."""

    buffer: Array
    actions: Array


def fit(state: SuperpositionState, *, plan: Plan) -> SuperpositionState:
    """The rows that the steps of the run can read or write."""
    rows = _rows(plan)
    buffer = state.buffer[..., :rows, :]
    return SuperpositionState(pad(buffer, -2, 0, rows - buffer.shape[-2]))


def _rows(plan: Plan) -> int:
    """How many rows hold something that will be read."""
    written = plan.stop if plan.starts_empty else plan.slots
    # The read after the last step is a final state's: no controller sees it.
    wanted = plan.slots if plan.final_states else plan.time - plan.first
    return min(plan.slots, written, wanted)


def _meets_bottom(plan: Plan) -> bool:
    """Whether what falls off the last row makes a difference."""
    never_there = plan.starts_empty and plan.stop <= plan.slots
    never_read = not plan.final_states and plan.time - plan.first <= plan.slots
    return not never_there and not never_read


def open(state: SuperpositionState, *, steps: int) -> tuple[tuple[()], Window]:
    """The window."""
    actions = jnp.zeros_like(state.buffer, shape=(*state.buffer.shape[:-2], steps, 3))
    return (), Window(state.buffer[..., : 2 * steps, :], actions)


def tick(
    window: Window,
    fixed: tuple[()],
    place: Int[Array, ""],
    actions: Float[Array, "*batch 3"],
    element: Float[Array, "*batch dim"],
) -> tuple[Window, Float[Array, "*batch dim"]]:
    """One step of the window."""
    stepped, read = _step(SuperpositionState(window.buffer), actions, element)
    return Window(stepped.buffer, lax.dynamic_update_index_in_dim(window.actions, actions, place, -2)), read


def close(
    state: SuperpositionState,
    fixed: tuple[()],
    window: Window,
    first: Int[Array, ""],
    *,
    plan: Plan,
) -> SuperpositionState:
    """The whole stack after the chunk."""
    # A window that holds the whole stack is the stack.
    if window.buffer.shape == state.buffer.shape:
        return SuperpositionState(window.buffer)
    return SuperpositionState(_moved(state.buffer, *window, meets_bottom=_meets_bottom(plan)))


def end(state: SuperpositionState, lengths: Any, *, plan: Plan) -> SuperpositionState:
    """All rows of the stack."""
    return SuperpositionState(pad(state.buffer, -2, 0, plan.slots - state.buffer.shape[-2]))


def _moved(
    buffer: Float[Array, "*batch slots dim"],
    window: Float[Array, "*batch rows dim"],
    actions: Float[Array, "*batch steps 3"],
    *,
    meets_bottom: bool,
) -> Float[Array, "*batch slots dim"]:
    """The top from the window, the rows below by convolution, and the last ones from the bottom."""
    steps, slots = actions.shape[-2], buffer.shape[-2]
    rows = [window[..., :steps, :], _convolved(buffer, _taps(actions))[..., : slots - steps, :]]
    if meets_bottom:
        rows[1:] = [rows[1][..., : slots - 2 * steps, :], _last(buffer, actions)]
    return jnp.concatenate(rows, -2)


def _last(
    buffer: Float[Array, "*batch slots dim"], actions: Float[Array, "*batch steps 3"]
) -> Float[Array, "*batch steps dim"]:
    """The last rows of a stack after some steps."""
    steps, rank = actions.shape[-2], actions.ndim - 2
    below = SuperpositionState(jnp.flip(buffer[..., -2 * steps :, :], -2))
    nothing = jnp.zeros_like(buffer[..., 0, :])
    exchanged = jnp.stack([actions[..., code] for code in (POP, PUSH, NOOP)], -1)
    below, _ = lax.scan(lambda state, action: _step(state, action, nothing), below, jnp.moveaxis(exchanged, rank, 0))
    return jnp.flip(below.buffer[..., :steps, :], -2)


def _taps(actions: Float[Array, "*batch steps 3"]) -> Float[Array, "*batch 2*steps+1"]:
    """What a single 1 far from top and bottom becomes; the middle tap is the row where it was."""
    taps = jnp.stack([actions[..., code] for code in (POP, NOOP, PUSH)], -1)
    while taps.shape[-2] > 1:
        rest = taps[..., -1:, :] if taps.shape[-2] % 2 else None
        pairs = taps.shape[-2] // 2
        first, second = taps[..., 0 : 2 * pairs : 2, :], taps[..., 1 : 2 * pairs : 2, :]
        width = taps.shape[-1]
        taps = matmul(first[..., None, :], _along_diagonals(second, width))[..., 0, :]
        if rest is not None:
            taps = jnp.concatenate([taps, pad(rest, -1, width // 2, width // 2)], -2)
    excess = taps.shape[-1] // 2 - actions.shape[-2]
    return taps[..., 0, excess : taps.shape[-1] - excess]


def _convolved(
    buffer: Float[Array, "*batch slots dim"], taps: Float[Array, "*batch width"]
) -> Float[Array, "*batch rows dim"]:
    """Rows `width // 2` to the last one, and a few more, of the buffer convolved with the taps."""
    *batch, slots, dim = buffer.shape
    size = taps.shape[-1] - 1
    blocks = -(-(slots - size // 2) // size)
    matrix = _along_diagonals(jnp.flip(taps, -1), size)
    padded = pad(buffer, -2, 0, (blocks + 1) * size - slots).reshape(*batch, blocks + 1, size, dim)
    # The rows of a block first, so that one product takes all blocks.
    columns = jnp.swapaxes(padded, -3, -2).reshape(*batch, size, (blocks + 1) * dim)
    rows = matmul(matrix[..., :size], columns[..., : blocks * dim]) + matmul(matrix[..., size:], columns[..., dim:])
    return jnp.swapaxes(rows.reshape(*batch, size, blocks, dim), -3, -2).reshape(*batch, blocks * size, dim)


def _along_diagonals(taps: Float[Array, "*batch width"], rows: int) -> Float[Array, "*batch {rows} {rows}+width-1"]:
    """A matrix whose row r has the taps from column r on."""
    *batch, width = taps.shape
    # Repeat the taps in rows, then cut the rows one entry shorter.
    tiled = jnp.broadcast_to(pad(taps, -1, 0, rows)[..., None, :], (*batch, rows, rows + width))
    flat = tiled.reshape(*batch, rows * (rows + width))[..., : rows * (rows + width - 1)]
    return flat.reshape(*batch, rows, rows + width - 1)
