"""Bad arguments: the same words in both frameworks, before any work, with the argument's name and both shapes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch

from backends import JAX, TORCH, Backend
from diffstack.actions import PUSH
from families import FAMILIES, SCANS, SMALL, Case, Family, Sample, Size, is_floating

SIZE = Size(5, 3, (2,), (4,))
ONE = SIZE._replace(time=None)


class Bad(NamedTuple):
    """A call that must fail: its name, the call, the exception, and what the message must hold."""

    name: str
    call: Callable[[Backend], Any]
    error: type[Exception]
    parts: tuple[str, ...]


def floating(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def integers(*shape: int) -> Any:
    return np.ones(shape, np.int32)


def with_state(family: str, verb: str, change: Callable[[Any, Backend], Any], *rest: Any) -> Callable[[Backend], Any]:
    """A call with a changed state of two slots."""

    def call(backend: Backend) -> Any:
        module = backend.module(family)
        state = change(module.empty(2, (2,), dtype=backend.dtype("float32")), backend)
        return getattr(module, verb)(state, *map(backend.array, rest))

    return call


def wide(call: Callable[[Backend], Any]) -> Callable[[Backend], Any]:
    """The call where float64 exists, which is wider than a state of float32."""

    def run(backend: Backend) -> Any:
        with backend.x64():
            return call(backend)

    return run


def said(bad: Bad, backend: Backend) -> str:
    """The message, without the words that must differ."""
    with pytest.raises(bad.error) as caught:
        bad.call(backend)
    assert type(caught.value) is bad.error
    message = str(caught.value).replace("a JAX or NumPy array", "an array").replace("a PyTorch tensor", "an array")
    message = message.replace("ArrayImpl", "Tensor")
    # A message names its own package, and the other one where it was given a state from there.
    other = JAX if backend is TORCH else TORCH
    message = message.replace(f"{backend.name}_impl", "this_impl").replace(f"{other.name}_impl", "other_impl")
    for part in bad.parts:
        assert part in message
    return message


def agree(bad: Bad) -> None:
    """Both frameworks raise it, and say the same."""
    assert said(bad, JAX) == said(bad, TORCH)


# --- every family ---


def empties(family: Family) -> list[Bad]:
    def empty(*args: Any, **options: Any) -> Callable[[Backend], Any]:
        return lambda backend: backend.module(family.name).empty(*args, **options)

    def of_dtype(backend: Backend) -> Any:
        return backend.module(family.name).empty(2, (2,), dtype=backend.dtype("uint16"))

    return [
        Bad("capacity-0", empty(0, (2,)), ValueError, ("capacity", "at least 1", "got 0")),
        Bad("capacity-below-0", empty(-3, (2,)), ValueError, ("capacity", "at least 1", "got -3")),
        Bad("capacity-float", empty(2.0, (2,)), TypeError, ("capacity", "2.0", "float")),
        Bad("capacity-bool", empty(True, (2,)), TypeError, ("capacity", "True", "bool")),
        Bad("element_shape-int", empty(2, 2), TypeError, ("element_shape", "tuple", "2")),
        Bad("element_shape-float", empty(2, (2.0,)), TypeError, ("element_shape[0]", "2.0")),
        Bad("element_shape-below-0", empty(2, (-2,)), ValueError, ("element_shape[0]", "-2")),
        Bad("batch_shape-int", empty(2, (2,), batch_shape=3), TypeError, ("batch_shape", "3")),
        Bad("batch_shape-below-0", empty(2, (2,), batch_shape=(1, -3)), ValueError, ("batch_shape[1]", "-3")),
        Bad("dtype", of_dtype, TypeError, ("dtype", "float32", "uint16")),
    ]


def buffers(family: Family) -> list[Bad]:
    if family.automaton:
        return []

    def from_buffer(buffer: Any) -> Callable[[Backend], Any]:
        return lambda backend: backend.module(family.name).from_buffer(backend.array(buffer))

    def from_list(backend: Backend) -> Any:
        return backend.module(family.name).from_buffer([1.0, 2.0])

    return [
        Bad("buffer-scalar", from_buffer(floating()), ValueError, ("buffer", "()")),
        Bad("buffer-no-slots", from_buffer(floating(0, 2)), ValueError, ("buffer", "at least one slot", "(0, 2)")),
        Bad("buffer-dtype", from_buffer(np.ones((2, 2), np.uint16)), TypeError, ("buffer", "float32", "uint16")),
        Bad("buffer-list", from_list, TypeError, ("buffer", "list")),
    ]


def codes(family: Family) -> list[Bad]:
    def actions(codes: Any) -> Callable[[Backend], Any]:
        return lambda backend: backend.module(family.name).encode(codes(backend))

    return [
        Bad("codes-float", actions(lambda b: b.array(floating(2))), TypeError, ("codes", "integer", "float32")),
        Bad("codes-bool", actions(lambda _: [True, False]), TypeError, ("codes", "integer", "bool")),
        Bad("codes-list", actions(lambda _: [0.5]), TypeError, ("codes", "integer", "float32")),
    ]


def inputs(family: Family) -> list[Bad]:
    """One argument of `scan` or `step` is changed."""
    cases = {verb.name: Case(family, verb) for verb in family.verbs}
    weighted = is_floating(cases["scan"].arguments(SIZE)[1])

    def call(verb: str, argument: str, change: Callable[[Any], Any], **options: Any) -> Callable[[Backend], Any]:
        def run(backend: Backend) -> Any:
            size = SIZE if verb == "scan" else ONE
            sample = Sample(*cases[verb].arguments(size, dtype=np.float32))
            sample = sample._replace(**{argument: jax.tree.map(change, getattr(sample, argument))})
            arguments = backend.arrays(tuple(sample), family)
            return getattr(backend.module(family.name), verb)(*arguments, **options)

        return run

    def scan(argument: str, change: Callable[[Any], Any]) -> Callable[[Backend], Any]:
        return call("scan", argument, change)

    def step(argument: str, change: Callable[[Any], Any]) -> Callable[[Backend], Any]:
        return call("step", argument, change)

    def method(value: Any) -> Callable[[Backend], Any]:
        return call("scan", "actions", lambda a: a, method=value)

    def other(array: Any) -> Any:
        """A wider dtype; integer codes become floating."""
        return array.astype(np.float64)

    shape = (*SIZE.steps, *cases["scan"].arguments(SIZE)[1].shape[2:])
    fewer = (SIZE.batch[0], SIZE.time - 1, *shape[2:])
    return [
        Bad("method", method("fast"), ValueError, ("method", "'sequential'", "'fast'")),
        Bad("method-type", method(None), TypeError, ("method", "'sequential'", "NoneType")),
        Bad("time", scan("actions", lambda a: a[:, 1:]), ValueError, ("actions", f"{shape}", f"{fewer}")),
        Bad("action-batch", scan("actions", lambda a: a[1:]), ValueError, ("actions", f"{shape}", "(3, 5")),
        Bad("action-rank", scan("actions", lambda a: a[0]), ValueError, ("actions", f"{shape}", f"{shape[1:]}")),
        Bad("action-axis", scan("actions", lambda a: a[..., 1:]), ValueError, ("actions", f"{shape}")),
        Bad(
            "action-dtype",
            wide(scan("actions", other)),
            TypeError,
            ("actions", "float32" if weighted else "int32", "float64"),
        ),
        Bad("element-batch", scan("elements", lambda a: a[1:]), ValueError, ("elements", "(4, ", "(3, 5, 2)")),
        Bad("element-rank", scan("elements", lambda a: a[..., 0]), ValueError, ("elements", "2)", "(4, 5)")),
        Bad("element-shape", scan("elements", lambda a: a[..., 1:]), ValueError, ("elements", "2)", "(4, 5, 1)")),
        Bad("element-dtype", wide(scan("elements", other)), TypeError, ("elements", "float32", "float64")),
        Bad("step-actions", step("actions", lambda a: a[1:]), ValueError, ("actions", "(4,", "(3,")),
        Bad("step-batch", step("elements", lambda a: a[1:]), ValueError, ("element", "(4, 2)", "(3, 2)")),
        Bad("step-shape", step("elements", lambda a: a[:, 1:]), ValueError, ("element", "(4, 2)", "(4, 1)")),
        Bad("step-dtype", wide(step("elements", other)), TypeError, ("element", "float32", "float64")),
    ]


def states(family: Family) -> list[Bad]:
    """Every verb that takes a state is given a plain tuple, and the other framework's state."""
    bad = []
    for case in (Case(family, verb) for verb in family.verbs):
        state, *rest = case.arguments(SIZE if case.verb.many else ONE, dtype=np.float32)
        if not hasattr(state, "_fields"):
            continue

        def call(backend: Backend, other: Any, case: Case = case, rest: Any = rest) -> Any:
            return backend.function(case)(other, *backend.arrays(tuple(rest), family))

        def of_tuple(backend: Backend, call: Any = call, state: Any = state) -> Any:
            return call(backend, tuple(map(backend.array, state)))

        def of_other(backend: Backend, call: Any = call, state: Any = state) -> Any:
            return call(backend, (TORCH if backend is JAX else JAX).arrays(state, family))

        kind = type(state).__name__
        bad += [
            Bad(f"{case.verb.name}-tuple", of_tuple, TypeError, ("state", kind, "tuple")),
            Bad(f"{case.verb.name}-other", of_other, TypeError, ("state", kind)),
        ]
    return bad


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(bad, id=f"{family}-{bad.name}")
        for family in FAMILIES
        for make in (empties, buffers, codes, inputs, states)
        for bad in make(family)
    ],
)
def test_every_family(bad: Bad):
    agree(bad)


