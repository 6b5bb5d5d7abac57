"""A recurrent network with stacks.

At every step the cell sees the input and what the stacks gave to read at the step before; from its new state `h_t` come
the action and the pushed vector of every stack, and `h_t` is the output (Grefenstette et al. 2015, section 3.4;
DuSell & Chiang 2020, section 4):

    h_t = cell([x_t; reads_{t-1}], h_{t-1})          actions = head(W_a h_t + b_a)          vector = tanh(W_v h_t + b_v)

What reads the output, such as a linear layer and a softmax, is the user's.

**Shapes.** Inputs (*batch, T, inputs), outputs (*batch, T, hidden), `lengths` (*batch,).

**Parameters.** `cell.weight_ih`, `cell.weight_hh`, `cell.bias_ih`, `cell.bias_hh` as in PyTorch's cells, and for stack
i `heads.i.actions.weight`, `heads.i.actions.bias`, `heads.i.vector.weight`, `heads.i.vector.bias`. Weights are
(out, in).

**Carry.** A pair: the state of the cell, (h,) or (h, c), and a tuple of the states of the stacks.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from diffstack import _layers
from diffstack._layers import Stack
from diffstack.torch_impl._arrays import as_array
from diffstack.torch_impl.controller import unroll
from diffstack.torch_impl.layers._heads import actions_of, grown, start


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
        cell: "lstm", "gru" or "rnn" (with tanh).

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

    def __init__(self, inputs: int, hidden: int, stacks: Any, cell: Literal["lstm", "gru", "rnn"] = "lstm") -> None:
        super().__init__()
        self.inputs, self.hidden, self.kind = inputs, hidden, cell
        self.stacks: tuple[Stack, ...] = _layers.check_recurrent(inputs, hidden, stacks, cell)
        self.cell = _CELLS[cell](_layers.seen(inputs, self.stacks), hidden)
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
            carry: where an earlier call has ended; None starts with zeros and empty stacks.
            lengths: how many steps each sequence has, (*batch,), where they differ; outputs are zero after its end.
            method: that of `unroll`.
            final_states: False where no call goes on from here, which saves time and memory; the carry is then None.
            trace: whether to return a `Trace` of each stack as well.

        Returns:
            The outputs (*batch, T, hidden), the carry after the last step, and the traces if they were asked for.
        """
        inputs = as_array("inputs", inputs)
        _layers.check_features("inputs", inputs.shape, self.inputs, 2)
        given, carry = carry, self._carry(inputs, carry)
        hidden, states = carry

        def controller(hidden: Any, input: Tensor, reads: Any) -> tuple[Any, Any, Any, Any]:
            hidden = self._cell(hidden, input, reads)
            actions, elements = self._decide(hidden[0])
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
        _layers.check_features("input", input.shape, self.inputs, 1)
        output, carry = self(input[..., None, :], carry, method="sequential")
        return output[..., 0, :], carry

    def _carry(self, inputs: Tensor, carry: Any) -> Any:
        """The carry to start from, with room for all steps where a stack's capacity is what it needs."""
        *batch, time, _ = inputs.shape
        if carry is None:
            zeros = inputs.new_zeros((*batch, self.hidden))
            slots = (stack.capacity or stack.ends * time for stack in self.stacks)
            states = (
                start(stack.family, stack.dim, n, tuple(batch), inputs)
                for stack, n in zip(self.stacks, slots, strict=True)
            )
            return (zeros, zeros) if self.kind == "lstm" else (zeros,), tuple(states)
        hidden, states = carry
        return hidden, tuple(
            state if stack.capacity else grown(stack.family, state, time)
            for stack, state in zip(self.stacks, states, strict=True)
        )

    def _cell(self, hidden: Any, input: Tensor, reads: Any) -> Any:
        """The state of the cell after it has seen the input and the reads."""
        each = [read for some in reads for read in (some if isinstance(some, tuple) else (some,))]
        seen = torch.cat([input, *each], -1)
        # PyTorch's cells take one batch axis.
        batch = seen.shape[:-1]
        rows = tuple(part.reshape(-1, self.hidden) for part in hidden)
        result = self.cell(seen.reshape(-1, seen.shape[-1]), rows if self.kind == "lstm" else rows[0])
        result = result if self.kind == "lstm" else (result,)
        return tuple(part.reshape(*batch, self.hidden) for part in result)

    def _decide(self, h: Tensor) -> tuple[Any, Any]:
        """The action and the pushed vectors of every stack."""
        actions, elements = zip(*(head(h) for head in self.heads), strict=True)
        return actions, elements


class _Head(nn.Module):
    """What a network does with one of its stacks."""

    def __init__(self, hidden: int, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.actions = nn.Linear(hidden, stack.logits)
        self.vector = nn.Linear(hidden, stack.ends * stack.dim)
        with torch.no_grad():
            self.actions.bias.copy_(torch.tensor(stack.bias))

    def forward(self, h: Tensor) -> tuple[Any, Any]:
        vector = _VECTORS[self.stack.vector](self.vector(h))
        elements = vector if self.stack.ends == 1 else torch.split(vector, self.stack.dim, -1)
        return actions_of(self.stack.family, self.actions(h)), elements


_CELLS: Any = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
_VECTORS: Any = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, None: lambda vector: vector}
