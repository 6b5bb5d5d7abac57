"""A pushdown automaton learns unmarked reversal: a word and then its reversal, with no mark between them.

The strings are w w^R, with w random over two symbols. Where the middle is can be known only later, so that no
deterministic stack can know when to begin to pop. The model predicts each next symbol, or the end.

The controller has no memory and no layers. What it does with its nondeterministic stack is one row of a table, chosen
by the symbol that it sees; each state and top of the stack has its own distribution of the next symbol, and the
prediction is their mean. So the model is a weighted pushdown automaton, of three states and three stack symbols, that
is trained by gradient descent. Nothing that it can learn is better than the source of the strings, whose cross entropy
is known exactly. What is printed is how far above that the model is.

    python examples/unmarked_reversal.py --out unmarked_reversal.png
    python examples/unmarked_reversal.py --further 100
    python examples/unmarked_reversal.py --stack superposition --steps 2000

All of seeds 0 to 4 came within 0.1 nats a symbol of the source: 0.008 to 0.014 above it on |w| up to 12 as in the
training, and 0.055 to 0.069 on |w| = 30 and 0.064 to 0.084 on |w| = 60, where the source goes on for longer than in
training. All five took 14.6 minutes, and 7.2 minutes of computing, on one of two busy cores.

With 100 further steps on strings of 40 to 80 symbols, as long as those of DuSell & Chiang (2020), all five are 0.023 to
0.025 above a source of such strings, all of whose lengths are equally likely. All of it took 15 minutes of computing.

One start alone often ends in a local optimum: in trials of 300 to 400 steps on |w| up to 5 or 6, about one in four
found the automaton. So a seed is a race of 16 starts on the shortest words, of which 4 and then 1 go on, chosen by
their losses in training; their steps are in the minutes above. Two states are enough for an exact automaton, but of 88
starts with two states, at several rates, only one came near it. Of starts that favour no operation, one in 8 found it.

With the superposition stack, a deterministic one, the controller is an LSTM of 20 units, which remembers a good deal by
itself. In the same number of steps it came to 0.161 to 0.171 above the source on |w| up to 12, and 0.51 to 0.76 on
|w| = 30, in 2.7 minutes. With ten times as many steps in the last round, as above, it came to 0.089 to 0.100, but to
0.63 to 0.74 on |w| = 30 and 0.77 to 0.90 on |w| = 60, in 4.4 minutes: what it learned does not go on to longer words.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from rich.progress import Progress

from diffstack.jax_impl import nondeterministic
from diffstack.jax_impl.layers import Stack, StackRNN
from diffstack.plot import plot_trace

SYMBOLS, END = 2, 2
STATES, TOPS = 3, 3
FAVOUR = 6.0
GOING_ON, LONGER, SHOWN = 0.9, (30, 60), (0, 1, 0, 0, 1, 0, 1, 1)
BATCH, TESTS, CLIP, RECENT = 32, 256, 5.0, 50
# The paper's strings have 40 to 80 symbols, and its batches 10 of them.
PAPER, FEW = (20, 40), 10
Model = dict[str, Array]


class Round(NamedTuple):
    """A part of the training: so many starts take so many steps on words of at most so many symbols."""

    starts: int
    longest: int
    steps: int


# Each round goes on with those starts of the last one whose losses were lowest.
ROUNDS = (Round(16, 5, 150), Round(4, 6, 150), Round(1, 12, 200))


class Kind(NamedTuple):
    """A kind of model: its parameters, the log probabilities of each next symbol, and its learning rate."""

    init: Callable[[Array], Model]
    predict: Callable[[Model, Array], Array]
    rate: float


def init_automaton(key: Array) -> Model:
    """For each symbol that it sees a row of log weights of all operations; for each top logits of the next symbol."""
    of_actions, of_answers = jax.random.split(key)
    tops = STATES * TOPS
    replacing = tops * (tops + STATES)
    actions = jax.random.normal(of_actions, (SYMBOLS + 1, replacing + tops * tops))
    # The normalization is over all runs, so that this alone counts: at first it seldom replaces what is on top.
    actions = actions.at[:, :replacing].add(FAVOUR)
    return {"actions": actions, "answers": jax.random.normal(of_answers, (tops, SYMBOLS + 1))}


def predict_automaton(model: Model, seen: Array) -> Array:
    """The mean of the tops' distributions, weighted by how likely each state and top is."""
    stack = nondeterministic.empty(1, (0,), states=STATES, symbols=TOPS, batch_shape=seen.shape[:1])
    _, reads = nondeterministic.scan(stack, model["actions"][seen])
    answers = jax.nn.softmax(model["answers"])
    return jnp.log(reads.reshape(*seen.shape, STATES * TOPS) @ answers + 1e-30)


LAYER = StackRNN(SYMBOLS + 1, 20, (Stack("superposition", 10),), "lstm")