# --- what only one family can be given ---


def pointer_verb(verb: str, *arguments: Any) -> Callable[[Backend], Any]:
    return lambda b: getattr(b.module("pointer"), verb)(*map(b.array, arguments))


POINTER_CALLS = [
    Bad("integer-state", lambda b: b.module("pointer").empty(2, dtype=b.dtype("int32")), TypeError, ("dtype", "int32")),
    Bad("integer-buffer", pointer_verb("from_buffer", integers(2)), TypeError, ("buffer", "int32")),
    Bad(
        "actions-dtype",
        lambda b: b.module("pointer").encode([PUSH], dtype=b.dtype("int32")),
        TypeError,
        ("dtype", "floating", "int32"),
    ),
    Bad(
        "buffer-and-index",
        pointer_verb("soft_lookup", floating(3, 2), floating(2)),
        ValueError,
        ("buffer", "(2, '*element')", "(3, 2)"),
    ),
    Bad("no-slots", pointer_verb("soft_lookup", floating(0), floating(0)), ValueError, ("index", "slots", "(0,)")),
    Bad("index-scalar", pointer_verb("soft_lookup", floating(2), floating()), ValueError, ("index", "slots", "()")),
    Bad(
        "index-dtype",
        pointer_verb("soft_lookup", floating(2), np.ones(2, np.float16)),
        TypeError,
        ("index", "float32", "float16"),
    ),
    Bad(
        "assigned-element",
        pointer_verb("soft_assign", floating(2, 3), floating(2), floating(2)),
        ValueError,
        ("element", "(3,)", "(2,)"),
    ),
    Bad("a-complex-number", lambda b: b.module("pointer").push(b.module("pointer").empty(2), 1j), TypeError, ("1j",)),
    Bad(
        "a-list",
        lambda b: b.module("pointer").push(b.module("pointer").empty(1, (1,)), [1.0]),
        TypeError,
        ("element", "an array", "list"),
    ),
]
DISCRETE_CALLS = [
    Bad(
        "depth-dtype",
        with_state("discrete", "peek", lambda s, b: s._replace(depth=b.array(floating()))),
        TypeError,
        ("state.depth", "int32", "float32"),
    ),
    Bad(
        "fault-dtype",
        with_state("discrete", "peek", lambda s, b: s._replace(fault=b.array(integers()))),
        TypeError,
        ("state.fault", "int8", "int32"),
    ),
    Bad(
        "fault-shape",
        with_state("discrete", "peek", lambda s, b: s._replace(fault=b.array(np.ones(3, np.int8)))),
        ValueError,
        ("state.fault", "()", "(3,)"),
    ),
    Bad(
        "depth-shape",
        with_state("discrete", "peek", lambda s, b: s._replace(**batch(b, 3))),
        ValueError,
        ("state.buffer", "(3, 'slots', '*element')", "(2, 2)"),
    ),
    Bad(
        "actions-weights",
        with_state("discrete", "step", lambda s, _: s, floating(3), floating(2)),
        TypeError,
        ("actions", "integer", "float32"),
    ),
    Bad(
        "actions-one-hot",
        with_state("discrete", "step", lambda s, _: s, integers(3), floating(2)),
        ValueError,
        ("actions", "()", "(3,)"),
    ),
    Bad(
        "half-an-integer",
        lambda b: b.module("discrete").push(b.module("discrete").empty(1, dtype=b.dtype("int32")), 0.5),
        TypeError,
        ("element", "int32", "0.5"),
    ),
]
VECTOR = "as the elements of this family are vectors"
SUPERPOSITION_CALLS = [
    Bad("superposition-scalar", lambda b: b.module("superposition").empty(2), ValueError, ("element_shape", VECTOR)),
    Bad(
        "superposition-matrix",
        lambda b: b.module("superposition").empty(2, (3, 4)),
        ValueError,
        ("element_shape", VECTOR, "(3, 4)"),
    ),
    Bad(
        "superposition-buffer",
        lambda b: b.module("superposition").from_buffer(b.array(floating(2))),
        ValueError,
        ("buffer", VECTOR, "()"),
    ),
    Bad(
        "superposition-state",
        with_state("superposition", "peek", lambda s, b: s._replace(buffer=b.array(floating(2)))),
        ValueError,
        ("state.buffer", "slots, dim", "(2,)"),
    ),
    Bad(
        "superposition-element",
        with_state("superposition", "push", lambda s, _: s, floating(3)),
        ValueError,
        ("element", "(2,)", "(3,)"),
    ),
    Bad(
        "superposition-weights",
        with_state("superposition", "step", lambda s, _: s, floating(2), floating(2)),
        ValueError,
        ("actions", "(3,)", "(2,)"),
    ),
]


