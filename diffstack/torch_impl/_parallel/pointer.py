"""The pointer stack over a whole sequence, as matrix products.

With w_t = push_t index_{t-1} (where step t writes) and q_t = roll(index_t, -1) (where it reads), a step is

    buffer <- diag(1 - w_t) buffer + w_t element_t^T          read_t = q_t^T buffer

Over a chunk of c steps, with a row for every step and a column for every slot in `write` and `recall`, this is

    new buffer = diag(decay) buffer + write^T @ elements      reads = recall @ buffer + relay @ elements

where for one step decay = 1 - w, write = w, recall = q (1 - w), relay = q . w. Two chunks in a row are one of 2c:

    decay  = decay1 decay2                 write = [write1 decay2; write2]
    recall = [recall1; recall2 decay1]     relay = [[relay1, 0], [recall2 @ write1^T, relay2]]

so log2(C) doublings, all chunks of a segment at once, make chunks of C steps; the buffer then goes over a chunk by
one multiplication and one addition. Nothing is divided by decays: a hard push makes them zero.

The index does not depend on the buffer. A step convolves it around the ring with three taps, (pop, noop, push), and
so does the beginning of a chunk, up to its step t, with 2t + 1. Taps are doubled too: in the second of two chunks
they are convolved with the last taps of the first. One product with all taps of a chunk then gives every w and q in it,
and the last q is all that the next chunk needs, as index_t = roll(q_t, 1).

Where all steps are pushes, or all pops, there is no path to find: the index only turns. Seen from the index, which
then stands still, it is the buffer that turns, and every chunk of c steps is one and the same product and a turn by c:

    c pushes: buffer <- roll(diag(decay) buffer + write^T @ elements, -c)
    c pops:   elements = look @ buffer;  buffer <- roll(buffer, c)

Push t = 0 .. c - 1 of a chunk writes at v_t = roll(index, t), so decay = prod_t (1 - v_t) and write_t = v_t prod_{s>t}
(1 - v_s), which are made from the last push to the first. Pop t takes the element at look_t = roll(index, -t - 1), the
slot that it moves to. After all chunks the buffer is turned back by the number of pushes; pops leave it as it was.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffstack.actions import NOOP, POP, PUSH
from diffstack.torch_impl._parallel._chunking import from_segments, halves, into_segments, pad
from diffstack.torch_impl._parallel._recompute import recompute

# Longer chunks need fewer passes over the buffer, but more taps and one doubling more; shorter ones start more
# operations, which costs PyTorch more than JAX.
_CHUNK = 32

# For pushes alone and pops alone. With 16 the reversal of 1024 elements took half as long again, with 64 about as long.
_RUN = 32


def _windows(array: Float[Tensor, "*batch length"], rows: int, size: int) -> Float[Tensor, "*batch {rows} {size}"]:
    """Windows of an array that goes on from its beginning: the first at entry rows - 1, each one entry before."""
    *batch, length = array.shape
    # Repeat the array in rows, then cut them one entry shorter. PyTorch cannot vmap the gradient of its own `unfold`.
    tiled = array[..., None, :].expand(*batch, rows, length).reshape(*batch, rows * length)
    return tiled[..., rows - 1 : rows * length - 1].reshape(*batch, rows, length - 1)[..., :size]


def _taps(actions: Float[Tensor, "*batch steps 3"]) -> Float[Tensor, "*batch steps 2*steps+1"]:
    """What a single 1 on an endless tape has become after every step of a chunk; it was in the middle."""
    taps = torch.stack([actions[..., code] for code in (POP, NOOP, PUSH)], dim=-1)[..., None, :]
    while taps.shape[-3] > 1:
        taps1, taps2 = halves(taps)
        steps = taps.shape[-2]
        later = taps2 @ _windows(pad(taps1[..., -1, :], -1, 2 * steps, 1), 2 * steps + 1, 4 * steps + 1)
        taps = torch.cat([pad(taps1, -1, steps, steps), later], dim=-2)
    return taps[..., 0, :, :]


def _path(
    look: Float[Tensor, "*batch slots"], actions: Float[Tensor, "chunks *batch steps 3"]
) -> tuple[Float[Tensor, "chunks *batch steps slots"], Float[Tensor, "chunks *batch steps slots"]]:
    """Where every step writes and where it reads; the step before the first read at `look`."""
    slots, (*batch, steps, _) = look.shape[-1], actions.shape
    after = _taps(actions)
    start = torch.nn.functional.one_hot(torch.tensor(steps, device=look.device), 2 * steps + 1).to(look.dtype)
    before = torch.cat([start.expand(*batch, 1, 2 * steps + 1), after[..., :-1, :]], dim=-2)
    # A step writes one slot above the one where the step before it read. No 1 has got to the tap that this drops.
    write = actions[..., PUSH, None] * pad(before[..., :-1], -1, 1, 0)
    taps = torch.cat([write, after], dim=-2)
    first, turns = -steps % slots, 2 - -2 * steps // slots
    paths = []
    for chunk_taps in taps.unbind():
        around = torch.cat([look] * turns, dim=-1)[..., first : first + slots + 2 * steps]
        path = chunk_taps @ _windows(around, 2 * steps + 1, slots)
        look = path[..., -1, :]
        paths.append(path)
    write, look = torch.split(torch.stack(paths), [steps, steps], dim=-2)
    return write, look


def _matrices(
    write: Float[Tensor, "chunks *batch steps slots"], look: Float[Tensor, "chunks *batch steps slots"]
) -> tuple[
    Float[Tensor, "chunks *batch slots"],
    Float[Tensor, "chunks *batch steps slots"],
    Float[Tensor, "chunks *batch steps slots"],
    Float[Tensor, "chunks *batch steps steps"],
]:
    """Decay, write, recall and relay of all chunks."""
    write, look = write[..., None, :], look[..., None, :]
    decay = 1 - write
    recall = look * decay
    relay = look @ write.mT
    while relay.shape[-3] > 1:
        (decay1, decay2), (write1, write2) = halves(decay), halves(write)
        (recall1, recall2), (relay1, relay2) = halves(recall), halves(relay)
        later = torch.cat([recall2 @ write1.mT, relay2], dim=-1)
        relay = torch.cat([pad(relay1, -1, 0, relay1.shape[-1]), later], dim=-2)
        write = torch.cat([write1 * decay2, write2], dim=-2)
        recall = torch.cat([recall1, recall2 * decay1], dim=-2)
        decay = decay1 * decay2
    return decay[..., 0, 0, :], write[..., 0, :, :], recall[..., 0, :, :], relay[..., 0, :, :]


def _segment(
    buffer: Float[Tensor, "*batch slots dim"],
    look: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "chunks *batch steps 3"],
    elements: Float[Tensor, "chunks *batch steps dim"],
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "*batch slots"], Float[Tensor, "chunks *batch steps dim"]]:
    write, looks = _path(look, actions)
    decay, write, recall, relay = _matrices(write, looks)
    buffers = []
    for chunk_decay, from_elements in zip(decay.unbind(), (write.mT @ elements).unbind(), strict=True):
        buffers.append(buffer)
        buffer = chunk_decay[..., None] * buffer + from_elements
    return buffer, looks[-1, ..., -1, :], recall @ torch.stack(buffers) + relay @ elements


def scan(
    buffer: Float[Tensor, "*batch slots dim"],
    index: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "*batch time 3"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "*batch slots"], Float[Tensor, "*batch time dim"]]:
    """The buffer and the index after the last step, and the read after every step."""
    time = actions.shape[-2]
    look, reads = torch.roll(index, -1, -1), []
    for inputs in zip(*(array.unbind() for array in into_segments(actions, elements, _CHUNK)), strict=True):
        buffer, look, read = recompute(_segment, buffer, look, *inputs)
        reads.append(read)
    return buffer, torch.roll(look, 1, -1), from_segments(torch.stack(reads), time)


def _runs(time: int) -> list[tuple[int, int]]:
    """Chunks of `_RUN` steps and one of what remains: how many, and how long."""
    return [(chunks, steps) for chunks, steps in ((time // _RUN, _RUN), (1, time % _RUN)) if chunks and steps]


def _push_run(
    buffer: Float[Tensor, "*batch slots dim"],
    index: Float[Tensor, "*batch slots"],
    elements: Float[Tensor, "chunks *batch steps dim"],
) -> Float[Tensor, "*batch slots dim"]:
    """The buffer after chunks of pushes, as seen from the index."""
    steps = elements.shape[-2]
    weight, decay, rows = torch.roll(index, steps - 1, -1), torch.ones_like(index), []
    for _ in range(steps):
        rows.append(decay * weight)
        weight, decay = torch.roll(weight, -1, -1), decay * (1 - weight)
    write = torch.stack(rows[::-1], dim=-1)
    for chunk in elements.unbind():
        buffer = torch.roll(decay[..., None] * buffer + write @ chunk, -steps, -2)
    return buffer


def push_all(
    buffer: Float[Tensor, "*batch slots dim"],
    index: Float[Tensor, "*batch slots"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "*batch slots"]]:
    """The buffer and the index after a push of every element."""
    *batch, time, dim = elements.shape
    start = 0
    for chunks, steps in _runs(time):
        run = elements[..., start : start + chunks * steps, :].reshape(*batch, chunks, steps, dim)
        buffer = _push_run(buffer, index, torch.movedim(run, -3, 0))
        start += chunks * steps
    return torch.roll(buffer, time, -2), torch.roll(index, time, -1)


def _pop_run(
    buffer: Float[Tensor, "*batch slots dim"], index: Float[Tensor, "*batch slots"], chunks: int, steps: int
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "*batch {chunks*steps} dim"]]:
    """The buffer after chunks of pops, as seen from the index, and what they read."""
    rows, reads = [], []
    for _ in range(steps):
        index = torch.roll(index, -1, -1)
        rows.append(index)
    look = torch.stack(rows, dim=-2)
    for _ in range(chunks):
        reads.append(look @ buffer)
        buffer = torch.roll(buffer, steps, -2)
    return buffer, torch.cat(reads, dim=-2)


def pop_all(
    buffer: Float[Tensor, "*batch slots dim"], index: Float[Tensor, "*batch slots"], time: int
) -> tuple[Float[Tensor, "*batch slots"], Float[Tensor, "*batch {time} dim"]]:
    """The index after as many pops, and what they read; the buffer stays."""
    reads = []
    for chunks, steps in _runs(time):
        buffer, read = _pop_run(buffer, index, chunks, steps)
        reads.append(read)
    return torch.roll(index, -time, -1), torch.cat(reads, dim=-2)