def init_network(key: Array) -> Model:
    """An LSTM with a superposition stack, and a readout."""
    of_layer, of_readout = jax.random.split(key)
    readout = jax.random.normal(of_readout, (20, SYMBOLS + 1)) / np.sqrt(20)
    return {**LAYER.init(of_layer), "readout": readout, "bias": jnp.zeros(SYMBOLS + 1)}


def predict_network(model: Model, seen: Array) -> Array:
    """The readout of the LSTM's outputs."""
    layer = {name: model[name] for name in model if name not in ("readout", "bias")}
    outputs, _ = LAYER.scan(layer, jax.nn.one_hot(seen, SYMBOLS + 1), final_states=False)
    return jax.nn.log_softmax(outputs @ model["readout"] + model["bias"])


KINDS = {
    "nondeterministic": Kind(init_automaton, predict_automaton, 0.3),
    "superposition": Kind(init_network, predict_network, 0.01),
}


class Batch(NamedTuple):
    """Strings, padded to the same number of steps; JAX takes arrays of NumPy as they are."""

    seen: np.ndarray  # (B, T): END at the start, then the string
    targets: np.ndarray  # (B, T): the string, then END
    lengths: np.ndarray  # (B,): the number of steps, 2 |w| + 1


def draw_lengths(rng: np.random.Generator, count: int, longest: int) -> np.ndarray:
    """Lengths |w| of the source: it goes on after each symbol with the same probability, up to the longest."""
    weights = GOING_ON ** np.arange(longest)
    return 1 + rng.choice(longest, size=count, p=weights / weights.sum())


def log_probability(lengths: np.ndarray, longest: float) -> np.ndarray:
    """That of a string of the source, from its length |w|: all words of a length are equally likely."""
    of_length = (1 - GOING_ON) * GOING_ON ** (lengths - 1) / (1 - GOING_ON**longest)
    return np.log(of_length) - lengths * np.log(SYMBOLS)


def strings(words: np.ndarray, lengths: np.ndarray) -> Batch:
    """Each word, cut to its length, and its reversal."""
    longest = words.shape[1]
    steps, ends = np.arange(2 * longest + 1), 2 * lengths[:, None]
    places = np.clip(np.minimum(steps, ends - 1 - steps), 0, longest - 1)
    targets = np.where(steps < ends, np.take_along_axis(words, places, 1), END)
    seen = np.concatenate([np.full((len(lengths), 1), END), targets[:, :-1]], 1)
    return Batch(seen, targets, ends[:, 0] + 1)


def draw(rng: np.random.Generator, lengths: np.ndarray, longest: int) -> Batch:
    """Random strings with |w| as given, padded up to 2 * longest + 1 steps."""
    return strings(rng.integers(SYMBOLS, size=(len(lengths), longest)), lengths)


def loss(kind: Kind, model: Model, batch: Batch) -> Array:
    """The cross entropy in nats a symbol, END included."""
    logs = jnp.take_along_axis(kind.predict(model, batch.seen), batch.targets[..., None], -1)[..., 0]
    live = jnp.arange(logs.shape[1]) < batch.lengths[:, None]
    return -jnp.sum(logs * live) / jnp.sum(batch.lengths)


def optimizer_of(kind: Kind, steps: int) -> Any:
    """Adam, whose rate falls to zero over so many steps, those of all rounds."""
    rate = optax.cosine_decay_schedule(kind.rate, steps)
    return optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate))


@partial(jax.jit, static_argnums=(0, 1))
def update(kind: Kind, total: int, models: Model, moments: Any, batch: Batch) -> tuple[Model, Any, Array]:
    """One step for each start, all on the same strings, and the losses before it."""

    def one(start: tuple[Model, Any]) -> tuple[Model, Any, Array]:
        model, moments = start
        value, gradient = jax.value_and_grad(loss, 1)(kind, model, batch)
        updates, moments = optimizer_of(kind, total).update(gradient, moments)
        return optax.apply_updates(model, updates), moments, value

    # One after the other: the tables of all of them at once would not fit into the caches.
    return jax.lax.map(one, (models, moments))


@jax.jit
def those(starts: Any, which: Any) -> Any:
    """One of the starts, or some of them."""
    return jax.tree.map(lambda leaf: leaf[which], starts)


