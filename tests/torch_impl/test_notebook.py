"""The notebook's cells, and its classes against the functions whose faces they are."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn

from diffstack.errors import StackOverflowError, StackUnderflowError
from diffstack.torch_impl import pointer
from diffstack.torch_impl.notebook import (
    DifferentiableStack,
    LearnableListReverser,
    ListReverser,
    SoftOperations,
    StackFromBuffer,
    StackPeekModule,
    StackPopModule,
    StackPushModule,
)
from diffstack.torch_impl.reversal import reverse

# The losses that the notebook prints, before updates 0, 10, ..., 90.
NOTEBOOK_LOSSES = [
    3.500000, 1.278137, 0.343994, 0.054887, 0.016218, 0.008572, 0.006566, 0.001941, 0.000025, 0.000215,
]  # fmt: skip


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def snapshot(stack: DifferentiableStack) -> tuple[Tensor, Tensor, int]:
    return stack.buffer.clone(), stack.index.clone(), stack.depth


def assert_same(left: tuple[Tensor, Tensor, int], right: tuple[Tensor, Tensor, int]) -> None:
    assert torch.equal(left[0], right[0])
    assert torch.equal(left[1], right[1])
    assert left[2] == right[2]


def soft_stack(element: tuple[int, ...] = (2,)) -> DifferentiableStack:
    """A stack of four slots with contents and a soft index, as training might leave it."""
    stack = DifferentiableStack((4, *element)).double()
    with torch.no_grad():
        stack.initial_buffer.copy_(random(4, *element, seed=1))
        stack.initial_index.copy_(torch.softmax(random(4, seed=2), 0))
    return stack


class Program(nn.Module):
    """A user's module around a stack."""

    def __init__(self, stack: DifferentiableStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, element: Tensor) -> None:
        self.stack.push(element)


# What a stack starts with.


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 2), (2, 3, 5), [3, 1], torch.Size([3, 2])])
def test_starts_empty(shape: tuple[int, ...]) -> None:
    stack = DifferentiableStack(shape)
    expected = pointer.empty(shape[0], tuple(shape[1:]))
    assert_same(snapshot(stack), (expected.buffer, expected.index, 0))
    assert stack.is_empty
    assert not stack.is_full
    assert {name: p.requires_grad for name, p in stack.named_parameters()} == {
        "initial_buffer": True,
        "initial_index": True,
    }


def test_from_buffer_is_full_and_its_top_is_the_last_row() -> None:
    buffer = random(3, 2)
    stack = StackFromBuffer(buffer)
    assert isinstance(stack, DifferentiableStack)
    assert (stack.depth, stack.is_full, stack.is_empty) == (3, True, False)
    assert torch.equal(stack.peek(), buffer[2])
    assert [stack.pop().tolist() for _ in range(3)] == buffer.flip(0).tolist()
    assert stack.is_empty
    stack.reset()
    assert stack.depth == 3


def test_from_buffer_copies() -> None:
    buffer = random(3, 2, dtype=torch.float64)
    assert StackFromBuffer(buffer.clone().requires_grad_() * 1).initial_buffer.is_leaf
    stack = StackFromBuffer(buffer)
    with torch.no_grad():
        stack.initial_buffer.zero_()
    assert torch.equal(buffer, random(3, 2, dtype=torch.float64))


def test_device_is_taken() -> None:
    stack = DifferentiableStack((3, 2), device="meta")
    assert {p.device.type for p in stack.parameters()} == {"meta"}
    assert {p.device.type for p in StackFromBuffer(torch.zeros(2, device="meta")).parameters()} == {"meta"}


def test_default_dtype_is_taken() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert DifferentiableStack((3,)).buffer.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# Push, pop and peek.


