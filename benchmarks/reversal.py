"""Reverse a sequence of vectors: the notebook's way, the library's, and a plain copy, which nothing can beat."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.baselines import notebook_reverse, scan_reverse
from benchmarks.measure import BACKWARD, FORWARD, Competitor, Work
from diffstack import jax_impl, torch_impl
from diffstack.torch_impl import reversal as torch_reversal

NAME = "reversal"
DIM = 64
LIMIT, NOTEBOOK = "x[::-1] (JAX)", "notebook, eager PyTorch"
DRAWN = NOTEBOOK, "plain lax.scan (JAX)", "pointer (JAX)", "discrete (JAX)"


def works(device: str, quick: bool) -> Iterator[Work]:
    """The benchmark's works; they run where their inputs are, on any device."""
    del device
    for mode in (BACKWARD, FORWARD):
        for n in (8,) if quick else (64, 256, 1024):
            x = np.random.default_rng(n).normal(size=(n, DIM)).astype(np.float32)
            title = f"reverse a sequence, {mode}"
            yield Work(NAME, title, {"n": n, "dim": DIM}, "n", mode, _competitors(x), LIMIT, NOTEBOOK, DRAWN)


def _competitors(x: np.ndarray) -> tuple[Competitor, ...]:
    inputs = (x,)
    return (
        Competitor(NOTEBOOK, notebook_reverse, inputs, "torch"),
        Competitor("plain lax.scan (JAX)", scan_reverse, inputs, "jax"),
        Competitor("pointer (JAX)", partial(jax_impl.reverse, stack=jax_impl.pointer), inputs, "jax"),
        Competitor("pointer (PyTorch)", partial(torch_reversal.reverse, stack=torch_impl.pointer), inputs, "torch"),
        Competitor("discrete (JAX)", partial(jax_impl.reverse, stack=jax_impl.discrete), inputs, "jax"),
        Competitor("discrete (PyTorch)", partial(torch_reversal.reverse, stack=torch_impl.discrete), inputs, "torch"),
        Competitor(LIMIT, lambda x: x[::-1], inputs, "jax"),
        Competitor("flip (PyTorch)", partial(torch.flip, dims=(0,)), inputs, "torch"),
    )