def neural_calls(family: str, end: str) -> list[Bad]:
    def call(verb: str, *rest: Any) -> Callable[[Backend], Any]:
        return with_state(family, f"{verb}{end}", lambda s, _: s, *rest)

    def resize(capacity: Any) -> Callable[[Backend], Any]:
        return lambda b: b.module(family).resize(b.module(family).empty(2), capacity)

    def number(verb: str, value: Any) -> Callable[[Backend], Any]:
        return lambda b: getattr(b.module(family), f"{verb}{end}")(b.module(family).empty(2), value)

    def strengths(change: Callable[[Any], Any], verb: str = "size") -> Callable[[Backend], Any]:
        return with_state(family, verb, lambda s, b: s._replace(strengths=b.array(change(np.ones(2, np.float32)))))

    double = np.ones((), np.float64)
    bad = [
        Bad("push-strength-shape", call("push", floating(2), floating(1)), ValueError, ("strength", "()", "(1,)")),
        Bad("pop-strength-shape", call("pop", floating(2)), ValueError, ("strength", "()", "(2,)")),
        Bad("peek-strength-shape", call("peek", floating(2)), ValueError, ("strength", "()", "(2,)")),
        Bad(
            "push-strength-dtype",
            wide(call("push", floating(2), double)),
            TypeError,
            ("strength", "float32", "float64"),
        ),
        Bad("pop-strength-dtype", call("pop", integers()), TypeError, ("strength", "float32", "int32")),
        Bad("peek-strength-dtype", wide(call("peek", double)), TypeError, ("strength", "float32", "float64")),
        Bad("strength-complex", number("pop", 1j), TypeError, ("strength", "1j")),
        Bad("strength-list", number("pop", [1.0]), TypeError, ("strength", "an array", "list")),
        Bad("strength-none", number("peek", None), TypeError, ("strength", "an array", "NoneType")),
        Bad("push-element", call("push", floating(3)), ValueError, ("element", "(2,)", "(3,)")),
        Bad("resize-0", resize(0), ValueError, ("capacity", "at least 1", "got 0")),
        Bad("resize-float", resize(2.0), TypeError, ("capacity", "2.0", "float")),
        Bad("strengths-scalar", strengths(lambda a: a[0]), ValueError, ("state.strengths", "slots", "()")),
        Bad("strengths-slots", strengths(lambda a: a[:1]), ValueError, ("state.values", "(1, '*element')", "(2, 2)")),
        Bad("strengths-dtype", strengths(np.int32), TypeError, ("state.strengths", "floating", "int32")),
        Bad("resize-strengths", strengths(np.int32, "contents"), TypeError, ("state.strengths", "int32")),
        Bad(
            "values-dtype",
            with_state(family, "size", lambda s, b: s._replace(values=b.array(integers(2, 2)))),
            TypeError,
            ("state.values", "floating", "int32"),
        ),
    ]
    return [each._replace(name=f"{family}{end}-{each.name}") for each in bad]