def test_program_is_the_functional_program() -> None:
    stack, elements = soft_stack(), random(3, 2, seed=3, dtype=torch.float64)
    state = pointer.PointerState(stack.initial_buffer, stack.initial_index)
    for k in range(3):
        stack.push(elements[k])
        state = pointer.push(state, elements[k])
        assert torch.equal(stack.peek(), pointer.peek(state))
    for k in range(3):
        state, element = pointer.pop(state)
        assert torch.equal(stack.pop(), element)
        assert_same(snapshot(stack), (*state, 2 - k))


def test_gradients_are_the_functional_ones() -> None:
    stack, elements = soft_stack(), random(2, 2, seed=3, dtype=torch.float64).requires_grad_()
    weights = random(3, 2, seed=4, dtype=torch.float64)

    def functional(buffer: Tensor, index: Tensor, elements: Tensor) -> Tensor:
        state = pointer.push(pointer.PointerState(buffer, index), elements[0])
        state, first = pointer.pop(state)
        state = pointer.push(state, elements[1])
        return torch.sum(weights * torch.stack([first, pointer.peek(state), pointer.pop(state)[1]]))

    inputs = (*stack.parameters(), elements)
    stack.push(elements[0])
    first = stack.pop()
    stack.push(elements[1])
    loss = torch.sum(weights * torch.stack([first, stack.peek(), stack.pop()]))
    assert torch.autograd.gradcheck(functional, inputs)
    for ours, theirs in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(functional(*inputs), inputs), strict=True
    ):
        assert torch.equal(ours, theirs)
        assert torch.all(ours.abs().sum() > 0)


def test_gradients_reach_elements_and_initial_contents() -> None:
    stack = StackFromBuffer(torch.tensor([1.0, 2.0, 3.0]))
    element = torch.tensor(7.0, requires_grad=True)
    stack.pop()
    stack.push(element)
    (2 * stack.pop() + 3 * stack.pop()).backward()
    assert element.grad.item() == 2
    assert stack.initial_buffer.grad.tolist() == [0, 3, 0]
    # After two more turns down, slot k of the index reads 2 buffer[k - 1] + 3 buffer[k - 2], and the push has a part.
    assert torch.all(stack.initial_index.grad != 0)


def test_lossless_over_learned_contents() -> None:
    stack = DifferentiableStack((2,))
    with torch.no_grad():
        stack.initial_buffer.fill_(1e8)
    stack.push(1.0)
    assert stack.pop().item() == 1.0
    stack.push(torch.tensor(0.1))
    assert stack.pop().item() == torch.tensor(0.1).item()


def test_peek_changes_nothing() -> None:
    stack = StackFromBuffer(random(3, 2))
    before = snapshot(stack)
    assert torch.equal(stack.peek(), stack.peek())
    assert_same(snapshot(stack), before)


# Full and empty.


@pytest.mark.parametrize("started", [False, True])
def test_overflow_raises_and_leaves_the_stack(started: bool) -> None:
    stack = StackFromBuffer(random(2, 3))
    if started:
        stack.pop()
        stack.push(random(3, seed=5))
    before = snapshot(stack)
    with pytest.raises(StackOverflowError, match=r"^state: a push onto a full stack; its capacity is 2$"):
        stack.push(torch.ones(3))
    assert_same(snapshot(stack), before)
    assert torch.equal(stack.pop(), before[0][1])


@pytest.mark.parametrize("started", [False, True])
def test_underflow_raises_and_leaves_the_stack(started: bool) -> None:
    stack = DifferentiableStack((2, 3))
    if started:
        stack.push(random(3))
        stack.pop()
    before = snapshot(stack)
    with pytest.raises(StackUnderflowError, match=r"^state: a pop from an empty stack$"):
        stack.pop()
    assert_same(snapshot(stack), before)
    stack.push(torch.ones(3))
    assert stack.pop().tolist() == [1, 1, 1]


def test_depth_counts() -> None:
    stack = DifferentiableStack((2,))
    seen = []
    for act in (lambda: stack.push(1.0), lambda: stack.push(2.0), stack.peek, stack.pop, stack.pop):
        act()
        seen.append((stack.depth, stack.is_empty, stack.is_full))
    assert seen == [(1, False, False), (2, False, True), (2, False, True), (1, False, False), (0, True, False)]
    assert all(type(depth) is int for depth, _, _ in seen)


