"""What a person runs after every edit: a witness for every family, framework and method, in a minute or so.

Values of every verb against the oracle, both methods of `scan` against it with their gradients against each other, and
one parity case for each family. Everything here is tested more thoroughly elsewhere.
"""

import numpy as np
import pytest

from backends import Backend, assert_close
from diffstack import parity
from families import CASES, FAMILIES, SMALL, STEP, Case, Family, floats


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_oracle_agrees(backend: Backend, case: Case):
    size = SMALL if case.method else STEP
    results = backend.function(case)(*backend.arguments(case, size))
    for actual, expected in zip(backend.numpys(results), case.values(size), strict=True):
        assert_close(actual, expected, 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_methods_have_the_same_gradients(backend: Backend, family: Family):
    case = next(case for case in CASES if case.family is family and case.verb.name == "scan")
    arguments = backend.arguments(case, SMALL)
    cotangents = [backend.array(each) for each in case.cotangents(SMALL)]

    def gradients(method: str) -> list[np.ndarray]:
        def scan(*arguments):
            return backend.module(family.name).scan(*arguments, method=method)

        return backend.numpys(backend.vjp(scan, arguments, cotangents))

    expected = gradients("sequential")
    assert len(expected) == len(floats(arguments))
    for method in family.methods:
        for left, right in zip(gradients(method), expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_the_frameworks_agree(family: Family):
    case = next(case for case in parity.cases([parity.Size(5, 3, 2)]) if case.name.startswith(f"{family} scan seq"))
    results = parity.run([case._replace(modes=("batched",))], dtypes=["float64"])
    assert results
    assert all(result.passed for result in results)
