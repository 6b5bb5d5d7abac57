"""The classes of the notebook that this library grew from: its cells run on them unchanged.

They are `nn.Module` faces of `diffstack.torch_impl.pointer` and `diffstack.torch_impl.reversal`, which do the work.
Gradients reach what the notebook printed `None` for: the elements, the buffer that was given, the initial index. What
`DifferentiableStack` adds is memory from call to call and a count of its elements, so that it refuses to overflow and
underflow where the functions wrap round.
"""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from diffstack import _checks
from diffstack.torch_impl import pointer
from diffstack.torch_impl._arrays import as_array
from diffstack.torch_impl.pointer import PointerState
from diffstack.torch_impl.reversal import reverse


class DifferentiableStack(nn.Module):
    """A stack with memory, which starts empty: zeros, and the index at the first slot.

    A program begins at the first push or pop after construction or `reset`, from the parameters as they are then:
    what an optimizer or `load_state_dict` does to them later is seen after the next `reset`. `state_dict` holds the
    parameters; the program's state and depth stay out of it. A copy (`copy.deepcopy`, `pickle`, `torch.save`) goes
    on from the same state but is cut from the graph, which leads to the parameters of the original.
    `.to(device)`, `.double()` and the like move the state too, and gradients still flow through it.

    Args:
        stack_shape: (N, *element), with at least one slot.
        device: where the parameters live; the default device where none is given.

    Attributes:
        initial_buffer: the contents that a program starts from, a parameter, (N, *element).
        initial_index: the index that a program starts from, a parameter, (N,).

    Raises:
        TypeError, ValueError: a shape that is not such a tuple.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import DifferentiableStack
        >>> stack = DifferentiableStack((3, 2))
        >>> stack.push(torch.tensor([1.0, 2.0]))
        >>> stack.push(torch.tensor([3.0, 4.0]))
        >>> stack.pop().tolist(), stack.peek().tolist(), stack.depth
        ([3.0, 4.0], [1.0, 2.0], 1)
        >>> stack.reset()
        >>> stack.is_empty
        True
    """

    initial_buffer: nn.Parameter
    initial_index: nn.Parameter
    _state: PointerState | None

    def __init__(self, stack_shape: tuple[int, ...], device: Any = None) -> None:
        super().__init__()
        shape = _checked_shape(stack_shape)
        self._start_from(pointer.empty(shape[0], shape[1:], device=device), depth=0)

    @property
    def buffer(self) -> Tensor:
        """The current slots, (N, *element); before the first push or pop, the parameter itself."""
        return self._current().buffer

    @property
    def index(self) -> Tensor:
        """The current index, (N,); before the first push or pop, the parameter itself."""
        return self._current().index

    @property
    def depth(self) -> int:
        """The number of elements on the stack."""
        return self._depth

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to pop."""
        return self._depth == 0

    @property
    def is_full(self) -> bool:
        """Whether there is no slot left to push to."""
        return self._depth == len(self.initial_index)

    def push(self, element: Tensor) -> None:
        """Put an element on the stack.

        Args:
            element: (*element), of the stack's dtype.

        Raises:
            StackOverflowError: the stack is full; it stays as it was.
            TypeError, ValueError: an element that does not fit; the stack stays as it was.
        """
        if self.is_full:
            _checks.raise_fault((), 1, len(self.initial_index))
        self._state = pointer.push(self._begun(), element)
        self._depth += 1

    def pop(self) -> Tensor:
        """Take the top element off the stack.

        Returns:
            The element, (*element).

        Raises:
            StackUnderflowError: the stack is empty; it stays as it was.
        """
        if self.is_empty:
            _checks.raise_fault((), 2, len(self.initial_index))
        self._state, element = pointer.pop(self._begun())
        self._depth -= 1
        return element

    def peek(self) -> Tensor:
        """Read the top element.

        Returns:
            The element, (*element); of an empty stack, whatever is in the slot under its bottom, the last.
        """
        return pointer.peek(self._current())

    def reset(self) -> None:
        """Start again from the parameters."""
        self._state = None
        self._depth = self._initial_depth

    def detach(self) -> None:
        """Cut the graph here: until `reset`, gradients reach only what is pushed from now on."""
        self._state = _detached(self._begun())

    def _start_from(self, state: PointerState, depth: int) -> None:
        self.initial_buffer = nn.Parameter(state.buffer.detach().clone())
        self.initial_index = nn.Parameter(state.index)
        self._initial_depth = depth
        self.reset()

    def _current(self) -> PointerState:
        return PointerState(self.initial_buffer, self.initial_index) if self._state is None else self._state

    def _begun(self) -> PointerState:
        # A pop hands its buffer on as it is; a copy keeps a program clear of changes of the parameters in place.
        buffer, index = self._current()
        return PointerState(buffer.clone(), index.clone()) if self._state is None else self._state

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        before, self._state = self._state, self._state and PointerState(*map(fn, self._state))
        if before is not None and self.buffer is not before.buffer:
            # The graph was made before the move, and gives gradients of the old dtype on the old device.
            for parameter in self.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(_move_gradient)
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = None if self._state is None else _detached(self._state)
        return {**self.__dict__, "_state": state}


class StackFromBuffer(DifferentiableStack):
    """A full `DifferentiableStack`, whose top is the last row of a buffer.

    Args:
        buffer: (N, *element), floating; the parameter `initial_buffer` is a copy of it.

    Raises:
        TypeError, ValueError: a buffer of another type, dtype or shape.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import StackFromBuffer
        >>> stack = StackFromBuffer(torch.tensor([1.0, 2.0, 3.0]))
        >>> stack.pop().item(), stack.depth
        (3.0, 2)
    """

    def __init__(self, buffer: Tensor) -> None:
        state = pointer.from_buffer(buffer)
        super().__init__(tuple(state.buffer.shape))
        self._start_from(state, depth=len(state.buffer))


class SoftOperations(nn.Module):
    """The two operations that a stack is made of, as methods of a module without parameters.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import SoftOperations
        >>> buffer = SoftOperations().soft_assign(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]), 4.0)
        >>> SoftOperations().soft_lookup(buffer, torch.tensor([0.0, 0.5, 0.5])).item()
        3.0
    """

    soft_assign = staticmethod(pointer.soft_assign)
    soft_lookup = staticmethod(pointer.soft_lookup)


class StackPushModule(nn.Module):
    """Pushes elements on a fresh stack, one after the other, and returns its buffer.

    Args:
        stack_shape: (N, *element), with at least one slot.

    Raises:
        TypeError, ValueError: a shape that is not such a tuple.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import StackPushModule
        >>> StackPushModule((3, 2))(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]
    """

    def __init__(self, stack_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.stack_shape = _checked_shape(stack_shape)

    def forward(self, elements: Tensor) -> Tensor:
        """The buffer after the last push, (N, *element), for elements (n, *element); n above N overflows."""
        elements, (slots, *element) = as_array("elements", elements), self.stack_shape
        state = pointer.empty(slots, tuple(element), dtype=elements.dtype, device=elements.device)
        if elements.ndim and len(elements) > slots:
            _checks.raise_fault((), 1, slots)
        return pointer.push_all(state, elements).buffer


class _OfBuffer(nn.Module):
    """Holds a buffer: an `nn.Parameter` as a parameter, any other tensor as what PyTorch calls a buffer."""

    initial_buffer: Tensor

    def __init__(self, initial_buffer: Tensor) -> None:
        super().__init__()
        pointer.from_buffer(initial_buffer)  # refuses what is not a buffer
        if isinstance(initial_buffer, nn.Parameter):
            self.initial_buffer = initial_buffer
        else:
            self.register_buffer("initial_buffer", initial_buffer)


class StackPopModule(_OfBuffer):
    """Pops twice from a full stack made of a buffer.

    Args:
        initial_buffer: (N, *element), floating; the top is the last row. Gradients reach it.

    Raises:
        TypeError, ValueError: a buffer of another type, dtype or shape.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import StackPopModule
        >>> first, second, buffer, index = StackPopModule(torch.tensor([1.0, 2.0, 3.0]))()
        >>> first.item(), second.item(), index.tolist()
        (3.0, 2.0, [0.0, 1.0, 0.0])
    """

    def forward(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The two elements, and the buffer and the index afterwards; of a buffer with one slot, an underflow."""
        state = pointer.from_buffer(self.initial_buffer)
        if len(state.buffer) < 2:
            _checks.raise_fault((), 2, len(state.buffer))
        state, first = pointer.pop(state)
        state, second = pointer.pop(state)
        return first, second, *state


