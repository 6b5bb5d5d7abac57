"""The rule of `method="auto"`: from how many steps on the parallel form is the faster one, by family.

The thresholds were measured forward and backward on a CPU; docs/understand/parallel.md says how. They are of shapes
alone, so that a function and its gradient compute the same forward pass.
"""

import math
from typing import Any, Literal, NamedTuple

from diffstack import _checks
from diffstack._plan import chunk_length
from diffstack.families import FAMILIES, Family


class Threshold(NamedTuple):
    """The parallel form is faster from so many steps on, on a buffer of so many numbers, without its batch."""

    steps: int
    numbers: int = 0


THRESHOLDS = {
    # XLA steps through a small buffer without leaving the caches.
    "pointer": Threshold(8, 1024),
    "pointer.push_all": Threshold(4),
    "pointer.pop_all": Threshold(4),
    "discrete": Threshold(1),
    "superposition": Threshold(8, 512),
    "neural_stack": Threshold(16),
    "neural_queue": Threshold(16),
    "neural_deque": Threshold(32),
    "nondeterministic": Threshold(1),
}

# For `unroll`: from how many steps on chunks are faster, and of how many steps a chunk is.
CHUNKED = Threshold(32, 1024)
CHUNKS = {"superposition": 10, "pointer": 8, "nondeterministic": 5}


def choose(method: object, name: str, time: Any, layout: _checks.Layout) -> Literal["sequential", "parallel"]:
    """How to run so many steps: "sequential" or "parallel"; "auto" is the faster of them."""
    _checks.check_choice("method", method, ("auto", *FAMILIES[name.partition(".")[0]].methods))
    if _checks.is_symbolic(time):
        if method == "parallel":
            _checks.bad_value("method", "'sequential' or 'auto' where the number of steps is symbolic", "'parallel'")
        return "sequential"
    # Without a step there is nothing to do by any method.
    if method == "auto" and name in THRESHOLDS:
        steps, numbers = THRESHOLDS[name]
        return "parallel" if time >= steps and layout.slots * math.prod(layout.element) >= numbers else "sequential"
    return "parallel" if method == "parallel" and time else "sequential"


def chunk(method: object, time: Any, stacks: list[tuple[Family, _checks.Layout]]) -> int | None:
    """How many steps `unroll` takes at a time; None where it takes each by itself."""
    _checks.check_choice("method", method, ("auto", "sequential", "chunked"))
    if _checks.is_symbolic(time):
        if method == "chunked":
            _checks.bad_value("method", "'sequential' or 'auto' where the number of steps is symbolic", "'chunked'")
        return None
    # Where every step takes a slot there are as many more; a stack that has no form of its own gains nothing.
    slots = [layout.slots + (time if family.grows else 0) if family.chunked else 0 for family, layout in stacks]
    numbers = sum(n * math.prod(layout.element) for n, (_, layout) in zip(slots, stacks, strict=True))
    # The loop of an automaton goes through all pairs of slots, in logarithms.
    small = (time < CHUNKED.steps or numbers < CHUNKED.numbers) and not any(each.automaton for each, _ in stacks)
    if not time or method == "sequential" or (method == "auto" and small):
        return None
    return chunk_length(time, min(CHUNKS.get(family.name, 16) for family, _ in stacks))
