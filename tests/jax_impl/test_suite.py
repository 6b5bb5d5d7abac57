"""The suite itself: what promises bits is compiled as for users, and again where another test has compiled it."""

from typing import Any

import jax
import numpy as np
import pytest
from jax._src import compiler

from families import FULL

twice = jax.jit(lambda x: 2 * x)


@pytest.mark.parametrize("bits", [pytest.param(True, marks=pytest.mark.bits), *([] if FULL else [False])])
def test_what_promises_bits_is_compiled_as_for_users(bits: bool, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    compiled = compiler.compile_or_get_cached

    def noted(backend: Any, module: Any, devices: Any, options: Any, *others: Any) -> Any:
        seen.append(options.env_option_overrides)
        return compiled(backend, module, devices, options, *others)

    monkeypatch.setattr(compiler, "compile_or_get_cached", noted)
    twice(np.ones(3, np.float32))
    (overrides,) = seen
    assert bool(overrides) != bits
