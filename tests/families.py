"""The families that the tests run over, in NumPy. A family joins the suite by an entry in FAMILIES.

An entry says how to draw random arguments and what the oracle gives for them. The rest is derived: which arguments
are differentiable (the floating ones), what a batch gives (what its stacks give one by one), and every transform.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import FAMILIES as TABLE
from diffstack.families import FLOATING
from oracles import discrete, neural_deque, neural_queue, neural_stack, nondeterministic, pointer, superposition
from oracles.differences import numerical_gradient

Generator = np.random.Generator


class Size(NamedTuple):
    """How large a sample is; without a time it is one step."""

    time: int | None
    slots: int
    element: tuple[int, ...] = (3,)
    batch: tuple[int, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The axes in front of those of one action or one element."""
        return self.batch if self.time is None else (*self.batch, self.time)

    def __str__(self) -> str:
        axes = {"T": self.time, "N": self.slots, "E": self.element, "B": self.batch}
        return "".join(f"{name}{value}" for name, value in axes.items() if value is not None).replace(" ", "")


class Sample(NamedTuple):
    """A state and what a controller gives it, all with the batch axes in front."""

    state: Any
    actions: Any
    elements: Any


class Verb(NamedTuple):
    """A function of a family: its arguments, the oracle's for one stack, what is not an array, and whether it takes
    many steps, by a method.
    """

    name: str
    arguments: Callable[[Sample], tuple[Any, ...]]
    oracle: Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()
    many: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Family:
    """One entry of FAMILIES.

    Attributes:
        name: that of the module.
        sample: from a generator, a size, and whether actions and states are hard (one-hot), to a float64 `Sample`.
        verbs: the functions whose arguments have batch axes in front.
        unused: from a buffer of any finite numbers and a place in it, to a state that holds nothing else.
        encode: from codes and elements to the actions and elements of a scan.
        decode: from the reads of a scan to those of the encoded program.
        kept: what the family keeps of elements that are pushed.
    """

    name: str
    sample: Callable[[Generator, Size, bool], Sample]
    verbs: tuple[Verb, ...]
    unused: Callable[[Any, int], Any]
    encode: Callable[[Any, Any], tuple[Any, Any]]
    decode: Callable[[Any], Any] = field(default=lambda reads: reads)
    kept: Callable[[Any], Any] = field(default=lambda elements: elements)

    def __repr__(self) -> str:
        return self.name

    def __getattr__(self, name: str) -> Any:
        """What the library's own table says of the family."""
        return getattr(TABLE[self.name], name)

    def method(self, turn: int) -> str:
        """One of its methods, by turns."""
        return self.methods[turn % len(self.methods)]

    @property
    def taken(self) -> int:
        """The place in a Python list of what a pop takes."""
        return -1 if self.is_stack or self.automaton else 0


@dataclass(frozen=True, repr=False)
class Case:
    """A verb of a family; where it takes many steps, with a method."""

    family: Family
    verb: Verb
    method: str | None = None

    def __repr__(self) -> str:
        return "-".join(filter(None, [self.family.name, self.verb.name, self.method]))

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.verb.options) | ({} if self.method is None else {"method": self.method})

    @property
    def differentiable(self) -> bool:
        return bool(floats(self.values(SMALL if self.method else STEP)))

    def arguments(self, size: Size, *, hard: bool = False, dtype: Any = np.float64) -> tuple[Any, ...]:
        """Random arguments, always the same ones."""
        element = (math.prod(size.element),) if self.family.vectors else size.element
        sample = self.family.sample(np.random.default_rng(7), size._replace(element=element), hard)
        arguments = tuple(self.verb.arguments(sample))
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf, arguments)

    def values(self, size: Size, *, hard: bool = False) -> list[Any]:
        """What the oracle makes of them: the arrays of the result, in order."""
        return _values(self.family, self.verb, size, hard)

    def oracle(self, arguments: Any) -> list[Any]:
        """What the oracle makes of other arguments, of one stack."""
        return [np.asarray(leaf) for leaf in jax.tree.leaves(self.verb.oracle(*arguments))]

    def cotangents(self, size: Size) -> list[Any]:
        """A random array for every floating one of the result."""
        generator = np.random.default_rng(8)
        return [generator.normal(size=leaf.shape) for leaf in floats(self.values(size))]

    def derivatives(self, size: Size) -> list[list[tuple[Any, Any, Any]]]:
        """The derivatives of the oracle's result, times the cotangents, by central differences.

        For every stack of the batch and every floating argument: its batch index, directions, and the derivative
        along each of them. The directions are the argument's entries where these are few, else random: a gradient that
        is wrong anywhere is wrong along each of those.
        """
        return _derivatives(self.family, self.verb, size)