def deque_calls() -> list[Bad]:
    def step(*element: Any, pair: type = tuple) -> Callable[[Backend], Any]:
        return lambda b: b.module("neural_deque").step(
            b.module("neural_deque").empty(2, (2,), dtype=b.dtype("float32")),
            b.array(floating(4)),
            pair(map(b.array, element)),
        )

    def scan(*elements: Any, pair: type = tuple) -> Callable[[Backend], Any]:
        return lambda b: b.module("neural_deque").scan(
            b.module("neural_deque").empty(2, (2,), dtype=b.dtype("float32")),
            b.array(floating(5, 4)),
            pair(map(b.array, elements)),
        )

    def no_pair(verb: str, *shape: int) -> Callable[[Backend], Any]:
        return with_state("neural_deque", verb, lambda s, _: s, floating(*shape, 4), floating(*shape, 2))

    one, double = floating(2), np.ones(2, np.float64)
    many = floating(5, 2)
    return [
        Bad("step-array", no_pair("step"), TypeError, ("element: expected a pair (top, bottom)",)),
        Bad("step-list", step(one, one, pair=list), TypeError, ("element", "pair", "list")),
        Bad("step-three", step(one, one, one), ValueError, ("element", "pair", "3 arrays")),
        Bad("step-top", step(floating(3), one), ValueError, ("element[0]", "(2,)", "(3,)")),
        Bad("step-bottom", step(one, floating(3)), ValueError, ("element[1]", "(2,)", "(3,)")),
        Bad("step-top-dtype", wide(step(double, one)), TypeError, ("element[0]", "float32", "float64")),
        Bad("step-bottom-dtype", wide(step(one, double)), TypeError, ("element[1]", "float32", "float64")),
        Bad("scan-array", no_pair("scan", 5), TypeError, ("elements: expected a pair (top, bottom)",)),
        Bad("scan-list", scan(many, many, pair=list), TypeError, ("elements", "pair", "list")),
        Bad("scan-one", scan(many), ValueError, ("elements", "pair", "1 arrays")),
        Bad("scan-top", scan(floating(5, 3), many), ValueError, ("elements[0]", "2)", "(5, 3)")),
        Bad("scan-bottom", scan(many, floating(4, 2)), ValueError, ("elements[1]", "(5, 2)", "(4, 2)")),
        Bad("scan-bottom-dtype", wide(scan(many, double[None].repeat(5, 0))), TypeError, ("elements[1]", "float64")),
        Bad("codes", lambda b: b.module("neural_deque").encode([PUSH]), ValueError, ("codes", "(2,)", "(1,)")),
        Bad("code", lambda b: b.module("neural_deque").encode(PUSH), ValueError, ("codes", "(2,)", "()")),
    ]


