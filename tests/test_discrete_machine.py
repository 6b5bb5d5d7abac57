"""Random programs played on the discrete stack and on Python's list together."""

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from backends import BACKENDS, JAX, TORCH, Backend, assert_same_bits
from diffstack.actions import NOOP, POP, PUSH
from diffstack.errors import StackOverflowError, StackUnderflowError
from diffstack.families import INTEGER, MOVABLE
from families import FULL
from oracles.discrete import DiscreteStack
from strategies import arrays, kept_by_xla, numpy_dtype

ELEMENT = (2,)
TIME = 4  # of a scan
CODES = st.sampled_from([PUSH, PUSH, POP, POP, NOOP, 3, 127, -1])
RAISES = {1: StackOverflowError, 2: StackUnderflowError, 3: ValueError}


def machine(backend: Backend, dtype: str) -> type[RuleBasedStateMachine]:
    """The machine for one framework and one dtype of elements."""
    discrete = backend.module("discrete")

    def elements(*shape: int) -> st.SearchStrategy[Any]:
        # The documented exception: XLA on the CPU changes NaNs and subnormals of bfloat16.
        changes = backend is JAX and dtype == "bfloat16"
        return arrays(dtype, (*shape, *ELEMENT)).map(lambda array: kept_by_xla(array) if changes else array)

    class Machine(RuleBasedStateMachine):
        @initialize(capacity=st.sampled_from([1, 3]), full=st.booleans(), stale=elements(3))
        def start(self, capacity: int, full: bool, stale: Any) -> None:
            self.model = DiscreteStack(capacity, np.zeros(ELEMENT, numpy_dtype(dtype)))
            if full:
                self.state = discrete.from_buffer(backend.array(stale[:capacity]))
                for element in stale[:capacity]:
                    self.model.push(element)
            else:
                self.state = discrete.empty(capacity, ELEMENT, dtype=backend.dtype(dtype))

        @rule(element=elements())
        def push(self, element: Any) -> None:
            self.state = discrete.push(self.state, backend.array(element))
            self.model.push(element)

        @rule()
        def pop(self) -> None:
            self.state, element = discrete.pop(self.state)
            assert_same_bits(backend.numpy(element), self.model.pop())

        @rule(code=CODES, element=elements(), kind=st.sampled_from([kind for kind in INTEGER if kind != "uint8"]))
        def step(self, code: int, element: Any, kind: str) -> None:
            codes = backend.array(np.array(code, kind))
            self.state, read = discrete.step(self.state, codes, backend.array(element))
            assert_same_bits(backend.numpy(read), self.model.step(code, element))

        @rule(
            codes=st.lists(CODES, min_size=TIME, max_size=TIME),
            elements=elements(TIME),
            method=st.sampled_from(["sequential", "parallel", "auto"]),
        )
        def scan(self, codes: list[int], elements: Any, method: str) -> None:
            arguments = self.state, discrete.encode(codes), backend.array(elements)
            self.state, reads = discrete.scan(*arguments, method=method)
            expected = [self.model.step(*inputs) for inputs in zip(codes, elements, strict=True)]
            assert_same_bits(backend.numpy(reads), np.array(expected))

        @invariant()
        def all_that_can_be_seen(self) -> None:
            assert_same_bits(backend.numpy(discrete.peek(self.state)), self.model.peek())
            assert_same_bits(backend.numpy(discrete.contents(self.state)), np.array(self.model.contents()))
            assert_same_bits(backend.numpy(self.state.buffer), np.array(self.model.slots))
            assert_same_bits(backend.numpy(discrete.size(self.state)), np.array(self.model.depth, np.int32))
            assert_same_bits(backend.numpy(discrete.fault(self.state)), np.array(self.model.fault, np.int8))
            if self.model.fault:
                with pytest.raises(RAISES[self.model.fault]):
                    discrete.raise_if_fault(self.state)
            else:
                discrete.raise_if_fault(self.state)

    return Machine


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        (b, dtype)
        for b in BACKENDS
        for dtype in (MOVABLE if FULL else ("bfloat16",) if b is JAX else ("bfloat16", "int64", "bool"))
    ],
    ids=str,
)
def test_against_a_python_list(backend: Backend, dtype: str):
    with backend.x64():
        run_state_machine_as_test(
            machine(backend, dtype),
            settings=settings(max_examples=6 if FULL or backend is TORCH else 3, stateful_step_count=20, deadline=None),
        )
