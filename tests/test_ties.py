"""Hard strengths, 0 and 1, are ties: where two sides have two derivatives, both frameworks take the same one.

`parity/test_parity.py` compares the gradients of hard programs.
"""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from backends import JAX, TORCH, Backend
from diffstack.actions import NOOP, POP, PUSH
from families import (
    CASES,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NEURAL_STACK,
    Case,
    Family,
    Size,
    floats,
    one_hot,
    product,
)
from oracles import neural_queue, neural_stack, piles

NEURAL = (NEURAL_STACK, NEURAL_QUEUE, NEURAL_DEQUE)
DIFFERENTIABLE = tuple(case for case in CASES if case.differentiable)
NOOPS = (0, 1, 30)
# More steps than slots: a hard program of this length overflows, and pops what is not there.
LONG = Size(13, 3, (2,), (2,))


def size_of(case: Case) -> Size:
    return LONG if case.method else LONG._replace(time=None)


def agree(functions: Any, arguments: Any, family: Family) -> None:
    """The gradients of every floating argument, of both frameworks, under random cotangents."""
    generator = np.random.default_rng(5)
    with jax.enable_x64(True):
        shapes = [leaf.shape for leaf in floats(jax.eval_shape(functions[JAX], *JAX.arrays(arguments, family)))]
        cotangents = [generator.normal(size=shape) for shape in shapes]
        ours, theirs = (b.outcome(functions[b], b.arrays(arguments, family), cotangents)[1] for b in (JAX, TORCH))
    assert any(np.any(gradient) for gradient in ours)
    for left, right in zip(ours, theirs, strict=True):
        assert left.shape == right.shape
        assert np.abs(left - right).max() <= 1e-12 * np.abs(left).max()


def with_halves(family: Family, size: Size) -> Any:
    """A sample whose strengths are 0, 1/2 and 1."""
    generator = np.random.default_rng(6)
    state, actions, elements = family.sample(generator, size, True)
    strengths, actions = (generator.choice([0, 0.5, 1], size=array.shape) for array in (state.strengths, actions))
    return family.sample(generator, size, True)._replace(
        state=state._replace(strengths=strengths), actions=actions, elements=elements
    )


@pytest.mark.parametrize("case", [case for case in DIFFERENTIABLE if case.family in NEURAL], ids=str)
def test_the_frameworks_agree_on_halves(case: Case):
    functions = {backend: backend.function(case) for backend in (JAX, TORCH)}
    agree(functions, tuple(case.verb.arguments(with_halves(case.family, size_of(case)))), case.family)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("family", NEURAL, ids=str)
def test_the_frameworks_agree_where_steps_drop_slots(family: Family, halves: bool):
    """A controller's own loop over `step`, which makes no room."""

    def loop(backend: Backend) -> Any:
        step, scan = backend.module(family.name).step, backend.module("_sequential").scan
        return lambda state, actions, elements: scan(step, state, actions, elements)

    sample = with_halves(family, LONG) if halves else family.sample(np.random.default_rng(7), LONG, True)
    agree({backend: loop(backend) for backend in (JAX, TORCH)}, tuple(sample), family)


# --- the convention ---


def reads_of(family: Family, top: bool) -> Any:
    """Picks the reads of one end of the deque."""
    return (lambda reads: reads[0 if top else 1]) if family is NEURAL_DEQUE else (lambda reads: reads)


def ends(family: Family) -> tuple[bool, ...]:
    return (True, False) if family is NEURAL_DEQUE else (True,)


ENDS = [(family, top) for family in NEURAL for top in ends(family)]


def pushed_once(family: Family, top: bool, strengths: Any, noops: int) -> tuple[Any, Any, Any]:
    """A batch of stacks: one push of each strength, then no-ops, whose elements are not zero."""
    count = len(strengths)
    actions = np.zeros((count, noops + 1, 4 if family is NEURAL_DEQUE else 2))
    actions[:, 0, 0 if top else 2] = strengths
    elements = np.tile(np.linspace(3, 5, noops + 1), (count, 1))
    state = jax.tree.map(lambda leaf: np.tile(leaf, (count, 1)), family.unused(np.ones(1), 0))
    return state, actions, (elements, elements) if family is NEURAL_DEQUE else elements


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("family", "top"), ENDS, ids=str)
def test_a_push_and_no_ops(backend: Backend, family: Family, top: bool):
    """Every read is strength times element, after any number of no-ops: so are its derivatives."""
    strengths, noops = np.array([0.0, 0.5, 1.0]), NOOPS[-1]
    state, actions, elements = backend.arrays(pushed_once(family, top, strengths, noops), family)
    for method in family.methods:

        def reads(actions: Any, elements: Any, method: str = method) -> Any:
            scan = backend.module(family.name).scan
            return reads_of(family, top)(scan(state, actions, elements, method=method)[1])

        for read in NOOPS:
            values, gradients = backend.outcome(reads, (actions, elements), [one_hot([read] * 3, noops + 1)])
            by_actions, *by_elements = gradients
            np.testing.assert_array_equal(values[0][:, read], strengths * 3)
            np.testing.assert_array_equal(by_actions[:, 0, 0 if top else 2], 3)
            np.testing.assert_array_equal(by_elements[0 if top else -1][:, 0], strengths)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noops", [*product(1), 30])