NEURAL_CALLS = [
    *neural_calls("neural_stack", ""),
    *neural_calls("neural_queue", ""),
    *neural_calls("neural_deque", "_top"),
    *neural_calls("neural_deque", "_bottom"),
    *deque_calls(),
]


def batch(backend: Backend, *shape: int) -> dict[str, Any]:
    return {
        "depth": backend.array(np.zeros(shape, np.int32)),
        "fault": backend.array(np.zeros(shape, np.int8)),
    }


@pytest.mark.parametrize(
    "bad", [*POINTER_CALLS, *DISCRETE_CALLS, *SUPERPOSITION_CALLS, *NEURAL_CALLS], ids=lambda bad: bad.name
)
def test_one_family(bad: Bad):
    agree(bad)


# --- the programs ---


def reverse(sequence: Any, stack: Any = "pointer", **options: Any) -> Callable[[Backend], Any]:
    def call(backend: Backend) -> Any:
        family = backend.module(stack) if isinstance(stack, str) else stack
        array = backend.array(sequence) if isinstance(sequence, np.ndarray) else sequence
        return backend.module("reversal").reverse(array, stack=family, **options)

    return call


def learn(target: Any = None, initial: Any = None, **options: Any) -> Callable[[Backend], Any]:
    def call(backend: Backend) -> Any:
        made = {} if initial is None else {"initial": backend.array(initial)}
        goal = target if isinstance(target, list) else backend.array(floating(3) if target is None else target)
        return backend.module("inverse").learn_input(goal, **made, **{"steps": 1, **options})

    return call