def is_floating(array: Any) -> bool:
    """Whether an array of any framework is floating."""
    return str(array.dtype).removeprefix("torch.") in FLOATING


def floats(tree: Any) -> list[Any]:
    """The floating leaves of a tree of arrays."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]


def with_floats(tree: Any, replacements: Any) -> Any:
    """The tree with other floating leaves."""
    rest = iter(replacements)
    return jax.tree.map(lambda leaf: next(rest) if is_floating(leaf) else leaf, tree)


@cache
def _values(family: Family, verb: Verb, size: Size, hard: bool) -> list[Any]:
    arguments = Case(family, verb).arguments(size, hard=hard)
    stacks = [jax.tree.leaves(verb.oracle(*_stack(arguments, where))) for where in np.ndindex(size.batch)]
    return [np.stack(leaves).reshape((*size.batch, *np.shape(leaves[0]))) for leaves in zip(*stacks, strict=True)]


@cache
def _derivatives(family: Family, verb: Verb, size: Size) -> list[list[tuple[Any, Any, Any]]]:
    case, generator = Case(family, verb), np.random.default_rng(9)
    derivatives = []
    # An automaton has no ties, and large logarithms, of which a longer step loses less to rounding.
    step = 1e-5 if family.automaton else 1e-6
    for where in np.ndindex(size.batch):
        arguments = _stack(case.arguments(size), where)
        cotangents = [cotangent[where] for cotangent in case.cotangents(size)]
        directions = [_directions(generator, leaf.shape) for leaf in floats(arguments)]

        def moved(*lengths: Any, arguments: Any = arguments, directions: Any = directions) -> tuple[Any, ...]:
            leaves = zip(floats(arguments), lengths, directions, strict=True)
            return tuple(
                floats(
                    jax.tree.map(
                        np.asarray,
                        verb.oracle(*with_floats(arguments, [a + np.tensordot(c, d, 1) for a, c, d in leaves])),
                    )
                )
            )

        slopes = numerical_gradient(moved, [np.zeros(len(d)) for d in directions], tuple(cotangents), step)
        derivatives.append([(where, d, slope) for d, slope in zip(directions, slopes, strict=True)])
    return derivatives


def _stack(arguments: Any, where: tuple[int, ...]) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf[where]), arguments)


def _directions(generator: Generator, shape: tuple[int, ...]) -> Any:
    entries = math.prod(shape)
    return np.eye(entries).reshape(entries, *shape) if entries <= 16 else generator.normal(size=(3, *shape))


# --- what the entries share ---


def one_hot(codes: Any, length: int = 3) -> Any:
    return np.eye(length)[np.asarray(codes)]


def weights(generator: Generator, shape: tuple[int, ...], hard: bool) -> Any:
    """Distributions over the last axis."""
    if hard:
        return one_hot(generator.integers(shape[-1], size=shape[:-1]), shape[-1])
    return generator.dirichlet(np.ones(shape[-1]), size=shape[:-1])


def encode_weights(codes: Any, elements: Any) -> tuple[Any, Any]:
    return one_hot(codes), elements


# --- pointer ---


class PointerState(NamedTuple):
    buffer: Any
    index: Any


def _pointer_sample(generator: Generator, size: Size, hard: bool) -> Sample:
    index = weights(generator, (*size.batch, size.slots), hard)
    return Sample(
        PointerState(generator.normal(size=(*size.batch, size.slots, *size.element)), index),
        weights(generator, (*size.steps, 3), hard),
        generator.normal(size=(*size.steps, *size.element)),
    )


POINTER = Family(
    "pointer",
    sample=_pointer_sample,
    verbs=(
        Verb("push", lambda s: (s.state, s.elements), lambda state, element: pointer.push(*state, element)),
        Verb("pop", lambda s: (s.state,), lambda state: pointer.pop(*state)),
        Verb("peek", lambda s: (s.state,), lambda state: pointer.peek(*state)),
        Verb("step", lambda s: s, lambda state, actions, element: pointer.step(*state, actions, element)),
        Verb("scan", lambda s: s, lambda state, actions, elements: pointer.scan(*state, actions, elements), many=True),
        Verb("push_all", lambda s: (s.state, s.elements), lambda state, e: pointer.push_all(*state, e), many=True),
        # As many pops as make a chunk and a part of one.
        Verb("pop_all", lambda s: (s.state,), lambda state: pointer.pop_all(*state, 37), (("count", 37),), many=True),
        Verb("contents", lambda s: (s.state,), lambda state: pointer.contents(*state)),
        Verb("soft_assign", lambda s: (*s.state, s.elements), pointer.soft_assign),
        Verb("soft_lookup", lambda s: (*s.state,), pointer.soft_lookup),
    ),
    unused=lambda buffer, place: PointerState(buffer, one_hot(place % len(buffer), len(buffer))),
    encode=encode_weights,
)


# --- discrete ---


class DiscreteState(NamedTuple):
    buffer: Any
    depth: Any
    fault: Any


def _discrete_sample(generator: Generator, size: Size, hard: bool) -> Sample:
    # Soft or hard, the codes are integers; a quarter of the stacks has met a fault, an eighth of the codes is none.
    state = DiscreteState(
        generator.normal(size=(*size.batch, size.slots, *size.element)),
        np.asarray(generator.integers(0, size.slots + 1, size=size.batch), np.int32),
        np.asarray(generator.choice([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3], size=size.batch), np.int8),
    )
    codes = generator.choice([PUSH, PUSH, PUSH, POP, POP, POP, NOOP, 3], size=size.steps)
    return Sample(state, np.asarray(codes, np.int32), generator.normal(size=(*size.steps, *size.element)))


def _discrete_step(state: Any, code: Any, element: Any) -> Any:
    *state, reads = discrete.scan(*state, np.reshape(code, 1), np.asarray(element)[None])
    return state, reads[0]


def _discrete_peek(state: Any) -> Any:
    return _discrete_step(state, NOOP, np.zeros_like(state[0][0]))[1]


DISCRETE = Family(
    "discrete",
    sample=_discrete_sample,
    verbs=(
        Verb("push", lambda s: (s.state, s.elements), lambda state, element: _discrete_step(state, PUSH, element)[0]),
        Verb(
            "pop",
            lambda s: (s.state,),
            lambda state: (_discrete_step(state, POP, state[0][0])[0], _discrete_peek(state)),
        ),
        Verb("peek", lambda s: (s.state,), _discrete_peek),
        Verb("step", lambda s: s, _discrete_step),
        Verb("scan", lambda s: s, lambda state, codes, elements: discrete.scan(*state, codes, elements), many=True),
        Verb("contents", lambda s: (s.state,), lambda state: discrete.contents(*state[:2])),
        Verb("size", lambda s: (s.state,), lambda state: state[1]),
        Verb("fault", lambda s: (s.state,), lambda state: state[2]),
    ),
    unused=lambda buffer, _: DiscreteState(buffer, np.int32(0), np.int8(0)),
    encode=lambda codes, elements: (np.asarray(codes, np.int32), elements),
)


# --- superposition ---


class SuperpositionState(NamedTuple):
    buffer: Any


def _superposition_sample(generator: Generator, size: Size, hard: bool) -> Sample:
    return Sample(
        SuperpositionState(generator.normal(size=(*size.batch, size.slots, *size.element))),
        weights(generator, (*size.steps, 3), hard),
        generator.normal(size=(*size.steps, *size.element)),
    )


SUPERPOSITION = Family(
    "superposition",
    sample=_superposition_sample,
    verbs=(
        Verb("push", lambda s: (s.state, s.elements), lambda state, element: superposition.push(*state, element)),
        Verb("pop", lambda s: (s.state,), lambda state: superposition.pop(*state)),
        Verb("peek", lambda s: (s.state,), lambda state: superposition.peek(*state)),
        Verb("step", lambda s: s, lambda state, actions, element: superposition.step(*state, actions, element)),
        Verb(
            "scan",
            lambda s: s,
            lambda state, actions, elements: superposition.scan(*state, actions, elements),
            many=True,
        ),
        Verb("contents", lambda s: (s.state,), lambda state: superposition.contents(*state)),
    ),
    unused=lambda buffer, _: SuperpositionState(buffer),
    encode=encode_weights,
)


# --- neural stack and neural queue ---


class NeuralStackState(NamedTuple):
    values: Any
    strengths: Any


class NeuralQueueState(NamedTuple):
    values: Any
    strengths: Any


def strengths(generator: Generator, shape: tuple[int, ...], hard: bool) -> Any:
    """Strengths in (0, 1), and one in eight above; or 0 and 1."""
    if hard:
        return generator.choice([0.0, 1.0], size=shape)
    return generator.uniform(size=shape) * generator.choice([1.0] * 7 + [1.5], size=shape)


def _newest(state: Any, slots: int) -> tuple[Any, Any]:
    """The newest slots of an oracle's state, which drops none; empty ones before them where it has fewer."""
    empty = max(0, slots - len(state[1]))
    padded = (np.concatenate([np.zeros((empty, *np.shape(array)[1:])), array]) for array in state)
    return tuple(array[-slots:] for array in padded)


