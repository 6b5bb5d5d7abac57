"""`unroll`: both methods against the oracle, against each other, in every mode, and what it says of bad arguments.

JAX has the gradients of the chunks of every family, of two against the oracle, and of the others over several chunks
against PyTorch's loop, which needs no compiling; all else it takes of some families, by turns. PyTorch's chunks are
judged by the oracle and by that loop.
"""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from backends import BACKENDS, JAX, TORCH, Backend, assert_close, assert_same_bits, dear
from controllers import HARD, METHODS, MODES, UNROLLS, controller, unrolled
from diffstack._checks import Layout
from diffstack._plan import chunk_length, runs
from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import FAMILIES as TABLE
from families import (
    FAMILIES,
    FULL,
    NEURAL,
    NEURAL_DEQUE,
    NEURAL_STACK,
    NONDETERMINISTIC,
    POINTER,
    SUPERPOSITION,
    Case,
    Family,
    Size,
    floats,
    product,
    some,
)
from test_definition import check_gradients
from test_methods import CHANGES

CHUNKED = tuple(case for case in UNROLLS if case.method == "chunked")
# The family of what takes XLA longest; of all others PyTorch does the same.
COMPILED = product(*FAMILIES) or (POINTER,)


def case_of(family: Family, method: str) -> Case:
    return next(case for case in UNROLLS if case.family is family and case.method == method)


def slots_of(family: Family) -> int:
    """More than a sequence has steps; of an automaton, whose table grows with their square, more than a chunk has."""
    return 10 if family.automaton and not FULL else 40


def fewer(family: Family, time: int, steps: int) -> int:
    """So many steps of an automaton, which takes longest, and of which XLA compiles every run of chunks."""
    return steps if family.automaton and not FULL else time


# --- the oracle ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "case"), dear(CHUNKED, 1), ids=str)
def test_values_and_gradients(backend: Backend, case: Case):
    """Of every argument, against the oracle, in one chunk or two; the loop is compared with more of them below."""
    size = Size(10, 3, (2,), (1,) if case.family.automaton and not FULL else (2,))
    arguments, function = backend.arguments(case, size), unrolled(backend, case)
    if not case.differentiable:
        results = backend.numpys(function(*arguments))
        assert all(np.array_equal(left, right) for left, right in zip(results, case.values(size), strict=True))
        return
    results, gradients = backend.outcome(function, arguments, case.cotangents(size))
    for actual, expected in zip(results, floats(case.values(size)), strict=True):
        assert_close(actual, expected, 1e-12)
    check_gradients(case, size, gradients)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "case", "time"),
    [(b, c, fewer(c.family, time, 23)) for b, c in dear(CHUNKED, 1) for time in (37, *product(65))],
    ids=str,
)
def test_values_over_several_chunks(backend: Backend, case: Case, time: int):
    """From a full state and, with hard actions, over many steps, where soft ones are chaotic."""
    size = Size(time, 7, (2,), (2,))
    hard = HARD[case.family, case.method]
    arguments = backend.arrays(tuple(hard.arguments(size, hard=True)), case.family)
    results = backend.numpys(backend.computed(unrolled(backend, hard, True), *arguments))
    for actual, expected in zip(results, hard.values(size, hard=True), strict=True):
        assert_close(actual, expected, 1e-12)


# --- the two methods ---


def agree(
    backend: Backend, family: Family, arguments: Any, final_states: bool = True, gradients: bool = True, **options: Any
) -> None:
    """Values and gradients of everything, or values alone, chunk by chunk, are those of the loop: PyTorch's, or with
    the full product each framework's own.
    """
    both, results = {} if final_states else {"final_states": False}, []
    for each, method, more in ((backend if FULL else TORCH, "sequential", {}), (backend, "chunked", options)):
        function, given = unrolled(each, HARD[family, method], True, **both, **more), each.arrays(arguments, family)
        values = each.outcome(function, given) if gradients else (each.numpys(each.computed(function, *given)), [])
        results.append(values)
    ours, theirs = results
    for left, right in zip(theirs[0], ours[0], strict=True):
        assert_close(left, right, 1e-12)
    scale = max((np.abs(gradient).max(initial=0) for gradient in ours[1]), default=0)
    kept = len(floats(arguments[0])) if options.get("starts_empty") else 0
    for left, right in zip(theirs[1][kept:], ours[1][kept:], strict=True):
        assert np.abs(left - right).max(initial=0) <= 1e-12 * scale


