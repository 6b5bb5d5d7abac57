"""The oracles against values worked out by hand, Python lists and deques."""

import math
from collections import deque

import numpy as np
import pytest

from oracles import discrete, neural_deque, neural_queue, neural_stack, pointer, superposition
from oracles.clamping import positive_part, smaller
from oracles.differences import numerical_gradient

PUSH, POP, NOOP = 0, 1, 2
CODES = [PUSH, PUSH, NOOP, POP, PUSH, PUSH, POP, POP, POP, PUSH]
ONE_HOT = np.eye(3)[CODES]
ELEMENTS = np.arange(1.0, 21.0).reshape(10, 2)
ZERO = np.zeros(2)


def list_reads(take):
    """The reads of CODES by a Python list whose next element is `take` (-1: a stack, 0: a queue)."""
    items, reads = [], []
    for code, element in zip(CODES, ELEMENTS, strict=True):
        if code == PUSH:
            items.append(element)
        elif code == POP:
            items.pop(take)
        reads.append(items[take] if items else ZERO)
    return np.array(reads), items


# --- one-hot runs ---


def test_pointer_one_hot():
    reads, items = list_reads(-1)
    buffer, index, got = pointer.scan(np.zeros((4, 2)), [1, 0, 0, 0], ONE_HOT, ELEMENTS)
    np.testing.assert_array_equal(got, reads)
    np.testing.assert_array_equal(index, [0, 1, 0, 0])
    np.testing.assert_array_equal(pointer.contents(buffer, index)[-1:], items)


def test_pointer_is_a_ring():
    buffer, index = np.zeros((3, 1)), np.array([1.0, 0, 0])
    for element in (1.0, 2.0, 3.0, 4.0):
        buffer, index = pointer.push(buffer, index, [element])
    np.testing.assert_array_equal(buffer, [[4], [2], [3]])
    np.testing.assert_array_equal(index, [0, 1, 0])
    np.testing.assert_array_equal(pointer.contents(buffer, index), [[2], [3], [4]])
    popped = []
    for _ in range(4):
        buffer, index, element = pointer.pop(buffer, index)
        popped.append(element[0])
    assert popped == [4, 3, 2, 4]


def test_pointer_soft_step():
    buffer, index, read = pointer.step([[1.0], [10.0]], [0.75, 0.25], [0.5, 0.5, 0.0], [100.0])
    # Written: 0.375 of slot 0 and 0.125 of slot 1. Moved either way, a ring of two swaps.
    np.testing.assert_array_equal(buffer, [[0.625 * 1 + 37.5], [0.875 * 10 + 12.5]])
    np.testing.assert_array_equal(index, [0.25, 0.75])
    np.testing.assert_array_equal(read, 0.75 * buffer[0] + 0.25 * buffer[1])
    np.testing.assert_array_equal(pointer.peek(buffer, index), read)


def test_superposition_one_hot():
    reads, items = list_reads(-1)
    buffer, got = superposition.scan(np.zeros((4, 2)), ONE_HOT, ELEMENTS)
    np.testing.assert_array_equal(got, reads)
    np.testing.assert_array_equal(superposition.contents(buffer), [ZERO, ZERO, ZERO, *items])


def test_superposition_loses_mass_at_the_bottom():
    full = [[1.0], [2.0], [4.0]]
    np.testing.assert_array_equal(superposition.push(full, [8.0]), [[8], [1], [2]])
    buffer, element = superposition.pop(superposition.push(full, [8.0]))
    np.testing.assert_array_equal(buffer, [[1], [2], [0]])
    np.testing.assert_array_equal(element, [8])
    buffer, read = superposition.step(full, [0.5, 0.25, 0.25], [8.0])
    np.testing.assert_array_equal(buffer, [[4 + 0.5 + 0.25], [0.5 + 1 + 0.5], [1 + 0 + 1]])
    np.testing.assert_array_equal(read, buffer[0])


