"""The neural deque of a whole sequence, chunk by chunk.

Within a chunk of steps the deque is what the chunk has pushed at the top, all that was there before, and what the
chunk has pushed at the bottom. The chunk runs by the definition on its own elements, with all the older ones as a
single slot between them: that says what each step takes of the older ones at both ends, and what its reads still want
of them. They are only cut from both ends, so that after step t

    left[t, i] = max(0, s[i] - max(0, taken_t - above[i]) - max(0, taken'_t - below[i]))

and where slot i has something left, nothing above it is cut from below. So the weights in the reads of both ends are
those of `_neural.py`.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.torch_impl._neural import above, below, feasible, least, remaining, room
from diffstack.torch_impl.parallel._neural import (
    between,
    chunk_length,
    chunked,
    cut,
    joined,
    parts,
    product,
    seen,
    segments,
)
from diffstack.torch_impl.parallel._recompute import recompute


def is_faster(time: int) -> bool:
    """Whether this is faster than stepping, as measured forward and backward on a CPU: see docs/parallel.md."""
    return time >= 16


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
    slots, time, rank = strengths.shape[-1], actions.shape[-2], actions.ndim - 2
    chunk = chunk_length(time)
    actions = chunked(feasible(actions), rank, chunk)
    values = torch.cat([torch.flip(elements[1], (-2,)), values, elements[0]], -2)
    # The last chunk is filled with no-ops.
    length = len(actions) * chunk
    fill = values.new_zeros((*values.shape[:-2], length - time, values.shape[-1]))
    padded = torch.cat([fill, values, fill], -2)
    left, reads, runs = feasible(strengths), [], segments(len(actions))
    run = _segment if len(runs) == 1 else partial(recompute, _segment)
    for part in runs:
        stop = chunk * part.stop
        left, *read = run(left, padded[..., length - stop : length + slots + stop, :], actions[part])
        reads.append(read)
    left = left[..., length - time : length + slots + time].to(strengths.dtype)
    read_top, read_bottom = (joined(torch.cat(read), rank, time).to(values.dtype) for read in zip(*reads, strict=True))
    return values, left, (read_top, read_bottom)


def _segment(
    left: Float[Tensor, "*batch older"],
    values: Float[Tensor, "*batch slots dim"],
    actions: Float[Tensor, "chunks *batch steps 4"],
) -> tuple[
    Float[Tensor, "*batch all"], Float[Tensor, "chunks *batch steps dim"], Float[Tensor, "chunks *batch steps dim"]
]:
    """What a run of chunks leaves of the older elements and of its own; and its reads."""
    chunk, reads = actions.shape[-2], []
    for action in actions.unbind():
        # The chunk's own slots: its bottom pushes stand below all older ones, its top pushes above.
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
        between(nearer(parts(strengths)), torch.cumsum(parts(each), -1))
        for nearer, each in zip((above, below), taken, strict=True)
    )
    left = cut(strengths[..., None, :] + torch.where(rest_bottom >= 0, 0, rest_bottom), rest_top)
    read_top, read_bottom = (
        product(seen(left, rest, want), values) + product(own, new)
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
    """What is left of the own elements, their weights in both reads; what each step takes and wants of older ones.

    Slots stand from the bottom to the top: the bottom pushes, the latest first, the older elements, the top pushes.
    """
    steps = actions.shape[-2]
    slot = torch.arange(2 * steps + 1, device=actions.device)
    one = torch.ones_like(older)
    strengths = torch.where(slot == steps, older[..., None], 0)
    outcome = []
    for place, action in enumerate(actions.unbind(-2)):
        push_top, pop_top, push_bottom, pop_bottom = (action[..., each, None] for each in range(4))
        sums = above(strengths)
        taken_top = room(pop_top[..., 0], sums)[..., steps]
        strengths = remaining(strengths, sums, pop_top[..., 0])
        sums = below(strengths)
        taken_bottom = room(pop_bottom[..., 0], sums)[..., steps]
        strengths = remaining(strengths, sums, pop_bottom[..., 0])
        strengths = torch.where(slot == steps + 1 + place, push_top, strengths)
        strengths = torch.where(slot == steps - 1 - place, push_bottom, strengths)
        room_top, room_bottom = room(one, above(strengths)), room(one, below(strengths))
        weights = least(strengths, room_top), least(strengths, room_bottom)
        outcome.append((*weights, taken_top, taken_bottom, room_top[..., steps], room_bottom[..., steps]))
    top, bottom, *rest = (torch.stack(each, older.ndim) for each in zip(*outcome, strict=True))
    kept, top, bottom = (
        torch.cat([each[..., :steps], each[..., steps + 1 :]], -1) for each in (strengths, top, bottom)
    )
    return kept, (top, bottom), (rest[0], rest[1]), (rest[2], rest[3])
