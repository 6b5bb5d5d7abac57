"""Layers built on stacks: a recurrent network, attention over time, and stacks over the layers of a network."""

from diffstack._layers import Stack
from diffstack.torch_impl.layers.attention import StackAttention, StackTrans
from diffstack.torch_impl.layers.recurrent import StackRNN

__all__ = ["Stack", "StackAttention", "StackRNN", "StackTrans"]
