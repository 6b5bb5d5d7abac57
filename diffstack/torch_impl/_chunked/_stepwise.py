"""The definition of `unroll` as a form: one chunk, whose steps are those of the family."""

from types import SimpleNamespace
from typing import Any

from jaxtyping import Int
from torch import Tensor

from diffstack._plan import Plan
from diffstack.families import Family


def form(family: Family, module: Any) -> Any:
    """The form that runs `step`, and drops nothing while it does."""

    def fit(state: Any, *, plan: Plan) -> Any:
        return module._with_room(state, steps=plan.time) if family.grows and plan.first == 0 else state

    def open(state: Any, *, steps: int) -> tuple[tuple[()], Any]:
        return (), state

    def tick(state: Any, fixed: tuple[()], place: int, actions: Tensor, element: Any) -> tuple[Any, Any]:
        return module._step(state, actions, element)

    def close(state: Any, fixed: tuple[()], window: Any, first: int, *, plan: Plan) -> Any:
        return window

    def end(state: Any, lengths: Int[Tensor, "*batch"] | None, *, plan: Plan) -> Any:
        return module._ended(state, lengths, capacity=plan.slots) if family.grows else state

    return SimpleNamespace(fit=fit, open=open, tick=tick, close=close, end=end)
