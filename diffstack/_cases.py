"""What `parity` compares: every case, written once against the names that both implementations share."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from diffstack._layers import CELLS, Stack
from diffstack.actions import NOOP, POP, PUSH
from diffstack.families import FAMILIES, Family

MODES = ("unbatched", "batched", "vmapped")

Inputs = dict[str, np.ndarray]


class Case(NamedTuple):
    """Something that both implementations can do.

    Attributes:
        name: what the report calls it.
        inputs: from a random generator and batch axes to named arrays; float64 arrays get the dtype of the run.
        function: from an implementation (`diffstack.jax_impl` or `diffstack.torch_impl`) and its arrays by name to a
            tuple of arrays.
        steps: how many steps it runs.
        lossless: whether the values must be equal.
        feeds_back: whether what it reads decides what it does next, so that it may amplify a difference in rounding as
            much as it likes, and is compared in float64 alone.
        modes: those of `MODES` that it can run in.
    """

    name: str
    inputs: Callable[[np.random.Generator, tuple[int, ...]], Inputs]
    function: Callable[[Any, Mapping[str, Any]], tuple[Any, ...]]
    steps: int
    lossless: bool
    feeds_back: bool = False
    modes: tuple[str, ...] = MODES


class Size(NamedTuple):
    """The sizes of a case: T steps on N slots of D entries."""

    time: int
    slots: int
    dim: int


def of_size(size: Size) -> Iterator[Case]:
    """The cases of all families and of the layers."""
    end = f"T={size.time} N={size.slots} D={size.dim}"
    for family in FAMILIES.values():
        for hard in (False, True) if family.action else (True,):
            kind = "hard" if hard else "soft"
            inputs = partial(_scan_inputs, family, size, hard)
            for method in family.methods:
                function = partial(_scan, family, method)
                yield Case(f"{family.name} scan {method}, {kind}, {end}", inputs, function, size.time, hard)
                ragged = partial(_ragged_inputs, family, size, hard)
                yield Case(f"{family.name} ragged {method}, {kind}, {end}", ragged, function, size.time, hard)
                if family.name == "pointer":
                    function = partial(_runs, method)
                    yield Case(f"{family.name} runs {method}, {kind}, {end}", inputs, function, size.time, hard)
            inputs = partial(_unroll_inputs, family, size, hard)
            for method in ("sequential", "chunked"):
                function = partial(_unroll, family, hard, method)
                yield Case(f"{family.name} unroll {method}, {kind}, {end}", inputs, function, size.time, hard, not hard)
            inputs = partial(_scan_inputs, family, size._replace(time=1), hard)
            yield Case(f"{family.name} verbs, {kind}, {end}", inputs, partial(_verbs, family), 1, hard)
        if family.is_stack:
            inputs, function = partial(_sequence, size), partial(_reverse, family)
            modes = ("unbatched", "vmapped")
            yield Case(
                f"{family.name} reverse, n={size.time} D={size.dim}", inputs, function, 2 * size.time, True, modes=modes
            )
    yield from _layers_of(size)


def _layers_of(size: Size) -> Iterator[Case]:
    """Layers, whose parameters are the same in both frameworks."""
    end, sizes = f"T={size.time} D={size.dim}", (size.dim, size.dim + 1)
    layers: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for turn, name in enumerate(FAMILIES):
        capacity = size.slots if FAMILIES[name].ring else None
        sizes_of: dict[str, Any] = {"states": 2, "symbols": 2} if FAMILIES[name].automaton else {}
        cell = CELLS[turn % len(CELLS)]
        layers[f"{name} StackRNN, {cell}"] = ("StackRNN", (*sizes, Stack(name, size.dim, capacity, **sizes_of), cell))
        layers[f"{name} StackAttention"] = ("StackAttention", (*sizes, 2, name, capacity, *sizes_of.values()))
    layers["superposition StackTrans"] = ("StackTrans", (*sizes, 2, size.slots))
    for name, (kind, arguments) in layers.items():
        inputs, function = partial(_layer_inputs, kind, arguments, size), partial(_layer, kind, arguments)
        yield Case(f"{name}, {end}", inputs, function, size.time, False, kind == "StackRNN", ("unbatched", "vmapped"))


def _scan_inputs(family: Family, size: Size, hard: bool, rng: np.random.Generator, batch: tuple[int, ...]) -> Inputs:
    """The fields of a state, actions, and elements for each end, by name."""
    # A hard program of an automaton has one state and one symbol, so that its action is one of three.
    sizes = (1, 1) if hard else (2, 2)
    n = math.prod(sizes)
    draw = {
        "buffer": lambda: rng.normal(size=(*batch, size.slots, size.dim)),
        "values": lambda: rng.normal(size=(*batch, size.slots, size.dim)),
        "index": lambda: _weights(hard, rng, (*batch, size.slots)),
        "strengths": lambda: _strengths(hard, rng, (*batch, size.slots)),
        "depth": lambda: rng.integers(size.slots, size=batch, endpoint=True, dtype=np.int32),
        "fault": lambda: np.zeros(batch, np.int8),
        "tops": lambda: _logs(_weights(hard, rng, (*batch, math.prod(sizes)))).reshape(*batch, *sizes),
        "edges": lambda: _logs(_weights(hard, rng, (*batch, size.slots, n, size.slots * n))).reshape(
            *batch, *(size.slots, *sizes) * 2
        ),
    }
    # A field of another name is a number for each stack.
    inputs = {field: draw.get(field, lambda: _strengths(hard, rng, batch))() for field in family.fields}
    steps = (*batch, size.time)
    if not family.action:
        inputs["actions"] = rng.choice(np.asarray([PUSH, POP, NOOP], np.int32), steps)
    elif family.automaton:
        inputs["actions"] = _logs(_weights(hard, rng, (*steps, n * (2 * n + sizes[0]))))
    else:
        inputs["actions"] = (_strengths if family.strengths else _weights)(hard, rng, (*steps, len(family.action)))
    return inputs | {f"elements{end}": rng.normal(size=(*steps, size.dim)) for end in family.ends}


def _ragged_inputs(family: Family, size: Size, hard: bool, rng: np.random.Generator, batch: tuple[int, ...]) -> Inputs:
    lengths = rng.integers(size.time, size=batch, endpoint=True, dtype=np.int32)
    return _scan_inputs(family, size, hard, rng, batch) | {"lengths": np.asarray(lengths)}


def _weights(hard: bool, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Distributions along the last axis: one-hot, or dense."""
    if hard:
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
    weights = rng.exponential(size=shape)
    return weights / weights.sum(-1, keepdims=True)


