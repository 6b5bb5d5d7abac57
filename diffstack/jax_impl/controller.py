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

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from diffstack import _checks, _plan
from diffstack._checks import Layout
from diffstack._plan import Plan
from diffstack.families import FAMILIES, Family
from diffstack.jax_impl import _methods
from diffstack.jax_impl._arrays import as_array, as_lengths, run, shaped, sharded_like, varying_alike
from diffstack.jax_impl._chunked import FORMS, _stepwise
from diffstack.jax_impl._ragged import noop, stopped, where_live

MODULES = {name: import_module(f"diffstack.jax_impl.{name}") for name in FAMILIES}
# By the class of a state, such as NeuralStackState.
_FAMILIES = {getattr(each, f"{name.title().replace('_', '')}State"): each for name, each in MODULES.items()}
_DEFINITIONS = {name: _stepwise.form(FAMILIES[name], module) for name, module in MODULES.items()}
_FORMS = _DEFINITIONS | FORMS
# More runs keep the stacks smaller, where they grow, and take longer to compile.
_RUNS = 3


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

    Under `jax.jit` it is compiled once; outside, at every call. The neural families drop nothing while it runs: they
    make room for the T steps first, and go back to their capacity when they are done.

    Args:
        controller: `controller(carry, input, reads) -> carry, actions, elements, output`, a pure function. It may close
            over parameters. With several stacks, reads, actions and elements are tuples, one entry for each; those of a
            stack are what its `step` takes and returns. The first reads are the peeks of the states.
        carry: what goes from step to step, a pytree of arrays.
        states: the state of a stack before the first step, or a tuple of states that share their batch axes.
        inputs: a pytree of arrays (*batch, T, ...).
        lengths: how many steps each sequence has, (*batch,) integers, where they differ; below 0 counts as 0, and
            above T as T. Carry and states stay as they are after a sequence's end, where outputs are zero; every leaf
            of the carry then has the batch axes first.
        method: "sequential" is the loop over `step`; "chunked" takes a chunk of steps at a time. "auto" takes the
            faster one, by the rule in docs/understand/controllers.md.
        starts_empty: promise that every stack starts empty, as `empty` makes it, which saves time and memory. No
            gradient reaches the states then. A state that is not traced is checked.
        final_states: False where the states after the last step are not wanted, which saves time and memory.

    Returns:
        `(carry, states), outputs`: the carry and the states after the last step (None where they are not wanted), and
        the outputs, a pytree of arrays (*batch, T, ...).

    Raises:
        TypeError: what is not the state of a family; a controller that does not return four things; an argument, action
            or element of a wrong dtype.
        ValueError: shapes that do not fit; a state that is not empty although that was promised.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl import neural_stack, unroll
        >>> def controller(carry, input, read):
        ...     return carry + read, jnp.asarray([1.0, 0.5]), input, read
        >>> inputs = jnp.asarray([1.0, 2.0, 3.0])
        >>> (total, state), reads = unroll(controller, jnp.zeros(()), neural_stack.empty(3), inputs)
        >>> reads.tolist(), state.strengths.tolist()
        ([0.0, 1.0, 2.0], [0.5, 0.5, 1.0])
    """
    single = hasattr(states, "_fields")
    opened = [_opened(state, starts_empty) for state in _checks.check_states(states, tuple(_FAMILIES))]
    layout = _checks.check_same_batch([layout for *_, layout in opened])
    inputs = jax.tree.map(lambda leaf: as_array("inputs", leaf), inputs)
    time = _checks.check_inputs([leaf.shape for leaf in jax.tree.leaves(inputs)], layout)
    lengths = as_lengths(lengths, layout.batch)
    if lengths is not None:
        _checks.check_carry([np.shape(leaf) for leaf in jax.tree.leaves(carry)], layout)
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
    lengths: Array | None,
    chunk: int | None,
) -> tuple[tuple[Any, Any], Any]:
    """The sequence as a few runs of equal chunks, for each of which the stacks are made as large as it needs them."""
    rank, time = len(stacks[0].layout.batch), stacks[0].plan.time
    states, reads = tuple(stack.state for stack in stacks), tuple(map(_peek, stacks))
    carry, states, reads, inputs, lengths = varying_alike((carry, states, reads, inputs, lengths))
    states, reads, lengths = sharded_like((states, reads, lengths), inputs, rank)
    given = states
    inputs = jax.tree.map(lambda leaf: jnp.moveaxis(stopped(leaf, lengths), rank, 0), inputs)
    outputs = []
    for first, stop, steps in (
        [(0, time, time)] if chunk is None else _plan.runs(time, chunk, _longest(stacks, time // chunk))
    ):
        stacks = [stack._replace(plan=stack.plan._replace(first=first, stop=stop)) for stack in stacks]
        states = tuple(run(stack.form.fit, state, plan=stack.plan) for stack, state in zip(stacks, states, strict=True))
        over_chunk: Any = partial(_over_chunk, decide, stacks, lengths)
        # Its backward pass runs a chunk again, so that one state a chunk is kept, and not one a step.
        over_chunk = over_chunk if chunk is None else jax.checkpoint(over_chunk)
        # A symbolic length cannot be cut.
        part = inputs if chunk is None else jax.tree.map(lambda leaf, a=first, b=stop: leaf[a:b], inputs)
        if stop - first == steps:
            (carry, reads, states), output = over_chunk((carry, reads, states), (jnp.int32(first), part))
        else:
            chunks = (stop - first) // steps
            firsts = first + steps * jnp.arange(chunks, dtype=jnp.int32)
            part = jax.tree.map(lambda leaf, n=chunks, c=steps: leaf.reshape(n, c, *leaf.shape[1:]), part)
            (carry, reads, states), output = lax.scan(over_chunk, (carry, reads, states), (firsts, part))
            output = jax.tree.map(lambda leaf, n=stop - first: leaf.reshape(n, *leaf.shape[2:]), output)
        outputs.append(output)
    outputs = jax.tree.map(lambda *parts: jnp.moveaxis(jnp.concatenate(parts), 0, rank), *outputs)
    return (carry, tuple(map(partial(_ended, lengths), stacks, given, states))), outputs


def _over_chunk(
    decide: Callable[[Any, Any, Any], tuple[Any, Any, Any]],
    stacks: list[_Stack],
    lengths: Array | None,
    state: tuple[Any, Any, Any],
    inputs: tuple[Array, Any],
) -> tuple[tuple[Any, Any, Any], Any]:
    """A chunk of steps: each on the windows of the stacks, and at its end the stacks themselves."""
    (carry, reads, states), (first, inputs) = state, inputs
    steps = jax.tree.leaves(inputs)[0].shape[0]
    opened = [run(stack.form.open, each, steps=steps) for stack, each in zip(stacks, states, strict=True)]
    fixed, windows = zip(*opened, strict=True)

    def step(state: tuple[Any, Any, Any], inputs: tuple[Array, Any]) -> tuple[tuple[Any, Any, Any], Any]:
        (carry, reads, windows), (place, input) = state, inputs
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
        return (new, reads, windows), output

    places = jnp.arange(steps, dtype=jnp.int32)
    (carry, reads, windows), outputs = lax.scan(step, (carry, reads, windows), (places, inputs))
    states = tuple(
        run(stack.form.close, *each, first, plan=stack.plan)
        for stack, *each in zip(stacks, states, fixed, windows, strict=True)
    )
    return (carry, reads, states), outputs


def _longest(stacks: list[_Stack], chunks: int) -> int:
    """How many chunks a run has. Stacks that do not grow or shrink need one run only."""
    plan, grow = stacks[0].plan, any(stack.family.grows for stack in stacks)
    resized = grow or plan.starts_empty or not plan.final_states
    return max(4, -(-chunks // _RUNS)) if resized else max(1, chunks)


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


def _ended(lengths: Array | None, stack: _Stack, given: Any, state: Any) -> Any:
    """The state after the last step, as the family has it."""
    if not stack.plan.final_states:
        return None
    state = run(stack.form.end, state, lengths, plan=stack.plan)
    state = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), state, given)
    if lengths is not None:
        # A sequence without a step leaves the state as it was, to the bit.
        state = where_live(lengths > 0, state, given)
    return shaped(state, stack.layout)


def _known_empty(family: Family, state: Any) -> Any:
    """The state as a constant; what is traced cannot be checked."""
    held = _checks.held(family, state)
    if not isinstance(held, jax.core.Tracer) and np.any(np.asarray(held)):
        _checks.bad_value("states", "empty stacks, as starts_empty promises", "one that holds something")
    return lax.stop_gradient(state)
