"""The two methods of `scan` are one function: values, final states and gradients, at ties too, and over long times."""

import importlib
import itertools
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
import torch

from backends import BACKENDS, TORCH, Backend, assert_close, assert_same_bits, dear
from diffstack._checks import Layout
from diffstack.actions import POP, PUSH
from diffstack.torch_impl._parallel._recompute import recompute
from diffstack.torch_impl.reversal import reverse
from families import (
    FAMILIES,
    FULL,
    NEURAL,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NEURAL_STACK,
    POINTER,
    SUPERPOSITION,
    Case,
    Family,
    Sample,
    Size,
    floats,
    product,
)
from oracles import piles, pointer, superposition

SOFT = tuple(family for family in FAMILIES if family.parallel and not (family.only_moves or family.automaton))
PARALLEL = tuple(family for family in FAMILIES if family.parallel)
ALL_SIZES = [
    Size(time, slots, (dim,), batch)
    for time in (1, 2, 13, 64, 257, 600)
    for slots in (1, 2, 7, 16, 33, 130)
    for dim in (1, 3)
    for batch in ((), (2,))
]


def sample_of(family: Family, size: Size, kind: str) -> Any:
    """A sample with random actions, hard ones, or, for the neural families, ones that tie in many ways."""
    generator = np.random.default_rng(14)
    sample = family.sample(generator, size, kind == "hard")
    if kind != "ties" or family not in NEURAL:
        return sample
    ties = [0, 0, 0.25, 0.5, 1, 1, 2]
    strengths, actions = (
        generator.choice(ties, size=array.shape) for array in (sample.state.strengths, sample.actions)
    )
    return sample._replace(state=sample.state._replace(strengths=strengths), actions=actions)


def both(backend: Backend, family: Family, sample: Any, method: str) -> tuple[list[Any], list[Any]]:
    """Final state and reads, and the gradient of everything under random cotangents of both."""
    scan = next(verb for verb in family.verbs if verb.name == "scan")
    return backend.outcome(backend.function(Case(family, scan, method)), backend.arrays(tuple(sample), family))


def agree(backend: Backend, family: Family, sample: Any) -> None:
    """With PyTorch's loop, which needs no compiling, or with the full product each framework's own."""
    with backend.x64():
        ours = both(backend if FULL else TORCH, family, sample, "sequential")
        theirs = both(backend, family, sample, "parallel")
    for left, right in zip(theirs[0], ours[0], strict=True):
        assert_close(left, right, 1e-12)
    # One scale for all gradients: some are exactly 0 by the one method, and a sum that cancels by the other.
    scale = max(np.abs(gradient).max(initial=0) for gradient in ours[1])
    for left, right in zip(theirs[1], ours[1], strict=True):
        assert np.abs(left - right).max(initial=0) <= 1e-12 * scale


# More slots than a chunk can reach.
LARGE = [(POINTER, Size(64, 40, (2,), (2,))), (SUPERPOSITION, Size(40, 130, (2,), (2,)))]


@pytest.mark.parametrize(
    ("backend", "family", "size"),
    [
        (backend, family, size)
        for backend in BACKENDS
        for family, size in (*LARGE, *product(*itertools.product(PARALLEL, ALL_SIZES)))
        if FULL or backend is TORCH or family is SUPERPOSITION
    ],
    ids=str,
)
def test_values_and_gradients(backend: Backend, family: Family, size: Size):
    agree(backend, family, sample_of(family, size, "soft"))


