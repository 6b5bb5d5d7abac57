"""The notebook's classes: `nn.Module` faces of the pointer stack and of the reversal.

A `DifferentiableStack` holds the contents and the index that it starts from as parameters, and carries the state of
a program from call to call. The functions of `diffstack.torch_impl.pointer` and `diffstack.torch_impl.reversal` do
the work; what a module adds is memory, and a count of the elements, so that it refuses to overflow and underflow
where the functions wrap round.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffstack import errors
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
        TypeError, ValueError: a shape that is not as said above.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.modules import DifferentiableStack
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
        shape = errors.check_axes("stack_shape", stack_shape)
        if not shape or shape[0] < 1:
            errors.bad_value("stack_shape", "(slots, *element) with at least one slot", shape)
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
            errors.raise_fault((), 1, len(self.initial_index))
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
            errors.raise_fault((), 2, len(self.initial_index))
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
        TypeError, ValueError: a buffer that is not as said above.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.modules import StackFromBuffer
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
        >>> from diffstack.torch_impl.modules import SoftOperations
        >>> buffer = SoftOperations().soft_assign(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]), 4.0)
        >>> SoftOperations().soft_lookup(buffer, torch.tensor([0.0, 0.5, 0.5])).item()
        3.0
    """

    soft_assign = staticmethod(pointer.soft_assign)
    soft_lookup = staticmethod(pointer.soft_lookup)


class _StackModule(nn.Module):
    def __init__(self, stack: DifferentiableStack) -> None:
        """Wrap a `DifferentiableStack`; anything else raises `TypeError`."""
        super().__init__()
        if not isinstance(stack, DifferentiableStack):
            errors.bad_type("stack", "a DifferentiableStack", type(stack).__name__)
        self.stack = stack


class StackPushModule(_StackModule):
    """A module whose call `module(element)` pushes on a `DifferentiableStack`, which it may share with others.

    Example:
        >>> from diffstack.torch_impl.modules import DifferentiableStack, StackPushModule
        >>> stack = DifferentiableStack((3,))
        >>> StackPushModule(stack)(5.0)
        >>> stack.peek().item()
        5.0
    """

    def forward(self, element: Tensor) -> None:
        """Put an element on the stack, as `DifferentiableStack.push`."""
        self.stack.push(element)


class StackPopModule(_StackModule):
    """A module whose call `module()` pops from a `DifferentiableStack`, which it may share with others.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.modules import StackFromBuffer, StackPopModule
        >>> StackPopModule(StackFromBuffer(torch.tensor([1.0, 2.0])))().item()
        2.0
    """

    def forward(self) -> Tensor:
        """Take the top element off the stack, as `DifferentiableStack.pop`."""
        return self.stack.pop()


class StackPeekModule(_StackModule):
    """A module whose call `module()` reads the top of a `DifferentiableStack`, which it may share with others.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.modules import StackFromBuffer, StackPeekModule
        >>> StackPeekModule(StackFromBuffer(torch.tensor([1.0, 2.0])))().item()
        2.0
    """

    def forward(self) -> Tensor:
        """Read the top element, as `DifferentiableStack.peek`."""
        return self.stack.peek()


class ListReverser(nn.Module):
    """The reversal of a list of vectors by two stacks, as a module without parameters.

    Args:
        max_length: the longest list it takes, at least 1.
        element_dim: the length of each vector.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.modules import ListReverser
        >>> ListReverser(4, 1)(torch.tensor([[1.0], [2.0], [3.0]])).tolist()
        [[3.0], [2.0], [1.0]]
    """

    def __init__(self, max_length: int, element_dim: int) -> None:
        super().__init__()
        self.max_length = errors.check_count("max_length", max_length, 1)
        self.element_dim = errors.check_count("element_dim", element_dim, 0)

    def forward(self, sequence: Tensor) -> Tensor:
        """Reverse a list, (n, element_dim) with n at most max_length; another shape raises `ValueError`."""
        shape = as_array("sequence", sequence).shape
        if len(shape) != 2 or shape[0] > self.max_length or shape[1] != self.element_dim:
            expected = f"shape (n, {self.element_dim}) with n at most {self.max_length}"
            errors.bad_value("sequence", expected, f"shape {tuple(shape)}")
        return reverse(sequence)


class LearnableListReverser(nn.Module):
    """A learnable list and its reversal, which training makes equal to a target.

    Args:
        length: the number of elements, at least 1.
        element_dim: the length of each element.

    Attributes:
        sequence: the list, a parameter, (length, element_dim); ones at first.

    Raises:
        TypeError, ValueError: an argument that is not as said above.

    Example:
        >>> from diffstack.torch_impl.modules import LearnableListReverser
        >>> LearnableListReverser(2, 3)().tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, length: int, element_dim: int) -> None:
        super().__init__()
        shape = errors.check_count("length", length, 1), errors.check_count("element_dim", element_dim, 0)
        self.sequence = nn.Parameter(torch.ones(shape))

    def forward(self) -> Tensor:
        """The reversal of the list, (length, element_dim)."""
        return reverse(self.sequence)


def _detached(state: PointerState) -> PointerState:
    return PointerState(state.buffer.detach(), state.index.detach())


def _move_gradient(parameter: Tensor) -> None:
    if parameter.grad is not None:
        parameter.grad = parameter.grad.to(parameter)
