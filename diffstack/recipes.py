"""Recipes: what is trained, on what, and how; the same in both frameworks."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np

from diffstack import _checks
from diffstack._layers import CELLS, Stack
from diffstack.tasks import TASKS

SCHEDULES, LAYERS, DTYPES = ("constant", "cosine"), ("rnn", "attention"), ("float32", "float64")


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how.

    Attributes:
        task: a name in `diffstack.tasks.TASKS`.
        stacks: those of the network.
        layer: "rnn" for a `StackRNN`, "attention" for a `StackAttention` with heads of the one stack.
        cell: that of a `StackRNN`.
        hidden: the number of units of a `StackRNN`.
        embedding: the size of a token's vector.
        heads: the number of heads of a `StackAttention`.
        lengths: the shortest and the longest length in training; () for those of the task.
        testing: those of the checks; () for those of the task.
        curriculum: over how many steps both lengths of training grow from 0, or from what the task has.
        batch: the number of sequences of a step.
        steps: the largest number of steps.
        rate: the learning rate of Adam.
        schedule: "constant", or "cosine" for one that falls to 0 at the last step.
        warmup: over how many steps the rate grows from 0.
        clip: the largest norm of a gradient.
        penalty: what the loss adds for actions between 0 and 1, for each step of a sequence.
        hardening: over how many steps the penalty grows from 0.
        seeds: one network for each of them, all trained side by side.
        dtype: that of all parameters.
        check: the number of steps from one check, and one checkpoint, to the next.
        tests: the number of sequences of a check.
        goal: the value of the task's metric at which a check is passed; None for no end before the last step.
        passes: how many checks in a row a seed must pass to be done.
    """

    task: str
    stacks: tuple[Stack, ...] = (Stack("superposition", 8),)
    layer: Literal["rnn", "attention"] = "rnn"
    cell: Literal["lstm", "gru", "rnn", "feedforward"] = "lstm"
    hidden: int = 32
    embedding: int = 16
    heads: int = 1
    lengths: tuple[int, int] = ()  # type: ignore[assignment]  # a pair as soon as the task has been looked at
    testing: tuple[int, int] = ()  # type: ignore[assignment]  # the same
    curriculum: int = 0
    batch: int = 32
    steps: int = 2000
    rate: float = 0.01
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    clip: float = 1.0
    penalty: float = 0.0
    hardening: int = 0
    seeds: tuple[int, ...] = (0,)
    dtype: Literal["float32", "float64"] = "float32"
    check: int = 100
    tests: int = 64
    goal: float | None = None
    passes: int = 3

    def __post_init__(self) -> None:
        stacks = (self.stacks,) if isinstance(self.stacks, Stack) else tuple(self.stacks)
        object.__setattr__(self, "stacks", stacks)
        object.__setattr__(self, "seeds", (self.seeds,) if isinstance(self.seeds, int) else tuple(self.seeds))
        if not stacks or not all(isinstance(each, Stack) for each in stacks):
            _checks.bad_type("stacks", "a Stack or a tuple of them", repr(self.stacks))
        choices = {"task": tuple(TASKS), "layer": LAYERS, "cell": CELLS, "schedule": SCHEDULES, "dtype": DTYPES}
        for name, allowed in choices.items():
            _checks.check_choice(name, getattr(self, name), allowed)
        for name in ("hidden", "embedding", "heads", "batch", "check", "tests", "passes"):
            _checks.check_count(name, getattr(self, name), 1)
        for name in ("curriculum", "steps", "warmup", "hardening"):
            _checks.check_count(name, getattr(self, name), 0)
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                _checks.bad_value(name, "a finite number above 0", getattr(self, name))
        if self.goal is not None and not isinstance(self.goal, int | float):
            _checks.bad_type("goal", "a number or None", repr(self.goal))
        if not 0 <= self.penalty < math.inf:
            _checks.bad_value("penalty", "a finite number of at least 0", self.penalty)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            _checks.bad_value("seeds", "different integers, at least one", self.seeds)
        for seed in self.seeds:
            _checks.check_count("seeds", seed, 0)
        if self.layer == "attention" and len(self.stacks) != 1:
            _checks.bad_value("stacks", "one stack, of which attention has several heads", len(self.stacks))
        task = TASKS[self.task]
        for name, default in (("lengths", task.training), ("testing", task.testing)):
            value = getattr(self, name)
            value = (tuple(value) or default) if isinstance(value, tuple | list) else value
            object.__setattr__(self, name, value)
            task.draw(np.random.default_rng(0), 1, value)

    def rate_at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        grown = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fallen = (1 + math.cos(math.pi * step / self.steps)) / 2 if self.schedule == "cosine" else 1.0
        return self.rate * grown * fallen

    def penalty_at(self, step: int) -> float | None:
        """The penalty of a step, counted from 0; None where there is none at any."""
        grown = min(1.0, step / self.hardening) if self.hardening else 1.0
        return self.penalty * grown if self.penalty else None

    def lengths_at(self, step: int) -> tuple[int, int]:
        """The shortest and the longest length of a step; between them is one that the task has."""
        grown = min(1.0, step / self.curriculum) if self.curriculum else 1.0
        shortest, longest = (round(length * grown) for length in self.lengths)
        first = next(length for length in range(shortest, self.lengths[1] + 1) if TASKS[self.task].has(length))
        return shortest, max(first, longest)

    def as_json(self) -> str:
        """The recipe as text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe that `as_json` has written."""
        values: dict[str, Any] = json.loads(text)
        values["stacks"] = tuple(Stack(**each) for each in values["stacks"])
        values |= {name: tuple(each) for name, each in values.items() if isinstance(each, list)}
        return cls(**values)