# Chunks with a rest, chunks without one, and one step; in JAX, those without one of the families whose gradients the
# oracle does not judge above.
TIMES = [
    (b, f, fewer(f, time, 10) if b is JAX else time)
    for b, f, time in itertools.product(BACKENDS, FAMILIES, (37, 40))
    if FULL or b is TORCH or (time == 40 and f in some(FAMILIES, 0, 2))
]
TIMES += [(b, f, 1) for b in BACKENDS for f in FAMILIES if FULL or b is TORCH or f is SUPERPOSITION]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "family", "time"), TIMES, ids=str)
def test_chunks_are_the_loop(backend: Backend, family: Family, time: int):
    """At chunk borders and off them; full and half-filled states, soft and hard actions, ties, in one batch."""
    slots = slots_of(family)
    soft, hard = (HARD[family, "chunked"].arguments(Size(time, slots, (2,), (3,)), hard=each) for each in (False, True))
    state, actions, elements = jax.tree.map(lambda *leaves: np.concatenate(leaves), soft, hard)
    if family.strengths:
        ties = np.random.default_rng(3).choice([0, 0, 0.25, 0.5, 1, 1], size=actions[3:].shape)
        actions = np.concatenate([actions[:3], ties])
        strengths = state.strengths * (np.arange(40) < np.array([0, 20, 40, 0, 20, 40])[:, None])
        state = state._replace(strengths=strengths)
    agree(backend, family, (state, actions, elements))


def emptied(family: Family, state: Any) -> Any:
    """A state that holds nothing."""
    if family.automaton:
        alone = family.unused(np.zeros(state.values.shape[-2:]), 0)
        return type(state)(*(np.broadcast_to(mine, leaf.shape) for mine, leaf in zip(alone, state, strict=True)))
    # A ring has a top also when it is empty.
    kept = state._fields[1:] if family.ring else ()
    return type(state)(*(leaf if name in kept else 0 * leaf for name, leaf in state._asdict().items()))


# Slots, and whether the final states are wanted: of every family the one or the other, and in JAX of some.
PROMISES = list(
    itertools.product(BACKENDS, FAMILIES, ((7, True), (65, False), *product((7, False), (65, True)))),
)
if not FULL:
    PROMISES = [
        (backend, family, promise)
        for backend, family, promise in PROMISES
        if (FAMILIES.index(family) % 2 == 0) == promise[1]
        if backend is TORCH or family in (POINTER, SUPERPOSITION, NEURAL_STACK)
    ]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "family", "promise"), PROMISES, ids=str)
def test_the_promises(backend: Backend, family: Family, promise: tuple[int, bool]):
    """A stack that starts empty, smaller than the sequence or as large; with its final state and without."""
    slots, final_states = promise
    # Two runs of chunks and more.
    time = fewer(family, 65, 30)
    state, *sequences = HARD[family, "chunked"].arguments(Size(time, min(slots, time), (2,), (3,)))
    # In JAX the next test has a gradient under the promise.
    gradients = FULL or backend is TORCH
    agree(backend, family, (emptied(family, state), *sequences), final_states, gradients, starts_empty=True)


def test_final_states_that_are_not_wanted(backend: Backend):
    """They are None, by either method."""
    state, *sequences = HARD[SUPERPOSITION, "chunked"].arguments(Size(2, 3, (2,)), dtype=np.float32)
    for method in METHODS:
        run = unrolled(backend, HARD[SUPERPOSITION, method], True, final_states=False)
        (_, states), _ = backend.computed(run, *backend.arrays((state, *sequences), SUPERPOSITION))
        assert states is None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "family", "method"),
    # In JAX the gradient ends where `unroll` takes the states, whatever their family and method.
    [
        each
        for each in itertools.product(BACKENDS, [family for family in FAMILIES if not family.only_moves], METHODS)
        if each[0] is TORCH or (each[1] in COMPILED and (FULL or each[2] == "chunked"))
    ],
    ids=str,
)
def test_no_gradient_reaches_a_stack_that_starts_empty(backend: Backend, family: Family, method: str):
    """Without the promise it does."""
    state, *sequences = HARD[family, "chunked"].arguments(Size(10, 3, (2,), (2,)))
    # Values without strength, which a strength of more than 0 would show.
    empty = state._replace(strengths=0 * state.strengths) if family.strengths else emptied(family, state)
    given = backend.arrays((empty, *sequences), family)
    _, plain = backend.outcome(unrolled(backend, case_of(family, "chunked")), given)
    _, promised = backend.outcome(unrolled(backend, case_of(family, method), starts_empty=True), given)
    assert any(gradient.any() for gradient in plain[: len(state)])
    assert not any(gradient.any() for gradient in promised[: len(state)])
    assert any(gradient.any() for gradient in promised[len(state) :])


