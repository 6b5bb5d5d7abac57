"""Every verb of every family, in both frameworks, against the oracle: values, and gradients of every argument."""

import itertools
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from backends import BACKENDS, TORCH, Backend, assert_close, dear, witnesses
from families import (
    CASES,
    FULL,
    NEURAL_STACK,
    POINTER,
    SCANS,
    SMALL,
    STEP,
    Case,
    Size,
    by_turns,
    floats,
    mainly_scans,
    some,
)

SIZES = [
    Size(0, 2, (3,)),
    Size(1, 1, ()),
    Size(13, 2, (1,), (2, 3)),
    Size(33, 7, (2, 3)),
]
# Of an automaton, whose oracle takes long, instead of the last one.
FEWER = Size(13, 3, (2,))
# Of methods; the parallel ones are compared with the sequential ones in test_methods.py, over more steps.
# JAX, which compiles each, takes those of one step by the parallel ones alone, and of two families.
GRADIENTS = {
    ("jax", "sequential"): (SIZES[3], FEWER),
    ("jax", "parallel"): (SIZES[1],),
    ("torch", "sequential"): (SIZES[1], SIZES[3], FEWER),
    ("torch", "parallel"): (SIZES[1],),
}
STEPS = [Size(None, 1, ()), Size(None, 7, (2, 3), (2,))]
ALL_SIZES = [
    Size(*axes)
    for axes in itertools.product([0, 1, 2, 13, 64, 257], [1, 2, 7], [(), (1,), (3,), (2, 3)], [(), (2,), (2, 3)])
]

DIFFERENTIABLE = tuple(case for case in CASES if case.differentiable)


def jax_takes(case: Case, size: Size) -> bool:
    """Long ones by the loop, middle ones by one of the methods, and none or one step of two families; gradients of the
    verbs of every third family and of every step, for values of all are in `jax_impl/test_transforms.py`.
    """
    if not case.method:
        return case.verb.name == "step" or bool(some((case,), 0))
    if size in (SIZES[3], FEWER):
        return case.method == "sequential"
    return bool(
        some(by_turns((case,), 1), 1, 2)
        if size == SIZES[2]
        else case.family in (POINTER, NEURAL_STACK) and case.method == "parallel"
    )


def sized(cases: Sequence[Case], sizes: Sequence[Size], steps: Sequence[Size] = STEPS) -> list[object]:
    """Each case in both frameworks at the covering sizes, or at all sizes when the full product is asked for."""
    if FULL:
        sizes = [size for size in ALL_SIZES if size.time is not None]
        steps = [size._replace(time=None) for size in ALL_SIZES if size.time == 0]
    scans, verbs = ([case for case in cases if bool(case.method) == many] for many in (True, False))
    found = [
        (backend, case, FEWER if size == SIZES[3] and case.family.automaton and not FULL else size)
        for backend, case, size in itertools.product(BACKENDS, scans, sizes)
    ]
    found += witnesses(verbs, steps)
    return [
        pytest.param(*each, id="-".join(map(str, each)))
        for each in found
        if FULL or each[0] is TORCH or jax_takes(*each[1:])
    ]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "case", "size"), sized(CASES, SIZES))
def test_values(backend: Backend, case: Case, size: Size):
    """The values, and where they are differentiable and the size is one of GRADIENTS, the gradients."""
    arguments, function = backend.arguments(case, size), backend.function(case)
    if case.differentiable and (FULL or not case.method or size in GRADIENTS[backend.name, case.method]):
        results, gradients = backend.outcome(function, arguments, case.cotangents(size))
        check_gradients(case, size, gradients)
        expected = floats(case.values(size))
    else:
        results, expected = backend.numpys(function(*arguments)), case.values(size)
    for actual, oracle in zip(results, expected, strict=True):
        assert_close(actual, oracle, 1e-12)


def check_gradients(case: Case, size: Size, gradients: list[Any]) -> None:
    """Of every argument, against central differences of the oracle."""
    for stack in case.derivatives(size):
        for gradient, (where, directions, slopes) in zip(gradients, stack, strict=True):
            actual = np.tensordot(directions, gradient[where], gradient[where].ndim)
            np.testing.assert_allclose(actual, slopes, rtol=1e-7, atol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("backend", "case", "size"), sized(SCANS, SIZES[2:3]))
