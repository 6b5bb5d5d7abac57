"""A recurrent controller learns to reverse sequences with a neural stack.

The controller is a layer of 32 tanh units. It sees one symbol at each step, then a marker at the end of the sequence,
and then nothing, while it has to say the symbols in reverse. At each step it decides how strongly to push and to pop
and what to push, and `unroll` runs it with its stack. It is trained on sequences of 1 to 8 symbols. The training stops
when three checks in a row find no mistake in 256 new sequences of length 64 and 256 of length 128.

    python examples/controller_jax.py --seed 0 --out controller.png

With seeds 0 to 4 this took less than a minute on two cores. These are the seeds on which the recipe (the noise, the
first biases, the three checks) was chosen, so another seed may take longer or give up. Of 256 further sequences of each
length, all then came out without a mistake.
"""

import argparse
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from rich.progress import Progress

from diffstack.actions import POP, PUSH
from diffstack.jax_impl import neural_stack, unroll
from diffstack.plot import plot_trace

SYMBOLS, ELEMENT, HIDDEN = 8, 16, 32
LONGEST, GOAL, STRETCH = 8, 64, 128
BATCH, TESTS, CHECK, PASSES = 64, 256, 100, 3
RATE, CLIP, NOISE = 0.01, 1.0, 2.0
OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))


class Batch(NamedTuple):
    """Sequences to reverse, padded to the same number of steps."""

    inputs: Array  # (B, T, SYMBOLS + 1): a symbol, the marker, or nothing
    noise: Array  # (B, T, 2): added to the logits of push and pop
    answers: Array  # (B, T): 1 where an answer is due
    targets: Array  # (B, T): the answer
    lengths: Array  # (B,): the number of steps up to the last answer


def draw(rng: np.random.Generator, lengths: np.ndarray, longest: int, noise: float = 0.0) -> Batch:
    """Random sequences: n symbols, the marker, n steps for the answer, and padding up to 2 * longest + 1 steps."""
    steps = np.arange(2 * longest + 1)[:, None]
    symbols = rng.integers(SYMBOLS, size=(longest, len(lengths)))
    shown = np.where(steps < lengths, symbols[np.minimum(steps[:, 0], longest - 1)], SYMBOLS)
    inputs = np.eye(SYMBOLS + 1)[shown] * (steps <= lengths)[..., None]
    live = steps <= 2 * lengths
    disturbance = noise * rng.standard_normal((*live.shape, 2))
    targets = np.take_along_axis(symbols, np.clip(2 * lengths - steps, 0, longest - 1), 0)
    floats = (array.astype(np.float32) for array in (inputs, disturbance, live & (steps > lengths)))
    batch_first = (np.ascontiguousarray(np.swapaxes(array, 0, 1)) for array in (*floats, targets))
    return Batch(*map(jnp.asarray, (*batch_first, 2 * lengths + 1)))


def init(rng: np.random.Generator) -> dict[str, Array]:
    """Two layers: into the hidden units, and from them to two strengths, an element and an answer."""
    shapes = {"in": (SYMBOLS + 1 + ELEMENT + HIDDEN, HIDDEN), "out": (HIDDEN, 2 + ELEMENT + SYMBOLS)}
    weights = {name: rng.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in shapes.items()}
    biases = {f"{name} bias": np.zeros(shape[1]) for name, shape in shapes.items()}
    # At first it pushes much and pops little, so that there is something to read.
    biases["out bias"][[PUSH, POP]] = 2, -2
    return {name: jnp.asarray(array, jnp.float32) for name, array in (weights | biases).items()}


def controller(parameters: dict[str, Array], hidden: Array, inputs: Any, read: Array) -> tuple[Any, Any, Any, Any]:
    """One step: from what it sees, has read and remembers, to what it does with the stack and answers."""
    symbol, noise = inputs
    seen = jnp.concatenate([symbol, read, hidden], -1)
    hidden = jnp.tanh(seen @ parameters["in"] + parameters["in bias"])
    out = hidden @ parameters["out"] + parameters["out bias"]
    strengths, element, answer = jnp.split(out, [2, 2 + ELEMENT], -1)
    # The noise, in training only, makes strengths between 0 and 1 unreliable, so that the controller learns hard ones.
    # The errors of soft ones would add up with the length: without noise, none of five seeds succeeded in 3000 steps.
    actions, element = jax.nn.sigmoid(strengths + noise), jnp.tanh(element)
    return hidden, actions, element, (answer, actions, element)


