"""The pictures show what the arrays hold."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from diffstack import jax_impl, torch_impl
from diffstack.actions import NOOP, POP, PUSH
from diffstack.plot import plot_trace
from families import FAMILIES, FULL, NEURAL_DEQUE, NONDETERMINISTIC, POINTER

CODES = [PUSH, PUSH, POP, NOOP, PUSH]
ELEMENTS = np.arange(10, dtype=np.float32).reshape(5, 2) + 1


def _trace(implementation, array, name):
    family = getattr(implementation, name)
    if name == "neural_deque":
        actions = family.encode([[code, NOOP] for code in CODES])
        return plot_trace(family, family.empty(4, (2,)), actions, (array(ELEMENTS), array(ELEMENTS)))
    return plot_trace(family, family.empty(4, (2,)), family.encode(CODES), array(ELEMENTS))


def kept(name):
    """What the family keeps of the elements."""
    return next(family for family in FAMILIES if family.name == name).kept(ELEMENTS)


IMPLEMENTATIONS = {"jax": (jax_impl, jnp.asarray), "torch": (torch_impl, torch.tensor)}


def drawn(names, jax_takes):
    """Implementation and family: PyTorch with all of them, and JAX with one but for the full product."""
    return pytest.mark.parametrize(
        ("implementation", "name"),
        [
            pytest.param(each, name, id=f"{framework}-{name}")
            for framework, each in IMPLEMENTATIONS.items()
            for name in names
            if FULL or framework == "torch" or name == jax_takes
        ],
    )


@drawn([family.name for family in FAMILIES if family.strengths], "neural_deque")
def test_pile_is_as_high_as_the_strengths(implementation, name):
    figure = _trace(*implementation, name)
    heights = np.zeros(5)
    for bar in figure.axes[1].patches:
        heights[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    np.testing.assert_array_equal(heights, [1, 2, 1, 1, 2])


@drawn(["nondeterministic"], "nondeterministic")
def test_an_automaton_shows_its_tops_and_what_it_attends_to(implementation, name):
    figure = _trace(*implementation, name)
    tops, attention = (axes.images[0].get_array() for axes in figure.axes[:2])
    np.testing.assert_array_equal(tops, np.ones((1, 5)))
    # The newest push is at the top, and the bottom below all pushes.
    expected = np.zeros((5 + 4, 5))
    expected[[4, 3, 4, 4, 0], range(5)] = 1
    np.testing.assert_array_equal(attention, expected)


@drawn([family.name for family in FAMILIES if not family.grows], "pointer")
def test_contents_have_the_top_at_the_top(implementation, name):
    figure = _trace(*implementation, name)
    shown = figure.axes[1].images[0].get_array()
    lengths = np.linalg.norm(kept(name), axis=-1)
    np.testing.assert_allclose(shown[0], lengths[[0, 1, 0, 0, 4]], rtol=1e-6)
    np.testing.assert_allclose(shown[1, [1, 4]], lengths[[0, 0]], rtol=1e-6)


@drawn([family.name for family in FAMILIES if len(family.ends) == 1], "neural_queue")
def test_reads_stand_below(implementation, name):
    figure = _trace(*implementation, name)
    order = [0, 0, 1, 1, 1] if name == "neural_queue" else [0, 1, 0, 0, 4]
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), kept(name)[order].T)


# Of contents, a pile and an automaton.
@pytest.mark.parametrize("name", [f.name for f in FAMILIES if FULL or f in (POINTER, NEURAL_DEQUE, NONDETERMINISTIC)])
def test_pictures_are_drawn(name, tmp_path):
    _trace(torch_impl, torch.tensor, name).savefig(tmp_path / "trace.png")
    assert (tmp_path / "trace.png").stat().st_size > 10_000


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match=r"^actions: expected at least one step, got none$"):
        plot_trace(jax_impl.pointer, jax_impl.pointer.empty(2), np.zeros((0, 3)), np.zeros(0))
