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

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffstack import _layers
from diffstack._layers import Stack
from diffstack.torch_impl._arrays import as_array
from diffstack.torch_impl.controller import unroll
from diffstack.torch_impl.layers._heads import actions_of, as_vector, grown, start


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


class StackRNN(nn.Module):
    """A recurrent network with one stack or several.

    Args:
        inputs: the size of an input.
        hidden: the number of units.
        stacks: a `Stack`, or a tuple of them.
        cell: "lstm", "gru", "rnn" (with tanh), or "feedforward", which is "rnn" without `h_{t-1}`: all that such a
            network remembers is on its stacks.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.layers import Stack, StackRNN
        >>> layer = StackRNN(3, 8, Stack("neural_stack", 4))
        >>> outputs, carry = layer(torch.ones((2, 5, 3)))
        >>> outputs.shape
        torch.Size([2, 5, 8])

    References:
        Grefenstette et al. 2015, Learning to Transduce with Unbounded Memory, section 3.4.
    """

    def __init__(
        self, inputs: int, hidden: int, stacks: Any, cell: Literal["lstm", "gru", "rnn", "feedforward"] = "lstm"
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.kind = inputs, hidden, cell
        self.stacks: tuple[Stack, ...] = _layers.check_recurrent(inputs, hidden, stacks, cell)
        self.cell = _CELLS[cell](_layers.cell_inputs(inputs, self.stacks), hidden)
        self.heads = nn.ModuleList(_Head(hidden, stack) for stack in self.stacks)

    def forward(
        self,
        inputs: Tensor,
        carry: Any = None,
        *,
        lengths: Any = None,
        method: Literal["auto", "sequential", "chunked"] = "auto",
        final_states: bool = True,
        trace: bool = False,
    ) -> Any:
        """Run the network over sequences.

        Args:
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
        _layers.check_carry(carry, self.stacks, "diffstack.torch_impl")
        given, carry = carry, self._carry(inputs, carry)
        hidden, states = carry

        def controller(hidden: Any, input: Tensor, reads: Any) -> tuple[Any, Any, Any, Any]:
            hidden = self._cell(hidden, input, reads)
            actions, elements = self._decide(hidden[0], inputs.dtype)
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

    def step(self, input: Tensor, carry: Any = None) -> tuple[Tensor, Any]:
        """One step, for an input (*batch, inputs): the output (*batch, hidden) and the carry after it."""
        input = as_array("input", input)
        _layers.check_features("input", input, self.inputs, 1)
        output, carry = self(input[..., None, :], carry, method="sequential")
        return output[..., 0, :], carry

    def _carry(self, inputs: Tensor, carry: Any) -> Any:
        """The carry to start from, with room for all steps where a stack's capacity is what it needs."""
        *batch, time, _ = inputs.shape
        if carry is None:
            zeros = inputs.new_zeros((*batch, self.hidden))
            states = (start(stack, time, tuple(batch), inputs) for stack in self.stacks)
            return (zeros, zeros) if self.kind == "lstm" else (zeros,), tuple(states)
        hidden, states = carry
        return hidden, tuple(
            state if stack.capacity else grown(stack, state, time)
            for stack, state in zip(self.stacks, states, strict=True)
        )

    def _cell(self, hidden: Any, input: Tensor, reads: Any) -> Any:
        """The state of the cell after it has seen the input and the reads."""
        each = [
            as_vector(stack, read)
            for stack, some in zip(self.stacks, reads, strict=True)
            for read in (some if stack.ends > 1 else (some,))
        ]
        seen = torch.cat([input, *each], -1)
        # Not the module's own call, for which `torch.vmap` has no rule.
        of_input = functional.linear(seen, self.cell.weight_ih, self.cell.bias_ih)
        if self.kind == "feedforward":
            return (torch.tanh(of_input),)
        of_hidden = functional.linear(hidden[0], self.cell.weight_hh, self.cell.bias_hh)
        return _STEPS[self.kind](of_input, of_hidden, *hidden)

    def _decide(self, h: Tensor, dtype: torch.dtype) -> tuple[Any, Any]:
        """The action and the pushed vectors of every stack."""
        actions, elements = zip(*(head(h, dtype) for head in self.heads), strict=True)
        return actions, elements


class _Feedforward(nn.Module):
    """The parameters of a cell that has no state, drawn as PyTorch draws those of its cells."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden)
        self.weight_ih = nn.Parameter(torch.empty(hidden, inputs).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound))


class _Head(nn.Module):
    """What a network does with one of its stacks."""

    def __init__(self, hidden: int, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.actions = nn.Linear(hidden, stack.logits)
        self.vector = nn.Linear(hidden, stack.ends * stack.dim) if stack.dim else None
        with torch.no_grad():
            self.actions.bias.copy_(torch.tensor(stack.bias))

    def forward(self, h: Tensor, dtype: torch.dtype) -> tuple[Any, Any]:
        vector = _VECTORS[self.stack.vector](self.vector(h) if self.vector else h[..., :0])
        # Autocast narrows it, and the discrete family takes its own dtype alone.
        vector = vector.to(dtype)
        elements = vector if self.stack.ends == 1 else torch.split(vector, self.stack.dim, -1)
        return actions_of(self.stack.family, self.actions(h), hard=self.stack.hard), elements


def _lstm(of_input: Tensor, of_hidden: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = torch.chunk(of_input + of_hidden, 4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(of_input: Tensor, of_hidden: Tensor, h: Tensor) -> tuple[Tensor]:
    (r, z, n), (of_r, of_z, of_n) = torch.chunk(of_input, 3, -1), torch.chunk(of_hidden, 3, -1)
    r, z = torch.sigmoid(r + of_r), torch.sigmoid(z + of_z)
    return ((1 - z) * torch.tanh(n + r * of_n) + z * h,)


def _rnn(of_input: Tensor, of_hidden: Tensor, h: Tensor) -> tuple[Tensor]:
    return (torch.tanh(of_input + of_hidden),)


_STEPS: Any = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}
_CELLS: Any = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell, "feedforward": _Feedforward}
_VECTORS: Any = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, None: lambda vector: vector}