@pytest.mark.parametrize("family", PARALLEL, ids=str)
def test_from_any_state(backend: Backend, family: Family, monkeypatch: pytest.MonkeyPatch):
    """Random actions, hard ones and such that tie; no slot or half of them are there at first, or all.

    There are many stacks at once: pops of what is not there and pushes of nothing are among them. At ties the
    gradients are the same, too. The steps are several chunks, the last of them broken off; those of a neural family
    are short here, so that there are several runs of them; in JAX, which compiles each run, those of the queue.
    """
    if family is NEURAL_QUEUE or (family in NEURAL and (backend is TORCH or FULL)):
        parallel = importlib.import_module(f"diffstack.{backend.name}_impl._parallel.{family.name}")
        monkeypatch.setattr(parallel, "chunk_length", lambda time: 4)
    # An automaton has no ties, and its state is whatever it is: one sample of each kind, for it takes long.
    kinds = [("soft", 0), ("soft", 16), ("hard", 8), ("ties", 0), ("ties", 8), ("ties", 16)]
    samples = []
    for kind, filled in kinds[1:3] if family.automaton else kinds:
        size = Size(20, 6, (2,), (2,)) if family.automaton and not FULL else Size(39, 16, (2,), (8,))
        sample = sample_of(family, size, kind)
        there = np.arange(16) < filled
        if family.strengths:
            state = sample.state._replace(strengths=sample.state.strengths * there)
        elif family.automaton:
            state = sample.state
        elif "depth" in family.fields:
            state = sample.state._replace(depth=np.full_like(sample.state.depth, filled))
        else:
            state = sample.state._replace(buffer=sample.state.buffer * there[:, None])
        samples.append(sample._replace(state=state))
    agree(backend, family, jax.tree.map(lambda *leaves: np.concatenate(leaves), *samples))


@pytest.mark.parametrize(
    ("size", "chosen", "backend", "family"),
    [
        (size, chosen, backend, family)
        for turn, size, chosen in ((1, Size(5, 3, (2,)), "sequential"), (2, Size(40, 33, (64,)), "parallel"))
        for backend, family in dear(SOFT, turn)
    ],
    ids=str,
)
def test_auto(backend: Backend, family: Family, size: Size, chosen: str):
    """On both sides of its thresholds it is the method itself."""
    scan, arguments = backend.module(family.name).scan, sample_of(family, size, "soft")
    auto, method = (scan(*backend.arrays(tuple(arguments), family), method=each) for each in ("auto", chosen))
    for left, right in zip(backend.numpys(auto), backend.numpys(method), strict=True):
        assert_same_bits(left, right)


def test_what_is_chosen(backend: Backend):
    """By shapes alone; without a step there is nothing to do for any method."""
    for method, time, chosen in [
        ("auto", 16, "parallel"),
        ("auto", 5, "sequential"),
        ("parallel", 5, "parallel"),
        ("sequential", 16, "sequential"),
        ("parallel", 0, "sequential"),
        ("auto", 0, "sequential"),
    ]:
        assert backend.module("_methods").choose(method, "neural_stack", time, Layout((), 1, ())) == chosen


@pytest.mark.parametrize("family", SOFT, ids=str)
def test_the_thresholds_of_auto(backend: Backend, family: Family):
    """As docs/understand/parallel.md says them: steps, and in JAX the numbers in a buffer."""
    if backend is TORCH:
        shortest = 8 if family is NEURAL_QUEUE else 16
        cases = [((shortest - 1, 1), "sequential"), ((shortest, 1), "parallel")]
    elif family in NEURAL:
        shortest = 32 if family is NEURAL_DEQUE else 16
        cases = [((shortest - 1, 1), "sequential"), ((shortest, 1), "parallel")]
    else:
        numbers = 1024 if family is POINTER else 512
        cases = [((7, numbers), "sequential"), ((8, numbers - 1), "sequential"), ((8, numbers), "parallel")]
    for (time, numbers), expected in cases:
        layout = Layout((3,), numbers, (1,))
        assert backend.module("_methods").choose("auto", family.name, time, layout) == expected


@pytest.mark.parametrize(("backend", "family"), dear([POINTER, SUPERPOSITION], 2), ids=str)
def test_gradients_across_segments(backend: Backend, family: Family, monkeypatch: pytest.MonkeyPatch):
    """Of 32 steps here, so that a short sequence has several."""
    chunking = importlib.import_module(f"diffstack.{backend.name}_impl._parallel._chunking")
    monkeypatch.setattr(chunking, "_SEGMENT", 32)
    agree(backend, family, sample_of(family, Size(71, 5, (2,)), "soft"))


