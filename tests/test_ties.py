"""Hard strengths, 0 and 1, are ties: where two sides have two derivatives, both frameworks take the same one.

`parity/test_parity.py` compares the families without strengths. Since the frameworks agree at ties, by the loop here
and by the parallel forms in `test_methods.py`, JAX shows the convention by one family a test, and PyTorch by all.
"""

import itertools
from typing import Any

import jax
import numpy as np
import pytest

from backends import BACKENDS, JAX, TORCH, Backend
from diffstack.actions import NOOP, POP, PUSH
from families import (
    CASES,
    FULL,
    NEURAL,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NEURAL_STACK,
    Case,
    Family,
    Size,
    floats,
    one_hot,
)
from oracles import neural_queue, neural_stack, piles

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


def with_ties(family: Family, size: Size) -> Any:
    """Samples whose strengths are 0 and 1, and as many of 0, 1/2 and 1."""
    hard, generator = family.sample(np.random.default_rng(7), size, True), np.random.default_rng(6)
    strengths, actions = (generator.choice([0, 0.5, 1], size=a.shape) for a in (hard.state.strengths, hard.actions))
    halves = hard._replace(state=hard.state._replace(strengths=strengths), actions=actions)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), hard, halves)


def has_ties(case: Case) -> bool:
    """What pops or reads does; the queue's verbs are the stack's with the other order, and its steps are here."""
    return case.verb.name in ("step", "scan") or (
        case.family is not NEURAL_QUEUE and case.verb.name.startswith(("pop", "peek"))
    )


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in DIFFERENTIABLE
        if case.family in NEURAL and (FULL or (has_ties(case) and case.method != "parallel"))
    ],
    ids=str,
)
def test_the_frameworks_agree(case: Case):
    functions = {backend: backend.function(case) for backend in (JAX, TORCH)}
    agree(functions, tuple(case.verb.arguments(with_ties(case.family, size_of(case)))), case.family)


@pytest.mark.parametrize("family", NEURAL, ids=str)
def test_the_frameworks_agree_where_steps_drop_slots(family: Family):
    """A controller's own loop over `step`, which makes no room."""

    def loop(backend: Backend) -> Any:
        step, scan = backend.module(family.name).step, backend.module("_sequential").scan
        return lambda state, actions, elements: scan(step, state, actions, elements)

    agree({backend: loop(backend) for backend in (JAX, TORCH)}, tuple(with_ties(family, LONG)), family)


# --- the convention ---


def ends(family: Family) -> tuple[bool, ...]:
    return (True, False) if family is NEURAL_DEQUE else (True,)


def product_of(*families: Family, jax_takes: Family | None = None) -> list[tuple[Backend, Family]]:
    """Framework and family: PyTorch with all of them, and JAX with one or none but for the full product."""
    return [(b, f) for b in BACKENDS for f in families if FULL or b is TORCH or f is jax_takes]


ENDS = [(b, family, top) for b, family in product_of(*NEURAL, jax_takes=NEURAL_STACK) for top in ends(family)]


def pushed_once(family: Family, top: bool, strengths: Any) -> tuple[Any, Any, Any]:
    """A batch of stacks: one push of each strength, then no-ops, whose elements are not zero."""
    count, steps = len(strengths), NOOPS[-1] + 1
    actions = np.zeros((count, steps, 4 if family is NEURAL_DEQUE else 2))
    actions[:, 0, 0 if top else 2] = strengths
    elements = np.tile(np.linspace(3, 5, steps), (count, 1))
    state = jax.tree.map(lambda leaf: np.tile(leaf, (count, 1)), family.unused(np.ones(1), 0))
    return state, actions, (elements, elements) if family is NEURAL_DEQUE else elements


def read_after(backend: Backend, family: Family, method: str, top: bool, arguments: Any, noops: int) -> Any:
    """The read of one end after so many no-ops, and its gradients, for a batch of three stacks."""
    scan = next(verb for verb in family.verbs if verb.name == "scan")
    # Those of the final state's values and strengths come before those of the reads.
    cotangents = [np.zeros((3, steps)) for steps in (1, 1, *[NOOPS[-1] + 1] * len(ends(family)))]
    where = 2 if top else -1
    cotangents[where][:, noops] = 1
    function = backend.function(Case(family, scan, method))
    values, gradients = backend.outcome(function, backend.arrays(arguments, family), cotangents)
    return values[where][:, noops], gradients


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "family", "top"), ENDS, ids=str)
def test_a_push_and_no_ops(backend: Backend, family: Family, top: bool):
    """Every read is strength times element, after any number of no-ops: so are its derivatives."""
    strengths = np.array([0.0, 0.5, 1.0])
    for method, noops in itertools.product(family.methods, NOOPS):
        arguments = pushed_once(family, top, strengths)
        read, (_, _, by_actions, *by_elements) = read_after(backend, family, method, top, arguments, noops)
        np.testing.assert_array_equal(read, strengths * 3)
        np.testing.assert_array_equal(by_actions[:, 0, 0 if top else 2], 3)
        np.testing.assert_array_equal(by_elements[0 if top else -1][:, 0], strengths)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "family", "top"), ENDS, ids=str)
def test_an_initial_element_and_no_ops(backend: Backend, family: Family, top: bool):
    for method, noops in itertools.product(family.methods, NOOPS):
        state, actions, elements = pushed_once(family, top, [0.0] * 3)
        state = state._replace(values=np.full((3, 1), 3.0), strengths=np.ones((3, 1)))
        arguments = state, actions, elements
        _, (by_values, by_strengths, *_) = read_after(backend, family, method, top, arguments, noops)
        np.testing.assert_array_equal(by_values, 1)
        np.testing.assert_array_equal(by_strengths, 3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "family", "noops"),
    [
        (backend, family, noops)
        for backend, family in product_of(NEURAL_STACK, NEURAL_QUEUE, jax_takes=NEURAL_STACK)
        for noops in (NOOPS if FULL or backend is TORCH else NOOPS[1:2])
    ],
    ids=str,
)
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
@pytest.mark.parametrize(("backend", "family"), product_of(NEURAL_STACK, NEURAL_QUEUE), ids=str)
def test_a_push_of_strength_0_may_grow(backend: Backend, family: Family):
    """The derivative with respect to every push that a hard program does not make is the one-sided one."""
    oracle = neural_stack if family is NEURAL_STACK else neural_queue
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
@pytest.mark.parametrize(("backend", "family"), product_of(NEURAL_DEQUE), ids=str)
def test_a_push_of_strength_0_may_grow_at_both_ends(backend: Backend, family: Family):
    """The deque's, at the top and at the bottom."""
    deque, generator = backend.module(family.name), np.random.default_rng(11)

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