@pytest.mark.parametrize(("family", "top"), ENDS, ids=str)
def test_an_initial_element_and_no_ops(backend: Backend, family: Family, top: bool, noops: int):
    state, actions, elements = pushed_once(family, top, [0.0], noops)
    state = state._replace(values=np.full((1, 1), 3.0), strengths=np.ones((1, 1)))

    def last(state: Any) -> Any:
        return reads_of(family, top)(backend.module(family.name).scan(state, *arrays)[1])[:, -1]

    state, *arrays = backend.arrays((state, actions, elements), family)
    by_values, by_strengths = backend.outcome(last, (state,), [np.ones(1)])[1]
    assert by_values == [[1]]
    assert by_strengths == [[3]]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noops", NOOPS)
@pytest.mark.parametrize("family", [NEURAL_STACK, NEURAL_QUEUE], ids=str)
def test_a_push_is_popped(backend: Backend, family: Family, noops: int):
    """What a verb pops has the derivatives of what was pushed, and nothing of it is left."""
    module = backend.module(family.name)

    def popped(element: Any, strength: Any) -> Any:
        state = module.push(module.empty(2, dtype=backend.dtype("float64")), element, strength)
        for _ in range(noops):
            state, _ = module.pop(state, 0.0)
        return module.pop(state)

    arguments = backend.arrays((np.array(3.0), np.array(1.0)))
    gradients = backend.vjp(lambda *a: popped(*a)[1], arguments, [backend.array(np.ones(()))])
    assert [float(gradient) for gradient in gradients] == [1, 3]
    assert float(module.size(popped(*arguments)[0])) == 0


def grown(oracle: Any, actions: Any, elements: Any, step: int, growth: float = 1e-6) -> Any:
    """The derivative of every read of an oracle as the push of one step grows."""
    empty = np.zeros((1, 1)), np.zeros(1)
    more = actions.copy()
    more[step, PUSH] += growth
    return (oracle.scan(*empty, more, elements)[2] - oracle.scan(*empty, actions, elements)[2])[:, 0] / growth


def programs(count: int, length: int) -> list[tuple[Any, Any]]:
    generator = np.random.default_rng(11)
    return [
        (one_hot(generator.choice([PUSH, PUSH, POP, NOOP], size=length))[:, :2], generator.normal(size=(length, 1)))
        for _ in range(count)
    ]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("family", "oracle"), [(NEURAL_STACK, neural_stack), (NEURAL_QUEUE, neural_queue)], ids=["stack", "queue"]
)
def test_a_push_of_strength_0_may_grow(backend: Backend, family: Family, oracle: Any):
    """The derivative with respect to every push that a hard program does not make is the one-sided one."""
    module = backend.module(family.name)
    reads = {m: lambda *arguments, m=m: module.scan(*arguments, method=m)[1][:, 0] for m in family.methods}
    for actions, elements in programs(8, 5):
        state = backend.arrays(family.unused(np.zeros((1, 1)), 0), family)
        slopes = np.array([grown(oracle, actions, elements, step) for step in range(5)])

        arrays = backend.arrays((actions, elements))
        for read, method in itertools.product(range(5), family.methods):
            gradient = backend.outcome(reads[method], (state, *arrays), [np.eye(5)[read]])[1][2]
            grows = actions[:, PUSH] == 0
            np.testing.assert_allclose(gradient[grows, PUSH], slopes[grows, read], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_push_of_strength_0_may_grow_at_both_ends(backend: Backend):
    """The deque's, at the top and at the bottom."""
    deque, generator = backend.module("neural_deque"), np.random.default_rng(11)

    def reads(*arguments: Any) -> Any:
        return deque.scan(*arguments)[1]

    state = backend.arrays(NEURAL_DEQUE.unused(np.zeros((1, 1)), 0), NEURAL_DEQUE)
    for _ in range(6):
        actions, elements = generator.choice([0.0, 0.0, 1.0], size=(5, 4)), generator.normal(size=(2, 5, 1))
        before = piles.deque(np.zeros((1, 1)), np.zeros(1), actions, elements)
        arrays = backend.arrays((actions, tuple(elements)))
        for end, step in itertools.product(range(2), range(5)):
            cotangents = [np.zeros((5, 1)), np.zeros((5, 1))]
            cotangents[end][step] = 1
            gradient = backend.outcome(reads, (state, *arrays), cotangents)[1][2]
            for place in np.argwhere(actions[:, [0, 2]] == 0) * [1, 2]:
                more = actions.copy()
                more[tuple(place)] += 1e-6
                after = piles.deque(np.zeros((1, 1)), np.zeros(1), more, elements)
                slope = (after[end] - before[end])[step, 0] / 1e-6
                assert abs(gradient[tuple(place)] - slope) <= 1e-5
