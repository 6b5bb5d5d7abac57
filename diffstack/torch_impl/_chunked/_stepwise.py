"""The definition of `unroll` as a form: one chunk, whose steps are those of the family."""

from types import SimpleNamespace
from typing import Any

from jaxtyping import Int
from torch import Tensor

from diffstack._plan import Plan


def form(family: Any) -> Any:
    """The form that runs `step`, and drops nothing on its way."""
    makes_room = hasattr(family, "_with_room")

    def fit(state: Any, *, plan: Plan) -> Any:
        return family._with_room(state, steps=plan.time) if makes_room and plan.first == 0 else state

    def open(state: Any, *, steps: int) -> tuple[tuple[()], Any]:
        return (), state

    def tick(state: Any, fixed: tuple[()], place: int, actions: Tensor, element: Any) -> tuple[Any, Any]:
        return family._step(state, actions, element)

    def close(state: Any, fixed: tuple[()], window: Any, first: int, *, plan: Plan) -> Any:
        return window

    def end(state: Any, lengths: Int[Tensor, "*batch"] | None, *, plan: Plan) -> Any:
        return family._ended(state, lengths, capacity=plan.slots) if makes_room else state

    return SimpleNamespace(fit=fit, open=open, tick=tick, close=close, end=end)
