"""The code of docs/use/devices.md in JAX on four devices, in float64: how far its results are from those of one."""

from functools import partialmethod
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree

from devices import apart, page
from diffstack.jax_impl import superposition
from diffstack.jax_impl.layers import Stack, StackAttention, StackRNN
from families import FULL


def found() -> dict[str, float]:
    """For every way of the page, the largest difference of its values and gradients."""
    assert len(jax.devices()) == 4
    # Its layers, too, are to be in float64, so that what it compiles serves here again.
    with mock.patch.object(StackRNN, "init", partialmethod(StackRNN.init, dtype=jnp.float64)):
        there, random = page("jnp"), np.random.default_rng(0)
    return over_batches(there, random) | over_sequences(there, random)


def draw(random: np.random.Generator, *shape: int) -> Any:
    return jax.device_put(random.normal(size=shape))


def over_batches(there: dict[str, Any], random: np.random.Generator) -> dict[str, float]:
    """Three steps of training: every layer and every way, and each in each when the full product is asked for."""
    batches = [(draw(random, 16, 5, 4), jax.device_put(random.integers(1, 6, 16))) for _ in range(3)]
    one, differences = jax.jit(there["step"], static_argnums=0), {}

    def trained(step: Any, layer: Any, start: Any, share: Any) -> list[Any]:
        """Losses and parameters."""
        parameters = layer.init(jax.random.key(0), dtype=jnp.float64)
        learner, losses = jax.device_put((parameters, there["adam"].init(parameters)), start), []
        for batch in batches:
            *learner, loss = step(layer, *learner, *jax.device_put(batch, share))
            losses.append(loss)
        return [*losses, *tree.leaves(learner[0])]

    for name, layer in {"rnn": StackRNN(4, 6, Stack("neural_stack", 3)), "attention": StackAttention(4, 3, 2)}.items():
        expected = trained(one, layer, None, None)
        for way in ("jit", "shard_map") if FULL else ("jit",) if name == "rnn" else ("shard_map",):
            actual = trained(there[f"step_of_{way}"], layer, there["everywhere"], there["split"])
            differences[f"{way}, {name}"] = apart(actual, expected)
    return differences


def over_sequences(there: dict[str, Any], random: np.random.Generator) -> dict[str, float]:
    """The state passed along, and a parallel form at once."""
    layer = StackRNN(4, 6, Stack("neural_stack", 3, capacity=8))
    given = layer.init(jax.random.key(0), dtype=jnp.float64), draw(random, 3, 2, 8, 4)
    along = outcome(lambda *each: there["scan_along"](layer, *each), given)
    alone = outcome(layer.scan, given)
    state = superposition.SuperpositionState(draw(random, 2, 5, 3))
    given = state, jax.nn.softmax(draw(random, 2, 12, 3)), draw(random, 2, 12, 3)
    at_once = outcome(there["scan_at_once"], given), outcome(superposition.scan, given)
    return {"passed along": apart(along, alone), "at once": apart(*at_once)}


def outcome(run: Any, arguments: Any) -> list[Any]:
    """All results, and the gradients of a function of them by all arguments."""

    def loss(arguments: Any) -> Any:
        results = tree.leaves(run(*arguments))
        return sum(jnp.sum(jnp.sin(i + each)) for i, each in enumerate(results)), results

    (_, results), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(arguments)
    return [*results, *tree.leaves(gradients)]