# Memory: reset, detach, optimizers, state_dict, copies, moves.


def test_second_backward_after_reset() -> None:
    stack, element = DifferentiableStack((3, 2)), torch.ones(2, requires_grad=True)
    gradients = []
    for _ in range(2):
        stack.reset()
        stack.push(element)
        stack.push(2 * element)
        stack.pop()  # the program is left in its middle
        stack.zero_grad()
        stack.peek().sum().backward()
        gradients.append((stack.initial_buffer.grad, stack.initial_index.grad))
    assert element.grad.tolist() == [2, 2]
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)
    assert torch.any(gradients[0][1] != 0)


def test_reset_starts_from_the_parameters_after_an_update() -> None:
    stack = StackFromBuffer(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD(stack.parameters(), lr=1.0)
    stack.pop()
    stack.peek().backward()
    optimizer.step()  # takes 1 from slot 0, and changes the index too
    assert stack.buffer.tolist() == [1, 2]
    assert stack.index.tolist() == [0, 1]
    stack.reset()
    assert stack.buffer.tolist() == [0, 2]
    assert stack.index is stack.initial_index


def test_state_before_the_first_push_is_the_parameters() -> None:
    stack = DifferentiableStack((2,))
    with torch.no_grad():
        stack.initial_buffer.copy_(torch.tensor([3.0, 4.0]))
    assert stack.peek().item() == 4
    assert stack.buffer is stack.initial_buffer
    stack.double()
    assert stack.buffer.dtype == stack.index.dtype == torch.float64


def test_update_in_the_middle_leaves_the_program_and_its_backward() -> None:
    stack, untouched = soft_stack(), soft_stack()
    for each in (stack, untouched):
        each.push(torch.ones(2, dtype=torch.float64))
        each.pop()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.zero_()
    for each in (stack, untouched):
        each.push(2 * torch.ones(2, dtype=torch.float64))
        each.peek().sum().backward()
    assert_same(snapshot(stack), snapshot(untouched))
    for ours, theirs in zip(stack.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_detach_cuts_the_graph() -> None:
    stack = DifferentiableStack((3,))
    before, after = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    stack.push(before)
    kept = snapshot(stack)
    stack.detach()
    assert_same(snapshot(stack), kept)
    stack.push(after)
    (stack.pop() * 3 + stack.pop() * 5).backward()
    assert after.grad.item() == 3
    assert before.grad is None
    assert stack.initial_buffer.grad is None
    stack.reset()
    stack.push(before)
    stack.pop().backward()
    assert before.grad.item() == 1
    assert stack.initial_index.grad is not None


def test_detach_at_the_start_cuts_the_parameters_until_reset() -> None:
    stack = StackFromBuffer(torch.ones(2))
    stack.detach()
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(1)
    assert (stack.buffer.tolist(), stack.index.tolist()) == ([1, 1], [1, 0])
    assert not stack.pop().requires_grad
    stack.reset()
    assert stack.pop().requires_grad


def test_state_dict_round_trip() -> None:
    stack = soft_stack()
    stack.push(torch.ones(2, dtype=torch.float64))
    saved = io.BytesIO()
    torch.save(stack.state_dict(), saved)
    saved.seek(0)
    other = DifferentiableStack((4, 2)).double()
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert list(stack.state_dict()) == ["initial_buffer", "initial_index"]
    stack.reset()
    assert_same(snapshot(other), snapshot(stack))


@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict_in_the_middle_is_seen_after_reset(assign: bool) -> None:
    stack, new = StackFromBuffer(torch.tensor([1.0, 2.0, 3.0])), StackFromBuffer(torch.tensor([4.0, 5.0, 6.0]))
    stack.pop()
    stack.load_state_dict(new.state_dict(), assign=assign)
    assert (stack.peek().item(), stack.depth) == (2, 2)
    stack.pop().backward()
    stack.reset()
    assert (stack.peek().item(), stack.depth) == (6, 3)
    stack.load_state_dict(StackFromBuffer(torch.tensor([7.0, 8.0, 9.0])).state_dict(), assign=assign)
    assert stack.peek().item() == 9


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda stack: pickle.loads(pickle.dumps(stack))], ids=["deepcopy", "pickle"]
)
def test_copy_in_the_middle(duplicate: object) -> None:
    stack, element = soft_stack(), torch.ones(2, dtype=torch.float64, requires_grad=True)
    stack.push(element)
    other = duplicate(stack)
    assert_same(snapshot(other), snapshot(stack))
    # The copy is cut from the graph, and takes part in one of its own.
    later = torch.ones(2, dtype=torch.float64, requires_grad=True)
    other.push(later)
    other.pop().sum().backward()
    assert later.grad is not None
    assert element.grad is None
    assert all(p.grad is None for p in (*other.parameters(), *stack.parameters()))
    # The original goes on as if nothing had happened, and does not see the copy's program.
    assert stack.depth == 1
    stack.pop().sum().backward()
    assert element.grad is not None
    assert all(p.grad is not None for p in stack.parameters())
    assert all(p.grad is None for p in other.parameters())
    # After a reset the copy's gradients reach its own parameters.
    other.reset()
    other.push(later)
    other.pop().sum().backward()
    for ours, theirs in zip(other.parameters(), stack.parameters(), strict=True):
        assert ours is not theirs
        assert torch.equal(ours.grad, theirs.grad)