@pytest.mark.parametrize(("family", "take"), [(neural_stack, -1), (neural_queue, 0)])
def test_neural_one_hot(family, take):
    reads, items = list_reads(take)
    values, strengths, got = family.scan(np.zeros((0, 2)), np.zeros(0), ONE_HOT[:, :2], ELEMENTS)
    np.testing.assert_array_equal(got, reads)
    np.testing.assert_array_equal(values, ELEMENTS)
    rows = family.contents(values, strengths)
    np.testing.assert_array_equal(rows[strengths > 0], items)
    assert family.size(values, strengths) == len(items)


def test_neural_deque_one_hot():
    actions = np.random.default_rng(0).integers(0, 2, size=(30, 4)).astype(float)
    tops = np.arange(1.0, 31.0).reshape(30, 1)
    values, strengths, (top_reads, bottom_reads) = neural_deque.scan(
        np.zeros((0, 1)), np.zeros(0), actions, (tops, -tops)
    )
    items = deque()
    for t, (d_top, u_top, d_bottom, u_bottom) in enumerate(actions):
        if u_top and items:
            items.pop()
        if u_bottom and items:
            items.popleft()
        if d_top:
            items.append(t + 1.0)
        if d_bottom:
            items.appendleft(-t - 1.0)
        assert top_reads[t, 0] == (items[-1] if items else 0)
        assert bottom_reads[t, 0] == (items[0] if items else 0)
    assert items
    np.testing.assert_array_equal(values, [*-tops[::-1], *tops])
    np.testing.assert_array_equal(values[strengths > 0][:, 0], items)


# --- discrete ---


def test_discrete_list_and_scan():
    reads, items = list_reads(-1)
    stack = discrete.DiscreteStack(4)
    for code, element, read in zip(CODES, ELEMENTS, reads, strict=True):
        np.testing.assert_array_equal(stack.step(code, element), read)
    assert (stack.depth, stack.fault) == (1, 0)

    buffer, depth, fault, got = discrete.scan(np.zeros((4, 2)), 0, 0, np.array(CODES), ELEMENTS)
    np.testing.assert_array_equal(got, reads)
    assert (depth, fault) == (1, 0)
    # Pushes went to slots 0, 1, 1, 2 and 0: slots 1 and 2 are stale.
    np.testing.assert_array_equal(buffer, [ELEMENTS[9], ELEMENTS[4], ELEMENTS[5], ZERO])
    np.testing.assert_array_equal(discrete.contents(buffer, depth), [ZERO, ZERO, ZERO, *items])


def test_discrete_faults_are_sticky():
    stack = discrete.DiscreteStack(1, zero="nothing")
    assert stack.step(NOOP, "a") == "nothing"
    assert stack.fault == 0
    assert stack.pop() == "nothing"
    assert (stack.depth, stack.fault) == (0, 2)
    assert stack.step(PUSH, "b") == "b"
    assert stack.step(PUSH, "c") == "b"
    assert (stack.depth, stack.fault) == (1, 2)

    for codes, fault, depth in ([0, 0, 3], 1, 1), ([3, 1], 3, 0), ([-1], 3, 0), ([1, 0, 0], 2, 1):
        elements = np.arange(len(codes), dtype=np.int16)
        buffer, *got, reads = discrete.scan(np.zeros(1, np.int16), 0, 0, np.array(codes), elements)
        assert got == [depth, fault]
        assert reads.dtype == buffer.dtype == np.int16


def test_discrete_moves_bits():
    bits = np.array([0x7F800001, 0x80000000, 0x00000001, 0xFFC12345], np.uint32)  # NaNs, -0.0, a subnormal
    elements = bits.view(np.float32)
    _, _, _, reads = discrete.scan(np.zeros(4, np.float32), 0, 0, np.zeros(4, int), elements)
    np.testing.assert_array_equal(reads.view(np.uint32), bits)


# --- strengths between 0 and 1; the elements are the unit vectors, so that reads are weights ---