PROGRAM_CALLS = [
    Bad("reverse-scalar", reverse(floating()), ValueError, ("sequence", "(n, *element)", "()")),
    Bad("reverse-list", reverse([1.0]), TypeError, ("sequence", "an array", "list")),
    Bad("reverse-method", reverse(floating(2), method="fast"), ValueError, ("method", "'fast'")),
    Bad("reverse-empty-method", reverse(floating(0), method="fast"), ValueError, ("method", "'fast'")),
    Bad("reverse-stack", reverse(floating(2), stack="reversal"), TypeError, ("stack", "reversal")),
    Bad("reverse-stack-type", reverse(floating(2), stack=3), TypeError, ("stack", "3")),
    Bad("reverse-dtype", reverse(integers(2)), TypeError, ("sequence: expected a floating dtype", "int32")),
    Bad("target-integer", learn(integers(3)), TypeError, ("target", "floating", "int32")),
    Bad("target-empty", learn(floating(0, 2)), ValueError, ("target", "at least one", "(0, 2)")),
    Bad("target-list", learn([1.0]), TypeError, ("target", "an array", "list")),
    Bad("steps-below-0", learn(steps=-1), ValueError, ("steps", "at least 0", "-1")),
    Bad("steps-float", learn(steps=2.0), TypeError, ("steps", "2.0", "float")),
    Bad("initial-dtype", learn(initial=np.ones(3, np.float16)), TypeError, ("initial", "float32", "float16")),
    Bad("initial-shape", learn(initial=floating(2)), ValueError, ("program", "(3,)", "(2,)")),
    Bad("program-shape", learn(program=lambda x: x[:2]), ValueError, ("program", "(3,)", "(2,)")),
]


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("bad", PROGRAM_CALLS, ids=lambda bad: bad.name)
def test_programs(bad: Bad):
    agree(bad)


@pytest.mark.parametrize("family", [family for family in FAMILIES if not family.is_stack], ids=str)
def test_a_family_that_is_not_a_stack(family: Family):
    agree(Bad("reverse", reverse(floating(2, 2), stack=family.name), TypeError, ("stack", family.name)))


def test_a_stack_of_the_other_framework(backend: Backend):
    other = TORCH if backend is JAX else JAX
    with pytest.raises(TypeError) as caught:
        reverse(floating(2), stack=other.module("pointer"))(backend)
    ours, theirs = (f"diffstack.{each.name}_impl" for each in (backend, other))
    assert str(caught.value) == f"stack: expected a family of {ours}, got {theirs}.pointer"


def test_faults_cannot_be_raised_inside_a_transformation():
    def call(backend: Backend) -> Any:
        discrete = backend.module("discrete")
        state = discrete.empty(2, batch_shape=(3,))
        vmap = jax.vmap if backend is JAX else torch.func.vmap
        return vmap(lambda state: discrete.raise_if_fault(state) or state.depth)(state)

    agree(Bad("inside", call, TypeError, ("state", "values", "transformation")))


# --- arguments that the frameworks would refuse in their own words ---


def numbers(value: complex, dtype: str) -> Callable[[Backend], Any]:
    return lambda b: b.module("discrete").push(b.module("discrete").empty(1, dtype=b.dtype(dtype)), value)


ARGUMENTS = [
    Bad("dtype-unknown", lambda b: b.module("pointer").empty(2, dtype="float31"), TypeError, ("dtype", "float31")),
    Bad("dtype-number", lambda b: b.module("pointer").empty(2, dtype=3), TypeError, ("dtype", "3")),
    Bad("codes-text", lambda b: b.module("pointer").encode("push"), TypeError, ("codes", "push")),
    Bad("codes-ragged", lambda b: b.module("pointer").encode([[0], [1, 2]]), ValueError, ("codes",)),
    Bad("codes-none", lambda b: b.module("pointer").encode(None), TypeError, ("codes", "None")),
    Bad("number-too-large", numbers(300, "int8"), ValueError, ("element", "int8", "300")),
    Bad("number-too-small", numbers(-1, "uint8"), ValueError, ("element", "uint8", "-1")),
    Bad(
        "state-of-lists",
        with_state("pointer", "peek", lambda s, _: s._replace(buffer=[1.0, 2.0])),
        TypeError,
        ("state.buffer", "list"),
    ),
    Bad("optimizer", learn(optimizer="adam"), TypeError, ("optimizer", "str")),
    Bad("program", learn(program=3), TypeError, ("program", "int")),
    Bad("program-output", learn(program=lambda x: (x, x)), TypeError, ("program", "tuple")),
    Bad("advance", lambda b: b.module("inverse").advance(3, b.array(floating(3)), 1), TypeError, ("state", "int")),
]


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("bad", ARGUMENTS, ids=lambda bad: bad.name)
def test_arguments_that_frameworks_would_refuse_in_their_own_words(bad: Bad):
    agree(bad)