def train(kind: Kind, rounds: tuple[Round, ...], seed: int) -> tuple[Model, list[np.ndarray]]:
    """The model of the best start; and the losses of each round, (steps, starts)."""
    rng, total = np.random.default_rng(seed), sum(each.steps for each in rounds)
    models = jax.vmap(kind.init)(jax.random.split(jax.random.key(seed), rounds[0].starts))
    moments = jax.jit(jax.vmap(optimizer_of(kind, total).init))(models)
    losses: list[np.ndarray] = []
    with Progress() as progress:
        task = progress.add_task(f"seed {seed}", total=sum(each.starts * each.steps for each in rounds))
        for starts, longest, steps in rounds:
            if losses:
                best = np.argsort(losses[-1][-RECENT:].mean(0))[:starts]
                models, moments = those((models, moments), best)
            values = []
            for _ in range(steps):
                batch = draw(rng, draw_lengths(rng, BATCH, longest), longest)
                models, moments, value = update(kind, total, models, moments, batch)
                values.append(np.asarray(value))
                progress.update(task, advance=starts, description=f"seed {seed}, loss {values[-1].min():.3f}")
            losses.append(np.stack(values))
    return those(models, 0), losses


def go_on(kind: Kind, model: Model, steps: int, seed: int) -> Model:
    """The model after more steps, at a tenth of the rate, on strings as long as those of DuSell & Chiang (2020)."""
    rng, gentle = np.random.default_rng((seed, 2)), kind._replace(rate=kind.rate / 10)
    models = jax.tree.map(lambda leaf: leaf[None], model)
    moments = jax.jit(jax.vmap(optimizer_of(gentle, steps).init))(models)
    for _ in range(steps):
        batch = draw(rng, rng.integers(PAPER[0], PAPER[1] + 1, size=FEW), PAPER[1])
        models, moments, _ = update(gentle, steps, models, moments, batch)
    return those(models, 0)


def test_paper(kind: Kind, model: Model, rng: np.random.Generator) -> float:
    """How many nats a symbol the model is above a source of such strings, all |w| of which are equally likely."""
    lengths = rng.integers(PAPER[0], PAPER[1] + 1, size=TESTS)
    source = np.sum(np.log(PAPER[1] - PAPER[0] + 1) + lengths * np.log(SYMBOLS)) / np.sum(2 * lengths + 1)
    return float(jax.jit(loss, static_argnums=0)(kind, model, draw(rng, lengths, PAPER[1])) - source)


def test(kind: Kind, model: Model, rng: np.random.Generator, lengths: np.ndarray, longest: float) -> float:
    """How many nats a symbol the model is above the source, on new strings."""
    batch = draw(rng, lengths, int(lengths.max()))
    source = -np.sum(log_probability(lengths, longest)) / np.sum(2 * lengths + 1)
    return float(jax.jit(loss, static_argnums=0)(kind, model, batch) - source)


def draw_picture(model: Model) -> Figure:
    """What the automaton does with its stack on one string."""
    batch = strings(np.asarray([SHOWN]), np.asarray([len(SHOWN)]))
    stack = nondeterministic.empty(1, (0,), states=STATES, symbols=TOPS)
    figure = plot_trace(nondeterministic, stack, np.asarray(model["actions"])[batch.seen[0]], None)
    figure.axes[2].set_xticks(range(batch.seen.shape[1]), ["start", *map(str, batch.targets[0, :-1].tolist())])
    figure.axes[2].set_xlabel("the symbol that it has just seen")
    figure.axes[0].tick_params("y", labelsize=7)
    figure.axes[1].axvline(len(SHOWN) + 0.5, color="#f28e2b", linestyle=":", linewidth=2)  # the middle
    return figure


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a pushdown automaton on the language of unmarked reversal.")
    parser.add_argument("--stack", choices=KINDS, default="nondeterministic")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", default="unmarked_reversal.png", help="the automaton's picture, .png, .svg or .pdf")
    parser.add_argument("--further", type=int, default=0, help="steps on the paper's strings of 40 to 80 symbols")
    parser.add_argument("--steps", type=int, default=ROUNDS[-1].steps, help="the steps of the last round")
    options = parser.parse_args(arguments)
    rounds = (*ROUNDS[:-1], ROUNDS[-1]._replace(steps=options.steps))
    kind, longest, start = KINDS[options.stack], rounds[-1].longest, time.perf_counter()
    models, above = [], []
    for seed in options.seeds:
        models.append(train(kind, rounds, seed)[0])
        rng = np.random.default_rng((seed, 1))
        above.append(test(kind, models[-1], rng, draw_lengths(rng, TESTS, longest), longest))
        longer = {n: test(kind, models[-1], rng, np.full(TESTS // 4, n), np.inf) for n in LONGER}
        figures = ", ".join([f"|w| <= {longest}: {above[-1]:.3f}", *(f"|w| = {n}: {longer[n]:.3f}" for n in longer)])
        print(f"seed {seed}, nats a symbol above the source: {figures}", flush=True)
        if options.further:
            longer_model = go_on(kind, models[-1], options.further, seed)
            print(
                f"  after {options.further} steps on 40 to 80 symbols: {test_paper(kind, longer_model, rng):.3f} there"
            )
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")
    if options.stack == "nondeterministic":
        draw_picture(models[int(np.argmin(above))]).savefig(options.out)


if __name__ == "__main__":
    main()
