"""`scan(..., lengths=...)`: every sequence of a batch is as it would be alone, without its padding."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from backends import BACKENDS, JAX, TORCH, Backend, assert_close, dear
from families import FAMILIES, FULL, SCANS, Case, Family, Size, by_turns, floats, is_floating

LENGTHS = np.array([0, 3, 5, 3])
SIZE = Size(5, 3, (2,), (4,))


def poisoned(case: Case) -> tuple[Any, ...]:
    """Arguments whose padding is NaN."""
    state, *sequences = case.arguments(SIZE)
    live = np.arange(SIZE.time) < LENGTHS[:, None]

    def spoilt(leaf: Any) -> Any:
        return np.where(live.reshape(*live.shape, *(1,) * (leaf.ndim - 2)), leaf, np.nan) if is_floating(leaf) else leaf

    return (state, *jax.tree.map(spoilt, tuple(sequences)))


def alone(arguments: tuple[Any, ...], where: int) -> tuple[Any, ...]:
    """The arguments of one sequence, cut at its end."""
    state, *sequences = arguments
    state, sequences = (jax.tree.map(lambda leaf: np.asarray(leaf[where]), tree) for tree in (state, tuple(sequences)))
    return (state, *jax.tree.map(lambda leaf: leaf[: LENGTHS[where]], sequences))


def padded(array: Any, like: Any) -> Any:
    """Zeros at the end of a sequence."""
    return np.concatenate([array, np.zeros_like(array, shape=(len(like) - len(array), *array.shape[1:]))])


# Of JAX each family by one of the methods; by the other one test_gradients_are_those_of_each_sequence_alone has two.
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "case"), [(b, c) for b in BACKENDS for c in (SCANS if b is TORCH else by_turns(SCANS, 1))], ids=str
)
def test_values_are_those_of_the_oracle(backend: Backend, case: Case):
    arguments = poisoned(case)
    scan = backend.module(case.family.name).scan
    results = scan(*backend.arrays(arguments, case.family), lengths=backend.array(LENGTHS), **case.options)
    states, reads = (list(map(backend.numpy, jax.tree.leaves(tree))) for tree in results)
    for where in range(len(LENGTHS)):
        expected = case.oracle(alone(arguments, where))
        for actual, one in zip(states, expected, strict=False):
            assert_close(actual[where], one, 1e-12)
        for actual, one in zip(reads, expected[len(states) :], strict=True):
            assert_close(actual[where], padded(one, actual[where]), 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "family"),
    dear(FAMILIES, 0),
    ids=str,
)
def test_gradients_are_those_of_each_sequence_alone(backend: Backend, family: Family):
    """By the loop, which is PyTorch's, or with the full product each framework's; the other method has the loop's."""
    first, *others = (case for case in SCANS if case.family is family)
    arguments, generator = poisoned(first), np.random.default_rng(3)
    # The results have the shapes of those of whole sequences.
    cotangents = [generator.normal(size=each.shape) for each in floats(first.values(SIZE))]

    def gradients(case: Case, backend: Backend = backend) -> list[Any]:
        def run(*arguments: Any) -> Any:
            scan = backend.module(family.name).scan
            return scan(*arguments, lengths=backend.array(LENGTHS), **case.options)

        return backend.outcome(run, backend.arrays(arguments, family), cotangents)[1]

    ours = gradients(first, backend if FULL else TORCH)
    for theirs in map(gradients, others):
        for actual, expected in zip(theirs, ours, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    for length in (3, 5) if FULL or backend is TORCH else ():
        # The sequences of one length, as a batch without padding.
        where = np.flatnonzero(length == LENGTHS)
        state, *sequences = jax.tree.map(lambda leaf, w=where: leaf[w], arguments)
        own = backend.arrays((state, *jax.tree.map(lambda leaf, n=length: leaf[:, :n], sequences)), family)
        shapes = [each.shape for each in floats(first.values(SIZE._replace(time=length, batch=(len(where),))))]
        cut = [each[where][tuple(map(slice, shape))] for each, shape in zip(cotangents, shapes, strict=True)]
        expected = backend.outcome(backend.function(first), own, cut)[1]
        for actual, alone_ in zip(ours, expected, strict=True):
            live = tuple(map(slice, alone_.shape))
            np.testing.assert_allclose(actual[where][live], alone_, rtol=0, atol=1e-12)
            # Nothing of the padding has a gradient.
            rest = actual[where].copy()
            rest[live] = 0
            assert not rest.any()


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.usefixtures("x64")
def test_lengths_beyond_32_bits(backend: Backend):
    """As an array of the framework's own, a length that is far too large counts as T, too."""
    module, elements = backend.module("discrete"), backend.array(np.ones((3, 1), np.float32))
    lengths = backend.array(np.array(2**40))
    assert str(lengths.dtype).endswith("int64")
    stack = module.empty(3, (1,), dtype=backend.dtype("float32"))
    _, reads = module.scan(stack, backend.array(np.zeros(3, np.int32)), elements, lengths=lengths)
    assert reads.tolist() == [[1]] * 3


@pytest.mark.parametrize(("backend", "case"), dear(by_turns(SCANS, 0), 1), ids=str)
def test_lengths_without_a_batch(backend: Backend, case: Case):
    """A Python number will do, and one that is too large or below 0 counts as T or 0."""
    arguments = backend.arrays(case.arguments(Size(5, 3, (2,)), dtype=np.float32), case.family)
    scan = backend.module(case.family.name).scan
    whole, none = scan(*arguments, **case.options), scan(*arguments, lengths=0, **case.options)
    for actual, expected in (
        (scan(*arguments, lengths=9, **case.options), whole),
        (scan(*arguments, lengths=2**40, **case.options), whole),
        (scan(*arguments, lengths=-1, **case.options), none),
    ):
        for left, right in zip(backend.numpys(actual), backend.numpys(expected), strict=True):
            np.testing.assert_array_equal(left, right)
    for left, right in zip(backend.numpys(none[0]), backend.numpys(arguments[0]), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not any(leaf.any() for leaf in backend.numpys(none[1]))


def test_bad_lengths(backend: Backend):
    pointer = backend.module("pointer")
    state = pointer.empty(2, (1,), batch_shape=(2,))
    sequences = backend.array(np.zeros((2, 4, 3), np.float32)), backend.array(np.zeros((2, 4, 1), np.float32))
    for lengths, error, message in [
        (
            np.zeros(3, np.int32),
            ValueError,
            r"lengths: expected shape \(2,\), one length for each stack of the state, ",
        ),
        (np.zeros(2, np.float32), TypeError, "lengths: expected integers .*, got dtype float32"),
    ]:
        with pytest.raises(error, match=message):
            pointer.scan(state, *sequences, lengths=backend.array(lengths))
    attention = backend.module("layers").StackAttention(4, 2)
    run = partial(attention.scan, attention.init(jax.random.key(0))) if backend is JAX else attention
    inputs = backend.array(np.zeros((2, 3, 4), np.float32))
    for lengths, error, message in [
        ([[1], [2, 3]], ValueError, r"lengths: expected integers in lists of equal lengths, got \[\[1\], \[2, 3\]\]"),
        ("ab", TypeError, "lengths: expected integers, got 'ab'"),
        ([1, 2, 3], ValueError, r"lengths: expected shape \(2,\), .*, got shape \(3,\)"),
    ]:
        for call in (lambda lengths: pointer.scan(state, *sequences, lengths=lengths), partial(run, inputs)):
            with pytest.raises(error, match=f"^{message}"):
                call(lengths=lengths)