def test_copy_at_the_start_reads_its_own_parameters() -> None:
    stack = StackFromBuffer(torch.ones(2))
    other = copy.deepcopy(stack)
    assert other.buffer is other.initial_buffer
    assert other.buffer is not stack.initial_buffer
    assert other.depth == 2


def test_a_copied_and_moved_model_shares_one_stack() -> None:
    stack = DifferentiableStack((2,))
    model = nn.ModuleList([Program(stack), Program(stack)])
    model[0](torch.tensor(1.0))
    one, other = copy.deepcopy(model).double()
    one(torch.tensor(2.0, dtype=torch.float64))
    assert (other.stack.pop().item(), other.stack.pop().item(), stack.depth) == (2, 1, 1)
    assert other.stack.buffer.dtype == torch.float64
    assert stack.buffer.dtype == torch.float32


def assert_moves_in_the_middle(graded: bool, **target: object) -> None:
    """A stack moved before its backward gives the gradients of one that stays, where and as its parameters are."""
    results = []
    for move in ({}, target):
        stack, element = StackFromBuffer(torch.tensor([1.0, 2.0, 3.0])), torch.tensor(7.0, requires_grad=True)
        if graded:
            stack.peek().backward()
        stack.pop()
        stack.push(element)
        stack.to(**move)
        (2 * stack.pop() + 3 * stack.pop()).backward()
        assert stack.depth == 1
        for tensor in (stack.buffer, stack.index, *stack.parameters(), *(p.grad for p in stack.parameters())):
            assert tensor.dtype == move.get("dtype", torch.float32)
            assert tensor.device.type == move.get("device", "cpu")
        results.append([element.grad, *(p.grad.to("cpu", torch.float32, copy=True) for p in stack.parameters())])
        torch.optim.Adam(stack.parameters()).step()
        stack.reset()
        stack.pop().backward()
    for stayed, moved in zip(*results, strict=True):
        assert torch.equal(stayed, moved)


