"""Every verb of every family under PyTorch's transforms."""

import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from backends import TORCH, assert_close
from families import (
    CASES,
    DISCRETE,
    FAMILIES,
    FULL,
    NEURAL_DEQUE,
    NEURAL_QUEUE,
    NEURAL_STACK,
    NONDETERMINISTIC,
    SCANS,
    SMALL,
    STEP,
    SUPERPOSITION,
    Case,
    Family,
    Size,
    by_turns,
    floats,
    mainly_scans,
    product,
    with_floats,
)

TOLERANCE = 4 * float(np.finfo(np.float32).eps)
DIFFERENTIABLE = tuple(case for case in CASES if case.differentiable)
# The automaton, which takes longest, becomes a graph with the full product alone.
COMPILED = (DISCRETE, SUPERPOSITION, NEURAL_QUEUE)


def prepared(case: Case, dtype: Any = np.float32) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function of a case, and arguments for it with one batch axis."""
    return TORCH.function(case), TORCH.arguments(case, SMALL if case.method else STEP, dtype=dtype)


def of_floats(function: Callable[..., Any], arguments: Any) -> Callable[..., Any]:
    """The floating results as a function of the floating arguments; a logarithm of nothing does not change."""

    def of(*leaves: Tensor) -> tuple[Tensor, ...]:
        results = floats(function(*with_floats(arguments, leaves)))
        return tuple(torch.where(result == -torch.inf, 0, result) for result in results)

    return of


def assert_all_close(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(TORCH.numpys(actual), TORCH.numpys(expected), strict=True):
        assert left.dtype == right.dtype
        assert_close(left, right, tolerance)


def loss(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """A number that depends on every floating result."""
    return lambda *leaves: sum(torch.sin(leaf).sum() for leaf in function(*leaves))


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in mainly_scans(DIFFERENTIABLE)
        if FULL or (case.method == "parallel" and case.family not in (NEURAL_STACK, NEURAL_DEQUE, NONDETERMINISTIC))
    ],
    ids=str,
)
def test_gradcheck(case: Case):
    """The parallel methods have a backward pass of their own; the loops are autograd's. Of the neural families and the
    automaton, which take longest, the queue is here, and all are below.
    """
    size = Size(2 if case.method else None, 2, (1,))
    arguments = TORCH.arguments(case, size)
    function = of_floats(TORCH.function(case), arguments)
    leaves = [leaf.requires_grad_() for leaf in floats(arguments)]
    # Along random directions, or along all of them when the full product is asked for.
    options = {"fast_mode": not FULL}
    assert gradcheck(
        function, leaves, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True, **options
    )
    assert gradgradcheck(function, leaves, check_fwd_over_rev=True, **options)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("axis", [0, *product(-1)])
def test_vmap(case: Case, axis: int):
    """Mapping over the batch axis gives what the batch gives, wherever it stands."""
    function, arguments = prepared(case)
    moved = jax.tree.map(lambda leaf: torch.movedim(leaf, 0, axis), arguments)
    mapped = torch.func.vmap(function, in_dims=axis)(*moved)
    assert_all_close(mapped, function(*arguments))


@pytest.mark.parametrize("case", mainly_scans(tuple(case for case in CASES if len(case.arguments(STEP)) > 1)), ids=str)
@pytest.mark.parametrize("shared", [0, *product(1)])
def test_vmap_with_a_shared_argument(case: Case, shared: int):
    """The state stays while the rest is mapped, or the state is mapped and the rest stays."""
    function, arguments = prepared(case)
    axes = tuple(0 if (position > 0) == (shared == 0) else None for position in range(len(arguments)))
    one, many = [], []
    for argument, axis in zip(arguments, axes, strict=True):
        first = jax.tree.map(lambda leaf: leaf[0], argument)
        one.append(first if axis is None else argument)
        many.append(jax.tree.map(lambda leaf: torch.stack([leaf] * 2), first) if axis is None else argument)
    assert_all_close(torch.func.vmap(function, in_dims=axes)(*one), function(*many))


@pytest.mark.parametrize("case", by_turns(mainly_scans(DIFFERENTIABLE), 1), ids=str)
def test_func_grad_and_jacobians(case: Case):
    """`grad`, `vmap(grad)`, `jacrev` and `jacfwd` against autograd."""
    function, arguments = prepared(case, np.float64)
    leaves = floats(arguments)
    positions = tuple(range(len(leaves)))
    total = loss(of_floats(function, arguments))
    tracked = [leaf.clone().requires_grad_() for leaf in leaves]
    expected = torch.autograd.grad(total(*tracked), tracked, allow_unused=True, materialize_grads=True)
    assert_all_close(torch.func.grad(total, positions)(*leaves), expected, 1e-12)

    def one(leaves: list[Tensor], arguments: Any) -> tuple[Tensor, ...]:
        return torch.func.grad(loss(of_floats(function, arguments)), positions)(*leaves)

    assert_all_close(torch.func.vmap(one)(leaves, arguments), expected, 1e-12)

    single = jax.tree.map(lambda leaf: leaf[0], arguments)
    reverse, forward = (
        transform(of_floats(function, single), positions)(*floats(single))
        for transform in (torch.func.jacrev, torch.func.jacfwd)
    )
    assert_all_close(forward, reverse, 1e-12)
    by_autograd = torch.autograd.functional.jacobian(of_floats(function, single), tuple(floats(single)))
    assert_all_close(reverse, by_autograd, 1e-12)


@pytest.mark.parametrize("case", [case for case in SCANS if case.differentiable], ids=str)
def test_hessian(case: Case):
    """Forward over reverse, and reverse over reverse."""
    arguments = TORCH.arguments(case, Size(3, 2, (2,)))
    total, leaves = loss(of_floats(TORCH.function(case), arguments)), floats(arguments)
    positions = tuple(range(len(leaves)))
    forward = torch.func.hessian(total, positions)(*leaves)
    reverse = torch.func.jacrev(torch.func.jacrev(total, positions), positions)(*leaves)
    assert_all_close(forward, reverse, 1e-12)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_arguments_stay_as_they_were(case: Case):
    function, arguments = prepared(case)
    copies = jax.tree.map(torch.clone, arguments)
    with torch.no_grad():
        result = function(*arguments)
    for leaf in floats(result):
        assert not leaf.requires_grad
    assert_all_close(arguments, copies, 0.0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "case",
    CASES if FULL else [case for case in by_turns(SCANS, 0) if case.family in COMPILED],
    ids=str,
)
def test_compile(case: Case):
    """The whole graph, forward and backward; `test_modes.py` exports those of the other families."""
    compiled_equals_eager(case, "aot_eager")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles with g++ on the CPU")
def test_compile_by_inductor():
    """Forward; to write and compile C++ takes long."""
    compiled_equals_eager(next(case for case in SCANS if case.family.name == "superposition"), "inductor", FULL)


def compiled_equals_eager(case: Case, compiler: str, backward: bool = True) -> None:
    torch.compiler.reset()
    function = TORCH.function(case)
    arguments = TORCH.arguments(case, SMALL._replace(time=2) if case.method else STEP, dtype=np.float32)
    compiled = torch.compile(function, fullgraph=True, backend=compiler)
    backward = backward and case.differentiable
    leaves = [leaf.requires_grad_(backward) for leaf in floats(arguments)]
    results = [run(*arguments) for run in (compiled, function)]
    assert_all_close(*results)
    if backward:
        sums = [sum(torch.sin(leaf).sum() for leaf in floats(result)) for result in results]
        gradients = [torch.autograd.grad(each, leaves, allow_unused=True, materialize_grads=True) for each in sums]
        assert_all_close(*gradients)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_loop_of_the_users_own(family: Family):
    case = next(case for case in SCANS if case.family is family)
    function, (state, actions, elements) = prepared(case)
    state = TORCH.with_room(family, state, SMALL.time)
    expected = function(state, actions, elements)
    reads = []
    for t in range(SMALL.time):
        inputs = jax.tree.map(lambda leaf, t=t: leaf[:, t], (actions, elements))
        state, read = TORCH.module(family.name).step(state, *inputs)
        reads.append(read)
    assert_all_close((state, jax.tree.map(lambda *leaves: torch.stack(leaves, 1), *reads)), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("case", SCANS, ids=str)
def test_inputs_that_are_not_contiguous(case: Case, dtype: Any):
    function, arguments = prepared(case, dtype)
    strided = jax.tree.map(
        lambda leaf: leaf.movedim(0, -1).contiguous().movedim(-1, 0) if leaf.ndim > 1 else leaf, arguments
    )
    assert_all_close(function(*strided), function(*arguments), 4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.verb.name.startswith(("pop", "peek", "step", "scan"))], ids=str
)
def test_what_is_done_to_a_read_in_place_does_not_reach_the_stack(case: Case):
    arguments = TORCH.arguments(case, SMALL if case.method else STEP)
    result = TORCH.function(case)(*arguments)
    # A peek leaves its argument; pop, step and scan return a state first.
    state, reads = (arguments[0], result) if case.verb.name.startswith("peek") else result
    before = [leaf.clone() for leaf in state]
    for read in reads if isinstance(reads, tuple) else (reads,):
        read.add_(1)
    assert all(torch.equal(left, right) for left, right in zip(state, before, strict=True))


@pytest.mark.parametrize("family", [family for family in FAMILIES if not family.automaton], ids=str)
def test_what_is_done_to_a_buffer_in_place_does_not_reach_the_stack(family: Family):
    module, buffer = TORCH.module(family.name), torch.ones(3, 2)
    state = module.from_buffer(buffer)
    buffer.zero_()
    assert module.contents(state).tolist() == [[1, 1]] * 3