def network(recipe: Recipe, backend: str, *, hard: bool = False) -> Any:
    """The network of a recipe in "jax" or "torch"; the one with hard actions has the same parameters."""
    layers = import_module(f"diffstack.{backend}_impl.layers")
    task = TASKS[recipe.task]
    if recipe.layer == "rnn":
        stacks = tuple(map(hardened, recipe.stacks)) if hard else recipe.stacks
        layer = layers.StackRNN(recipe.embedding, recipe.hidden, stacks, recipe.cell)
    else:
        if hard:
            _checks.bad_value("hard", "False for attention, whose actions are not rounded", hard)
        (stack,) = recipe.stacks
        sizes = {"states": stack.states, "symbols": stack.symbols}
        layer = layers.StackAttention(recipe.embedding, stack.dim, recipe.heads, stack.family, stack.capacity, **sizes)
    return import_module(f"diffstack.{backend}_impl.training").Network(
        task.inputs, task.outputs, recipe.embedding, layer
    )


def numbers(recipe: Recipe, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """The parameters that both frameworks start from: uniform as PyTorch draws them, for every shape by its name."""
    rng, found = np.random.default_rng((seed, 0)), {}
    fixed = {f"layer.heads.{i}.actions.bias": np.asarray(stack.bias) for i, stack in enumerate(recipe.stacks)}
    for name, shape in sorted(shapes.items()):
        size = recipe.hidden if name.startswith("layer.cell.") else shape[-1]
        drawn = rng.uniform(-1, 1, shape) / math.sqrt(size)
        if name.endswith("norm.weight"):
            drawn = np.ones(shape)
        elif name == "embedding.weight":
            drawn = rng.standard_normal(shape)
        elif name.endswith(".bias") and not name.startswith("layer.cell."):
            drawn = np.zeros(shape)
        found[name] = fixed.get(name, drawn).astype(recipe.dtype)
    return found


def hardened(stack: Stack) -> Stack:
    """The stack that takes the likeliest action as a whole: an exact one where there is one."""
    if stack.table.strengths:
        return dataclasses.replace(stack, hard=True)
    if not stack.table.is_stack:
        _checks.bad_value("hard", "a family whose actions can be rounded", stack.family)
    return dataclasses.replace(stack, family="discrete")