def test_neural_stack_figure():
    actions = [[0.8, 0.0], [0.5, 0.1], [0.9, 0.9]]
    _, strengths, reads = neural_stack.scan(np.zeros((0, 3)), [], actions, np.eye(3))
    np.testing.assert_allclose(reads, [[0.8, 0, 0], [0.5, 0.5, 0], [0.1, 0, 0.9]], atol=1e-15)
    np.testing.assert_allclose(strengths, [0.3, 0, 0.9], atol=1e-15)


def test_neural_queue_by_hand():
    actions = [[0.8, 0.0], [0.5, 0.1], [0.9, 0.9]]
    _, strengths, reads = neural_queue.scan(np.zeros((0, 3)), [], actions, np.eye(3))
    # Step 2 leaves 0.7 and 0.5; step 3 takes 0.7 and 0.2 of them.
    np.testing.assert_allclose(reads, [[0.8, 0, 0], [0.7, 0.3, 0], [0, 0.3, 0.7]], atol=1e-15)
    np.testing.assert_allclose(strengths, [0, 0.3, 0.9], atol=1e-15)


def test_neural_deque_by_hand():
    values, strengths, (top, bottom) = neural_deque.scan(
        np.eye(4)[:2], [0.6, 0.7], [[0.25, 0.9, 0.375, 0.1]], (np.eye(4)[2:3], np.eye(4)[3:])
    )
    # The top pop takes all of 0.7 and 0.2 of 0.6; the bottom pop takes 0.1 of the 0.4 left.
    np.testing.assert_array_equal(values, np.eye(4)[[3, 0, 1, 2]])
    np.testing.assert_allclose(strengths, [0.375, 0.3, 0, 0.25], atol=1e-15)
    np.testing.assert_allclose(top, [[0.3, 0, 0.25, 0.375]], atol=1e-15)
    np.testing.assert_allclose(bottom, [[0.3, 0, 0.25, 0.375]], atol=1e-15)
    # All of 0.925 fits into both reads; with less room they differ.
    top, bottom = (peek(values, strengths, 0.5) for peek in (neural_deque.peek_top, neural_deque.peek_bottom))
    np.testing.assert_allclose(top, [0.25, 0, 0.25, 0], atol=1e-15)
    np.testing.assert_allclose(bottom, [0.125, 0, 0, 0.375], atol=1e-15)


def test_neural_deque_is_a_stack_and_a_queue():
    generator = np.random.default_rng(1)
    initial, elements = generator.normal(size=(3, 2)), generator.normal(size=(12, 2))
    strengths, actions = generator.uniform(size=3), generator.uniform(size=(12, 2))
    (d, u), none = actions.T, np.zeros(12)

    def deque_scan(*columns):
        pair = (elements, np.ones_like(elements))
        return neural_deque.scan(initial, strengths, np.stack(columns, axis=1), pair)

    _, left, reads = neural_stack.scan(initial, strengths, actions, elements)
    _, deque_left, (top_reads, _) = deque_scan(d, u, none, none)
    np.testing.assert_allclose(top_reads, reads, atol=1e-14)
    np.testing.assert_allclose(deque_left[12:], left, atol=1e-14)

    _, left, reads = neural_queue.scan(initial, strengths, actions, elements)
    _, deque_left, (_, bottom_reads) = deque_scan(d, none, none, u)
    np.testing.assert_allclose(bottom_reads, reads, atol=1e-14)
    np.testing.assert_allclose(deque_left[12:], left, atol=1e-14)


def test_pop_takes_what_is_there():
    for pop, weights, left in (
        (neural_stack.pop, [0.25, 0.5], [0.25, 0]),
        (neural_deque.pop_top, [0.25, 0.5], [0.25, 0]),
        (neural_queue.pop, [0.5, 0.25], [0, 0.25]),
        (neural_deque.pop_bottom, [0.5, 0.25], [0, 0.25]),
    ):
        _, strengths, element = pop(np.eye(2), [0.5, 0.5], 0.75)
        np.testing.assert_array_equal(element, weights)
        np.testing.assert_array_equal(strengths, left)
        _, strengths, element = pop(np.eye(2), [0.5, 0.5], 5.0)
        np.testing.assert_array_equal(element, [0.5, 0.5])
        np.testing.assert_array_equal(strengths, [0, 0])
        _, strengths, element = pop(np.eye(2), [0.5, -3.0], -1.0)
        np.testing.assert_array_equal(element, [0, 0])
        np.testing.assert_array_equal(strengths, [0.5, 0])


