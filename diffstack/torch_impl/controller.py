"""A controller with stacks: it decides each step from what it has just read.

`scan` runs a sequence of actions that is known beforehand. A recurrent network with a stack does not know its actions
beforehand: what it does at a step depends on the read after the step before. `unroll` is the loop over both,

    carry, actions, elements, output = controller(carry, input, reads)
    state, reads = step(state, actions, elements)

and `method="sequential"` is that loop. "chunked" takes the sequence in chunks of steps. Within a chunk the steps work
on the little of a stack that they can reach, and the rest of it is brought over the whole chunk at once; the files of
`_chunked/` say how, for each family. Values, final states and gradients are those of the loop, to rounding, and the
bits of what hard actions read.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as tree

from diffstack import _checks, _plan
from diffstack._checks import Layout
from diffstack._plan import Plan
from diffstack.families import FAMILIES, Family
from diffstack.torch_impl import _methods
from diffstack.torch_impl._arrays import as_array, as_lengths, run, shaped, without_autocast
from diffstack.torch_impl._chunked import FORMS, _stepwise
from diffstack.torch_impl._ragged import noop, stopped, where_live

MODULES = {name: import_module(f"diffstack.torch_impl.{name}") for name in FAMILIES}
# By the class of a state, such as NeuralStackState.
_FAMILIES = {getattr(each, f"{name.title().replace('_', '')}State"): each for name, each in MODULES.items()}
_DEFINITIONS = {name: _stepwise.form(FAMILIES[name], module) for name, module in MODULES.items()}
_FORMS = _DEFINITIONS | FORMS


class _Stack(NamedTuple):
    """One of the stacks of a controller: its family, its first state and shapes, and how it is run."""

    family: Family
    module: Any
    state: Any
    layout: Layout
    form: Any
    plan: Plan


def unroll(
    controller: Callable[[Any, Any, Any], tuple[Any, Any, Any, Any]],
    carry: Any,
    states: Any,
    inputs: Any,
    *,
    lengths: Any = None,
    method: Literal["auto", "sequential", "chunked"] = "auto",
    starts_empty: bool = False,
    final_states: bool = True,
) -> tuple[tuple[Any, Any], Any]:
    """Run a controller over a sequence, with one stack or several, of any families.

    The neural families drop nothing while it runs: they make room for the T steps first, and go back to their capacity
    when they are done.

    Args:
        controller: `controller(carry, input, reads) -> carry, actions, elements, output`, such as an `nn.Module`. It is
            called once for each step; where there is none, once on zeros. With several stacks, reads, actions and
            elements are tuples, one entry for each; those of a stack are what its `step` takes and returns. The first
            reads are the peeks of the states.
        carry: what goes from step to step, a pytree of arrays.
        states: the state of a stack before the first step, or a tuple of states that share their batch axes.
        inputs: a pytree of arrays (*batch, T, ...).
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. Carry and states stay as they are after a sequence's end, where outputs are zero; every leaf
            of the carry then has the batch axes first.
        method: "sequential" is the loop over `step`; "chunked" takes a chunk of steps at a time. "auto" takes the
            faster one, by the rule in docs/understand/controllers.md.
        starts_empty: promise that every stack starts empty, as `empty` makes it, which saves time and memory. No
            gradient reaches the states then. What is not traced is checked on a CPU.
        final_states: False where the states after the last step are not wanted, which saves time and memory.

    Returns:
        `(carry, states), outputs`: the carry and the states after the last step (None where they are not wanted), and
        the outputs, a pytree of arrays (*batch, T, ...).

    Raises:
        TypeError: what is not the state of a family; a controller that does not return four things; an argument, action
            or element of a wrong dtype.
        ValueError: shapes that do not fit; a state that is not empty although that was promised.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl import neural_stack, unroll
        >>> def controller(carry, input, read):
        ...     return carry + read, torch.tensor([1.0, 0.5]), input, read
        >>> inputs = torch.tensor([1.0, 2.0, 3.0])
        >>> (total, state), reads = unroll(controller, torch.zeros(()), neural_stack.empty(3), inputs)
        >>> reads.tolist(), state.strengths.tolist()
        ([0.0, 1.0, 2.0], [0.5, 0.5, 1.0])
    """
    single = hasattr(states, "_fields")
    opened = [_opened(state, starts_empty) for state in _checks.check_states(states, tuple(_FAMILIES))]
    layout = _checks.check_same_batch([layout for *_, layout in opened])
    inputs = tree.tree_map(lambda leaf: as_array("inputs", leaf), inputs)
    time = _checks.check_inputs([leaf.shape for leaf in tree.tree_leaves(inputs)], layout)
    lengths = as_lengths(lengths, layout.batch, opened[0][2][0])
    if lengths is not None:
        _checks.check_carry([leaf.shape for leaf in tree.tree_leaves(carry) if leaf is not None], layout)
    chunk = _methods.chunk(method, time, [(family, layout) for family, *_, layout in opened])
    stacks = []
    for family, module, state, each in opened:
        form = (_DEFINITIONS if chunk is None else _FORMS)[family.name]
        stacks.append(_Stack(family, module, state, each, form, Plan(time, each.slots, starts_empty, final_states)))

    def decide(carry: Any, input: Any, reads: Any) -> tuple[Any, Any, Any]:
        given = _checks.check_decision(controller(carry, input, reads[0] if single else reads))
        carry, actions, elements, output = given
        each = ((actions, elements),) if single else _checks.paired(actions, elements, len(stacks))
        taken = (
            stack.module._inputs(*mine, stack.state, stack.layout) for stack, mine in zip(stacks, each, strict=True)
        )
        return carry, tuple(taken), output

    (carry, finals), outputs = _over_sequence(decide, stacks, carry, inputs, lengths, chunk)
    finals = (finals[0] if single else finals) if final_states else None
    return (carry, finals), outputs


def _over_sequence(
    decide: Callable[[Any, Any, Any], tuple[Any, Any, Any]],
    stacks: list[_Stack],
    carry: Any,
    inputs: Any,
    lengths: Tensor | None,
    chunk: int | None,
) -> tuple[tuple[Any, Any], Any]:
    """The sequence chunk by chunk, for each of which the stacks are made as large as it needs them."""
    rank, time = len(stacks[0].layout.batch), stacks[0].plan.time
    leaves, structure = tree.tree_flatten(inputs)
    # One `unbind` has one backward; indexing step by step would add up T arrays of T steps.
    steps = list(zip(*(stopped(leaf, lengths).unbind(rank) for leaf in leaves), strict=True))
    inputs = [tree.tree_unflatten(list(step), structure) for step in steps]
    given = states = tuple(stack.state for stack in stacks)
    reads = tuple(map(_peek, stacks))
    outputs: list[Any] = []
    for first, stop, _ in [(0, time, time)] if chunk is None else _plan.runs(time, chunk, 1):
        stacks = [stack._replace(plan=stack.plan._replace(first=first, stop=stop)) for stack in stacks]
        states = tuple(run(stack.form.fit, state, plan=stack.plan) for stack, state in zip(stacks, states, strict=True))
        (carry, reads, states), output = _over_chunk(
            decide, stacks, lengths, (carry, reads, states), (first, inputs[first:stop])
        )
        outputs += output
    if outputs:
        with without_autocast(states[0][0]):
            # PyTorch takes None for a leaf.
            stacked = tree.tree_map(lambda *steps: None if steps[0] is None else torch.stack(steps, rank), *outputs)
    else:
        stacked = _without_steps(decide, carry, leaves, structure, reads, rank)
    return (carry, tuple(map(partial(_ended, lengths), stacks, given, states))), stacked


def _over_chunk(
    decide: Callable[[Any, Any, Any], tuple[Any, Any, Any]],
    stacks: list[_Stack],
    lengths: Tensor | None,
    state: tuple[Any, Any, Any],
    inputs: tuple[int, list[Any]],
) -> tuple[tuple[Any, Any, Any], list[Any]]:
    """A chunk of steps: each on the windows of the stacks, and at its end the stacks themselves."""
    (carry, reads, states), (first, part) = state, inputs
    opened = [run(stack.form.open, each, steps=len(part)) for stack, each in zip(stacks, states, strict=True)]
    if not part:
        return (carry, reads, states), []
    fixed, windows = zip(*opened, strict=True)
    outputs = []
    for place, input in enumerate(part):
        new, taken, output = decide(carry, input, reads)
        if lengths is not None:
            alive = first + place < lengths
            new, output = where_live(alive, new, carry), where_live(alive, output)
            taken = tuple(
                (where_live(alive, actions, noop(stack.family, actions, stack.state)), where_live(alive, element))
                for stack, (actions, element) in zip(stacks, taken, strict=True)
            )
        outcome = [
            run(stack.form.tick, *each, place, *mine)
            for stack, *each, mine in zip(stacks, windows, fixed, taken, strict=True)
        ]
        windows, reads = zip(*outcome, strict=True)
        reads = tuple(shaped(read, stack.layout) for stack, read in zip(stacks, reads, strict=True))
        carry = new
        outputs.append(output)
    states = tuple(
        run(stack.form.close, *each, first, plan=stack.plan)
        for stack, *each in zip(stacks, states, fixed, windows, strict=True)
    )
    return (carry, reads, states), outputs


def _without_steps(decide: Any, carry: Any, leaves: list[Tensor], structure: Any, reads: Any, rank: int) -> Any:
    """The outputs of no step, whose shapes only the controller knows."""
    zeros = [leaf.new_zeros(leaf.shape[:rank] + leaf.shape[rank + 1 :]) for leaf in leaves]
    with torch.no_grad():
        _, _, output = decide(carry, tree.tree_unflatten(zeros, structure), reads)
    return tree.tree_map(
        lambda leaf: None if leaf is None else leaf.new_zeros((*leaf.shape[:rank], 0, *leaf.shape[rank:])), output
    )


def _opened(state: Any, starts_empty: bool) -> tuple[Family, Any, Any, Layout]:
    module = _FAMILIES[type(state)]
    family = FAMILIES[module.__name__.rpartition(".")[2]]
    state = _known_empty(family, state) if starts_empty else state
    return family, module, *module._opened(state)


def _peek(stack: _Stack) -> Any:
    """What a controller reads before its first step."""
    state = shaped(stack.state, stack.layout)
    reads = tuple(getattr(stack.module, f"peek{end}")(state) for end in stack.family.ends)
    return reads if len(reads) > 1 else reads[0]


def _ended(lengths: Tensor | None, stack: _Stack, given: Any, state: Any) -> Any:
    """The state after the last step, as the family has it."""
    if not stack.plan.final_states:
        return None
    state = run(stack.form.end, state, lengths, plan=stack.plan)
    state = tree.tree_map(lambda leaf, like: leaf.to(like.dtype), state, given)
    if lengths is not None:
        # A sequence without a step leaves the state as it was, to the bit.
        state = where_live(lengths > 0, state, given)
    return shaped(state, stack.layout)


def _known_empty(family: Family, state: Any) -> Any:
    """The state as a constant; what is traced, or on another device, is not checked."""
    held = _checks.held(family, state)
    traced = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(held)
    if not traced and held.device.type == "cpu" and bool(torch.any(held != 0)):
        _checks.bad_value("states", "empty stacks, as starts_empty promises", "one that holds something")
    return tree.tree_map(torch.Tensor.detach, state)
