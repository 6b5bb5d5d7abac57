"""JAX and PyTorch give the same values and the same gradients."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest
import torch

from diffstack import parity
from diffstack.families import FAMILIES
from families import FULL

SMALL = [parity.Size(1, 1, 1), parity.Size(2, 3, 1)]
# Ten steps are one chunk of a controller.
MIDDLE = parity.Size(10, 7, 3)
LENGTHS = [parity.Size(time, 7, 3) for time in (2, 13, 64, 257)]


def seen_by_jax() -> bool:
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not (torch.cuda.is_available() and seen_by_jax()), reason="needs a GPU that both frameworks see"
        ),
    ),
]


# An automaton, whose chunks have five steps, takes one of them.
SHORT = parity.Size(5, 4, 2)


def wanted(what: str, kind: str, place: int, case: parity.Case) -> bool:
    """Whether `make test` takes a case of a family, the `place`th: one of each kind, by turns.

    The kind is that of a layer, or a method, hard or soft. What other files judge in both frameworks is not taken here:
    `test_ties.py` has the ties of strengths, `test_definition.py` the other verbs, `test_ragged.py` the other lengths,
    `test_layers.py` the layers of other families, `test_reversal.py` the reversals.
    """
    family, hard = list(FAMILIES.values())[place], case.lossless
    by_turns = family.methods[place % len(family.methods)] in kind
    hard_or_soft = hard or not family.action
    return {
        # Hard actions are ties. The gradients of parallel forms are compared with PyTorch's loop in test_methods.py.
        "scan": hard_or_soft and by_turns
        if not family.strengths
        else not hard and "sequential" in kind and family.name != "neural_deque",
        "ragged": by_turns and hard_or_soft and place % 3 == 1,
        "runs": by_turns and hard_or_soft,
        "verbs": not (hard and family.action) and place % 3 > 0,
        # A gradient goes through a vmap from outside; test_controller.py has every family.
        "unroll": family.name == ("superposition" if "chunked" in kind else "pointer" if hard else "neural_stack"),
        "reverse": family.name == "superposition",
        "StackRNN": family.name == "neural_queue",
        "StackAttention": family.name == "neural_deque",
        "StackTrans": True,
    }[what]


def chosen() -> list[Any]:
    """A case of every kind for every family, over modes, dtypes and lengths by turns; or the whole product."""
    if FULL:
        runs = [(case, case.modes, parity.DTYPES, case.lossless) for case in parity.cases([*SMALL, *LENGTHS])]
    else:
        runs, places = [], list(FAMILIES)
        for each in zip(*(parity.cases([size]) for size in (SHORT, MIDDLE)), strict=True):
            short, case = each
            family, what, *kind = case.name.replace(",", "").split()
            if not wanted(what, " ".join(kind), places.index(family), case):
                continue
            case = short if FAMILIES[family].automaton else case
            turn = len(runs)
            dtypes = ("bfloat16", "float32", "float16") if case.lossless else ("float64", "float32")
            modes = case.modes
            if case.feeds_back or what == "unroll":
                dtypes, modes = ("float64",), ("vmapped",)
            # The bits of all families are in test_lossless.py.
            bits = case.lossless and what == "scan" and not FAMILIES[family].automaton
            runs.append((case, [modes[turn % len(modes)]], [dtypes[turn % len(dtypes)]], bits))
    return [
        pytest.param(
            case._replace(modes=tuple(modes)),
            dtypes,
            id=f"{case.name}-{'-'.join(modes)}-{'-'.join(dtypes)}",
            marks=pytest.mark.bits if bits else (),
        )
        for case, modes, dtypes, bits in runs
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("case", "dtypes"), chosen())
def test_the_same(case: parity.Case, dtypes: Sequence[str], device: str):
    results = parity.run([case], device=device, dtypes=dtypes)
    assert {result.mode for result in results} == set(case.modes)
    assert any(result.quantity != "values" for result in results)
    assert [result for result in results if not result.passed] == []


def test_a_field_of_another_name_is_a_number_for_each_stack(monkeypatch: pytest.MonkeyPatch):
    family = FAMILIES["superposition"]._replace(name="heap", fields=("buffer", "count"))
    monkeypatch.setitem(FAMILIES, "heap", family)
    case = next(each for each in parity.cases([parity.Size(3, 2, 1)]) if each.name.startswith("heap scan"))
    inputs = case.inputs(np.random.default_rng(0), (4,))
    assert (inputs["buffer"].shape, inputs["count"].shape) == ((4, 2, 1), (4,))


def test_every_family_has_its_cases():
    names = [case.name for case in parity.cases()]
    for name, family in FAMILIES.items():
        whats = ["verbs", *(f"{what} {method}" for what in ("scan", "ragged") for method in family.methods)]
        whats += ["unroll sequential", "unroll chunked"]
        for what, how in itertools.product(whats, ["hard", "soft"] if family.action else ["hard"]):
            assert f"{name} {what}, {how}, T=13 N=7 D=3" in names
        assert (f"{name} reverse, n=13 D=3" in names) == family.is_stack
        assert f"{name} StackAttention, T=13 D=3" in names
        assert any(each.startswith(f"{name} StackRNN, ") for each in names)
    assert len(names) == len(set(names))


# --- the comparison can fail ---


def unlike(
    ours: Callable[[Any], Any], theirs: Callable[[Any], Any], x: Sequence[float], *, lossless: bool = False
) -> dict[str, list[bool]]:
    """Whether values and gradients passed where the implementations are two different functions of `x`."""

    def function(implementation: Any, arrays: Any) -> tuple[Any, ...]:
        return ((theirs if implementation.__name__.endswith("jax_impl") else ours)(arrays["x"]),)

    def inputs(_: np.random.Generator, batch: tuple[int, ...]) -> parity.Inputs:
        return {"x": np.broadcast_to(np.array(x, np.float64), (*batch, len(x)))}

    passed: dict[str, list[bool]] = {}
    for result in parity.run([parity.Case("unlike", inputs, function, 1, lossless)], dtypes=["float32", "float64"]):
        passed.setdefault(result.quantity, []).append(result.passed)
    return passed


NO, YES = [False] * 6, [True] * 6


def test_equal_functions_pass():
    assert unlike(lambda x: x * 2, lambda x: x + x, [1, -2, 0], lossless=True) == {
        "values": YES,
        "gradient of x": YES,
    }


def test_equal_nans_pass():
    assert unlike(lambda x: x / x, lambda x: x / x, [0, 1])["values"] == YES


def test_small_differences_do_not_pass():
    assert unlike(lambda x: x * 1.00001, lambda x: x, [1, 2]) == {"values": NO, "gradient of x": NO}


def test_a_gradient_alone_does_not_pass():
    assert unlike(lambda x: 2 * x, lambda x: 3 * x, [0, 0]) == {"values": YES, "gradient of x": NO}


def test_one_unit_in_the_last_place_does_not_pass_where_values_must_be_equal():
    def above(x: Any) -> Any:
        return x * (1 + 2.0**-23)

    assert unlike(above, lambda x: x, [1, 2], lossless=True)["values"] == NO
    assert unlike(above, lambda x: x, [1, 2])["values"] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("x", [[0, 1], [np.inf, 1]], ids=["a number", "infinity"])
def test_a_nan_in_one_does_not_pass(x: list[float], swapped: bool):
    def nan(x: Any) -> Any:
        return x + (x - x) / (x - x)

    pair = (nan, lambda x: x) if swapped else (lambda x: x, nan)
    assert unlike(*pair, x)["values"] == NO


def test_other_shapes_are_an_error():
    with pytest.raises(ValueError, match="the outputs of the two"):
        unlike(lambda x: x[..., :1], lambda x: x, [1, 2])


def test_a_gradient_that_one_of_them_lacks_does_not_pass():
    assert unlike(lambda x: x.detach() + 0 * x, lambda x: x, [1, 2]) == {"values": YES, "gradient of x": NO}


# --- what it is told ---


def test_progress():
    seen: list[tuple[int, int]] = []
    case = parity.cases(SMALL[:1])[0]
    parity.run([case], dtypes=["float16", "float64"], progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"device": "tpu"}, ValueError, "device: expected one of 'cpu', 'cuda', got 'tpu'"),
        ({"device": None}, TypeError, "device: expected one of 'cpu', 'cuda', got NoneType"),
        ({"dtypes": ["int32"]}, ValueError, "dtypes: expected one of .*'float64', got 'int32'"),
    ],
)
def test_bad_options(options: Any, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        parity.run(**options)


def test_environment():
    seen = parity.environment()
    assert seen["jax"] == jax.__version__
    assert seen["torch"] == torch.__version__
    assert seen["float32 products in PyTorch"] == torch.get_float32_matmul_precision()
