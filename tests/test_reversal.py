"""Two stacks reverse a sequence exactly, and so do their gradients."""

import itertools

import jax
import numpy as np
import pytest
import torch

from backends import BACKENDS, JAX, TORCH, Backend, assert_same_bits
from families import FAMILIES, FULL, METHODS, SUPERPOSITION, Family, some
from strategies import numpy_dtype

STACKS = [(family, method) for family, method in METHODS if family.is_stack]

COVERING = [(0,), (1, 3), (13, 2, 3)]
SHAPES = [(n, *e) for n in (0, 1, 2, 13) for e in [(), (3,), (2, 3)]] if FULL else COVERING


def sequence(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    values = np.random.default_rng(3).normal(size=shape) * 100
    return np.asarray(values > 0) if dtype == "bool" else np.asarray(values).astype(numpy_dtype(dtype))


@pytest.mark.bits
@pytest.mark.parametrize(
    ("backend", "family", "method", "shape"),
    # The large shape by one method of each stack, the small ones by the other; JAX of one step a single stack.
    [
        (b, f, m, s)
        for b, (f, m) in itertools.product(BACKENDS, STACKS)
        for s in SHAPES
        if FULL or (len(s) == 3) == (m == f.method(FAMILIES.index(f)))
        if FULL or b is TORCH or s != (1, 3) or f is SUPERPOSITION
    ],
    ids=str,
)
def test_values_and_gradients(backend: Backend, family: Family, method: str, shape: tuple[int, ...]):
    x = sequence(shape)
    cotangent = np.random.default_rng(4).normal(size=x.shape).astype(np.float32)

    def function(x):
        return backend.module("reversal").reverse(x, stack=backend.module(family.name), method=method)

    values, gradients = backend.outcome(function, (backend.array(x),), [cotangent])
    assert_same_bits(values[0], x[::-1])
    assert_same_bits(gradients[0], cotangent[::-1])


@pytest.mark.bits
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("backend", "family", "dtype"),
    [
        (b, f, dtype)
        for b, f in itertools.product(BACKENDS, (family for family in FAMILIES if family.is_stack))
        for turn, dtype in enumerate(f.dtypes)
        # By one stack or by another, in turns; test_lossless.py has every dtype of every family.
        if FULL or (turn % (2 if b is TORCH else 6) == FAMILIES.index(f) % 2 and (b is TORCH or f in FAMILIES[:2]))
    ],
    ids=str,
)
def test_dtypes(backend: Backend, family: Family, dtype: str):
    x = sequence((5, 2), dtype)
    result = backend.module("reversal").reverse(backend.array(x), stack=backend.module(family.name))
    assert_same_bits(backend.numpy(result), x[::-1])


@pytest.mark.parametrize(
    ("backend", "family", "method"),
    [(b, f, m) for b in BACKENDS for f, m in STACKS if FULL or b is TORCH or (f in some([f], 0) and m == "parallel")],
    ids=str,
)
def test_batches_by_vmap(backend: Backend, family: Family, method: str):
    x = sequence((4, 3, 2))
    vmap = jax.vmap if backend is JAX else torch.func.vmap

    def function(x):
        return backend.module("reversal").reverse(x, stack=backend.module(family.name), method=method)

    ways = backend.computed(lambda x: (vmap(function)(x), vmap(function, 1, 1)(x)), backend.array(x))
    for way, expected in zip(ways, (x[:, ::-1], x[::-1]), strict=True):
        assert_same_bits(backend.numpy(way), expected)


def test_the_default_is_the_pointer(backend: Backend):
    reverse = backend.module("reversal").reverse
    with pytest.raises(TypeError, match="int32"):
        reverse(backend.array(np.arange(3, dtype=np.int32)))
    result = reverse(backend.array(np.arange(3, dtype=np.int32)), stack=backend.module("discrete"))
    assert backend.numpy(result).tolist() == [2, 1, 0]