def test_what_falls_off_the_bottom_is_read_by_nobody(backend: Backend):
    """Six pushes on a full stack lose six rows, in any chunk from which the bottom can still be read."""
    pushes, pops, steps = [PUSH] * 6, [POP] * 6, 65
    codes = [[NOOP] * at + pushes + pops + [POP] * (steps - 12 - at) for at in (0, 13, 26, 39)]
    module = backend.module("superposition")
    rows = np.repeat(np.arange(1, 41, dtype=np.float32)[None, :, None], len(codes), 0)
    state = module.SuperpositionState(backend.array(rows))
    inputs = (
        module.encode(backend.array(np.asarray(codes, np.int32))),
        backend.array(np.ones((4, steps, 1), np.float32)),
    )
    reads = []
    for method in METHODS:
        unroll = partial(backend.module("controller").unroll, method=method, final_states=False)
        _, read = backend.computed(partial(unroll, lambda c, x, r: (c, *x, r), ()), state, inputs)
        reads.append(backend.numpy(read))
    assert_same_bits(reads[1], reads[0])
    # The row after the last one that was kept, and how many are seen before the end.
    assert [np.count_nonzero(row[12 + at :]) for row, at in zip(reads[0], (0, 13, 26, 39), strict=True)] == [
        34,
        34,
        27,
        14,
    ]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "case"), dear(CHUNKED, 1), ids=str)
def test_without_a_step(backend: Backend, case: Case):
    arguments = backend.arguments(case, Size(0, 3, (2,), (2,)))
    (carry, state), outputs = unrolled(backend, case)(*arguments)
    for actual, expected in zip(backend.numpys(state), backend.numpys(arguments[0]), strict=True):
        assert_same_bits(actual, expected)
    assert not backend.numpy(carry).any()
    # An automaton reads an element for each state and top.
    read = (2, 0, 2, 2, 2) if case.family.automaton else (2, 0, 2)
    assert all(leaf.shape == read for leaf in backend.numpys(outputs))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "case"), dear(MODES, 1, 2), ids=str)
def test_lengths(backend: Backend, case: Case):
    """Every sequence is as it would be alone, and NaN in its padding reaches nothing."""
    family, lengths = case.family, [0, 5, 10, 7]
    state, *sequences = case.arguments(Size(10, 3, (2,), (4,)))
    for where, length in enumerate(lengths):
        for leaf in floats(sequences):
            leaf[where, length:] = np.nan
    given = *backend.arrays((state, *sequences), family), backend.array(np.asarray(lengths))
    result = backend.computed(unrolled(backend, case), *given)
    carry, final, outputs = result[0][0], result[0][1], result[1]
    for where, length in enumerate(lengths):
        alone = jax.tree.map(lambda leaf, w=where, n=length: leaf[w, :n], tuple(sequences))
        (one, ended), shown = case.verb.oracle(jax.tree.map(lambda leaf, w=where: leaf[w], state), *alone)
        for actual, expected in zip(backend.numpys((carry, final)), jax.tree.leaves((one, ended)), strict=True):
            assert_close(actual[where], np.asarray(expected), 1e-12)
        for actual, expected in zip(backend.numpys(outputs), jax.tree.leaves(shown), strict=True):
            assert_close(actual[where, :length], expected, 1e-12)
            assert not actual[where, length:].any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "case"),
    [
        (b, c)
        for b in BACKENDS
        for c in MODES
        if c.family.automaton and (FULL or b is TORCH or c.method == "sequential")
    ],
    ids=str,
)
def test_a_sequence_without_a_step_keeps_its_state(backend: Backend, case: Case):
    """To the bit, and so its gradient is what it was given."""
    arguments = backend.arrays(tuple(case.arguments(Size(2, 3, (2,), (2,)))), case.family)
    lengths = backend.array(np.array([0, 2]))

    def ended(*arguments: Any) -> Any:
        return unrolled(backend, case)(*arguments, lengths)[0][1]

    ones = [np.ones_like(leaf) for leaf in backend.numpys(arguments[0])]
    states, gradients = backend.outcome(ended, arguments, ones)
    for actual, first, gradient in zip(states, backend.numpys(arguments[0]), gradients[:3], strict=True):
        assert_same_bits(actual[0], first[0])
        assert (gradient[0] == 1).all()