def _neural(name: str, kind: type, oracle: Any) -> Family:
    def sample(generator: Generator, size: Size, hard: bool) -> Sample:
        return Sample(
            kind(
                generator.normal(size=(*size.batch, size.slots, *size.element)),
                strengths(generator, (*size.batch, size.slots), hard),
            ),
            strengths(generator, (*size.steps, 2), hard),
            generator.normal(size=(*size.steps, *size.element)),
        )

    def push(state: Any, element: Any, strength: Any) -> Any:
        return _newest(oracle.push(*state, element, strength), len(state[1]))

    def step(state: Any, actions: Any, element: Any) -> Any:
        *popped, _ = oracle.pop(*state, actions[POP])
        state = push(popped, element, actions[PUSH])
        return state, oracle.peek(*state)

    def scan(state: Any, actions: Any, elements: Any) -> Any:
        *final, reads = oracle.scan(*state, actions, elements)
        return _newest(final, len(state[1])), reads

    return Family(
        name,
        sample=sample,
        verbs=(
            Verb("push", lambda s: (s.state, s.elements, s.actions[..., PUSH]), push),
            Verb("pop", lambda s: (s.state, s.actions[..., POP]), lambda state, u: oracle.pop(*state, u)),
            Verb("peek", lambda s: (s.state, s.actions[..., POP]), lambda state, u: oracle.peek(*state, u)),
            Verb("step", lambda s: s, step),
            Verb("scan", lambda s: s, scan, many=True),
            Verb("contents", lambda s: (s.state,), lambda state: oracle.contents(*state)),
            Verb("size", lambda s: (s.state,), lambda state: oracle.size(*state)),
            Verb("resize", lambda s: (s.state,), lambda state: _newest(state, 2), (("capacity", 2),)),
        ),
        unused=lambda buffer, _: kind(buffer, np.zeros(len(buffer))),
        encode=lambda codes, elements: (one_hot(codes)[..., :2], elements),
    )


