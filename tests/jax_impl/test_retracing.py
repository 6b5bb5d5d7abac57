"""Calling a public function again with the same shapes compiles nothing new."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from backends import JAX
from diffstack.actions import NOOP, POP, PUSH
from diffstack.jax_impl import discrete, inverse, pointer
from families import CASES, FAMILIES, NEURAL_QUEUE, SMALL, STEP, Family, product


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """The traces and compilations so far."""
    events: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def only_once(compiled: list[str], first: Callable[[], Any], *again: Callable[[], Any]) -> None:
    jax.clear_caches()
    first()
    # If the first call compiled nothing, the listener would not hear the others.
    assert compiled
    compiled.clear()
    for call in again:
        call()
        assert compiled == []


@pytest.mark.parametrize("family", product(*FAMILIES) or (NEURAL_QUEUE,), ids=str)
def test_verbs(family: Family, compiled: list[str]):
    """Of one family; the sequences of all of them are below."""
    cases = [case for case in CASES if case.family is family]
    arguments = [JAX.arguments(case, SMALL if case.method else STEP, dtype=np.float32) for case in cases]
    others = jax.tree.map(lambda leaf: leaf * 1, arguments)

    def call(arguments: list[Any]) -> Callable[[], Any]:
        return lambda: [JAX.function(case)(*each) for case, each in zip(cases, arguments, strict=True)]

    only_once(compiled, call(arguments), call(arguments), call(others))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_state_that_comes_from_a_call(family: Family, compiled: list[str]):
    case = next(case for case in CASES if case.family is family and case.method)
    function = JAX.function(case)
    state, actions, elements = JAX.arguments(case, SMALL, dtype=np.float32)

    def twice() -> Any:
        return function(function(state, actions, elements)[0], actions, elements)

    only_once(compiled, lambda: function(state, actions, elements), twice, twice)


def test_numbers_and_arrays(compiled: list[str]):
    state = pointer.empty(3)
    numbers = (2.0, 2, np.float32(2), np.array(2, np.float32), jnp.float32(2), jnp.asarray(2.0))
    assert numbers[-1].weak_type

    def first() -> None:
        # To make an array of a number is a program of JAX's own.
        for number in numbers:
            jnp.asarray(number, np.float32)
        pointer.push(state, jnp.float32(1))

    only_once(compiled, first, *(lambda number=number: pointer.push(state, number) for number in numbers))


def test_options(compiled: list[str]):
    only_once(
        compiled,
        lambda: pointer.empty(3, (2,), batch_shape=(4,)),
        lambda: pointer.empty(3, [2], batch_shape=[4]),
        lambda: pointer.empty(np.int64(3), (2,), dtype="float32", batch_shape=(4,)),
    )
    codes = [PUSH, POP, NOOP]
    only_once(compiled, lambda: pointer.encode(codes), lambda: pointer.encode(codes))


def test_a_step_inside_a_loop(compiled: list[str]):
    def run() -> None:
        state = discrete.empty(4)
        for code in (PUSH, PUSH, POP):
            state, _ = discrete.step(state, discrete.encode(code), 1.0)

    only_once(compiled, run, run)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("optimizer", [None, optax.sgd(0.1)], ids=["adam", "sgd"])
def test_learn_input(optimizer: Any, compiled: list[str]):
    target, other = jnp.asarray([3.0, 2.0, 1.0]), jnp.asarray([1.0, 2.0, 4.0])

    def learn(target: Any) -> Callable[[], Any]:
        return lambda: inverse.learn_input(target, optimizer=optimizer, steps=2)

    only_once(compiled, learn(target), learn(target), learn(other))