@pytest.mark.parametrize("graded", [False, True], ids=["no gradients yet", "gradients there"])
def test_double_in_the_middle(graded: bool) -> None:
    assert_moves_in_the_middle(graded, dtype=torch.float64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_in_the_middle() -> None:
    assert_moves_in_the_middle(False, device="cuda")
    assert_moves_in_the_middle(False, device="cuda", dtype=torch.float64)


def test_move_in_the_middle() -> None:
    stack = DifferentiableStack((2, 3))
    stack.push(random(3))
    assert stack.to("cpu") is stack
    assert torch.equal(stack.peek(), random(3))
    nn.Sequential(stack).to("meta", torch.float16)
    for tensor in (stack.buffer, stack.index, stack.peek(), *stack.parameters()):
        assert (tensor.device.type, tensor.dtype) == ("meta", torch.float16)


def test_move_of_frozen_parameters() -> None:
    stack = DifferentiableStack((2,)).requires_grad_(False)
    element = torch.tensor(3.0, requires_grad=True)
    stack.push(element)
    stack.double().pop().backward()
    assert element.grad.item() == 1
    assert stack.initial_buffer.grad is None


def test_training_the_initial_contents() -> None:
    stack, target = DifferentiableStack((3, 2)), random(2, seed=6)
    optimizer = torch.optim.SGD([stack.initial_buffer], lr=0.5)
    for _ in range(60):
        stack.reset()
        stack.push(torch.ones(2))
        stack.pop()
        optimizer.zero_grad()
        torch.sum((stack.peek() - target) ** 2).backward()
        optimizer.step()
    stack.reset()
    assert torch.allclose(stack.initial_buffer[2], target)


def test_inside_torch_func() -> None:
    stack = soft_stack()
    parameters = {name: p.detach() for name, p in stack.named_parameters()}

    def top(parameters: dict[str, Tensor], element: Tensor) -> Tensor:
        stack.reset()
        torch.func.functional_call(Program(stack), {f"stack.{k}": v for k, v in parameters.items()}, element)
        return stack.pop().sum()

    elements = random(5, 2, dtype=torch.float64)
    gradients = torch.func.vmap(torch.func.grad(top), (None, 0))(parameters, elements)
    for k, element in enumerate(elements):
        stack.reset()
        stack.zero_grad()
        stack.push(element)
        stack.pop().sum().backward()
        for name, parameter in stack.named_parameters():
            torch.testing.assert_close(gradients[name][k], parameter.grad, rtol=0, atol=1e-14)


# The modules of one operation.


def test_pushes_are_the_functional_ones() -> None:
    elements = random(3, 2, dtype=torch.float64).requires_grad_()
    state = pointer.empty(4, (2,), dtype=torch.float64)
    for element in elements:
        state = pointer.push(state, element)
    buffer = StackPushModule((4, 2))(elements)
    assert torch.equal(buffer, state.buffer)
    weights = random(4, 2, seed=1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * buffer).sum(), elements)
    assert torch.equal(gradient, weights[:3])
    with pytest.raises(StackOverflowError, match=r"its capacity is 2$"):
        StackPushModule((2, 2))(elements)
    assert list(StackPushModule((2,)).parameters()) == []


@pytest.mark.parametrize("parameter", [False, True])
def test_pops_and_peeks_are_the_functional_ones(parameter: bool) -> None:
    given = random(3, 2)
    buffer = nn.Parameter(given) if parameter else given.requires_grad_()
    state = pointer.from_buffer(buffer)
    after_one, first = pointer.pop(state)
    after_two, second = pointer.pop(after_one)
    pop, peek = StackPopModule(buffer), StackPeekModule(buffer)
    for left, right in zip((*pop(), *peek()), (first, second, *after_two, first, *state), strict=True):
        assert torch.equal(left, right)
    # Gradients reach the buffer that was given.
    one, two, _, _ = pop()
    (2 * one + 3 * two + 5 * peek()[0]).sum().backward()
    assert buffer.grad.tolist() == [[0, 0], [3, 3], [7, 7]]
    assert list(dict(pop.named_parameters())) == (["initial_buffer"] if parameter else [])
    assert list(pop.state_dict()) == ["initial_buffer"]
    assert pop.double()()[0].dtype == torch.float64
    with pytest.raises(StackUnderflowError):
        StackPopModule(torch.ones(1))()