def run(parameters: dict[str, Array], batch: Batch) -> tuple[Array, Array, Array]:
    """What the controller answers, does and pushes, at each step."""
    size = len(batch.lengths)
    # `unroll` makes room for all steps by itself.
    stack, hidden = neural_stack.empty(1, (ELEMENT,), batch_shape=(size,)), jnp.zeros((size, HIDDEN))
    _, outputs = unroll(
        partial(controller, parameters),
        hidden,
        stack,
        (batch.inputs, batch.noise),
        lengths=batch.lengths,
        starts_empty=True,
        final_states=False,
    )
    return outputs


def loss(parameters: dict[str, Array], batch: Batch) -> Array:
    """The mean cross entropy of the answers."""
    answers, _, _ = run(parameters, batch)
    costs = optax.softmax_cross_entropy_with_integer_labels(answers, batch.targets)
    return jnp.sum(costs * batch.answers) / jnp.sum(batch.answers)


@jax.jit
def update(parameters: dict[str, Array], optimizer: Any, batch: Batch) -> tuple[dict[str, Array], Any, Array]:
    """One step of Adam, and the loss before it."""
    value, gradient = jax.value_and_grad(loss)(parameters, batch)
    updates, optimizer = OPTIMIZER.update(gradient, optimizer)
    return optax.apply_updates(parameters, updates), optimizer, value


@jax.jit
def correct(parameters: dict[str, Array], batch: Batch) -> Array:
    """The fraction of sequences without a mistake."""
    answers, _, _ = run(parameters, batch)
    right = (jnp.argmax(answers, -1) == batch.targets) | (batch.answers == 0)
    return jnp.mean(jnp.all(right, 1).astype(jnp.float32))


def test(parameters: dict[str, Array], rng: np.random.Generator, length: int) -> float:
    """The fraction of new sequences of a length that come out without a mistake."""
    return float(correct(parameters, draw(rng, np.full(TESTS, length), length)))


def train(rng: np.random.Generator, steps: int) -> tuple[dict[str, Array], list[float]]:
    """Train on short sequences until long ones come out without a mistake, and no longer than `steps`."""
    parameters, losses, passes = init(rng), [], 0
    optimizer = OPTIMIZER.init(parameters)
    with Progress() as progress:
        task = progress.add_task("training", total=steps)
        for step in range(1, steps + 1):
            # One padded length for all, so that this compiles once.
            batch = draw(rng, rng.integers(1, LONGEST + 1, BATCH), LONGEST, NOISE)
            parameters, optimizer, value = update(parameters, optimizer, batch)
            losses.append(float(value))
            progress.update(task, advance=1, description=f"loss {losses[-1]:.4f}")
            if step % CHECK == 0:
                passed = all(test(parameters, rng, length) == 1 for length in (GOAL, STRETCH))
                passes = passes + 1 if passed else 0
                if passes == PASSES:
                    break
    return parameters, losses


def draw_picture(parameters: dict[str, Array], rng: np.random.Generator, length: int = 12) -> Figure:
    """What the controller does with the stack while it reverses one sequence, longer than those it was trained on."""
    _, actions, elements = run(parameters, draw(rng, np.full(1, length), length))
    # A slot for every push.
    stack = neural_stack.empty(2 * length + 1, (ELEMENT,))
    return plot_trace(neural_stack, stack, actions[0], elements[0])


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a controller to reverse sequences with a neural stack.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000, help="when to give up")
    parser.add_argument("--out", default="controller_jax.png", help="the picture, .png, .svg or .pdf")
    options = parser.parse_args(arguments)
    rng, start = np.random.default_rng(options.seed), time.perf_counter()
    parameters, losses = train(rng, options.steps)
    print(f"{len(losses)} steps, {time.perf_counter() - start:.1f} s")
    for length in (LONGEST, GOAL, STRETCH):
        print(f"length {length}: {test(parameters, rng, length):.2%} of {TESTS} new sequences reversed")
    draw_picture(parameters, rng).savefig(options.out)


if __name__ == "__main__":
    main()