@pytest.mark.bits
@pytest.mark.parametrize("count", [24, *product(40)])
@pytest.mark.parametrize(("backend", "family"), dear([family for family in FAMILIES if family.is_stack], 0), ids=str)
def test_hard_programs_give_back_bits(backend: Backend, family: Family, count: int):
    """What is pushed over several chunks is popped bit for bit."""
    values = np.random.default_rng(5).normal(size=(count, 3)).astype(np.float32)
    codes = np.asarray([PUSH] * count + [POP] * count, np.int32)
    elements = np.concatenate([values, np.zeros_like(values)])
    module = backend.module(family.name)
    program = module.encode(backend.array(codes))
    state = module.empty(50, (3,))

    def decide(carry: Any, inputs: Any, read: Any) -> Any:
        return carry, *inputs, read

    inputs = program, backend.array(elements)
    _, reads = backend.computed(
        partial(backend.module("controller").unroll, decide, (), method="chunked"), state, inputs
    )
    assert_same_bits(backend.numpy(reads)[count:], values[::-1])


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 2), ids=str)
def test_strengths_that_are_not_strengths(backend: Backend, family: Family):
    """Below 0, above 1, infinite and NaN: the reads are those of the loop, NaN from the same step on."""
    state, actions, elements = HARD[family, "chunked"].arguments(Size(48, 3, (2,), (1,)))
    changed = [change(actions[0]) for change in CHANGES.values()]
    state, elements = jax.tree.map(lambda leaf: np.repeat(leaf, len(changed), 0), (state, elements))
    unroll = backend.module("controller").unroll

    def reads(state: Any, *inputs: Any) -> list[Any]:
        return [unroll(lambda c, x, r: (c, *x, r), (), state, inputs, method=method)[1] for method in METHODS]

    with backend.x64():
        results = backend.computed(reads, *backend.arrays((state, np.stack(changed), elements), family))
    for right, left in zip(*map(backend.numpys, results), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)
        assert np.isnan(right[:, 42:]).all((1, 2)).tolist() == [name.startswith("nan") for name in CHANGES]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "family"),
    [(TORCH, f) for f in FAMILIES] + [(JAX, f) for f in product(*FAMILIES) or (NEURAL_STACK,)],
    ids=str,
)
def test_a_family_without_chunks_of_its_own(backend: Backend, family: Family, monkeypatch: pytest.MonkeyPatch):
    """Its steps run within the chunks: several runs of them, and a rest."""
    module = backend.module("controller")
    monkeypatch.setitem(module._FORMS, family.name, module._DEFINITIONS[family.name])
    # The form of its own would fail.
    if family.chunked:
        monkeypatch.setattr(module.FORMS[family.name], "tick", None)
    time = fewer(family, 35, 19)
    arguments = HARD[family, "chunked"].arguments(Size(time, min(time, 7), (2,), (2,)))
    agree(backend, family, arguments, gradients=FULL or backend is TORCH)


# --- how a sequence is cut ---


def test_the_rule_of_auto(backend: Backend):
    """As docs/understand/controllers.md says it: 32 steps, and 1024 numbers in the stacks of one sequence."""
    chunk = backend.module("_methods").chunk

    def taken(method: str, time: int, *stacks: tuple[str, int, int]) -> int | None:
        layouts = [(TABLE[name], Layout((5,), slots, (dim,))) for name, slots, dim in stacks]
        return chunk(method, time, layouts)

    assert taken("auto", 31, ("superposition", 1000, 10)) is None
    assert taken("auto", 32, ("superposition", 1023, 1)) is None
    assert taken("auto", 32, ("superposition", 1024, 1)) is not None
    # The slots of a neural family are those of the state, and one for each step.
    assert taken("auto", 32, ("neural_stack", 32, 15)) is None
    assert taken("auto", 32, ("neural_stack", 32, 16)) is not None
    assert taken("auto", 32, ("pointer", 512, 1), ("discrete", 512, 1)) is not None
    assert taken("sequential", 1000, ("pointer", 1000, 10)) is None
    # Without a form of its own a stack gains nothing.
    assert chunk("auto", 1000, [(TABLE["pointer"]._replace(chunked=False), Layout((), 1000, (10,)))]) is None
    assert taken("chunked", 1, ("pointer", 1, 1)) == 1
    assert taken("chunked", 0, ("pointer", 1, 1)) is None