def test_pytorch_differentiates_again():
    """Over several chunks: by autograd, by `torch.func`, by the one over the other, and where grad mode is off."""
    sample = sample_of(POINTER, Size(40, 3, (2,)), "soft")
    state, actions, elements = TORCH.arrays(tuple(sample), POINTER)

    def results(method: str) -> list[Any]:
        def loss(actions: Any, elements: Any) -> Any:
            return (TORCH.module("pointer").scan(state, actions, elements, method=method)[1] ** 2).sum()

        leaves = actions.clone().requires_grad_(), elements.clone().requires_grad_()
        by_elements = torch.func.grad(loss, 1)
        with torch.no_grad():
            without = torch.func.jacrev(loss, (0, 1))(actions, elements)
        once = torch.autograd.grad(loss(*leaves), leaves[1], create_graph=True)[0]
        twice = torch.autograd.grad((once**2).sum(), leaves[0], create_graph=True)[0]
        # Autograd outside tracks one of the two that `torch.func` differentiates.
        mixed = sum((each**2).sum() for each in torch.func.grad(loss, (0, 1))(leaves[0], elements))
        found = [
            *without,
            *torch.autograd.grad(mixed, leaves[0]),
            *torch.func.hessian(loss, 1)(actions, elements),
            *torch.func.jacrev(by_elements)(actions, elements),
            *torch.autograd.grad((by_elements(*leaves) ** 2).sum(), leaves),
            *torch.autograd.grad((twice**2).sum(), leaves),
            *torch.autograd.grad(loss(actions, leaves[1]), leaves[1]),
        ]
        return TORCH.numpys(found)

    for left, right in zip(results("parallel"), results("sequential"), strict=True):
        assert_close(left, right, 1e-11)


def test_pytorch_recomputes_for_what_needs_a_gradient():
    """Not for the actions of a fixed program, such as the reversal's."""
    runs = []

    def product(*arrays: torch.Tensor) -> tuple[torch.Tensor]:
        runs.append([array.requires_grad for array in arrays])
        return (arrays[0] * arrays[1],)

    fixed, needed = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0], requires_grad=True)
    (output,) = recompute(product, fixed, needed)
    (gradient,) = torch.autograd.grad(output.sum(), needed)
    assert gradient.tolist() == [2.0, 3.0]
    assert runs[1:] == [[False, True]]


