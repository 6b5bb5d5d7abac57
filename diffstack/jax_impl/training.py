"""Training a network with stacks: the model between an embedding and a readout, its loss, and a step of Adam.

    tokens -> embedding -> layer -> readout -> logits

A `StackRNN` is the layer by itself. A `StackAttention` is part of a transformer's block, with its norms and residuals:

    x = x + attention(norm(x))          x = x + W_down relu(W_up norm(x))          logits = W norm(x)

The loss is the mean cross entropy of the targets that count, and a penalty for actions between 0 and 1 if one is
wanted. A step clips the gradient to a norm and takes Adam's. Networks of several seeds learn side by side: everything
here has an axis of seeds before all others, and the networks know nothing of each other.

Parameters have the same names in both frameworks, `embedding.weight`, `layer.cell.weight_ih`, `readout.bias` and so
on, and start from the same numbers, which `diffstack.training` draws; so the two frameworks learn the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from diffstack.families import FAMILIES
from diffstack.jax_impl._arrays import matmul
from diffstack.jax_impl._devices import ALONE, Devices
from diffstack.jax_impl.layers import StackAttention, StackRNN

Parameters = dict[str, Array]
EPSILON = 1e-5


class Learner(NamedTuple):
    """Networks that learn, one for each seed, and what Adam remembers of their gradients."""

    parameters: Parameters
    moments: optax.ScaleByAdamState


@dataclass(frozen=True)
class Network:
    """A layer with stacks between an embedding and a readout.

    Attributes:
        inputs: the number of tokens.
        outputs: the number of classes.
        embedding: the size of a token's vector.
        layer: a `StackRNN` of `embedding` inputs, or a `StackAttention` whose model is `embedding`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl.layers import Stack, StackRNN
        >>> from diffstack.jax_impl.training import Network
        >>> network = Network(3, 2, 4, StackRNN(4, 8, Stack("neural_stack", 4)))
        >>> parameters = network.init(jax.random.key(0))
        >>> jax.jit(network.logits)(parameters, jnp.asarray([[0, 1, 2]])).shape
        (1, 3, 2)
    """

    inputs: int
    outputs: int
    embedding: int
    layer: StackRNN | StackAttention

    def init(self, key: Array, *, dtype: Any = jnp.float32) -> Parameters:
        """Random parameters; training starts from those that both frameworks share."""
        size = self.layer.hidden if isinstance(self.layer, StackRNN) else self.embedding
        shapes = {"embedding.weight": (self.inputs, self.embedding), "readout.weight": (self.outputs, size)}
        if isinstance(self.layer, StackAttention):
            shapes |= {"up.weight": (4 * size, size), "down.weight": (size, 4 * size)}
        of_layer, *keys = jax.random.split(key, len(shapes) + 1)
        drawn = {
            name: jax.random.normal(key, shape, dtype) / np.sqrt(shape[1])
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        drawn |= {f"layer.{name}": array for name, array in self.layer.init(of_layer, dtype=dtype).items()}
        zeros = {"readout.bias": self.outputs}
        if isinstance(self.layer, StackAttention):
            zeros |= {"up.bias": 4 * size, "down.bias": size, **{f"{name}.bias": size for name in _NORMS}}
            drawn |= {f"{name}.weight": jnp.ones(size, dtype) for name in _NORMS}
        return drawn | {name: jnp.zeros(size, dtype) for name, size in zeros.items()}

    def logits(
        self,
        parameters: Parameters,
        tokens: Int[Array, "*batch time"],
        *,
        lengths: Int[Array, "*batch"] | None = None,
        trace: bool = False,
    ) -> Any:
        """The logits of each step, (*batch, T, outputs); and the traces of the stacks if they are asked for."""
        x, traces, of_layer = parameters["embedding.weight"][tokens], [()], _part(parameters, "layer")
        if isinstance(self.layer, StackRNN):
            x, _, *traces = self.layer.scan(of_layer, x, lengths=lengths, final_states=False, trace=trace)
        else:
            attended, _ = self.layer.scan(of_layer, _normed(parameters, "attention_norm", x), lengths=lengths)
            x = x + attended
            x = x + _linear(parameters, "down", jax.nn.relu(_linear(parameters, "up", _normed(parameters, "norm", x))))
            x = _normed(parameters, "readout_norm", x)
        logits = _linear(parameters, "readout", x)
        return (logits, traces[0]) if trace else logits


_NORMS = ("attention_norm", "norm", "readout_norm")


def loss(
    network: Network,
    parameters: Parameters,
    tokens: Int[Array, "batch time"],
    targets: Int[Array, "batch time"],
    mask: Bool[Array, "batch time"],
    lengths: Int[Array, "batch"],
    *,
    penalty: Any = None,
    counts: Sequence[Any] | None = None,
) -> Float[Array, ""]:
    """The mean cross entropy of the targets that count, in nats, and a penalty for actions between 0 and 1.

    With the `counts` of a whole batch it is the share of a part: such losses, and their gradients, add up over the
    parts to those of the whole batch, however many targets count in each.
    """
    logits, traces = network.logits(parameters, tokens, lengths=lengths, trace=True)
    right = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    # A batch whose targets none of which count has a loss of 0.
    counting, live = (jnp.maximum(each, 1).astype(right.dtype) for each in counts or counted(mask, lengths))
    mean = -jnp.sum(jnp.where(mask, right, 0)) / counting
    if penalty is None or not isinstance(network.layer, StackRNN):
        return mean
    soft = (softness(stack.family, each.actions) for stack, each in zip(network.layer.stacks, traces, strict=True))
    return mean + penalty * sum(jnp.sum(each) for each in soft) / live


def counted(mask: Bool[Array, "*batch time"], lengths: Int[Array, "*batch"]) -> tuple[Any, Any]:
    """How many targets of a batch count, and how many steps its sequences have."""
    return jnp.sum(mask), jnp.sum(lengths)


def softness(family: str, actions: Any) -> Any:
    """How far actions are from hard ones, a (1 - a); nothing where they are hard, or logarithms."""
    table = FAMILIES[family]
    return actions * (1 - actions) if table.action and not table.automaton else jnp.zeros(())


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The shapes of its parameters, by name."""
    return {name: shape.shape for name, shape in jax.eval_shape(network.init, jax.random.key(0)).items()}