@pytest.mark.parametrize("wanted", [1, 8, 10, 16])
def test_chunks_cover_every_step_once(wanted: int):
    for time in range(1, 200):
        length = chunk_length(time, wanted)
        assert 1 <= length <= time
        assert 2 * wanted <= 3 * length + 2 or length == time
        assert 2 * length <= 3 * wanted
        for longest in (1, 3, 200):
            steps = 0
            for first, stop, each in runs(time, length, longest):
                assert first == steps
                assert (stop - first) % each == 0
                assert (stop - first) // each <= longest
                steps = stop
            assert steps == time


# --- several stacks ---


def test_all_families_at_once(backend: Backend):
    """Each gets its own reads, and does what it would do alone; in JAX two of them."""
    with backend.x64():
        size = Size(20, 3, (2,), (2,))
        cases = [HARD[family, "sequential"] for family in (FAMILIES if backend is TORCH else some(FAMILIES, 1))]
        given = [backend.arrays(tuple(case.arguments(size)), case.family) for case in cases]

        def decide(carry: Any, inputs: Any, reads: Any) -> Any:
            xp = jnp if backend is JAX else torch
            each = [
                controller(xp, case.family, True)(mine, (action, element), read)
                for case, mine, action, element, read in zip(cases, carry, *inputs, reads, strict=True)
            ]
            return tuple(tuple(part) for part in zip(*each, strict=True))

        def alone_and_together(given: Any) -> list[Any]:
            alone = [unrolled(backend, case, True)(*each) for case, each in zip(cases, given, strict=True)]
            states, actions, elements = (tuple(each) for each in zip(*given, strict=True))
            carry, results = tuple(result[0][0] * 0 for result in alone), [alone]
            for method in METHODS:
                (carries, finals), outputs = backend.module("controller").unroll(
                    decide, carry, states, (actions, elements), method=method
                )
                results.append([((c, f), o) for c, f, o in zip(carries, finals, outputs, strict=True)])
            return results

        alone, *others = map(backend.numpys, backend.computed(alone_and_together, given))
        for together in others:
            for actual, expected in zip(together, alone, strict=True):
                assert_close(actual, expected, 1e-12)


# --- transformations ---


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "family"),
    # The discrete stack is linear in the elements; of the neural families the deque takes part.
    [
        (b, f)
        for b in BACKENDS
        for f in FAMILIES
        if FULL or f in (COMPILED if b is JAX else (SUPERPOSITION, NEURAL_DEQUE, NONDETERMINISTIC))
        if not f.only_moves
    ],
    ids=str,
)
def test_second_derivatives_and_tangents(backend: Backend, family: Family):
    """By every way of either framework, chunk by chunk as by the loop."""
    # Two chunks of every family at least.
    state, *sequences = HARD[family, "chunked"].arguments(Size(fewer(family, 24, 10), slots_of(family), (2,)))
    actions, elements = backend.arrays(tuple(sequences), family)
    found = []
    for method in METHODS:

        def loss(elements: Any, actions: Any, method: str = method) -> Any:
            run, xp = unrolled(backend, case_of(family, method)), jnp if backend is JAX else torch
            leaves = floats(jax.tree.leaves(run(backend.arrays(state, family), actions, elements)))
            # A logarithm of nothing does not change.
            return sum(xp.sum(xp.sin(xp.where(leaf == -xp.inf, 0, leaf))) for leaf in leaves)

        if backend is JAX:
            found.append(jax.jit(lambda e, a, loss=loss: jax.jvp(jax.grad(loss), (e, a), (e, a)))(elements, actions))
            continue
        leaves = jax.tree.map(lambda leaf: leaf.clone().requires_grad_(), (elements, actions))
        first = torch.autograd.grad(loss(*leaves), jax.tree.leaves(leaves), create_graph=True)
        second = torch.autograd.grad(sum(each.sum() for each in first), jax.tree.leaves(leaves))
        with torch.autograd.forward_ad.dual_level():
            # What is added to all weights of an automaton changes nothing.
            dual = torch.autograd.forward_ad.make_dual(actions, torch.cos(actions))
            tangent = torch.autograd.forward_ad.unpack_dual(loss(elements, dual)).tangent
        by_func = torch.func.grad(loss, 1)(elements, actions)
        many = torch.vmap(loss, (None, 0))(elements, torch.stack([actions, 0.5 * actions]))
        found.append((second, tangent, by_func, many))
    for left, right in zip(jax.tree.leaves(found[1:]), jax.tree.leaves(found[:1]), strict=True):
        expected = backend.numpy(right)
        assert np.abs(backend.numpy(left) - expected).max() <= 1e-9 * np.abs(expected).max()


