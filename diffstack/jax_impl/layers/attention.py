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

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from diffstack import _checks, _layers
from diffstack._layers import Stack
from diffstack.jax_impl import superposition
from diffstack.jax_impl._arrays import as_array, as_lengths, matmul
from diffstack.jax_impl.controller import MODULES
from diffstack.jax_impl.layers._heads import actions_of, as_vector, grown, linear, start, uniform


@dataclass(frozen=True)
class StackAttention:
    """Attention over time by stacks.

    Its parameters are `actions.weight`, `vectors.weight` and `output.weight`, (out, in).

    Attributes:
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
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl.layers import StackAttention
        >>> layer = StackAttention(8, 4, heads=2)
        >>> parameters = layer.init(jax.random.key(0))
        >>> outputs, carry = jax.jit(layer.scan)(parameters, jnp.ones((2, 5, 8)))
        >>> outputs.shape
        (2, 5, 8)

    References:
        DuSell & Chiang 2024, Stack Attention: Improving the Ability of Transformers to Model Hierarchical Patterns.
    """

    model: int
    dim: int
    heads: int = 1
    stack: str = "superposition"
    capacity: int | None = None
    states: int = 1
    symbols: int = 1

    def __post_init__(self) -> None:
        _checks.check_count("model", self.model, 1)
        _checks.check_count("heads", self.heads, 1)
        _layers.check_stack(self.stack, self.dim, self.capacity, self.states, self.symbols)

    @property
    def _stack(self) -> Stack:
        return Stack(self.stack, self.dim, self.capacity, states=self.states, symbols=self.symbols)

    def init(self, key: Array, *, dtype: Any = jnp.float32) -> dict[str, Array]:
        """Random parameters, uniform as PyTorch draws them."""
        pushed, read = (self.heads * size for size in (self._stack.ends * self.dim, self._stack.read))
        logits = self.heads * self._stack.logits
        shapes = {"actions": (logits, self.model), "vectors": (pushed, self.model), "output": (self.model, read)}
        keys = jax.random.split(key, 3)
        return {
            f"{name}.weight": uniform(key, shape, shape[1], dtype)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
            if shape[0]
        }

    def scan(
        self,
        parameters: dict[str, Array],
        inputs: Array,
        carry: Any = None,
        *,
        lengths: Any = None,
        method: Literal["auto", "sequential", "parallel"] = "auto",
    ) -> tuple[Array, Any]:
        """Run the layer over sequences.

        Args:
            parameters: those of `init`.
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
        _layers.check_parameters("inputs", inputs, parameters)
        if carry is not None:
            _layers.check_state("carry", carry, self.stack, "diffstack.jax_impl")
        lengths = as_lengths(lengths, tuple(batch))
        if carry is None:
            carry = start(self._stack, time, (*batch, self.heads), inputs.dtype)
        elif self.capacity is None:
            carry = grown(self._stack, carry, time)
        if lengths is not None:
            lengths = jnp.broadcast_to(lengths[..., None], (*batch, self.heads))
        actions = actions_of(self.stack, self._split(linear(inputs, parameters, "actions")))
        # Without numbers there is no map to them.
        vectors = self._split(linear(inputs, parameters, "vectors") if self.dim else inputs[..., :0])
        elements = vectors if self._stack.ends == 1 else tuple(jnp.split(vectors, self._stack.ends, -1))
        carry, reads = MODULES[self.stack].scan(carry, actions, elements, lengths=lengths, method=method)
        reads = as_vector(self._stack, reads) if self._stack.ends == 1 else jnp.concatenate(reads, -1)
        reads = jnp.moveaxis(reads, -3, -2).reshape(*batch, time, self.heads * self._stack.read)
        return linear(reads, parameters, "output"), carry

    def step(self, parameters: dict[str, Array], input: Array, carry: Any = None) -> tuple[Array, Any]:
        """One step, for an input (*batch, model), as in generation: the output and the stacks after it."""
        input = as_array("input", input)
        _layers.check_features("input", input, self.model, 1)
        output, carry = self.scan(parameters, input[..., None, :], carry)
        return output[..., 0, :], carry

    def _split(self, array: Array) -> Array:
        """(*batch, T, heads * n) as (*batch, heads, T, n)."""
        return jnp.moveaxis(array.reshape(*array.shape[:-1], self.heads, array.shape[-1] // self.heads), -2, -3)


@dataclass(frozen=True)
class StackTrans:
    """Stacks over the layers of a network: one step of the stacks of every token.

    Its parameters are `actions.weight`, `down.weight`, `query.weight`, `up.weight`, (out, in), and `gate`. Each layer
    of the network has its own, and hands the state on to the next one.

    Attributes:
        model: the size of a token's vector.
        dim: the size of the vectors on a stack.
        heads: the number of stacks of a token.
        slots: the number of rows of a stack.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from diffstack.jax_impl.layers import StackTrans
        >>> layer = StackTrans(8, 2, heads=2, slots=3)
        >>> parameters = layer.init(jax.random.key(0))
        >>> hidden, state = jax.jit(layer.step)(parameters, jnp.ones((2, 5, 8)))
        >>> hidden, state = jax.jit(layer.step)(parameters, hidden, state)
        >>> hidden.shape, state.buffer.shape
        ((2, 5, 8), (2, 5, 2, 3, 3))

    References:
        StackTrans 2025: From Large Language Model to Large Pushdown Automata Model.
    """

    model: int
    dim: int = 16
    heads: int = 4
    slots: int = 24

    def __post_init__(self) -> None:
        for name in ("model", "dim", "heads", "slots"):
            _checks.check_count(name, getattr(self, name), 1)

    def init(self, key: Array, *, dtype: Any = jnp.float32) -> dict[str, Array]:
        """Random parameters, uniform as PyTorch draws them, and a gate of 1."""
        shapes = {
            "actions": (3 * self.heads, self.model),
            "down": (self.heads * self.dim, self.model),
            "query": (self.heads, self.dim),
            "up": (self.model, self.heads * self.dim),
        }
        keys = jax.random.split(key, len(shapes))
        drawn = {
            f"{name}.weight": uniform(key, shape, shape[1], dtype)
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }
        return drawn | {"gate": jnp.ones((), dtype)}

    def step(self, parameters: dict[str, Array], hidden: Array, state: Any = None) -> tuple[Array, Any]:
        """What a layer of the network makes of its tokens.

        Args:
            parameters: those of `init`.
            hidden: the tokens, (*batch, model).
            state: the stacks after the layer before, with rows (*batch, heads, slots, dim + 1); None for empty ones.

        Returns:
            The tokens, (*batch, model), and the stacks after this step.
        """
        hidden = as_array("hidden", hidden)
        _layers.check_features("hidden", hidden, self.model, 1)
        _layers.check_parameters("hidden", hidden, parameters)
        if state is not None:
            _layers.check_state("state", state, "superposition", "diffstack.jax_impl")
        batch = hidden.shape[:-1]
        if state is None:
            rows = Stack("superposition", self.dim + 1, self.slots)
            state = start(rows, 1, (*batch, self.heads), hidden.dtype)
        actions = actions_of("superposition", linear(hidden, parameters, "actions").reshape(*batch, self.heads, 3))
        vectors = linear(hidden, parameters, "down").reshape(*batch, self.heads, self.dim)
        # The mask channel is the last entry of a row.
        state, _ = superposition.step(state, actions, jnp.concatenate([vectors, jnp.ones_like(vectors[..., :1])], -1))
        rows, mask = state.buffer[..., :-1], state.buffer[..., -1:]
        scores = matmul(rows * mask, parameters["query.weight"][..., None])[..., 0]
        reads = matmul(jax.nn.softmax(scores, -1)[..., None, :], rows)[..., 0, :]
        return parameters["gate"] * hidden + linear(reads.reshape(*batch, -1), parameters, "up"), state