def _logs(weights: np.ndarray) -> np.ndarray:
    """Minus infinity where there is no weight."""
    return np.log(weights, where=weights > 0, out=np.full_like(weights, -np.inf))


def _strengths(hard: bool, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Strengths in [0, 1): 0 and 1 where they are hard."""
    return rng.integers(2, size=shape).astype(np.float64) if hard else rng.uniform(size=shape)


def _sequence(size: Size, rng: np.random.Generator, batch: tuple[int, ...]) -> Inputs:
    return {"sequence": rng.normal(size=(*batch, size.time, size.dim))}


def _state(module: Any, arrays: Mapping[str, Any]) -> Any:
    kind = next(value for name, value in vars(module).items() if name.endswith("State"))
    return kind(*(arrays[field] for field in kind._fields))


def _scan(family: Family, method: str, implementation: Any, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    module = getattr(implementation, family.name)
    elements = tuple(arrays[f"elements{end}"] for end in family.ends)
    state, reads = module.scan(
        _state(module, arrays),
        arrays["actions"],
        elements if len(elements) > 1 else elements[0],
        lengths=arrays.get("lengths"),
        method=method,
    )
    return (*state, *(reads if len(family.ends) > 1 else (reads,)))


def _runs(method: str, implementation: Any, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    """Pushes alone, and then pops alone."""
    module, elements = implementation.pointer, arrays["elements"]
    state = module.push_all(_state(module, arrays), elements, method=method)
    popped_from, popped = module.pop_all(state, elements.shape[-2], method=method)
    return (*state, *popped_from, popped)


def _verbs(family: Family, implementation: Any, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    module = getattr(implementation, family.name)
    state, actions = _state(module, arrays), arrays["actions"]
    outputs = [module.contents(state)]
    if family.grows:
        outputs += [*module.resize(state, 1), *module.resize(state, 9)]
    if family.automaton:
        stepped, read = module.step(state, actions[..., 0, :], arrays["elements"][..., 0, :])
        return (*outputs, *stepped, read, module.peek(state))
    if family.strengths:
        outputs.append(module.size(state))
    for place, end in enumerate(family.ends):
        push, pop, peek = (getattr(module, verb + end) for verb in ("push", "pop", "peek"))
        # An action of two ends has the strengths of the top first, then those of the bottom.
        d, u = ((actions[..., 0, 2 * place + code],) if family.strengths else () for code in (PUSH, POP))
        popped, element = pop(state, *u)
        outputs += [*push(state, arrays[f"elements{end}"][..., 0, :], *d), *popped, element, peek(state, *u)]
    return tuple(outputs)


def _reverse(family: Family, implementation: Any, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    return (implementation.reverse(arrays["sequence"], stack=getattr(implementation, family.name)),)


def _unroll_inputs(family: Family, size: Size, hard: bool, rng: np.random.Generator, batch: tuple[int, ...]) -> Inputs:
    """Those of `scan`, other actions, and where the carry starts."""
    inputs = _scan_inputs(family, size, hard, rng, batch)
    others = _scan_inputs(family, size, hard, rng, batch)["actions"]
    return inputs | {"others": others, "carry": rng.normal(size=batch)}


def _unroll(family: Family, hard: bool, method: str, implementation: Any, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    """A controller that its reads move from some actions to others; a hard one takes its actions as they come."""
    elements = tuple(arrays[f"elements{end}"] for end in family.ends)

    def controller(carry: Any, inputs: Any, reads: Any) -> tuple[Any, Any, Any, Any]:
        actions, others, elements = inputs
        reads = reads if len(family.ends) > 1 else (reads,)
        if not hard:
            # An automaton reads a vector for each state and top.
            reads = tuple(read.sum((-3, -2)) if family.automaton else read for read in reads)
            carry = 0.5 * carry + sum(read.sum(-1) for read in reads)
            gate = (carry * carry / (1 + carry * carry))[..., None]
            actions = (1 - gate) * actions + gate * others
            elements = tuple(element + 0.25 * read for element, read in zip(elements, reads, strict=True))
        return carry, actions, elements if len(elements) > 1 else elements[0], reads

    inputs = (arrays["actions"], arrays["others"], elements)
    state = _state(getattr(implementation, family.name), arrays)
    (carry, state), reads = implementation.unroll(controller, arrays["carry"], state, inputs, method=method)
    return (carry, *state, *reads)


def _layer_inputs(
    kind: str, arguments: tuple[Any, ...], size: Size, rng: np.random.Generator, batch: tuple[int, ...]
) -> Inputs:
    """A sequence, and the parameters by their names."""
    from diffstack import torch_impl  # noqa: PLC0415  # a framework is imported when it is asked for

    parameters = _made(torch_impl, kind, arguments).state_dict()
    drawn = {name: rng.normal(size=(*batch, *tensor.shape)) / 2 for name, tensor in parameters.items()}
    return drawn | _sequence(size, rng, batch)


def _layer(kind: str, arguments: tuple[Any, ...], implementation: Any, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    layer, parameters = _made(implementation, kind, arguments), dict(arrays)
    sequence = parameters.pop("sequence")
    if implementation.__name__.endswith("torch_impl"):
        from torch.func import functional_call  # noqa: PLC0415

        return (functional_call(layer, parameters, (sequence,))[0],)
    run = layer.step if kind == "StackTrans" else layer.scan
    return (run(parameters, sequence)[0],)


@cache
def _made(implementation: Any, kind: str, arguments: tuple[Any, ...]) -> Any:
    """The layer, made once: PyTorch draws its first parameters, which `torch.vmap` does not allow."""
    return getattr(implementation.layers, kind)(*arguments)