def test_jax_traces_a_controller_once():
    """A second call with other numbers runs what was compiled; so does another controller that is alike."""
    traced = []

    def decide(carry: Any, inputs: Any, read: Any) -> Any:
        traced.append(1)
        return carry + read, inputs[..., :3], inputs[..., 3:], carry

    superposition = JAX.module("superposition")

    @jax.jit
    def run(inputs: Any) -> Any:
        state = superposition.empty(64, (2,), batch_shape=(2,))
        return JAX.module("controller").unroll(decide, jnp.zeros((2, 2)), state, inputs, method="chunked")

    run(jnp.ones((2, 60, 5)))
    once = len(traced)
    run(jnp.zeros((2, 60, 5)))
    assert len(traced) == once


def test_pytorch_takes_a_module():
    """Whose parameters get their gradients; chunk by chunk as by the loop."""

    class Controller(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = torch.nn.RNNCell(5, 4), torch.nn.Linear(4, 5)

        def forward(self, carry: Any, input: Any, read: Any) -> Any:
            carry = self.cell(torch.cat([input, read], -1), carry)
            logits = self.head(carry)
            return carry, torch.softmax(logits[..., :3], -1), torch.tanh(logits[..., 3:]), carry

    torch.manual_seed(0)
    controller, inputs = Controller().double(), torch.randn(2, 40, 3, dtype=torch.float64)
    state = TORCH.module("superposition").empty(40, (2,), batch_shape=(2,), dtype=torch.float64)
    found = []
    for method in METHODS:
        carry = torch.zeros(2, 4, dtype=torch.float64)
        _, outputs = TORCH.module("controller").unroll(controller, carry, state, inputs, method=method)
        found.append(torch.autograd.grad(outputs.sin().sum(), list(controller.parameters())))
    for left, right in zip(*found, strict=True):
        assert_close(left.numpy(), right.numpy(), 1e-12)


def test_pytorch_calls_a_controller_once_a_step():
    """Backward included: what it closes over, such as dropout, is as in any loop."""
    calls = []

    def decide(carry: Any, inputs: Any, read: Any) -> Any:
        calls.append(1)
        return decided(carry, inputs, read)

    state, inputs = TORCH.module("superposition").empty(60, (2,)), torch.randn(40, 5, requires_grad=True)
    for method in METHODS:
        _, outputs = TORCH.module("controller").unroll(decide, (), state, inputs, method=method)
        outputs.sum().backward()
        assert len(calls) == 40
        calls.clear()


# --- memory ---


@pytest.mark.parametrize(
    "family",
    [family for family in product(*FAMILIES) or (POINTER, SUPERPOSITION) if family.action],
    ids=str,
)
def test_jax_keeps_a_chunk_and_not_a_step(family: Family):
    """Forward and backward: less than a quarter of the loop. As JAX says what the backward pass is given, and for the
    pointer as XLA plans it, or for all families where the full product is asked for.
    """
    arguments = JAX.arrays(tuple(HARD[family, "chunked"].arguments(Size(80, 80, (16,), (2,)))), family)
    sizes = []
    for method in METHODS:
        function = unrolled(JAX, case_of(family, method))

        def loss(*arguments: Any, function: Any = function) -> Any:
            return sum(jnp.sum(leaf**2) for leaf in floats(function(*arguments)))

        if family in COMPILED:
            compiled = jax.jit(jax.grad(loss, (1, 2))).lower(*arguments).compile()
            sizes.append(compiled.memory_analysis().temp_size_in_bytes)
        else:
            kept = jax.eval_shape(
                lambda *sequences, loss=loss: jax.vjp(partial(loss, arguments[0]), *sequences)[1], *arguments[1:]
            )
            sizes.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)))
    assert sizes[1] < sizes[0] / 4


