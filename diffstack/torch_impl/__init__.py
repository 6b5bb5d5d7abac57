"""Differentiable stacks as pure functions in PyTorch."""

from diffstack.torch_impl import _requires as _requires
from diffstack.torch_impl import discrete, inverse, pointer, reversal
from diffstack.torch_impl.inverse import learn_input
from diffstack.torch_impl.reversal import reverse

__all__ = ["discrete", "inverse", "learn_input", "pointer", "reversal", "reverse"]