def test_autocast_of_the_pointer_alone():
    """Which has the products of `contents`, `push_all` and `pop_all`, and so those of the reversal."""
    sequence = torch.from_numpy(np.random.default_rng(17).normal(size=(40, 3)).astype(np.float32)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = reverse(sequence)
    (gradient,) = torch.autograd.grad(result, sequence, sequence)
    assert_same_bits(TORCH.numpy(result), TORCH.numpy(sequence)[::-1])
    assert_same_bits(TORCH.numpy(gradient), TORCH.numpy(sequence)[::-1])


@pytest.mark.parametrize("family", SOFT, ids=str)
def test_a_gradient_from_within_vmap(family: Family):
    """PyTorch: the gradient of a tensor that every entry of a vmap uses is added up once."""
    single = sample_of(family, Size(19, 4, (2,)), "soft")
    state, actions, elements = TORCH.arrays(tuple(single), family)
    actions.requires_grad_()
    batch = jax.tree.map(lambda leaf: torch.stack([leaf, 0.9 * leaf]), elements)

    def loss(elements: Any, method: str) -> Any:
        return sum(
            (leaf**3).sum() for leaf in floats(TORCH.module(family.name).scan(state, actions, elements, method=method))
        )

    ours, theirs = (
        torch.autograd.grad(torch.vmap(lambda each, m=method: loss(each, m))(batch).sum(), actions)[0]
        for method in ("sequential", "parallel")
    )
    assert_close(TORCH.numpy(theirs), TORCH.numpy(ours), 1e-12)


# --- strengths that are not strengths ---


def put(step: int, action: int, strength: float) -> Any:
    def changed(actions: Any) -> Any:
        actions = actions.copy()
        actions[step, action] = strength
        return actions

    return changed


CHANGES = {
    "below-0": lambda actions: actions - 0.5,
    "above-1": lambda actions: 3 * actions,
    "nan-push": put(40, PUSH, np.nan),
    "nan-pop": put(40, POP, np.nan),
    "infinite-pop": put(40, POP, np.inf),
    "large-pop": put(40, POP, 1e6),
}


@pytest.mark.parametrize(("backend", "family"), dear(NEURAL, 0), ids=str)
def test_strengths_that_are_not_strengths(backend: Backend, family: Family):
    """The reads are the same, NaN from the same step on."""
    for name, change in CHANGES.items():
        sample = sample_of(family, Size(70, 3, (2,)), "soft")
        sample = sample._replace(actions=change(sample.actions))
        with backend.x64():
            ours, theirs = (
                backend.numpys(
                    backend.module(family.name).scan(*backend.arrays(tuple(sample), family), method=method)[1]
                )
                for method in ("sequential", "parallel")
            )
        for left, right in zip(theirs, ours, strict=True):
            assert np.isnan(right[:40]).sum() == 0
            assert np.isnan(right[40:]).all() == name.startswith("nan")
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-12)


# --- long times ---

LONG = 4096


def long_of(family: Family) -> int:
    """Fewer steps of the deque, whose own take longest."""
    return 1024 if family is NEURAL_DEQUE and not FULL else LONG


@cache
def long_sample(family: Family) -> tuple[Sample, Any]:
    """And what the oracle reads."""
    sample = family.sample(np.random.default_rng(16), Size(long_of(family), 4, (2,)), False)
    sample = jax.tree.map(lambda leaf: leaf.astype(np.float32), sample)
    return sample, LONG_ORACLES[family](*sample)


LONG_ORACLES = {
    POINTER: lambda state, actions, elements: pointer.scan(*state, actions, elements)[-1],
    SUPERPOSITION: lambda state, actions, elements: superposition.scan(*state, actions, elements)[-1],
    NEURAL_STACK: lambda state, actions, elements: piles.stack(*state, actions, elements),
    NEURAL_QUEUE: lambda state, actions, elements: piles.queue(*state, actions, elements),
    NEURAL_DEQUE: lambda state, actions, elements: piles.deque(*state, actions, elements),
}


@pytest.mark.parametrize(("backend", "family"), dear(tuple(LONG_ORACLES), 0), ids=str)
def test_float32_over_4096_steps(backend: Backend, family: Family):
    """Precision does not decay with length: 2e-5 of the oracle in float64, from the same float32 inputs."""
    sample, expected = long_sample(family)
    arguments = backend.arrays(tuple(sample), family)
    _, reads = backend.module(family.name).scan(*arguments, method="parallel")
    for actual, oracle in zip(backend.numpys(reads), jax.tree.leaves(expected), strict=True):
        assert np.abs(actual - oracle).max() <= 2e-5


@pytest.mark.parametrize("family", [family for family in LONG_ORACLES if family in NEURAL], ids=str)
def test_the_piles_are_the_equations(family: Family):
    """The oracle of the long times against the one that reads like the paper."""
    for seed in range(20):
        sample = family.sample(np.random.default_rng(seed), Size(12, 3, (2,)), seed % 2 == 0)
        scan = next(verb.oracle for verb in family.verbs if verb.name == "scan")
        expected = jax.tree.leaves(scan(*sample)[1])
        for actual, oracle in zip(jax.tree.leaves(LONG_ORACLES[family](*sample)), expected, strict=True):
            np.testing.assert_allclose(actual, oracle, rtol=0, atol=1e-12)
