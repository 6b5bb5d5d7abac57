"""The neural deque in chunks: a chunk's own elements run by the definition, and older ones are cut from both sides.

Among a chunk's own slots all older elements are one slot in the middle, as in `_parallel/neural_deque.py`. That says
what a step takes of them at both ends, and what its reads still want of them.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffstack._plan import Plan
from diffstack.torch_impl._arrays import with_row
from diffstack.torch_impl._chunked._line import Window, none_yet, read_of, written
from diffstack.torch_impl._line import above, below, feasible
from diffstack.torch_impl._parallel._chunking import pad
from diffstack.torch_impl._parallel._line import left_over, read_weights
from diffstack.torch_impl._parallel.neural_deque import own_slots, own_step, without_older
from diffstack.torch_impl._ties import block_at_zero
from diffstack.torch_impl.neural_deque import NeuralDequeState, _ended, _fitted

Slots = Float[Tensor, "*batch slots"]
Fixed = tuple[Float[Tensor, "*batch slots dim"], Slots, tuple[Slots, Slots]]
Pair = tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch dim"]]


def fit(state: NeuralDequeState, *, plan: Plan) -> NeuralDequeState:
    """Slots for all steps up to the end of the run, at both ends."""
    values, strengths = state
    if plan.first == 0:
        values, strengths = values[..., : plan.older, :], feasible(strengths)[..., : plan.older]
    more = (plan.older + 2 * plan.stop - strengths.shape[-1]) // 2
    return NeuralDequeState(pad(values, -2, more, more), pad(strengths, -1, more, more))


def open(state: NeuralDequeState, *, steps: int) -> tuple[Fixed, Window]:
    """The older slots as they are, and no elements of the chunk yet."""
    values, strengths = state
    total = torch.sum(strengths, -1)
    none = none_yet(values, 2 * steps)
    nothing = torch.zeros_like(total)
    window = Window(none, own_slots(total, steps=steps), (nothing, nothing), ())
    return (values, strengths, (above(strengths), below(strengths))), window


def tick(
    window: Window, fixed: Fixed, place: int, actions: Float[Tensor, "*batch 4"], element: Pair
) -> tuple[Window, Pair]:
    """One step on the chunk's own elements, and what it takes and reads of the older ones."""
    values, older, nearer = fixed
    steps = window.elements.shape[-2] // 2
    elements = with_row(window.elements, element[0], steps + place)
    elements = with_row(elements, element[1], steps - 1 - place)
    strengths, own, taken, wanted = own_step(window.strengths, place, feasible(actions))
    taken = window.taken[0] + taken[0], window.taken[1] + taken[1]
    left, rest = _left(older, nearer, taken)
    top, bottom = (
        read_of(read_weights(left, rest[end], wanted[end]), values, without_older(own[end]), elements)
        for end in range(2)
    )
    return Window(elements, strengths, taken, ()), (top, bottom)


def _left(older: Slots, nearer: tuple[Slots, Slots], taken: tuple[Any, Any]) -> tuple[Slots, tuple[Slots, Slots]]:
    """What is left of the older slots, and how far the ends are from each."""
    top, bottom = (sums - cut[..., None] for sums, cut in zip(nearer, taken, strict=True))
    return left_over(older - block_at_zero(-bottom), top), (top, bottom)


def close(
    state: NeuralDequeState,
    fixed: Fixed,
    window: Window,
    first: int,
    *,
    plan: Plan,
) -> NeuralDequeState:
    """What is left of the older slots, and the chunk's own in their places."""
    values, older, nearer = fixed
    left, _ = _left(older, nearer, window.taken)
    slots, steps, rank = left.shape[-1], window.elements.shape[-2] // 2, left.ndim - 1
    strengths = without_older(window.strengths)
    bottom, top = plan.stop - first - steps, slots - plan.stop + first
    for at, own in ((bottom, slice(steps)), (top, slice(steps, None))):
        values = written(values, window.elements[..., own, :], at, rank)
        left = written(left, strengths[..., own], at, rank)
    return NeuralDequeState(values, left)


def end(state: NeuralDequeState, lengths: Int[Tensor, "*batch"] | None, *, plan: Plan) -> NeuralDequeState:
    """What the capacity of the deque keeps."""
    state = _fitted(state, plan.older + plan.time, plan.time, plan.slots + 2 * plan.time)
    return _ended(state, lengths, capacity=plan.slots)
