"""Stack attention: a stack in place of the attention of a transformer.

**Over time** (DuSell & Chiang 2024): every head has a stack, the actions and vectors of all steps come from the inputs,
and the output is a map of the reads. Maps have no bias, and nothing is done to the vectors; the norm before, the
dropout and the residual around it are the user's:

    actions_t = softmax(W_a x_t)       vectors_t = W_v x_t       reads = scan(actions, vectors)       y_t = W_o reads_t

Since all actions are known, the stacks run by `scan`'s parallel form. It is causal: y_t depends on x up to t.

**Over the layers of a network** (StackTrans 2025): every token has its own stacks, and each layer of the network takes
one step on them. A mask channel moves with the vectors, and a push puts a 1 there, so that it says how much of a slot
is filled. All slots are read, weighed by a learnt query, and a learnt gate scales the residual:

    weights = softmax_i(w_g . (mask_i vector_i))          read = sum_i weights_i vector_i          h' = g h + W_up reads
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffstack import _checks, _layers
from diffstack._layers import Stack
from diffstack.torch_impl import superposition
from diffstack.torch_impl._arrays import as_array, as_lengths, matmul
from diffstack.torch_impl.controller import MODULES
from diffstack.torch_impl.layers._heads import actions_of, as_vector, grown, start


class StackAttention(nn.Module):
    """Attention over time by stacks.

    Its parameters are `actions.weight`, `vectors.weight` and `output.weight`, (out, in).

    Args:
        model: the size of an input and of an output.
        dim: the size of the vectors on a stack.
        heads: the number of stacks, which all see the whole input.
        stack: the name of their family.
        capacity: their number of slots; None for as many as the sequences need. Steps and segments give the outputs of
            one run where there is room for every step.
        states: the number of states of nondeterministic stacks, which run fastest with a capacity of 1; that is enough
            where no call goes on from the carry.
        symbols: the number of their stack symbols.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.layers import StackAttention
        >>> layer = StackAttention(8, 4, heads=2)
        >>> outputs, carry = layer(torch.ones((2, 5, 8)))
        >>> outputs.shape
        torch.Size([2, 5, 8])

    References:
        DuSell & Chiang 2024, Stack Attention: Improving the Ability of Transformers to Model Hierarchical Patterns.
    """

    def __init__(
        self,
        model: int,
        dim: int,
        heads: int = 1,
        stack: str = "superposition",
        capacity: int | None = None,
        states: int = 1,
        symbols: int = 1,
    ) -> None:
        super().__init__()
        _checks.check_count("model", model, 1)
        _checks.check_count("heads", heads, 1)
        _layers.check_stack(stack, dim, capacity, states, symbols)
        self.model, self.dim, self.heads, self.stack, self.capacity = model, dim, heads, stack, capacity
        self.states, self.symbols = states, symbols
        self._stack = Stack(stack, dim, capacity, states=states, symbols=symbols)
        self.actions = nn.Linear(model, heads * self._stack.logits, bias=False)
        # Without numbers there is no map to them.
        self.vectors = nn.Linear(model, heads * self._stack.ends * dim, bias=False) if dim else None
        self.output = nn.Linear(heads * self._stack.read, model, bias=False)

    def forward(
        self,
        inputs: Tensor,
        carry: Any = None,
        *,
        lengths: Any = None,
        method: Literal["auto", "sequential", "parallel"] = "auto",
    ) -> tuple[Tensor, Any]:
        """Run the layer over sequences.

        Args:
            inputs: (*batch, T, model).
            carry: the stacks that an earlier call has returned, (*batch, heads, ...); None for empty ones.
            lengths: how many steps each sequence has, (*batch,), where they differ; outputs are zero after its end.
            method: that of the family's `scan`.

        Returns:
            The outputs, (*batch, T, model), and the stacks after the last step.
        """
        inputs = as_array("inputs", inputs)
        _layers.check_features("inputs", inputs, self.model, 2)
        *batch, time, _ = inputs.shape
        if carry is not None:
            _layers.check_state("carry", carry, self.stack, "diffstack.torch_impl")
        lengths = as_lengths(lengths, tuple(batch), inputs)
        if carry is None:
            carry = start(self._stack, time, (*batch, self.heads), inputs)
        elif self.capacity is None:
            carry = grown(self._stack, carry, time)
        if lengths is not None:
            lengths = lengths[..., None].expand(*batch, self.heads)
        actions = actions_of(self.stack, self._split(self.actions(inputs)))
        # Autocast narrows them, and the discrete family takes its own dtype alone.
        vectors = self._split(self.vectors(inputs) if self.vectors else inputs[..., :0]).to(inputs.dtype)
        elements = vectors if self._stack.ends == 1 else torch.split(vectors, self.dim, -1)
        carry, reads = MODULES[self.stack].scan(carry, actions, elements, lengths=lengths, method=method)
        reads = as_vector(self._stack, reads) if self._stack.ends == 1 else torch.cat(reads, -1)
        reads = torch.movedim(reads, -3, -2).reshape(*batch, time, self.heads * self._stack.read)
        return self.output(reads), carry

    def step(self, input: Tensor, carry: Any = None) -> tuple[Tensor, Any]:
        """One step, for an input (*batch, model), as in generation: the output and the stacks after it."""
        input = as_array("input", input)
        _layers.check_features("input", input, self.model, 1)
        output, carry = self(input[..., None, :], carry)
        return output[..., 0, :], carry

    def _split(self, array: Tensor) -> Tensor:
        """(*batch, T, heads * n) as (*batch, heads, T, n)."""
        return torch.movedim(array.reshape(*array.shape[:-1], self.heads, array.shape[-1] // self.heads), -2, -3)


class StackTrans(nn.Module):
    """Stacks over the layers of a network: one step of the stacks of every token.

    Its parameters are `actions.weight`, `down.weight`, `query.weight`, `up.weight`, (out, in), and `gate`. Each layer
    of the network has its own, and hands the state on to the next one.

    Args:
        model: the size of a token's vector.
        dim: the size of the vectors on a stack.
        heads: the number of stacks of a token.
        slots: the number of rows of a stack.

    Example:
        >>> import torch
        >>> from diffstack.torch_impl.layers import StackTrans
        >>> layer = StackTrans(8, 2, heads=2, slots=3)
        >>> hidden, state = layer(torch.ones((2, 5, 8)))
        >>> hidden, state = layer(hidden, state)
        >>> hidden.shape, state.buffer.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 5, 2, 3, 3]))

    References:
        StackTrans 2025: From Large Language Model to Large Pushdown Automata Model.
    """

    def __init__(self, model: int, dim: int = 16, heads: int = 4, slots: int = 24) -> None:
        super().__init__()
        for name, value in (("model", model), ("dim", dim), ("heads", heads), ("slots", slots)):
            _checks.check_count(name, value, 1)
        self.model, self.dim, self.heads, self.slots = model, dim, heads, slots
        self.actions = nn.Linear(model, 3 * heads, bias=False)
        self.down = nn.Linear(model, heads * dim, bias=False)
        self.query = nn.Linear(dim, heads, bias=False)
        self.up = nn.Linear(heads * dim, model, bias=False)
        self.gate = nn.Parameter(torch.ones(()))

    def forward(self, hidden: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What a layer of the network makes of its tokens.

        Args:
            hidden: the tokens, (*batch, model).
            state: the stacks after the layer before, with rows (*batch, heads, slots, dim + 1); None for empty ones.

        Returns:
            The tokens, (*batch, model), and the stacks after this step.
        """
        hidden = as_array("hidden", hidden)
        _layers.check_features("hidden", hidden, self.model, 1)
        if state is not None:
            _layers.check_state("state", state, "superposition", "diffstack.torch_impl")
        batch = hidden.shape[:-1]
        if state is None:
            rows = Stack("superposition", self.dim + 1, self.slots)
            state = start(rows, 1, (*batch, self.heads), hidden)
        actions = actions_of("superposition", self.actions(hidden).reshape(*batch, self.heads, 3))
        vectors = self.down(hidden).reshape(*batch, self.heads, self.dim)
        # The mask channel is the last entry of a row.
        state, _ = superposition.step(state, actions, torch.cat([vectors, torch.ones_like(vectors[..., :1])], -1))
        rows, mask = state.buffer[..., :-1], state.buffer[..., -1:]
        scores = matmul(rows * mask, self.query.weight[..., None])[..., 0]
        reads = matmul(torch.softmax(scores, -1)[..., None, :], rows)[..., 0, :]
        return self.gate * hidden + self.up(reads.reshape(*batch, -1)), state