# --- what only JAX can be given ---


def test_a_wide_state_while_64_bit_mode_is_off():
    """The message names the state, whatever its other arguments are."""
    for family in FAMILIES:
        module = JAX.module(family.name)
        with jax.enable_x64(True):
            state = module.empty(2, (2,), dtype="float64")
        field = state._fields[0]
        message = f"state.{field}: expected at most 32 bits an entry while jax_enable_x64 is off, got dtype float64"
        for wide_state in (state, jax.tree.map(np.asarray, state)):
            with pytest.raises(TypeError, match=f"^{message}$"):
                module.contents(wide_state)
            for verb in ("push", "push_top"):
                if hasattr(module, verb):
                    with pytest.raises(TypeError, match=f"^{message}$"):
                        getattr(module, verb)(wide_state, floating(2))


def test_a_wide_array_while_64_bit_mode_is_off():
    with jax.enable_x64(True):
        element = jax.numpy.ones(2)
    pointer = JAX.module("pointer")
    with pytest.raises(TypeError, match=r"^element: expected at most 32 bits an entry while jax_enable_x64 is off"):
        pointer.push(pointer.empty(2, (2,)), element)


def test_keys_are_no_numbers():
    key = jax.random.key(0)
    pointer = JAX.module("pointer")
    with pytest.raises(TypeError, match=r"^element: expected an array of numbers, got dtype key<fry>$"):
        pointer.push(pointer.empty(2), key)
    with pytest.raises(TypeError, match=r"^codes: expected integer codes .*, got dtype key<fry>$"):
        pointer.encode(key)
    with pytest.raises(TypeError, match=r"^sequence: expected an array of numbers, got dtype key<fry>$"):
        JAX.module("reversal").reverse(key)
    with pytest.raises(TypeError, match=r"^state.buffer: expected a floating dtype .*, got dtype key<fry>$"):
        pointer.peek(pointer.empty(2)._replace(buffer=jax.random.split(key)))


def test_the_array_of_the_other_framework():
    for backend, other in ((JAX, TORCH), (TORCH, JAX)):
        for stack in (backend.module("pointer"), other.module("pointer")):
            with pytest.raises(TypeError, match=r"^sequence: expected a (JAX or NumPy array|PyTorch tensor), got "):
                backend.module("reversal").reverse(other.array(floating(2)), stack=stack)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_a_tensor_on_another_device(family: Family):
    """Of a push, and of a scan."""
    module = TORCH.module(family.name)
    case = next(case for case in SCANS if case.family is family)
    state, actions, elements = TORCH.arguments(case, SMALL, dtype=np.float32)
    away = jax.tree.map(lambda leaf: leaf.to("meta"), elements)
    with pytest.raises(
        ValueError, match=r"^elements.*: expected device cpu, that of the other arrays, got device meta$"
    ):
        module.scan(state, actions, away)
    element = jax.tree.leaves(away)[0][:, 0]
    # Of an automaton every step is a push.
    push = partial(module.step, state, actions[:, 0]) if family.automaton else None
    push = push or partial(getattr(module, f"push{family.ends[0]}"), state)
    with pytest.raises(ValueError, match=r"^element: expected device cpu, that of the other arrays, got device meta$"):
        push(element)


def test_a_state_of_the_other_framework():
    state = JAX.module("pointer").empty(2)
    message = "expected a PointerState of diffstack.torch_impl.pointer, got one of diffstack.jax_impl.pointer$"
    with pytest.raises(TypeError, match=message):
        TORCH.module("pointer").pop(state)


def test_a_dtype_of_another_framework():
    with pytest.raises(TypeError, match=r"^dtype: expected a dtype of JAX or NumPy, got torch\.float32$"):
        JAX.module("pointer").empty(2, dtype=torch.float32)
    with pytest.raises(
        TypeError, match=r"^dtype: expected a floating dtype \(.*\), got dtype <class 'numpy\.float32'>$"
    ):
        TORCH.module("pointer").empty(2, dtype=np.float32)
