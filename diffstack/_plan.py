"""How `unroll` cuts a sequence into chunks, and what its caller promises; nothing here imports a framework."""

from typing import NamedTuple


class Plan(NamedTuple):
    """The sizes of a sequence, what its caller promises, and the run of chunks at hand.

    Attributes:
        time: the number of steps.
        slots: the capacity of the state.
        starts_empty: whether the state is an empty one.
        final_states: whether the state after the last step is wanted.
        first: the first step of the run.
        stop: the step after its last one.
    """

    time: int
    slots: int
    starts_empty: bool
    final_states: bool
    first: int = 0
    stop: int = 0

    @property
    def older(self) -> int:
        """How many slots of the first state can hold something."""
        return 0 if self.starts_empty else self.slots


def chunk_length(time: int, wanted: int) -> int:
    """A length near the wanted one, of which the time is a multiple if that can be."""

    def cost(length: int) -> int:
        return abs(length - wanted) + (wanted if time % length else 0)

    return min(time, *sorted(range(max(1, wanted * 2 // 3), wanted * 3 // 2 + 1), key=cost)[:1])


def runs(time: int, chunk: int, longest: int) -> list[tuple[int, int, int]]:
    """Runs of at most so many chunks, and one more for the rest: first step, last step and length of a chunk."""
    chunks = time // chunk
    found = [(first * chunk, min(first + longest, chunks) * chunk, chunk) for first in range(0, chunks, longest)]
    rest = time - chunks * chunk
    return [*found, (time - rest, time, rest)] if rest else found
