"""What `test_devices.py` runs in JAX on four devices, in float64: `python devices_jax.py FOLDER`."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree

from devices import apart, page, said
from diffstack import cli
from diffstack.jax_impl import superposition
from diffstack.jax_impl.layers import Stack, StackAttention, StackRNN

assert len(jax.devices()) == 4
there, found = page("jnp"), {}
random = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return jnp.asarray(random.normal(size=shape))


# The batch: three steps.
batches = [(draw(8, 5, 4), jnp.asarray(random.integers(1, 6, 8))) for _ in range(3)]
one = jax.jit(there["step"], static_argnums=0)
mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
everywhere, split = (jax.NamedSharding(mesh, spec) for spec in (jax.P(), jax.P("batch")))


def trained(step: Any, layer: Any, start: Any = None, share: Any = None) -> list[Any]:
    """Losses and parameters."""
    parameters = layer.init(jax.random.key(0), dtype=jnp.float64)
    learner, losses = jax.device_put((parameters, there["adam"].init(parameters)), start), []
    for batch in batches:
        *learner, loss = step(layer, *learner, *jax.device_put(batch, share))
        losses.append(loss)
    return [*losses, *tree.leaves(learner[0])]


for name, layer in {"rnn": StackRNN(4, 6, Stack("neural_stack", 3)), "attention": StackAttention(4, 3, 2)}.items():
    expected = trained(one, layer)
    found[f"jit, {name}"] = apart(trained(there["step_of_jit"], layer, everywhere, split), expected)
    found[f"shard_map, {name}"] = apart(trained(there["step_of_shard_map"], layer), expected)


# The sequence.
def outcome(run: Any, arguments: Any) -> list[Any]:
    """All results, and the gradients of a function of them by all arguments."""

    def loss(arguments: Any) -> Any:
        results = tree.leaves(run(*arguments))
        return sum(jnp.sum(jnp.sin(i + each)) for i, each in enumerate(results)), results

    (_, results), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(arguments)
    return [*results, *tree.leaves(gradients)]


layer = StackRNN(4, 5, Stack("neural_stack", 3, capacity=8), cell="gru")
given = layer.init(jax.random.key(0), dtype=jnp.float64), draw(3, 2, 8, 4)
along = outcome(lambda *each: there["scan_along"](layer, *each), given)
found["passed along"] = apart(along, outcome(layer.scan, given))

state = superposition.SuperpositionState(draw(2, 5, 3))
given = state, jax.nn.softmax(draw(2, 12, 3)), draw(2, 12, 3)
found["at once"] = apart(outcome(there["scan_at_once"], given), outcome(superposition.scan, given))

# The command: the test has left the recipe in this folder.
options = ["--resume", "--out", f"{sys.argv[1]}/four", "--devices", "4", "--steps", "2"]
assert cli.run(["train", "reverse_string", *options]) == 0
said(found)
