"""diffstack: differentiable stacks in JAX (`diffstack.jax_impl`) and in PyTorch (`diffstack.torch_impl`)."""

__version__ = "0.1.0"