def start(network: Network, numbers: Sequence[Mapping[str, np.ndarray]]) -> Learner:
    """Networks that start from these parameters, one set for each seed."""
    # NumPy puts the seeds together, where JAX would compile a program for every shape.
    parameters = jax.device_put({name: np.stack([some[name] for some in numbers]) for name in shapes(network)})
    return Learner(parameters, jax.jit(jax.vmap(optax.scale_by_adam().init))(parameters))


def update(
    network: Network,
    learner: Learner,
    batch: tuple[Array, ...],
    rate: float,
    *,
    clip: float,
    penalty: Any = None,
    devices: Devices = ALONE,
) -> tuple[Learner, Float[Array, "seeds"]]:
    """One step of Adam for each of the networks.

    Args:
        network: what they are.
        learner: where they are.
        batch: tokens, targets and mask, (seeds, B, T), and lengths, (seeds, B).
        rate: the rate of this step.
        clip: the norm that a gradient may have; a larger one is scaled down to it.
        penalty: that for actions between 0 and 1; None for none.
        devices: those that share the batch.

    Returns:
        The networks after the step, and their losses before it, (seeds,).
    """
    learner, batch = devices.replicated(learner), devices.split(batch)
    return _updated(network, learner, batch, rate, clip=clip, penalty=penalty)


@partial(jax.jit, static_argnums=0, static_argnames="clip")
def _updated(
    network: Network, learner: Learner, batch: tuple[Array, ...], rate: Any, *, clip: float, penalty: Any
) -> tuple[Learner, Array]:
    return jax.vmap(partial(_update, network, rate=rate, clip=clip, penalty=penalty))(learner, batch)


def _update(
    network: Network, learner: Learner, batch: tuple[Array, ...], *, rate: Any, clip: float, penalty: Any
) -> tuple[Learner, Array]:
    value, gradient = jax.value_and_grad(partial(loss, network, penalty=penalty))(learner.parameters, *batch)
    norm = jnp.sqrt(jnp.stack([jnp.sum(each**2) for each in gradient.values()]).sum())
    scale = jnp.where(norm > clip, clip / norm, 1)
    gradient = {name: each * scale for name, each in gradient.items()}
    steps, moments = optax.scale_by_adam().update(gradient, learner.moments)
    parameters = {name: each - jnp.asarray(rate, each.dtype) * steps[name] for name, each in learner.parameters.items()}
    return Learner(parameters, moments), value


@partial(jax.jit, static_argnums=0)
def predict(
    network: Network, learner: Learner, tokens: Int[Array, "seeds batch time"], lengths: Int[Array, "seeds batch"]
) -> Float[Array, "seeds batch time outputs"]:
    """The log probabilities of each step, of each of the networks."""
    logits = jax.vmap(lambda parameters, *each: network.logits(parameters, each[0], lengths=each[1]))
    return jax.nn.log_softmax(logits(learner.parameters, tokens, lengths))


def traced(network: Network, learner: Learner, index: int, tokens: Int[Array, "batch time"]) -> Any:
    """The logits, and the traces of the stacks, while the network of one seed reads."""
    parameters = jax.jit(lambda seeds: {name: each[index] for name, each in seeds.items()})(learner.parameters)
    return jax.jit(partial(network.logits, trace=True))(parameters, tokens)


def saved(learner: Learner) -> list[dict[str, np.ndarray]]:
    """What goes on from here, as NumPy arrays by name, for each seed: parameters, Adam's moments and its count."""
    parts = {"parameters": learner.parameters, "first": learner.moments.mu, "second": learner.moments.nu}
    arrays = {f"{part}.{name}": np.asarray(each) for part, some in parts.items() for name, each in some.items()}
    counts = np.asarray(learner.moments.count)
    return [
        {**{name: each[i] for name, each in arrays.items()}, "count": np.asarray(counts[i], np.int64)}
        for i in range(len(counts))
    ]


def restored(network: Network, saved: Sequence[Mapping[str, np.ndarray]]) -> Learner:
    """The networks that were saved, by this framework or the other."""
    parts = [
        {name: np.stack([each[f"{part}.{name}"] for each in saved]) for name in shapes(network)}
        for part in ("parameters", "first", "second")
    ]
    counts = np.asarray([each["count"] for each in saved], np.int32)
    parameters, first, second, counts = jax.device_put((*parts, counts))
    return Learner(parameters, optax.ScaleByAdamState(counts, first, second))


def _part(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Those whose names begin so, without that beginning."""
    return {key.removeprefix(f"{name}."): each for key, each in arrays.items() if key.startswith(f"{name}.")}


def _linear(parameters: Parameters, name: str, x: Array) -> Array:
    result = matmul(x, parameters[f"{name}.weight"].T)
    return result + jnp.broadcast_to(parameters[f"{name}.bias"], result.shape)


def _normed(parameters: Parameters, name: str, x: Array) -> Array:
    """Layer norm."""
    centred = x - jnp.mean(x, -1, keepdims=True)
    scaled = centred / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + EPSILON)
    weight, bias = (jnp.broadcast_to(parameters[f"{name}.{kind}"], x.shape) for kind in ("weight", "bias"))
    return scaled * weight + bias
