"""A recurrent network with stacks.

At every step the cell sees the input and what was read from the stacks at the step before. From its new state `h_t`
come the action and the pushed vector of every stack, and `h_t` is the output (Grefenstette et al. 2015, section 3.4;
DuSell & Chiang 2020, section 4):

    h_t = cell([x_t; reads_{t-1}], h_{t-1})          actions = head(W_a h_t + b_a)          vector = tanh(W_v h_t + b_v)

What reads the output, such as a linear layer and a softmax, is the user's.

**Shapes.** Inputs (*batch, T, inputs), outputs (*batch, T, hidden), `lengths` (*batch,).

**Parameters.** `cell.weight_ih`, `cell.weight_hh`, `cell.bias_ih`, `cell.bias_hh` as in PyTorch's cells (a feedforward
cell has no `hh`), and for stack i `heads.i.actions.weight`, `heads.i.actions.bias`, `heads.i.vector.weight`,
`heads.i.vector.bias`. Weights are (out, in).

**Carry.** A pair: the state of the cell, (h,) or (h, c), and a tuple of the states of the stacks, even of one alone.

**Capacity.** A run over a sequence drops nothing of a neural stack, queue or deque; what goes on in the carry has the
stack's capacity. So segments, and steps, give the outputs of one run where the capacity is None, or has room for every
step. A smaller one forgets between calls. With None the stacks grow from call to call, which in JAX
compiles every call anew.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from diffstack import _layers
from diffstack._layers import Stack
from diffstack.jax_impl._arrays import as_array, matmul, sharded_like
from diffstack.jax_impl.controller import unroll
from diffstack.jax_impl.layers._heads import actions_of, as_vector, grown, linear, start, uniform


class Trace(NamedTuple):
    """What a network does with one of its stacks at every step, for pictures.

    Attributes:
        actions: as the family's `scan` takes them.
        elements: what is pushed, as the family's `scan` takes it.
        reads: what the step has seen of the stack, which is the read after the step before.
    """

    actions: Any
    elements: Any
    reads: Any


@dataclass(frozen=True)
class StackRNN:
    """A recurrent network with one stack or several.

    Attributes:
        inputs: the size of an input.
        hidden: the number of units.
        stacks: a `Stack`, or a tuple of them.
        cell: "lstm", "gru", "rnn" (with tanh), or "feedforward", which is "rnn" without `h_{t-1}`: all that such a
            network remembers is on its stacks.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl.layers import Stack, StackRNN
        >>> layer = StackRNN(3, 8, Stack("neural_stack", 4))
        >>> parameters = layer.init(jax.random.key(0))
        >>> outputs, carry = jax.jit(layer.scan)(parameters, jnp.ones((2, 5, 3)))
        >>> outputs.shape
        (2, 5, 8)

    References:
        Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, section 3.4.
    """

    inputs: int
    hidden: int
    stacks: tuple[Stack, ...]
    cell: Literal["lstm", "gru", "rnn", "feedforward"] = "lstm"

    def __post_init__(self) -> None:
        stacks = _layers.check_recurrent(self.inputs, self.hidden, self.stacks, self.cell)
        object.__setattr__(self, "stacks", stacks)

    def init(self, key: Array, *, dtype: Any = jnp.float32) -> dict[str, Array]:
        """Random parameters, uniform as PyTorch draws them, with the biases of the pops where the stacks want them."""
        gates, seen = _layers.GATES[self.cell] * self.hidden, _layers.cell_inputs(self.inputs, self.stacks)
        shapes: dict[str, tuple[int, ...]] = {
            "cell.weight_ih": (gates, seen),
            "cell.weight_hh": (gates, self.hidden),
            "cell.bias_ih": (gates,),
            "cell.bias_hh": (gates,),
        }
        if self.cell == "feedforward":
            del shapes["cell.weight_hh"], shapes["cell.bias_hh"]
        for i, stack in enumerate(self.stacks):
            for name, size in (("actions", stack.logits), ("vector", stack.ends * stack.dim)):
                if size:
                    shapes |= {f"heads.{i}.{name}.weight": (size, self.hidden), f"heads.{i}.{name}.bias": (size,)}
        keys = jax.random.split(key, len(shapes))
        drawn = {
            name: uniform(key, shape, self.hidden, dtype)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        biases = {f"heads.{i}.actions.bias": jnp.asarray(each.bias, dtype) for i, each in enumerate(self.stacks)}
        return drawn | biases

    def scan(
        self,
        parameters: dict[str, Array],
        inputs: Array,
        carry: Any = None,
        *,
        lengths: Any = None,
        method: Literal["auto", "sequential", "chunked"] = "auto",
        final_states: bool = True,
        trace: bool = False,
    ) -> Any:
        """Run the network over sequences.

        Args:
            parameters: those of `init`.
            inputs: (*batch, T, inputs).
            carry: what an earlier call has returned; None starts with zeros and empty stacks.
            lengths: how many steps each sequence has, (*batch,), where they differ; outputs are zero after its end.
            method: that of `unroll`.
            final_states: False where no call goes on from here, which saves time and memory; the carry is then None.
            trace: whether to return a `Trace` of each stack as well.

        Returns:
            The outputs (*batch, T, hidden), the carry after the last step, and the traces if they were asked for.
        """
        inputs = as_array("inputs", inputs)
        _layers.check_features("inputs", inputs, self.inputs, 2)
        _layers.check_carry(carry, self.stacks, "diffstack.jax_impl")
        _layers.check_parameters("inputs", inputs, parameters)
        given, carry = carry, self._carry(inputs, carry)
        hidden, states = carry

        def controller(hidden: Any, input: Array, reads: Any) -> tuple[Any, Any, Any, Any]:
            hidden = self._cell(parameters, hidden, input, reads)
            actions, elements = self._decide(parameters, hidden[0])
            # What is not returned is not kept.
            return hidden, actions, elements, (hidden[0], (actions, elements, reads) if trace else ())

        (hidden, states), (outputs, seen) = unroll(
            controller,
            hidden,
            states,
            inputs,
            lengths=lengths,
            method=method,
            starts_empty=given is None,
            final_states=final_states,
        )
        carry = (hidden, states) if final_states else None
        traces = tuple(Trace(*each) for each in zip(*seen, strict=True))
        return (outputs, carry, traces) if trace else (outputs, carry)

    def step(self, parameters: dict[str, Array], input: Array, carry: Any = None) -> tuple[Array, Any]:
        """One step, for an input (*batch, inputs): the output (*batch, hidden) and the carry after it."""
        input = as_array("input", input)
        _layers.check_features("input", input, self.inputs, 1)
        output, carry = self.scan(parameters, input[..., None, :], carry, method="sequential")
        return output[..., 0, :], carry

    def _carry(self, inputs: Array, carry: Any) -> Any:
        """The carry to start from, with room for all steps where a stack's capacity is what it needs."""
        *batch, time, _ = inputs.shape
        if carry is None:
            zeros = sharded_like(jnp.zeros_like(inputs, shape=(*batch, self.hidden)), inputs, len(batch))
            states = (start(stack, time, tuple(batch), inputs.dtype) for stack in self.stacks)
            return (zeros, zeros) if self.cell == "lstm" else (zeros,), tuple(states)
        hidden, states = carry
        return hidden, tuple(
            state if stack.capacity else grown(stack, state, time)
            for stack, state in zip(self.stacks, states, strict=True)
        )

    def _cell(self, parameters: dict[str, Array], hidden: Any, input: Array, reads: Any) -> Any:
        """The state of the cell after it has seen the input and the reads."""
        each = [
            as_vector(stack, read)
            for stack, some in zip(self.stacks, reads, strict=True)
            for read in (some if stack.ends > 1 else (some,))
        ]
        seen = jnp.concatenate([input, *each], -1)
        of_input = _affine(seen, parameters["cell.weight_ih"], parameters["cell.bias_ih"])
        if self.cell == "feedforward":
            return (jnp.tanh(of_input),)
        of_hidden = _affine(hidden[0], parameters["cell.weight_hh"], parameters["cell.bias_hh"])
        return _CELLS[self.cell](of_input, of_hidden, *hidden)

    def _decide(self, parameters: dict[str, Array], h: Array) -> tuple[Any, Any]:
        """The action and the pushed vectors of every stack."""
        actions, elements = [], []
        for i, stack in enumerate(self.stacks):
            actions.append(actions_of(stack.family, linear(h, parameters, f"heads.{i}.actions"), hard=stack.hard))
            vector = linear(h, parameters, f"heads.{i}.vector") if stack.dim else h[..., :0]
            vector = _VECTORS[stack.vector](vector)
            elements.append(vector if stack.ends == 1 else tuple(jnp.split(vector, stack.ends, -1)))
        return tuple(actions), tuple(elements)


def _affine(x: Array, weight: Array, bias: Array) -> Array:
    result = matmul(x, weight.T)
    return result + jnp.broadcast_to(bias, result.shape)


def _lstm(of_input: Array, of_hidden: Array, h: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = jnp.split(of_input + of_hidden, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(of_input: Array, of_hidden: Array, h: Array) -> tuple[Array]:
    (r, z, n), (of_r, of_z, of_n) = jnp.split(of_input, 3, -1), jnp.split(of_hidden, 3, -1)
    r, z = jax.nn.sigmoid(r + of_r), jax.nn.sigmoid(z + of_z)
    return ((1 - z) * jnp.tanh(n + r * of_n) + z * h,)


def _rnn(of_input: Array, of_hidden: Array, h: Array) -> tuple[Array]:
    return (jnp.tanh(of_input + of_hidden),)


_CELLS: Any = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
_VECTORS: Any = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, None: lambda vector: vector}
