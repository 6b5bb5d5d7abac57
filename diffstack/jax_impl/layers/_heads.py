"""What the layers share: linear maps, actions out of logits, and stacks that are as large as they need to be."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from diffstack._layers import Stack
from diffstack.families import FAMILIES
from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl.controller import MODULES


def linear(x: Array, parameters: dict[str, Array], name: str) -> Array:
    """The map called `name`, with a bias if it has one."""
    result = matmul(x, parameters[f"{name}.weight"].T)
    bias = parameters.get(f"{name}.bias")
    return result if bias is None else result + jnp.broadcast_to(bias, result.shape)


def actions_of(family: str, logits: Float[Array, "*batch actions"], *, hard: bool = False) -> Array:
    """A softmax, sigmoid strengths or hard ones, log weights, or the code of the largest logit."""
    table = FAMILIES[family]
    if table.automaton:
        return logits
    if not table.action:
        return jnp.argmax(logits, -1).astype(jnp.int32)
    if hard:
        return (logits > 0).astype(logits.dtype)
    return jax.nn.sigmoid(logits) if table.strengths else jax.nn.softmax(logits, -1)


def start(stack: Stack, steps: int, batch: tuple[int, ...], dtype: Any) -> Any:
    """An empty stack, with the slots that so many steps need."""
    more = {"states": stack.states, "symbols": stack.symbols} if stack.table.automaton else {}
    slots = stack.slots(steps)
    return MODULES[stack.family].empty(slots, (stack.dim,), dtype=dtype, batch_shape=batch, **more)


def as_vector(stack: Stack, read: Float[Array, "..."]) -> Float[Array, "*batch read"]:
    """A read as one vector: an automaton reads one for each state and top."""
    if not stack.table.automaton:
        return read
    return read.reshape(*read.shape[: read.ndim - (3 if stack.dim else 2)], stack.read)


def grown(stack: Stack, state: Any, steps: int) -> Any:
    """The stack with room for more steps."""
    if stack.table.strengths:
        return MODULES[stack.family].resize(state, state.strengths.shape[-1] + stack.ends * steps)
    if stack.table.automaton:
        return MODULES[stack.family].resize(state, state.edges.shape[-3] + steps)
    slots, *others = state
    return type(state)(jnp.pad(slots, [(0, 0)] * (slots.ndim - 2) + [(0, steps), (0, 0)]), *others)


def uniform(key: Array, shape: tuple[int, ...], inputs: int, dtype: Any) -> Array:
    """As PyTorch starts a linear map of so many inputs."""
    bound = 1 / math.sqrt(inputs)
    return jax.random.uniform(key, shape, dtype, -bound, bound)