class StackPeekModule(_OfBuffer):
    """Reads the top of a full stack made of a buffer.

    Args:
        initial_buffer: (N, *element), floating; the top is the last row. Gradients reach it.

    Raises:
        TypeError, ValueError: a buffer of another type, dtype or shape.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import StackPeekModule
        >>> element, buffer, index = StackPeekModule(torch.tensor([1.0, 2.0, 3.0]))()
        >>> element.item(), index.tolist()
        (3.0, [1.0, 0.0, 0.0])
    """

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """The element, and the buffer and the index as they are."""
        state = pointer.from_buffer(self.initial_buffer)
        return pointer.peek(state), *state


class ListReverser(nn.Module):
    """The reversal of a list of vectors by two stacks, as a module without parameters.

    Args:
        max_length: the longest list it takes, at least 1.
        element_dim: the length of each vector.

    Raises:
        TypeError, ValueError: a number that is not an integer, or too small.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import ListReverser
        >>> ListReverser(4, 1)(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [[3.0], [2.0], [1.0]]
    """

    def __init__(self, max_length: int, element_dim: int) -> None:
        super().__init__()
        self.max_length = _checks.check_count("max_length", max_length, 1)
        self.element_dim = _checks.check_count("element_dim", element_dim, 0)

    def forward(self, sequence: Tensor) -> Tensor:
        """Reverse a list, (n, element_dim) with n at most max_length; another shape raises `ValueError`."""
        shape = as_array("sequence", sequence).shape
        if len(shape) != 2 or shape[0] > self.max_length or shape[1] != self.element_dim:
            expected = f"shape (n, {self.element_dim}) with n at most {self.max_length}"
            _checks.bad_value("sequence", expected, f"shape {tuple(shape)}")
        return reverse(sequence)


class LearnableListReverser(ListReverser):
    """The reversal through which the notebook learns a list: the list and the loop around the call are the user's own.

    Args:
        max_length: the longest list it takes, at least 1.
        element_dim: the length of each vector.

    Raises:
        TypeError, ValueError: a number that is not an integer, or too small.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.notebook import LearnableListReverser
        >>> learned = torch.ones(2, 1, requires_grad=True)
        >>> target = torch.tensor([[2.0], [1.0]])
        >>> ((LearnableListReverser(2, 1)(learned) - target) ** 2).mean().backward()
        >>> learned.grad.tolist()
        [[0.0], [-1.0]]
    """


def _checked_shape(stack_shape: Any) -> tuple[int, ...]:
    shape = _checks.check_axes("stack_shape", stack_shape)
    if not shape or shape[0] < 1:
        _checks.bad_value("stack_shape", "(slots, *element) with at least one slot", shape)
    return shape


def _detached(state: PointerState) -> PointerState:
    return PointerState(state.buffer.detach(), state.index.detach())


def _move_gradient(parameter: Tensor) -> None:
    if parameter.grad is not None:
        parameter.grad = parameter.grad.to(parameter)
