"""What the families are, in one table that needs no framework.

Parity, plots, benchmarks and tests read it, so that a family is described once.

Example:
    >>> from diffstack.families import FAMILIES
    >>> [family.name for family in FAMILIES.values() if len(family.ends) == 2]
    ['neural_deque']
    >>> FAMILIES["neural_deque"].action
    ('push top', 'pop top', 'push bottom', 'pop bottom')
"""

from typing import Any, NamedTuple

FLOATING = ("float16", "bfloat16", "float32", "float64")
INTEGER = ("uint8", "int8", "int16", "int32", "int64")
# What both frameworks can gather and scatter.
MOVABLE = (*FLOATING, *INTEGER, "bool", "complex64", "complex128")


class Family(NamedTuple):
    """What is particular to a family.

    Attributes:
        name: the name of its module in either implementation.
        fields: the fields of its state, the slots first.
        action: what the entries of one action vector do; empty where an action is a single integer code.
        held: the field that is zero where a stack is empty, if that is not the slots; an automaton has none.
        ring: whether its slots are a ring, so that no step has a last one and a layer must be told how many there are.
        ends: how the names of the verbs that push, pop and peek end: one empty string, or one ending for each end.
        is_stack: whether a pop gives back what was pushed last.
        only_moves: whether it moves elements without computing with them, so that they may have any dtype.
        vectors: whether an element must be a vector.
        strengths: whether its elements have strengths, so that every push takes a slot and `scan` makes room for it.
        parallel: whether its `scan` has a parallel form.
        chunked: whether `unroll` has a form for chunks of its steps; it runs `step` where there is none.
        automaton: whether it runs an automaton of Q states and S symbols. An action then has Q S (2 Q S + Q) log
            weights, of which `action` names those for one state and one symbol, and every read has the axes Q and S
            before those of an element.
    """

    name: str
    fields: tuple[str, ...]
    action: tuple[str, ...]
    held: str = ""
    ring: bool = False
    ends: tuple[str, ...] = ("",)
    is_stack: bool = True
    only_moves: bool = False
    vectors: bool = False
    strengths: bool = False
    parallel: bool = True
    chunked: bool = True
    automaton: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of its `scan`, without "auto"."""
        return ("sequential", "parallel") if self.parallel else ("sequential",)

    @property
    def grows(self) -> bool:
        """Whether every step takes a slot, so that `scan` and `unroll` make room for theirs."""
        return self.strengths or self.automaton

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The names of the dtypes that elements may have."""
        return MOVABLE if self.only_moves else FLOATING


_LINE = ("values", "strengths")
_WEIGHTS = ("push", "pop", "noop")
_STRENGTHS = ("push", "pop")
_BOTH_ENDS = ("push top", "pop top", "push bottom", "pop bottom")

FAMILIES = {
    family.name: family
    for family in (
        Family("pointer", ("buffer", "index"), _WEIGHTS, ring=True),
        Family("discrete", ("buffer", "depth", "fault"), (), "depth", only_moves=True),
        Family("superposition", ("buffer",), _WEIGHTS, vectors=True),
        Family("neural_stack", _LINE, _STRENGTHS, "strengths", strengths=True),
        Family("neural_queue", _LINE, _STRENGTHS, "strengths", is_stack=False, strengths=True),
        Family(
            "neural_deque", _LINE, _BOTH_ENDS, "strengths", ends=("_top", "_bottom"), is_stack=False, strengths=True
        ),
        Family("nondeterministic", ("values", "tops", "edges"), _WEIGHTS, is_stack=False, automaton=True),
    )
}


def family_of(module: Any) -> Family | None:
    """The table's entry for a family's module, of either implementation.

    Args:
        module: such as `diffstack.jax_impl.pointer`.

    Returns:
        Its `Family`, or None where it is not a family.

    Example:
        >>> from diffstack import families, jax_impl
        >>> families.family_of(jax_impl.neural_queue).is_stack
        False
    """
    package, _, name = getattr(module, "__name__", "").rpartition(".")
    return FAMILIES.get(name) if package in ("diffstack.jax_impl", "diffstack.torch_impl") else None