def test_pytorch_keeps_a_chunk_and_not_a_step():
    """What the backward pass keeps of a superposition stack grows with the chunks: less than a quarter of the loop."""
    sizes = []
    for method in METHODS:
        arguments = TORCH.arrays(
            tuple(HARD[FAMILIES[2], "chunked"].arguments(Size(120, 120, (16,), (2,)))), FAMILIES[2]
        )
        leaves = jax.tree.map(lambda leaf: leaf.requires_grad_(), arguments)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            result = unrolled(TORCH, case_of(FAMILIES[2], method))(*leaves)
        sizes.append(sum(kept.values()))
        del result
    assert sizes[1] < sizes[0] / 4


def test_outputs_may_be_any_tree(backend: Backend):
    """With None in it, too."""
    state = backend.module("superposition").empty(4, (2,), batch_shape=(2,))
    inputs = backend.array(np.ones((2, 6, 5), np.float32))

    def decide(carry: Any, inputs: Any, read: Any) -> Any:
        return carry, inputs[..., :3], inputs[..., 3:], {"read": read, "nothing": None}

    for time in (6, 0):
        _, outputs = backend.module("controller").unroll(decide, None, state, inputs[:, :time], lengths=[2, 6])
        assert outputs["nothing"] is None
        assert outputs["read"].shape == (2, time, 2)


# --- what is refused ---


def decided(carry: Any, inputs: Any, read: Any) -> Any:
    return carry, inputs[..., :3], inputs[..., 3:], read


def test_arguments_that_do_not_fit(backend: Backend):
    unroll, superposition = backend.module("controller").unroll, backend.module("superposition")
    zeros, ones = (backend.array(array) for array in (np.zeros((2, 1), np.float32), np.ones((2, 6, 5), np.float32)))
    state = superposition.empty(4, (2,), batch_shape=(2,))
    full = superposition.SuperpositionState(backend.array(np.ones((2, 4, 2), np.float32)))
    plain = {"controller": decided, "carry": zeros, "states": state, "inputs": ones}
    one, single = backend.array(np.zeros((), np.float32)), superposition.empty(4, (2,))
    short, three = (lambda c, x, r: (c, x[..., :3], x[..., 4:], r)), (lambda c, x, r: decided(c, x, r)[:3])
    for error, changes, message in (
        (
            TypeError,
            {"states": 1},
            r"states: expected the state of a family of diffstack\.\w+_impl, or a tuple of such",
        ),
        (
            TypeError,
            {"states": (state, 1)},
            r"states: expected states of families of diffstack\.\w+_impl, got",
        ),
        (ValueError, {"states": (state, single)}, r"states: expected batch axes \(2,\), those of the first, got batch"),
        (ValueError, {"states": full, "starts_empty": True}, "states: expected empty stacks, as starts_empty promises"),
        (ValueError, {"inputs": ()}, "inputs: expected at least one array, whose time axis says how many steps"),
        (
            ValueError,
            {"inputs": zeros[:, 0]},
            r"inputs: expected shape \(2, 'time', '...'\), the batch axes first, got",
        ),
        (ValueError, {"inputs": (ones, ones[:, :5])}, "inputs: expected 6 steps in every array, got 5 steps"),
        (
            ValueError,
            {"carry": one, "lengths": [1, 2]},
            r"carry: expected shape \(2, '...'\), the batch axes first, where",
        ),
        (ValueError, {"method": "parallel"}, "method: expected one of 'auto', 'sequential', 'chunked', got 'parallel'"),
        (TypeError, {"controller": three}, "controller: expected a function that returns carry, actions, elements and"),
        (ValueError, {"states": (state, state)}, "actions: expected a tuple of 2, one entry for each stack, got"),
        (
            ValueError,
            {"controller": short},
            r"element: expected shape \(2, 2\), one element for each stack of the state",
        ),
    ):
        with pytest.raises(error, match=f"^{message}"):
            unroll(**(plain | changes))
