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

The index does not depend on the buffer. A chunk convolves it around the ring with 2c + 1 taps: what a single 1 becomes
in the same steps on a ring of 2c + 1 slots, or of all slots where they are fewer. So the taps of all chunks take c
steps, the first index of every chunk one convolution after another, and every index in between c steps again.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffstack.actions import PUSH
from diffstack.torch_impl.parallel._chunking import cut, halves, join, pad
from diffstack.torch_impl.parallel._recompute import recompute

# Longer chunks need fewer convolutions of the index, but more taps and more steps within. Not tuned yet.
_CHUNK = 16


def _walk(
    index: Float[Tensor, "*batch slots"], actions: Float[Tensor, "steps 3 *batch 1"]
) -> tuple[
    Float[Tensor, "*batch slots"], tuple[Float[Tensor, "steps *batch slots"], Float[Tensor, "steps *batch slots"]]
]:
    """The index by its definition: after the last step, before every step, after every step."""
    path = [index]
    for push, pop, noop in actions.unbind():
        index = push * torch.roll(index, 1, -1) + pop * torch.roll(index, -1, -1) + noop * index
        path.append(index)
    return index, (torch.stack(path[:-1]), torch.stack(path[1:]))


def _convolve(index: Float[Tensor, "*batch slots"], taps: Float[Tensor, "*batch taps"]) -> Float[Tensor, "*batch slots"]:
    """Tap j weighs the index rolled by j - taps // 2."""
    *batch, slots = index.shape
    width = taps.shape[-1]
    behind = width // 2
    around = torch.cat([index[..., slots - (width - 1 - behind) :], index, index[..., :behind]], dim=-1)
    # Window j starts at column j: repeat `around` in rows, cut them one longer.
    length = slots + width - 1
    tiled = around[..., None, :].expand(*batch, width, length).reshape(*batch, width * length)
    windows = pad(tiled, -1, 0, width).reshape(*batch, width, length + 1)[..., :slots]
    return (torch.flip(taps, (-1,))[..., None, :] @ windows)[..., 0, :]


def _path(
    index: Float[Tensor, "*batch slots"], actions: Float[Tensor, "chunks *batch steps 3"]
) -> tuple[
    Float[Tensor, "*batch slots"],
    Float[Tensor, "chunks *batch steps slots"],
    Float[Tensor, "chunks *batch steps slots"],
]:
    """The index after the last step, before every step, after every step."""
    chunks, *batch, steps, _ = actions.shape
    actions = torch.movedim(actions, (-2, -1), (0, 1))[..., None]
    width = min(index.shape[-1], 2 * steps + 1)
    single = F.one_hot(torch.tensor(width // 2, device=index.device), width).to(index.dtype)
    taps, _ = _walk(single.expand(chunks, *batch, width), actions)
    firsts = []
    for chunk_taps in taps.unbind():
        firsts.append(index)
        index = _convolve(index, chunk_taps)
    _, (before, after) = _walk(torch.stack(firsts), actions)
    return index, torch.movedim(before, 0, -2), torch.movedim(after, 0, -2)


def _matrices(
    written: Float[Tensor, "chunks *batch steps slots"], looked_up: Float[Tensor, "chunks *batch steps slots"]
) -> tuple[
    Float[Tensor, "chunks *batch slots"],
    Float[Tensor, "chunks *batch steps slots"],
    Float[Tensor, "chunks *batch steps slots"],
    Float[Tensor, "chunks *batch steps steps"],
]:
    """Decay, write, recall and relay of all chunks."""
    write, looked_up = written[..., None, :], looked_up[..., None, :]
    decay = 1 - write
    recall = looked_up * decay
    relay = torch.sum(looked_up * write, dim=-1, keepdim=True)
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
    actions: Float[Tensor, "chunks *batch steps 3"],
    before: Float[Tensor, "chunks *batch steps slots"],
    after: Float[Tensor, "chunks *batch steps slots"],
    elements: Float[Tensor, "chunks *batch steps dim"],
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "chunks *batch steps dim"]]:
    decay, write, recall, relay = _matrices(actions[..., PUSH, None] * before, torch.roll(after, -1, -1))
    buffers = []
    for chunk_decay, from_elements in zip(decay.unbind(), (write.mT @ elements).unbind(), strict=True):
        buffers.append(buffer)
        buffer = chunk_decay[..., None] * buffer + from_elements
    return buffer, recall @ torch.stack(buffers) + relay @ elements


def scan(
    buffer: Float[Tensor, "*batch slots dim"],
    index: Float[Tensor, "*batch slots"],
    actions: Float[Tensor, "*batch time 3"],
    elements: Float[Tensor, "*batch time dim"],
) -> tuple[Float[Tensor, "*batch slots dim"], Float[Tensor, "*batch slots"], Float[Tensor, "*batch time dim"]]:
    """The buffer and the index after the last step, and the read after every step."""
    time = actions.shape[-2]
    if time == 0:
        return buffer, index, elements
    actions, elements = cut(actions, elements, _CHUNK)
    segments, chunks, *_ = actions.shape
    index, before, after = _path(index, actions.reshape(segments * chunks, *actions.shape[2:]))
    before, after = (path.reshape(segments, chunks, *path.shape[1:]) for path in (before, after))
    reads = []
    for inputs in zip(*(array.unbind() for array in (actions, before, after, elements)), strict=True):
        buffer, read = recompute(_segment, buffer, *inputs)
        reads.append(read)
    return buffer, index, join(torch.stack(reads), time)
