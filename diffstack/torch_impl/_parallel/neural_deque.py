"""The neural deque of a whole sequence, chunk by chunk.

Within a chunk of steps the deque is what the chunk has pushed at the top, all that was there before, and what the
chunk has pushed at the bottom. The chunk runs by the definition on its own elements, with all the older ones as a
single slot between them: that says what each step takes of the older ones at both ends, and what its reads still want
of them. They are only cut from both ends, so that after step t

    left[t, i] = max(0, s[i] - max(0, taken_t - above[i]) - max(0, taken'_t - below[i]))

and where slot i has something left, nothing above it is cut from below. So the weights in the reads of both ends are
those of `_line.py`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl._arrays import numbered
from diffstack.torch_impl._line import above, below, feasible, remaining, room
from diffstack.torch_impl._parallel._line import (
    chunk_length,
    distance,
    in_two_parts,
    into_chunks,
    left_over,
    over_runs,
    product,
    read_weights,
)
from diffstack.torch_impl._parallel._recompute import recompute
from diffstack.torch_impl._ties import block_at_zero, smaller


def scan(
    values: Float[Tensor, "*batch slots dim"],
    strengths: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "*batch time 4"],
    elements: tuple[Float[Tensor, "*batch time dim"], Float[Tensor, "*batch time dim"]],
) -> tuple[
    Float[Tensor, "*batch all dim"],
    Float[Tensor, "*batch all"],
    tuple[Float[Tensor, "*batch time dim"], Float[Tensor, "*batch time dim"]],
]:
    """All slots after the last step, from the bottom to the top, their strengths, and the reads of both ends.

    The slots are the bottom pushes, the latest first; the initial slots; and the top pushes, the latest last.
    """
    time, rank = actions.shape[-2], actions.ndim - 2
    values = torch.cat([torch.flip(elements[1], (-2,)), values, elements[0]], -2)
    chunks = into_chunks(feasible(actions), rank, chunk_length(time))
    left, (read_top, read_bottom) = over_runs(_run, strengths, values, (chunks,), time, ends=2)
    return values, left, (read_top, read_bottom)


def _run(
    left: Float[Tensor, "*batch older"],
    values: Float[Tensor, "*batch slots dim"],
    actions: Float[Tensor, "chunks *batch steps 4"],
) -> tuple[
    Float[Tensor, "*batch all"], Float[Tensor, "chunks *batch steps dim"], Float[Tensor, "chunks *batch steps dim"]
]:
    """What a run of chunks leaves of the older elements and of its own, and its reads."""
    chunk, reads = actions.shape[-2], []
    for action in actions.unbind():
        # The chunk's own slots: its bottom pushes lie below all older ones, its top pushes above.
        bottom = (values.shape[-2] - left.shape[-1]) // 2
        top = bottom + left.shape[-1]
        new = torch.cat([values[..., bottom - chunk : bottom, :], values[..., top : top + chunk, :]], -2)
        left, kept, *read = recompute(_chunk, left, values[..., bottom:top, :], action, new)
        left = torch.cat([kept[..., :chunk], left, kept[..., chunk:]], -1)
        reads.append(read)
    read_top, read_bottom = (torch.stack(read) for read in zip(*reads, strict=True))
    return left, read_top, read_bottom


def _chunk(
    strengths: Float[Tensor, "*batch slots"],
    values: Float[Tensor, "*batch slots dim"],
    actions: Float[Tensor, "*batch steps 4"],
    new: Float[Tensor, "*batch own dim"],
) -> tuple[
    Float[Tensor, "*batch slots"],
    Float[Tensor, "*batch own"],
    Float[Tensor, "*batch steps dim"],
    Float[Tensor, "*batch steps dim"],
]:
    """What a chunk leaves of the older elements and of its own, and its reads at both ends."""
    kept, weights, taken, wanted = _within(actions, torch.sum(strengths, -1))
    rest_top, rest_bottom = (
        distance(nearer(in_two_parts(strengths)), torch.cumsum(in_two_parts(each), -1))
        for nearer, each in zip((above, below), taken, strict=True)
    )
    left = left_over(strengths[..., None, :] - block_at_zero(-rest_bottom), rest_top)
    read_top, read_bottom = (
        product(read_weights(left, rest, want), values) + product(own, new)
        for rest, want, own in zip((rest_top, rest_bottom), wanted, weights, strict=True)
    )
    return left[..., -1, :], kept, read_top, read_bottom


def _within(
    actions: Float[Tensor, "*batch steps 4"], older: Float[Tensor, "*batch"]
) -> tuple[
    Float[Tensor, "*batch own"],
    tuple[Float[Tensor, "*batch steps own"], Float[Tensor, "*batch steps own"]],
    tuple[Float[Tensor, "*batch steps"], Float[Tensor, "*batch steps"]],
    tuple[Float[Tensor, "*batch steps"], Float[Tensor, "*batch steps"]],
]:
    """What is left of the chunk's own elements, their weights in both reads; what steps take and want of older ones.

    From the bottom to the top, slots are the bottom pushes, the latest first, the older elements, and the top pushes.
    """
    strengths = own_slots(older, steps=actions.shape[-2])
    outcome = []
    for place, action in enumerate(actions.unbind(-2)):
        strengths, weights, taken, wanted = own_step(strengths, place, action)
        outcome.append((*weights, *taken, *wanted))
    top, bottom, *rest = (torch.stack(each, older.ndim) for each in zip(*outcome, strict=True))
    kept, top, bottom = (without_older(each) for each in (strengths, top, bottom))
    return kept, (top, bottom), (rest[0], rest[1]), (rest[2], rest[3])


def own_slots(older: Float[Tensor, "*batch"], *, steps: int) -> Float[Tensor, "*batch {2*steps+1}"]:
    """Slots for the pushes of a chunk at both ends, and between them all older elements as one."""
    slots = older.new_zeros((*older.shape, 2 * steps + 1))
    return torch.where(numbered(slots, -1) == steps, older[..., None], slots)


def without_older(slots: Float[Tensor, "*batch slots"]) -> Float[Tensor, "*batch slots-1"]:
    """Own slots without the one in the middle."""
    steps = slots.shape[-1] // 2
    return torch.cat([slots[..., :steps], slots[..., steps + 1 :]], -1)


def own_step(
    strengths: Float[Tensor, "*batch slots"], place: int, action: Float[Tensor, "*batch 4"]
) -> tuple[
    Float[Tensor, "*batch slots"],
    tuple[Float[Tensor, "*batch slots"], Float[Tensor, "*batch slots"]],
    tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]],
    tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]],
]:
    """One step on own slots: what is left, the weights of both reads; what it takes and wants of older elements."""
    slot, steps = numbered(strengths, -1), strengths.shape[-1] // 2
    push_top, pop_top, push_bottom, pop_bottom = (action[..., each] for each in range(4))
    one = torch.ones_like(push_top)
    sums = above(strengths)
    taken_top = room(pop_top, sums)[..., steps]
    strengths = remaining(strengths, sums, pop_top)
    sums = below(strengths)
    taken_bottom = room(pop_bottom, sums)[..., steps]
    strengths = remaining(strengths, sums, pop_bottom)
    strengths = torch.where(slot == steps + 1 + place, push_top[..., None], strengths)
    strengths = torch.where(slot == steps - 1 - place, push_bottom[..., None], strengths)
    room_top, room_bottom = room(one, above(strengths)), room(one, below(strengths))
    weights = smaller(strengths, room_top), smaller(strengths, room_bottom)
    return strengths, weights, (taken_top, taken_bottom), (room_top[..., steps], room_bottom[..., steps])
