"""What a layer with stacks is, in plain numbers that both frameworks share; nothing here imports a framework."""

from dataclasses import dataclass
from typing import Any, Literal

from diffstack import _checks
from diffstack.families import FAMILIES, FLOATING, Family

CELLS = ("lstm", "gru", "rnn", "feedforward")
VECTORS = ("tanh", "sigmoid", None)
# Every gate of a cell has as many rows in its weights as the cell has units.
GATES = {"lstm": 4, "gru": 3, "rnn": 1, "feedforward": 1}


@dataclass(frozen=True)
class Stack:
    """One stack of a `StackRNN`, and its head.

    Actions are a softmax over push, pop and noop for the pointer and superposition, sigmoid strengths for the neural
    families, the logits themselves for the nondeterministic family, and for the discrete family the code of the largest
    logit, through which no gradient goes.

    Attributes:
        family: the name of its family, such as "neural_stack".
        dim: the size of the vectors on it; a nondeterministic stack may have none, 0.
        capacity: its number of slots; None for as many as the sequences need, which a ring (pointer) cannot do.
        vector: what the pushed vector goes through: "tanh", "sigmoid", or None for nothing.
        pop_bias: where the bias of the pop starts; None for -1 in the neural families, as Grefenstette et al. (2015)
            found best, and 0 elsewhere.
        states: the number of states of a nondeterministic stack.
        symbols: the number of its stack symbols.
        hard: whether strengths are rounded to 0 or 1, through which no gradient goes.

    Example:
        >>> from diffstack.jax_impl.layers import Stack
        >>> Stack("neural_stack", 16).pop_bias
        -1.0
    """

    family: str
    dim: int
    capacity: int | None = None
    vector: Literal["tanh", "sigmoid"] | None = "tanh"
    pop_bias: float | None = None
    states: int = 1
    symbols: int = 1
    hard: bool = False

    def __post_init__(self) -> None:
        check_stack(self.family, self.dim, self.capacity, self.states, self.symbols)
        if self.hard and not self.table.strengths:
            _checks.bad_value("hard", f"False for {self.family}, which has no strengths", self.hard)
        if self.vector not in VECTORS:
            _checks.bad_value("vector", "one of 'tanh', 'sigmoid', None", repr(self.vector))
        if self.pop_bias is None:
            object.__setattr__(self, "pop_bias", -1.0 if self.table.strengths else 0.0)

    @property
    def table(self) -> Family:
        """The entry of its family in the table."""
        return FAMILIES[self.family]

    @property
    def ends(self) -> int:
        """How many vectors it is pushed at a step."""
        return len(self.table.ends)

    @property
    def read(self) -> int:
        """The size of what is read of it at a step."""
        return self.states * self.symbols * (self.dim or 1) if self.table.automaton else self.ends * self.dim

    @property
    def logits(self) -> int:
        """How many numbers decide its action."""
        n = self.states * self.symbols
        return n * (2 * n + self.states) if self.table.automaton else len(self.table.action) or 3

    @property
    def bias(self) -> list[float]:
        """Where the biases of its actions start."""
        names = self.table.action or ("push", "pop", "noop")
        if self.table.automaton:
            n = self.states * self.symbols
            names = ("push",) * (n * n) + ("pop",) * (n * self.states) + ("noop",) * (n * n)
        return [float(self.pop_bias or 0) if name.startswith("pop") else 0.0 for name in names]

    def slots(self, steps: int) -> int:
        """As many slots as so many steps need: an automaton has one for its bottom, too."""
        return self.capacity or max(self.ends * steps + self.table.automaton, 1)


def check_stack(family: Any, dim: Any, capacity: Any, states: Any, symbols: Any) -> None:
    """A family, the size of its vectors, its number of slots, and the sizes of its automaton."""
    _checks.check_choice("family", family, tuple(FAMILIES))
    _checks.check_count("dim", dim, 0 if FAMILIES[family].automaton else 1)
    for name, size in (("states", states), ("symbols", symbols)):
        _checks.check_count(name, size, 1)
        if size > 1 and not FAMILIES[family].automaton:
            _checks.bad_value(name, f"1, as {family} has no automaton", size)
    if capacity is not None:
        _checks.check_count("capacity", capacity, 1)
    elif FAMILIES[family].ring:
        _checks.bad_value("capacity", f"a number for {family}, whose slots are a ring", "None")


def check_recurrent(inputs: Any, hidden: Any, stacks: Any, cell: Any) -> tuple[Stack, ...]:
    """The arguments of a `StackRNN`; its stacks as a tuple."""
    _checks.check_count("inputs", inputs, 1)
    _checks.check_count("hidden", hidden, 1)
    _checks.check_choice("cell", cell, CELLS)
    stacks = (stacks,) if isinstance(stacks, Stack) else stacks
    if not isinstance(stacks, tuple | list) or not stacks or not all(isinstance(each, Stack) for each in stacks):
        _checks.bad_type("stacks", "a Stack or a tuple of them", type(stacks).__name__)
    return tuple(stacks)


def cell_inputs(inputs: int, stacks: tuple[Stack, ...]) -> int:
    """The size of what a cell sees: the input and all reads."""
    return inputs + sum(stack.read for stack in stacks)


def check_features(name: str, array: Any, size: int, rank: int) -> None:
    """An input of a layer: floating, with its features in the last axis, and with the axes that must come before."""
    _checks.check_kind(name, array.dtype, FLOATING, "a floating dtype")
    if len(array.shape) < rank or array.shape[-1] != size:
        axes = f"(*batch, time, {size})" if rank == 2 else f"(*batch, {size})"
        _checks.bad_value(name, f"shape {axes}", f"shape {tuple(array.shape)}")


def check_carry(carry: Any, stacks: tuple[Stack, ...], package: str) -> None:
    """A carry is what an earlier call has returned, of the same framework."""
    if carry is None:
        return
    whole = isinstance(carry, tuple) and len(carry) == 2 and all(isinstance(part, tuple) for part in carry)
    if not whole or len(carry[1]) != len(stacks) or not all(hasattr(state, "_fields") for state in carry[1]):
        expected = (
            "a pair that an earlier call has returned, of the cell's state and a tuple with a state for each stack"
        )
        _checks.bad_type("carry", expected, type(carry).__name__)
    for i, (state, stack) in enumerate(zip(carry[1], stacks, strict=True)):
        check_state(f"carry[1][{i}]", state, stack.family, package)


def check_state(name: str, state: Any, family: str, package: str) -> None:
    """What an earlier call has returned of a stack."""
    kind, expected = type(state), f"{package}.{family}"
    if not hasattr(state, "_fields") or kind.__module__ != expected:
        _checks.bad_type(name, f"a state of {expected}", f"{kind.__module__}.{kind.__name__}")


def check_parameters(name: str, inputs: Any, parameters: dict[str, Any]) -> None:
    """The stacks of a layer have the dtype of its inputs, which therefore must not be narrower than the parameters."""
    for key, parameter in parameters.items():
        if parameter.dtype != inputs.dtype and not _checks.is_narrower(parameter.dtype, inputs.dtype):
            _checks.check_dtype(name, inputs.dtype, parameter.dtype, f"parameters[{key!r}]")
