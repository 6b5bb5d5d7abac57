"""A controller that NumPy, JAX and PyTorch run alike, and what the oracles make of it with a stack of any family."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from families import FAMILIES, Case, Family, Verb

METHODS = ("sequential", "chunked")


def controller(xp: Any, family: Family, hard: bool) -> Callable[[Any, Any, Any], tuple[Any, Any, Any, Any]]:
    """From the sum of its reads: how far the actions are turned round, and what is added to the elements.

    Its carry is that sum, and so has the batch axes. It outputs what it has read, and so shows every read but the last,
    on which the final carry does not depend.
    """

    def decide(carry: Any, inputs: Any, reads: Any) -> tuple[Any, Any, Any, Any]:
        actions, elements = inputs
        top = reads[0] if len(family.ends) > 1 else reads
        carry = 0.5 * carry + top.reshape((*carry.shape, -1)).sum(-1)
        # Of a hard automaton other operations would be no program.
        others = actions if family.automaton and hard else xp.roll(actions, 1, -1) if family.action else None
        if not family.action:
            actions = xp.where(carry > 0, actions, (actions + 1) % 3)
        elif hard:
            actions = xp.where((carry > 0).reshape((*carry.shape, 1)), others, actions)
        else:
            gate = (1 / (1 + xp.exp(-carry))).reshape((*carry.shape, 1))
            actions = (1 - gate) * actions + gate * others
        if len(family.ends) > 1:
            elements = tuple(each + 0.25 * read for each, read in zip(elements, reads, strict=True))
        else:
            # An automaton reads an element for each state and top.
            read = reads.sum((carry.ndim, carry.ndim + 1)) if family.automaton else reads
            elements = elements + 0.25 * read
        return carry, actions, elements, reads

    return decide


def oracle(family: Family, hard: bool, state: Any, actions: Any, elements: Any) -> Any:
    """The controller on one stack, whose reads are those of the oracle's scan of all steps so far."""
    verbs = {verb.name: verb for verb in family.verbs}
    peeks = tuple(verbs[f"peek{end}"] for end in family.ends)
    # A peek of the neural families says how much.
    full = (np.ones(()),) if family.strengths else ()
    reads = tuple(verb.oracle(state, *full) for verb in peeks)
    reads, decide = reads if len(reads) > 1 else reads[0], controller(np, family, hard)
    carry, final, outputs, decided = np.zeros(()), state, [], []
    for inputs in zip(actions, _steps(family, elements), strict=True):
        carry, action, element, output = decide(carry, inputs, reads)
        outputs.append(output)
        decided.append((action, element))
        scanned = verbs["scan"].oracle(state, *jax.tree.map(lambda *steps: np.stack(steps), *decided))
        leaves = jax.tree.leaves(scanned)
        final, each = tuple(leaves[: len(state)]), leaves[len(state) :]
        reads = tuple(leaf[-1] for leaf in each) if len(peeks) > 1 else each[0][-1]
    none = jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape)), reads)
    return (carry, final), jax.tree.map(lambda *steps: np.stack(steps), *outputs) if outputs else none


def _steps(family: Family, elements: Any) -> list[Any]:
    return list(zip(*elements, strict=True)) if len(family.ends) > 1 else list(elements)


def _case(family: Family, method: str, hard: bool) -> Case:
    return Case(family, Verb("unroll", lambda sample: sample, partial(oracle, family, hard), many=True), method)


# One for each family and method; those that run in every mode; and those whose actions are hard.
UNROLLS = tuple(_case(family, method, False) for family in FAMILIES for method in METHODS)
MODES = tuple(case for case in UNROLLS if case.method == "chunked" or case.family.vectors)
HARD = {(family, method): _case(family, method, True) for family in FAMILIES for method in METHODS}


@cache
def unrolled(backend: Any, case: Case, hard: bool = False, **options: Any) -> Callable[..., Any]:
    """`unroll` of a case, of its state and inputs; always the same function."""
    xp = jnp if backend.name == "jax" else torch
    decide = controller(xp, case.family, hard)
    unroll = backend.module("controller").unroll

    def run(state: Any, actions: Any, elements: Any, lengths: Any = None) -> Any:
        first = elements[0] if len(case.family.ends) > 1 else elements
        rank = actions.ndim - (2 if case.family.action else 1)
        like = first.sum(tuple(range(rank, first.ndim)))
        if xp is jnp and jax.sharding.AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
            # A carry that is made here varies over no axis of a mesh.
            carry = jnp.zeros(like.shape, like.dtype)
        else:
            # JAX wants the carry of a loop sharded as what the loop makes of it.
            carry = xp.zeros_like(like)
        return unroll(decide, carry, state, (actions, elements), lengths=lengths, method=case.method, **options)

    return run
