"""Learn the input whose output under a program is a given target, by descending the mean squared error."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffstack import _checks
from diffstack.torch_impl._arrays import as_array
from diffstack.torch_impl.reversal import reverse

_ADAM = partial(torch.optim.Adam, lr=0.1)


class Learned(NamedTuple):
    """What `learn_input` found.

    Attributes:
        sequence: the learned input.
        output: what the program makes of it.
        losses: (steps,), `losses[k]` being the mean squared error before update k.
    """

    sequence: Tensor
    output: Tensor
    losses: Tensor


@dataclass(frozen=True)
class LearnState:
    """A learning run between two steps: the input so far, and what the optimizer carries along."""

    sequence: Tensor
    optimizer_state: Any
    program: Callable[[Tensor], Tensor]
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer]


def init(
    target: Tensor,
    *,
    initial: Tensor | None = None,
    program: Callable[[Tensor], Tensor] = reverse,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
) -> LearnState:
    """The state before the first step.

    Args:
        target: what the program is to give, of any shape, floating.
        initial: the input to start from, of the target's dtype; ones like the target where none is given.
        program: a differentiable function from the input to an array like the target.
        optimizer: from a list of tensors to a torch optimizer; `Adam` with `lr=0.1` where none is given.

    Returns:
        A `LearnState`, for `advance`.

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import inverse
        >>> inverse.init(torch.tensor([3.0, 2.0])).sequence.tolist()
        [1.0, 1.0]
    """
    target = as_array("target", target)
    _checks.check_target(target)
    sequence = torch.ones_like(target) if initial is None else as_array("initial", initial, target)
    _checks.check_dtype("initial", sequence.dtype, target.dtype, "the target")
    optimizer = _ADAM if optimizer is None else optimizer
    _checks.check_learning(program, optimizer, callable(optimizer))
    return LearnState(sequence, optimizer([sequence]).state_dict(), program, optimizer)


def advance(state: LearnState, target: Tensor, steps: int) -> tuple[LearnState, Tensor]:
    """Take some steps of a learning run.

    Args:
        state: the run so far, which stays as it is.
        target: what the program is to give.
        steps: how many updates, 0 or more.

    Returns:
        The run afterwards, and the mean squared error before each update, (steps,).

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape, or a program whose output is not like the
            target.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import inverse
        >>> target = torch.tensor([3.0, 1.0])
        >>> state, losses = inverse.advance(inverse.init(target), target, 2)
        >>> [round(loss, 3) for loss in losses.tolist()]
        [2.0, 1.805]
    """
    _checks.check_state(state, LearnState)
    target = as_array("target", target)
    _checks.check_target(target)
    return _advance(state, target, _checks.check_count("steps", steps, 0))


def learn_input(
    target: Tensor,
    *,
    initial: Tensor | None = None,
    program: Callable[[Tensor], Tensor] = reverse,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] | None = None,
    steps: int = 100,
) -> Learned:
    """Learn the input whose output under a program is the target.

    Args:
        target: what the program is to give, of any shape, floating.
        initial: the input to start from, of the target's dtype; ones like the target where none is given.
        program: a differentiable function from the input to an array like the target.
        optimizer: from a list of tensors to a torch optimizer; `Adam` with `lr=0.1` where none is given.
        steps: how many updates, 0 or more.

    Returns:
        A `Learned`: the input, the program's output for it, and the mean squared error before each update.

    Raises:
        TypeError, ValueError: an argument of another type, dtype or shape, or a program whose output is not like the
            target.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.inverse import learn_input
        >>> learn_input(torch.tensor([3.0, 2.0, 1.0])).sequence.round().tolist()
        [1.0, 2.0, 3.0]
    """
    steps = _checks.check_count("steps", steps, 0)
    state = init(target, initial=initial, program=program, optimizer=optimizer)
    state, losses = advance(state, target, steps)
    return Learned(state.sequence, program(state.sequence), losses)


def _advance(state: LearnState, target: Tensor, steps: int) -> tuple[LearnState, Tensor]:
    # An optimizer works in place, so it gets copies: the caller's state stays as it is.
    sequence = state.sequence.detach().clone().requires_grad_()
    optimizer = state.optimizer([sequence])
    optimizer.load_state_dict(copy.deepcopy(state.optimizer_state))
    losses = torch.empty(steps, dtype=target.dtype, device=target.device)
    for k in range(steps):
        with torch.enable_grad():
            loss = _loss(sequence, target, state.program)
        (sequence.grad,) = torch.autograd.grad(loss, sequence)
        optimizer.step()
        losses[k] = loss.detach()
    return LearnState(sequence.detach(), optimizer.state_dict(), state.program, state.optimizer), losses


def _loss(sequence: Tensor, target: Tensor, program: Callable[[Tensor], Tensor]) -> Tensor:
    output = program(sequence)
    _checks.check_output(output, target)
    return torch.mean((output - target) ** 2)