def test_soft_operations_are_the_functions() -> None:
    soft = SoftOperations()
    inputs = [random(*shape, seed=k).requires_grad_() for k, shape in enumerate([(3, 2), (3,), (2,)])]
    assert list(soft.parameters()) == []
    assert list(soft.state_dict()) == []
    assert torch.equal(soft.soft_assign(*inputs), pointer.soft_assign(*inputs))
    assert torch.equal(soft.soft_lookup(*inputs[:2]), pointer.soft_lookup(*inputs[:2]))
    soft.soft_lookup(soft.soft_assign(*inputs), inputs[1]).sum().backward()
    assert all(torch.any(each.grad != 0) for each in inputs)


# The reversers.


@pytest.mark.parametrize("n", [0, 1, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_list_reverser_reverses(n: int, dtype: torch.dtype) -> None:
    sequence = random(n, 3, dtype=dtype).requires_grad_()
    weights = random(n, 3, seed=7, dtype=dtype)
    reverser = ListReverser(5, 3)
    output = reverser(sequence)
    assert list(reverser.parameters()) == []
    assert torch.equal(output, sequence.flip(0))
    torch.sum(weights * output).backward()
    assert torch.equal(sequence.grad, weights.flip(0))


# The notebook's cells, as they are written there.

ROWS = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None].repeat(1, 4)


def test_the_cell_of_soft_operations() -> None:
    operations = SoftOperations()
    buffer, element = torch.zeros(3, 2), torch.tensor([7.0, 8.0])
    index = torch.tensor([0.0, 0.5, 0.5], requires_grad=True)
    written = operations.soft_assign(buffer, index, element)
    assert written.tolist() == [[0, 0], [3.5, 4], [3.5, 4]]
    read = operations.soft_lookup(written, index)
    assert read.tolist() == [3.5, 4]
    read.sum().backward()
    # Both the write and the read have a derivative by the index: 15 from the one and 7.5 from the other, half each.
    assert index.grad.tolist() == [0, 15, 15]


def test_the_cell_of_pushes() -> None:
    elements = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    buffer = StackPushModule((3, 2))(elements)
    assert buffer.tolist() == [[1, 2], [3, 4], [0, 0]]
    buffer.sum().backward()
    assert elements.grad.tolist() == [[1, 1], [1, 1]]  # None in the notebook


def test_the_cell_of_pops() -> None:
    buffer = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    element1, element2, after, index = StackPopModule(buffer)()
    assert (element1.tolist(), element2.tolist()) == ([5, 6], [3, 4])
    assert torch.equal(after, buffer)
    assert index.tolist() == [0, 1, 0]
    (element1 + element2).sum().backward()
    assert buffer.grad.tolist() == [[0, 0], [1, 1], [1, 1]]  # None in the notebook


def test_the_cell_of_peeks() -> None:
    buffer = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    element, after, index = StackPeekModule(buffer)()
    assert element.tolist() == [5, 6]
    assert torch.equal(after, buffer)
    assert index.tolist() == [1, 0, 0]
    element.sum().backward()
    assert buffer.grad.tolist() == [[0, 0], [0, 0], [1, 1]]  # None in the notebook


def test_the_cell_of_a_stack() -> None:
    stack = DifferentiableStack((2, 2), device="cpu")
    stack.push(torch.tensor([1.0, 2.0]))
    stack.push(torch.tensor([3.0, 4.0]))
    assert stack.buffer.tolist() == [[1, 2], [3, 4]]
    assert stack.index.tolist() == [1, 0]
    assert stack.peek().tolist() == [3, 4]
    assert [stack.pop().tolist(), stack.pop().tolist()] == [[3, 4], [1, 2]]
    full = StackFromBuffer(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert full.pop().tolist() == [3, 4]


def test_the_cell_of_the_reversal() -> None:
    assert torch.equal(ListReverser(4, 4)(ROWS), ROWS.flip(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cell_of_learning(dtype: torch.dtype) -> None:
    target = ROWS.flip(0).to(dtype)
    model = LearnableListReverser(max_length=4, element_dim=4)
    learned = nn.Parameter(torch.ones(4, 4, dtype=dtype))
    optimizer = torch.optim.Adam([learned], lr=0.1)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(learned), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[::10] == pytest.approx(NOTEBOOK_LOSSES, abs=2e-6, rel=0)
    assert torch.equal(learned.round(), ROWS.to(dtype))
    assert torch.equal(model(learned), reverse(learned))
    assert list(model.parameters()) == []


# Wrong arguments.


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DifferentiableStack(3), TypeError, r"stack_shape: expected a tuple of axis lengths, got 3 \(int\)"),
        (lambda: DifferentiableStack(()), ValueError, r"stack_shape: expected .* at least one slot, got \(\)"),
        (lambda: DifferentiableStack((0, 2)), ValueError, r"stack_shape: expected .* one slot, got \(0, 2\)"),
        (lambda: DifferentiableStack((2, -1)), ValueError, r"stack_shape\[1\]: expected an integer .*, got -1"),
        (lambda: DifferentiableStack((2.0,)), TypeError, r"stack_shape\[0\]: expected an integer"),
        (lambda: StackFromBuffer([1.0]), TypeError, "buffer: expected a PyTorch tensor, got list"),
        (lambda: StackFromBuffer(torch.tensor(1.0)), ValueError, r"buffer: expected shape .*, got shape \(\)"),
        (lambda: StackFromBuffer(torch.zeros(0, 2)), ValueError, r"buffer: expected shape .*, got shape \(0, 2\)"),
        (lambda: StackFromBuffer(torch.arange(3)), TypeError, "buffer: expected a floating dtype .*int64"),
        (lambda: StackPushModule(()), ValueError, r"stack_shape: expected .* at least one slot, got \(\)"),
        (lambda: StackPopModule(None), TypeError, "buffer: expected a PyTorch tensor, got NoneType"),
        (lambda: StackPeekModule(torch.arange(3)), TypeError, "buffer: expected a floating dtype .*int64"),
        (lambda: ListReverser(0, 2), ValueError, "max_length: expected an integer of at least 1, got 0"),
        (lambda: ListReverser(2, 1.5), TypeError, r"element_dim: expected an integer .*, got 1.5 \(float\)"),
        (lambda: LearnableListReverser(0, 2), ValueError, "max_length: expected an integer of at least 1, got 0"),
        (lambda: LearnableListReverser(2, "3"), TypeError, "element_dim: expected an integer"),
    ],
)
def test_wrong_arguments(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        make()


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    ("element", "error", "message"),
    [
        (torch.ones(3), ValueError, r"element: expected shape \(2,\), .*, got shape \(3,\)"),
        (1.0, ValueError, r"element: expected shape \(2,\), .*, got shape \(\)"),
        (torch.ones(2, dtype=torch.float64), TypeError, "element: expected dtype float32, .*, got dtype float64"),
        ([1.0, 2.0], TypeError, "element: expected a PyTorch tensor, got list"),
    ],
)
def test_wrong_element_leaves_the_stack(started: bool, element: object, error: type[Exception], message: str) -> None:
    stack = DifferentiableStack((3, 2))
    if started:
        stack.push(random(2))
    before = snapshot(stack)
    with pytest.raises(error, match=f"^{message}"):
        stack.push(element)
    assert_same(snapshot(stack), before)
    assert (stack.buffer is stack.initial_buffer) is not started


@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (3,), (1, 3, 2)])
def test_list_reverser_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^sequence: expected shape \(n, 2\) with n at most 3, got shape "):
        ListReverser(3, 2)(torch.zeros(shape))


def test_list_reverser_refuses_what_is_no_floating_tensor() -> None:
    with pytest.raises(TypeError, match=r"^sequence: expected a PyTorch tensor, got list"):
        ListReverser(3, 2)([[1.0, 2.0]])
    with pytest.raises(TypeError, match="int64"):
        ListReverser(3, 2)(torch.zeros(3, 2, dtype=torch.int64))