def test_values_of_hard_actions(backend: Backend, case: Case, size: Size):
    result = backend.function(case)(*backend.arguments(case, size, hard=True))
    for actual, expected in zip(backend.numpys(result), case.values(size, hard=True), strict=True):
        assert_close(actual, expected, 1e-12)


@pytest.mark.bits
@pytest.mark.parametrize("case", by_turns(mainly_scans(CASES), 0), ids=str)
def test_float32_is_as_good_as_it_can_be(backend: Backend, case: Case):
    """8 units in the last place, from float32 arguments that the oracle takes in float64."""
    size = Size(64, 7) if case.method else Size(None, 7)
    arguments = case.arguments(size, dtype=np.float32)
    result = backend.function(case)(*backend.arrays(arguments, case.family))
    for actual, expected in zip(backend.numpys(result), case.oracle(arguments), strict=True):
        assert_close(actual, expected, 8 * np.finfo(np.float32).eps)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "dtype", "case"),
    [
        pytest.param(backend, dtype, case, id=f"{backend}-{dtype.__name__}-{case}")
        # JAX takes one dtype of each family.
        for turn, (dtype, turns) in enumerate([(np.float16, (0,)), (ml_dtypes.bfloat16, (1, 2))])
        for backend, case in dear(DIFFERENTIABLE if FULL else by_turns(SCANS, turn), *turns)
        if case.differentiable
    ],
)
def test_the_dtype_stays(backend: Backend, case: Case, dtype: type):
    """In the narrow ones; the other tests have those of 32 and 64 bits."""
    size = SMALL if case.method else STEP
    result = floats(backend.function(case)(*backend.arguments(case, size, dtype=dtype)))
    for actual, expected in zip(map(backend.numpy, result), floats(case.values(size)), strict=True):
        # A size is a sum of strengths, which are added up in float32 at least.
        assert actual.dtype == (np.promote_types(dtype, np.float32) if case.verb.name == "size" else dtype)
        # The arguments are rounded too.
        assert_close(actual, expected, 16 * float(ml_dtypes.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("size", "backend", "case"),
    [
        (size, backend, case)
        for turn, size in enumerate([Size(2, 3, (0,)), Size(2, 3, (2,), (0,)), Size(0, 1, (0, 2), (2, 0))])
        for backend, case in dear(mainly_scans(CASES), turn)
        if backend is TORCH or case in by_turns(CASES, 0)
    ],
    ids=str,
)
def test_axes_of_length_zero(backend: Backend, case: Case, size: Size):
    size = size if case.method else size._replace(time=None)
    full = size._replace(batch=tuple(n or 1 for n in size.batch))
    # Without numbers in its elements, what an automaton reads is how likely they are.
    if not case.family.automaton:
        full = full._replace(element=tuple(n or 1 for n in size.element))
    result = backend.function(case)(*backend.arguments(case, size, dtype=np.float32))
    for array, like in zip(backend.numpys(result), case.values(full), strict=True):
        assert array.ndim == like.ndim
        assert array.shape[: len(size.batch)] == size.batch


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", sorted({case.family for case in CASES}, key=str), ids=str)
def test_the_methods_are_all_tested(backend: Backend, family):
    scan = next(case for case in SCANS if case.family is family)
    with pytest.raises(ValueError, match="method") as caught:
        backend.module(family.name).scan(*backend.arguments(scan, SMALL), method="?")
    assert str(caught.value) == f"method: expected one of {', '.join(map(repr, ('auto', *family.methods)))}, got '?'"


def test_the_kernels_check_their_shapes(backend: Backend):
    """The suite turns jaxtyping's checks on for kernels; without them, these would broadcast."""
    arrays = [backend.array(np.ones(shape, np.float32)) for shape in ((2, 3), 1, 3)]
    with pytest.raises(TypeCheckError):
        backend.module("pointer")._soft_assign(*arrays)


@pytest.mark.usefixtures("unchecked")
def test_the_checks_can_be_turned_off(backend: Backend):
    arrays = [backend.array(np.ones(shape, np.float32)) for shape in ((2, 3), 1, 3)]
    assert backend.module("pointer")._soft_assign(*arrays).shape == (2, 3)
