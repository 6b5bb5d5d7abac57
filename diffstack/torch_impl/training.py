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
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from diffstack.families import FAMILIES
from diffstack.torch_impl._devices import ALONE, Devices
from diffstack.torch_impl.layers import StackAttention, StackRNN

Parameters = dict[str, Tensor]
EPSILON = 1e-5


class Learner(NamedTuple):
    """Networks that learn, one for each seed, and what Adam remembers of their gradients."""

    parameters: tuple[Parameters, ...]
    moments: tuple[torch.optim.Adam, ...]


class Network(nn.Module):
    """A layer with stacks between an embedding and a readout.

    Args:
        inputs: the number of tokens.
        outputs: the number of classes.
        embedding: the size of a token's vector.
        layer: a `StackRNN` of `embedding` inputs, or a `StackAttention` whose model is `embedding`.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.layers import Stack, StackRNN
        >>> from diffstack.torch_impl.training import Network
        >>> network = Network(3, 2, 4, StackRNN(4, 8, Stack("neural_stack", 4)))
        >>> network(torch.tensor([[0, 1, 2]])).shape
        torch.Size([1, 3, 2])
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, layer: StackRNN | StackAttention) -> None:
        super().__init__()
        size = layer.hidden if isinstance(layer, StackRNN) else embedding
        self.embedding, self.layer, self.readout = nn.Embedding(inputs, embedding), layer, nn.Linear(size, outputs)
        if isinstance(layer, StackAttention):
            self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)
            self.attention_norm, self.norm, self.readout_norm = (nn.LayerNorm(size, EPSILON) for _ in range(3))

    def forward(
        self,
        tokens: Int[Tensor, "*batch time"],
        *,
        lengths: Int[Tensor, "*batch"] | None = None,
        trace: bool = False,
    ) -> Any:
        """The logits of each step, (*batch, T, outputs); and the traces of the stacks if they are asked for."""
        x, traces = self.embedding(tokens), [()]
        if isinstance(self.layer, StackRNN):
            x, _, *traces = self.layer(x, lengths=lengths, final_states=False, trace=trace)
        else:
            attended, _ = self.layer(self.attention_norm(x), lengths=lengths)
            x = x + attended
            x = x + self.down(torch.relu(self.up(self.norm(x))))
            x = self.readout_norm(x)
        logits = self.readout(x)
        return (logits, traces[0]) if trace else logits


def loss(
    network: Network,
    parameters: Parameters,
    tokens: Int[Tensor, "batch time"],
    targets: Int[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    lengths: Int[Tensor, "batch"],
    *,
    penalty: Any = None,
    counts: Sequence[Any] | None = None,
) -> Float[Tensor, ""]:
    """The mean cross entropy of the targets that count, in nats, and a penalty for actions between 0 and 1.

    With the `counts` of a whole batch it is the share of a part: such losses, and their gradients, add up over the
    parts to those of the whole batch, however many targets count in each.
    """
    logits, traces = functional_call(network, parameters, tokens, {"lengths": lengths, "trace": True})
    right = torch.gather(functional.log_softmax(logits, -1), -1, targets[..., None].long())[..., 0]
    # A batch whose targets none of which count has a loss of 0.
    counting, live = (torch.clamp(each, min=1) for each in counts or counted(mask, lengths))
    mean = -torch.sum(torch.where(mask, right, 0)) / counting
    if penalty is None or not isinstance(network.layer, StackRNN):
        return mean
    soft = (softness(stack.family, each.actions) for stack, each in zip(network.layer.stacks, traces, strict=True))
    return mean + penalty * sum(torch.sum(each) for each in soft) / live


def counted(mask: Bool[Tensor, "*batch time"], lengths: Int[Tensor, "*batch"]) -> tuple[Any, Any]:
    """How many targets of a batch count, and how many steps its sequences have."""
    return torch.sum(mask), torch.sum(lengths)


def softness(family: str, actions: Any) -> Any:
    """How far actions are from hard ones, a (1 - a); nothing where they are hard, or logarithms."""
    table = FAMILIES[family]
    return actions * (1 - actions) if table.action and not table.automaton else torch.zeros(())


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """The shapes of its parameters, by name."""
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


def start(network: Network, numbers: Sequence[Mapping[str, np.ndarray]]) -> Learner:
    """Networks that start from these parameters, one set for each seed."""
    parameters = tuple(
        {name: torch.from_numpy(np.array(some[name])).requires_grad_() for name in shapes(network)} for some in numbers
    )
    return Learner(parameters, tuple(torch.optim.Adam(each.values(), lr=0.0) for each in parameters))


def update(
    network: Network,
    learner: Learner,
    batch: tuple[Tensor, ...],
    rate: float,
    *,
    clip: float,
    penalty: Any = None,
    devices: Devices = ALONE,
) -> tuple[Learner, Float[Tensor, "seeds"]]:
    """One step of Adam for each of the networks.

    Args:
        network: what they are.
        learner: where they are; they are changed.
        batch: tokens, targets and mask, (seeds, B, T), and lengths, (seeds, B).
        rate: the rate of this step.
        clip: the norm that a gradient may have; a larger one is scaled down to it.
        penalty: that for actions between 0 and 1; None for none.
        devices: those that share the batch.

    Returns:
        The networks after the step, and their losses before it, (seeds,).
    """
    step = partial(_update, network, rate=rate, clip=clip, penalty=penalty, devices=devices)
    values = [
        step(Learner((parameters,), (moments,)), each)
        for parameters, moments, *each in zip(*learner, *devices.split(batch), strict=True)
    ]
    return learner, torch.stack(values)


def _update(
    network: Network,
    learner: Learner,
    batch: Sequence[Tensor],
    *,
    rate: float,
    clip: float,
    penalty: Any,
    devices: Devices,
) -> Tensor:
    (parameters,), (moments,) = learner
    tokens, targets, mask, lengths = batch
    counts = devices.totals(counted(mask, lengths))
    value = loss(network, parameters, tokens, targets, mask, lengths, penalty=penalty, counts=counts)
    gradient = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
    total, *gradients = devices.totals([value.detach(), *gradient])
    norm = torch.sqrt(torch.stack([torch.sum(each**2) for each in gradients]).sum())
    scale = torch.where(norm > clip, clip / norm, 1)
    for parameter, each in zip(parameters.values(), gradients, strict=True):
        parameter.grad = each * scale
    moments.param_groups[0]["lr"] = rate
    moments.step()
    return total


@torch.no_grad()
def predict(
    network: Network,
    learner: Learner,
    tokens: Int[Tensor, "seeds batch time"],
    lengths: Int[Tensor, "seeds batch"],
) -> Float[Tensor, "seeds batch time outputs"]:
    """The log probabilities of each step, of each of the networks."""
    each = zip(learner.parameters, tokens, lengths, strict=True)
    logits = [functional_call(network, parameters, some, {"lengths": ends}) for parameters, some, ends in each]
    return functional.log_softmax(torch.stack(logits), -1)


@torch.no_grad()
def traced(network: Network, learner: Learner, index: int, tokens: Int[Tensor, "batch time"]) -> Any:
    """The logits, and the traces of the stacks, while the network of one seed reads."""
    return functional_call(network, learner.parameters[index], tokens, {"trace": True})


def saved(learner: Learner) -> list[dict[str, np.ndarray]]:
    """What goes on from here, as NumPy arrays by name, for each seed: parameters, Adam's moments and its count."""
    found = []
    for parameters, moments in zip(*learner, strict=True):
        arrays: dict[str, np.ndarray] = {}
        count = 0
        for name, parameter in parameters.items():
            # Adam remembers nothing before its first step.
            state = moments.state[parameter] or dict.fromkeys(("exp_avg", "exp_avg_sq"), torch.zeros_like(parameter))
            parts = {"parameters": parameter, "first": state["exp_avg"], "second": state["exp_avg_sq"]}
            arrays |= {f"{part}.{name}": each.detach().cpu().numpy().copy() for part, each in parts.items()}
            count = int(state.get("step", 0))
        found.append(arrays | {"count": np.asarray(count, np.int64)})
    return found


def restored(network: Network, saved: Sequence[Mapping[str, np.ndarray]]) -> Learner:
    """The networks that were saved, by this framework or the other."""
    learner = start(network, [_part(each, "parameters") for each in saved])
    for parameters, moments, arrays in zip(*learner, saved, strict=True):
        for name, parameter in parameters.items():
            first, second = (torch.from_numpy(np.array(arrays[f"{part}.{name}"])) for part in ("first", "second"))
            step = torch.tensor(float(arrays["count"]))
            moments.state[parameter] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    return learner


def _part(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Those whose names begin so, without that beginning."""
    return {key.removeprefix(f"{name}."): each for key, each in arrays.items() if key.startswith(f"{name}.")}