@pytest.mark.parametrize("family", [neural_stack, neural_queue])
def test_strengths_below_0_and_above_1(family):
    actions = [[3.0, -1.0], [-2.0, 1.0], [-0.5, 1.5]]
    _, strengths, reads = family.scan(np.zeros((0, 3)), [], actions, np.eye(3))
    np.testing.assert_array_equal(strengths, [0.5, 0, 0])
    np.testing.assert_array_equal(reads, [[1, 0, 0], [1, 0, 0], [0.5, 0, 0]])


@pytest.mark.parametrize("family", [neural_stack, neural_queue])
@pytest.mark.parametrize("action", [[math.nan, 0.0], [1.0, math.nan]])
def test_nan_poisons_from_its_step_on(family, action):
    actions = [[1.0, 0.0], action, [1.0, 0.0], [1.0, 1.0]]
    _, _, reads = family.scan(np.ones((1, 1)), [1.0], actions, np.ones((4, 1)))
    np.testing.assert_array_equal(np.isnan(reads[:, 0]), [False, True, True, True])


def test_clamping_keeps_nan():
    assert [positive_part(x) for x in (-1.0, 0.0, 2.0)] == [0, 0, 2]
    assert [smaller(1.0, 2.0), smaller(2.0, 1.0)] == [1, 1]
    assert all(map(math.isnan, (positive_part(math.nan), smaller(math.nan, 0.0), smaller(0.0, math.nan))))


# --- gradients ---


def test_numerical_gradient_of_a_quadratic():
    matrix = np.array([[2.0, -1.0], [0.5, 3.0]])
    x, y, z = np.array([1.0, -2.0]), np.array([0.25, 4.0]), np.array(3.0)

    def function(x, pair):
        y, z = pair
        return x * x * z, (matrix @ y, z * y[0])

    weights = (np.array([1.0, 2.0]), (np.array([-1.0, 1.0]), np.array(2.0)))
    by_x, (by_y, by_z) = numerical_gradient(function, [x, (y, z)], weights)
    np.testing.assert_allclose(by_x, 2 * x * z * weights[0], rtol=1e-9)
    np.testing.assert_allclose(by_y, matrix.T @ weights[1][0] + [2 * z, 0], rtol=1e-9)
    np.testing.assert_allclose(by_z, np.sum(x * x * weights[0]) + 2 * y[0], rtol=1e-9)
    np.testing.assert_array_equal(x, [1, -2])


def test_numerical_gradient_of_an_output_that_is_the_input():
    (gradient,) = numerical_gradient(lambda x: x, [np.array([1.0, -2.0])], np.array([3.0, 4.0]))
    np.testing.assert_allclose(gradient, [3, 4], rtol=1e-9)


def test_numerical_gradient_of_the_figure():
    actions = np.array([[0.8, 0.05], [0.5, 0.1], [0.9, 0.85]])
    inputs = [np.eye(3)[:0], np.zeros(0), actions, np.eye(3)]
    outputs = (np.zeros((3, 3)), np.zeros(3), np.array([[0.0] * 3] * 2 + [[1.0, 2.0, 4.0]]))
    by_values, _, by_actions, by_elements = numerical_gradient(neural_stack.scan, inputs, outputs)
    assert by_values.shape == (0, 3)
    # The last pop leaves 0.35 of v1, more than the 0.1 that there is room for. So only d3 matters:
    # what v3 gains, v1 gives up.
    np.testing.assert_allclose(by_actions, [[0, 0], [0, 0], [4 - 1, 0]], atol=1e-9)
    np.testing.assert_allclose(by_elements, np.outer([0.1, 0, 0.9], [1, 2, 4]), atol=1e-9)