NEURAL_STACK = _neural("neural_stack", NeuralStackState, neural_stack)
NEURAL_QUEUE = _neural("neural_queue", NeuralQueueState, neural_queue)


# --- neural deque ---


class NeuralDequeState(NamedTuple):
    values: Any
    strengths: Any


def _deque_sample(generator: Generator, size: Size, hard: bool) -> Sample:
    return Sample(
        NeuralDequeState(
            generator.normal(size=(*size.batch, size.slots, *size.element)),
            strengths(generator, (*size.batch, size.slots), hard),
        ),
        strengths(generator, (*size.steps, 4), hard),
        (
            generator.normal(size=(*size.steps, *size.element)),
            generator.normal(size=(*size.steps, *size.element)),
        ),
    )


def _outermost(state: Any, slots: int) -> tuple[Any, Any]:
    """The slots that are nearest to both ends, the bottom's first; empty ones between where there are fewer."""
    kept = min(slots, len(state[1]))
    bottom, top = kept - kept // 2, len(state[1]) - kept // 2
    return tuple(
        np.concatenate([array[:bottom], np.zeros((slots - kept, *np.shape(array)[1:])), array[top:]]) for array in state
    )


def _push_top(state: Any, element: Any, strength: Any) -> Any:
    """Drops slot N // 2 of before."""
    slots = len(state[1])
    return tuple(np.delete(array, slots // 2, 0) for array in neural_deque.push_top(*state, element, strength))


def _push_bottom(state: Any, element: Any, strength: Any) -> Any:
    """Drops slot (N - 1) // 2 of before, which has moved up by one."""
    slots = len(state[1])
    pushed = neural_deque.push_bottom(*state, element, strength)
    return tuple(np.delete(array, (slots - 1) // 2 + 1, 0) for array in pushed)


def _deque_step(state: Any, actions: Any, elements: Any) -> Any:
    *state, _ = neural_deque.pop_top(*state, actions[1])
    *state, _ = neural_deque.pop_bottom(*state, actions[3])
    state = _push_top(state, elements[0], actions[0])
    state = _push_bottom(state, elements[1], actions[2])
    return state, (neural_deque.peek_top(*state), neural_deque.peek_bottom(*state))


def _deque_scan(state: Any, actions: Any, elements: Any) -> Any:
    *final, reads = neural_deque.scan(*state, actions, elements)
    return _outermost(final, len(state[1])), reads


def encode_queue(codes: Any, elements: Any) -> tuple[Any, Any]:
    """Pushes at the top, and pops at the bottom."""
    push, pop = (one_hot(codes)[..., code] for code in (PUSH, POP))
    return np.stack([push, 0 * push, 0 * push, pop], -1), (elements, np.zeros_like(elements))


NEURAL_DEQUE = Family(
    "neural_deque",
    sample=_deque_sample,
    verbs=(
        Verb("push_top", lambda s: (s.state, s.elements[0], s.actions[..., 0]), _push_top),
        Verb("push_bottom", lambda s: (s.state, s.elements[1], s.actions[..., 2]), _push_bottom),
        Verb("pop_top", lambda s: (s.state, s.actions[..., 1]), lambda s, u: neural_deque.pop_top(*s, u)),
        Verb("pop_bottom", lambda s: (s.state, s.actions[..., 3]), lambda s, u: neural_deque.pop_bottom(*s, u)),
        Verb("peek_top", lambda s: (s.state, s.actions[..., 1]), lambda s, u: neural_deque.peek_top(*s, u)),
        Verb("peek_bottom", lambda s: (s.state, s.actions[..., 3]), lambda s, u: neural_deque.peek_bottom(*s, u)),
        Verb("step", lambda s: s, _deque_step),
        Verb("scan", lambda s: s, _deque_scan, many=True),
        Verb("contents", lambda s: (s.state,), lambda state: neural_deque.contents(*state)),
        Verb("size", lambda s: (s.state,), lambda state: neural_deque.size(*state)),
        Verb("resize", lambda s: (s.state,), lambda state: _outermost(state, 2), (("capacity", 2),)),
    ),
    unused=lambda buffer, _: NeuralDequeState(buffer, np.zeros(len(buffer))),
    encode=encode_queue,
    decode=lambda reads: reads[1],
)


# --- nondeterministic ---


class NondeterministicState(NamedTuple):
    values: Any
    tops: Any
    edges: Any


# An automaton of two states and two symbols; a hard program stays in a state, and pushes the symbol 1.
SIZES = (2, 2)


def _nondeterministic_sample(generator: Generator, size: Size, hard: bool) -> Sample:
    """Shares that do not quite add up to 1, as after a loss; or one way to each top, and one top."""
    table = (*size.batch, size.slots, *SIZES, size.slots, *SIZES)
    if hard:
        tops = logs_of(one_hot(generator.integers(4, size=size.batch), 4)).reshape(*size.batch, *SIZES)
        # What a row stands on is older than it is.
        older = np.tri(size.slots)[:, None, None, :, None, None] * np.ones((*SIZES, 1, *SIZES))
        way = np.argmax((generator.uniform(size=table) * older).reshape(*table[:-3], size.slots * 4), -1)
        edges = logs_of(one_hot(way, size.slots * 4)).reshape(table)
        actions = _hard_logs(generator.choice([PUSH, PUSH, PUSH, POP, NOOP], size=size.steps), -np.inf)
    else:
        tops = np.log(generator.dirichlet(np.ones(4), size=size.batch)).reshape(*size.batch, *SIZES)
        edges = generator.normal(size=table) - 3
        # The newest row has lost nothing.
        newest = np.exp(edges[..., -1, :, :, :, :, :])
        edges[..., -1, :, :, :, :, :] -= np.log(newest.sum((-3, -2, -1), keepdims=True))
        actions = generator.normal(size=(*size.steps, 40))
    values = generator.normal(size=(*size.batch, size.slots, *size.element))
    elements = generator.normal(size=(*size.steps, *size.element))
    return Sample(NondeterministicState(values, tops, edges), actions, elements)


def logs_of(shares: Any) -> Any:
    return np.where(shares > 0, np.log(np.where(shares > 0, shares, 1)), -np.inf)


def _hard_logs(codes: Any, nothing_to_pop: float) -> Any:
    """The log weights of a program; with how much a pop that finds nothing leaves it at that."""
    codes, same = np.asarray(codes)[..., None, None, None, None], np.eye(2)
    stays, symbol = same[:, None, :, None], same[None, :, None, :]
    push = (codes == PUSH) * stays * [0, 1] * np.ones((1, 2, 1, 1))
    pop = (codes == POP)[..., 0] * stays[..., 0] * np.ones((1, 2, 1))
    replace = np.where((codes == POP) & (stays * symbol > 0), nothing_to_pop, logs_of((codes == NOOP) * stays * symbol))
    blocks = (logs_of(push), logs_of(pop), replace)
    return np.concatenate([each.reshape(*codes.shape[:-4], -1) for each in blocks], -1)


def encode_logs(codes: Any, elements: Any) -> tuple[Any, Any]:
    return _hard_logs(codes, -1000.0), elements


def _nothing_else(buffer: Any, _: int) -> NondeterministicState:
    tops = logs_of(np.eye(4)[0]).reshape(SIZES)
    edges = np.full((len(buffer), *SIZES, len(buffer), *SIZES), -np.inf)
    edges[-1, 0, 0, -1, 0, 0] = 0
    return NondeterministicState(np.concatenate([buffer[:-1], 0 * buffer[-1:]]), tops, edges)


NONDETERMINISTIC = Family(
    "nondeterministic",
    sample=_nondeterministic_sample,
    verbs=(
        Verb("peek", lambda s: (s.state,), lambda state: nondeterministic.peek(*state)),
        Verb("step", lambda s: s, lambda state, actions, element: nondeterministic.step(*state, actions, element)),
        Verb(
            "scan",
            lambda s: s,
            lambda state, actions, elements: nondeterministic.scan(*state, actions, elements),
            many=True,
        ),
        Verb("contents", lambda s: (s.state,), lambda state: nondeterministic.contents(*state)),
        Verb("resize", lambda s: (s.state,), lambda s: nondeterministic.resize(*s, 2), (("capacity", 2),)),
    ),
    unused=_nothing_else,
    encode=encode_logs,
    decode=lambda reads: reads.sum((1, 2)),
)


FAMILIES = (POINTER, DISCRETE, SUPERPOSITION, NEURAL_STACK, NEURAL_QUEUE, NEURAL_DEQUE, NONDETERMINISTIC)
NEURAL = tuple(family for family in FAMILIES if family.strengths)

# --- what the tests run over ---

# `make test-all` sets it; without it, the full product of shapes, dtypes and methods is not even collected.
FULL = bool(os.environ.get("DIFFSTACK_FULL"))

SMALL = Size(5, 3, (2,), (2,))
STEP = SMALL._replace(time=None)

CASES = tuple(
    Case(family, verb, method)
    for family in FAMILIES
    for verb in family.verbs
    for method in (family.methods if verb.many else (None,))
)
SCANS = tuple(case for case in CASES if case.verb.name == "scan")
METHODS = tuple((case.family, case.method) for case in SCANS)


def mainly_scans(cases: tuple[Case, ...]) -> list[Case]:
    """The scans, and the other verbs when the full product is asked for."""
    return [case for case in cases if FULL or case in SCANS]


def by_turns(cases: tuple[Case, ...], first: int) -> list[Case]:
    """Of the methods of every family one, the two by turns; all of them when the full product is asked for."""
    return [
        case
        for case in cases
        if FULL
        or case.method not in case.family.methods
        or case.method == case.family.method(FAMILIES.index(case.family) + first)
    ]


def some(of: Sequence[Any], *turns: int) -> list[Any]:
    """Of families, or of cases by their families, every third, by turns; all when the full product is asked for.

    Turn 0 takes the pointer, the neural stack and the automaton, turn 1 the discrete stack and the queue, turn 2 the
    superposition stack and the deque. Kinds of tests that are dear in JAX take different turns.
    """
    return [each for each in of if FULL or FAMILIES.index(getattr(each, "family", each)) % 3 in turns]


def product(*values: Any) -> tuple[Any, ...]:
    """What is run only when the full product is asked for."""
    return values if FULL else ()
